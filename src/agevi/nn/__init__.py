"""Pure torch building blocks. Nothing here sees AnnData or scvi-tools."""
