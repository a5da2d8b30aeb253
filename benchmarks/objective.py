"""Whether ``PoissonVAE`` and scvi-tools' ``SCVI`` reach the same likelihood of the same cells in the same number of epochs.

usage: python benchmarks/objective.py [--seeds 0 1 2] [--epochs 40]

Both train on single cells of ``agevi.datasets.tcells`` with one hidden layer of 128, 10 latent dimensions, dropout 0.1, batches
of 128, a learning rate of 1e-3, the same warm-up of the KL divergence, and the same training and validation cells. PoissonVAE
has no age term here; bfloat16 is run where the hardware multiplies in it. Prints the negative log-likelihood of validation cells in nats, constants included, by seed.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import anndata as ad
import numpy as np
import scvi
from speed_race import precisions

import agevi

WIDTH, LATENT, DROPOUT, BATCH, WARM_UP, LR = 128, 10, 0.1, 128, 400, 1e-3
METRIC = "reconstruction_loss_validation"


def ours(adata: ad.AnnData, validation: np.ndarray, seed: int, epochs: int, precision: str) -> float:
    """Loss of agevi, over all validation cells; its history has that of some."""
    model = agevi.model.PoissonVAE(
        adata, train_unit="cell", n_hidden=[WIDTH], n_latent=LATENT, dropout_rate=DROPOUT, age_weight=0.0, rng=seed
    )
    plan = {"lr": LR, "lr_schedule": lambda epoch: 1.0, "kl_schedule": lambda epoch: min(1.0, epoch / WARM_UP)}
    model.train(
        epochs, batch_size=BATCH, early_stopping=False, precision=precision, accelerator="cpu", plan_kwargs=plan,
        enable_progress_bar=False,
    )  # fmt: skip
    error = model.get_reconstruction_error(indices=validation)
    return float(error["reconstruction_loss"] if isinstance(error, dict) else error)


def theirs(adata: ad.AnnData, split: list[np.ndarray], seed: int, epochs: int) -> float:
    """Loss of scvi-tools."""
    scvi.settings.seed = seed
    model = scvi.model.SCVI(
        adata, n_hidden=WIDTH, n_layers=1, n_latent=LATENT, dropout_rate=DROPOUT, gene_likelihood="poisson"
    )
    model.train(
        epochs, batch_size=BATCH, check_val_every_n_epoch=1, accelerator="cpu", enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": [*split, np.array([], dtype=int)]},
        plan_kwargs={"lr": LR, "n_epochs_kl_warmup": WARM_UP},
    )  # fmt: skip
    return float(model.history[METRIC].iloc[-1, 0])


def main() -> None:
    """Train all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    adata = agevi.datasets.tcells()
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0)
    other = ad.AnnData(adata.X, obs=adata.obs[["agevi_split"]].copy())
    split = [np.flatnonzero(other.obs["agevi_split"] == role) for role in ("train", "validation")]
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    scvi.model.SCVI.setup_anndata(other)
    for seed in args.seeds:
        reference = theirs(other, split, seed, args.epochs)
        found = {precision: ours(adata, split[1], seed, args.epochs, precision) for precision in precisions()}
        parts = [f"{name} {value:.1f} ({value / reference - 1:+.2%})" for name, value in found.items()]
        print(f"seed {seed}: scvi-tools {reference:.1f}, agevi in {', in '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
