"""What stands between AnnData and tensors: scvi-tools fields, subject splits and loaders. Never sees a model."""
