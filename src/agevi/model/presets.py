"""Recipes of the neuron clock of Su and Mukundan, and of the multimodal clock of Urban et al., as plain dictionaries.

Every preset names a class of :mod:`agevi.model` and holds the arguments of its three steps::

    preset = agevi.model.presets.NEURON_CLOCK
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", **preset["setup"])
    model = agevi.model.PoissonVAE(adata, **preset["init"])
    model.train(**preset["train"])

They repeat the published studies and are not advice: the defaults of the classes are what measures best. Epochs are
fixed, as published, so validation subjects choose nothing within a training.

What the paper leaves open is filled in like this. All read raw counts, which are z-scored except
for the Poisson VAE and the NMF. The
squared error of the age is added to the other losses: of standardised ages with weight 1, or, for the Poisson VAE, of
ages in years, which makes its weight the variance of the ages. agevi's ``age_weight`` is relative to the number of
genes or of counts, so it holds that weight divided by the 17,658 genes of the paper's data, or by about 10,000 counts
per cell. Where a row of the paper does not name dropout there is none; its table of denoising autoencoders says that
they have none. One rate of dropout serves encoder and head. The MLP runs for 30 epochs, and without a schedule of the
learning rate. :func:`agevi.tl.neuron_clock_study` makes the paper's tables from an AnnData.

The factorisation is fitted to all training cells as dense rows, which takes tens of gigabytes at the paper's size; a
smaller ``n_fit`` makes it fit.

``PRECIOUS1GPT`` also needs the columns: ``setup_anndata(..., modality_key=..., tissue_key=...)``. That paper names
neither the attention's width, heads and layers, which are those of Huang et al. (2020) here, nor the number of epochs,
so validation subjects choose it. It knows no unknown tissue, and none is trained.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "NEURON_CLOCK",
    "NEURON_DENOISING_VAE",
    "NEURON_ELASTIC_NET",
    "NEURON_GAUSSIAN_VAE",
    "NEURON_MLP",
    "NEURON_NMF",
    "PRECIOUS1GPT",
    "ROWS",
]

Preset = dict[str, Any]

_N_CELLS, _N_GENES = 189_432, 17_658
_AGE_VARIANCE = 17.0**2  # of ages that are spread evenly from 25 to 94, in round numbers, in years squared
_COUNTS_PER_CELL = 10_000
_BATCH = 4096
_DROPOUT = 0.4
_ADAM = {"optimizer": "Adam", "lr": 1e-3, "weight_decay": 0.0}
_KL = {"kl_schedule": "cyclical", "kl_kwargs": {"n_off": 20, "n_rise": 10, "n_full": 10}}
_RESTARTS = {"lr_schedule": "cosine_restarts", "lr_kwargs": {"t_0": 20}}


def _train(max_epochs: int, **plan_kwargs: Any) -> dict[str, Any]:
    """Arguments of ``train`` for a fixed number of epochs."""
    return {
        "max_epochs": max_epochs,
        "batch_size": _BATCH,
        "early_stopping": False,
        "plan_kwargs": {**_ADAM, **plan_kwargs},
    }


def _vae(
    name: str,
    n_hidden: list[int],
    n_latent: int,
    *,
    max_epochs: int,
    dropout_rate: float = 0.0,
    n_head: tuple[int, ...] = (20, 20),
    **init: Any,
) -> Preset:
    """An autoencoder with the schedules that all of them share."""
    return {
        "model": name,
        "setup": {"normalize": "none"},
        "init": {
            "n_hidden": n_hidden,
            "n_latent": n_latent,
            "n_head": list(n_head),
            "dropout_rate": dropout_rate,
            "age_loss": "mse",
            "subject_weight": "cells",
            "train_unit": "cell",
            **init,
        },
        "train": _train(max_epochs, **_KL, **_RESTARTS),
    }


def _gaussian(n_hidden: list[int], n_latent: int, *, max_epochs: int = 100, **init: Any) -> Preset:
    return _vae("GaussianVAE", n_hidden, n_latent, max_epochs=max_epochs, age_weight=1 / _N_GENES, **init)


def _poisson(max_epochs: int) -> Preset:
    return _vae(
        "PoissonVAE",
        [300, 150],
        100,
        max_epochs=max_epochs,
        dropout_rate=_DROPOUT,
        rate="softplus",
        age_weight=_AGE_VARIANCE / _COUNTS_PER_CELL,
    )


def _denoising(noise_level: float, noise_relative_to: str, **init: Any) -> Preset:
    return _vae(
        "DenoisingVAE",
        [512, 256],
        100,
        max_epochs=100,
        gene_likelihood="normal",
        noise="gaussian",
        noise_level=noise_level,
        noise_relative_to=noise_relative_to,
        age_weight=1 / _N_GENES,
        **init,
    )


def _mlp(n_hidden: list[int], *, lr: float = 1e-3) -> Preset:
    return {
        "model": "MLPClock",
        "setup": {"normalize": "none"},
        "init": {
            "n_hidden": n_hidden,
            "dropout_rate": _DROPOUT,
            "age_loss": "mse",
            "subject_weight": "cells",
            "train_unit": "cell",
        },
        "train": _train(30, lr=lr, lr_schedule="constant"),
    }


ROWS: dict[str, Preset] = {
    "elastic net": {
        "model": "ElasticNetClock",
        "setup": {"normalize": "none"},
        "init": {"train_unit": "cell", "n_folds": 5, "subject_weight": "cells"},
        "train": {},
    },
    "mlp [500, 500]": _mlp([500, 500]),
    "mlp [1000, 1000]": _mlp([1000, 1000]),
    "mlp [5000, 5000, 5000]": _mlp([5000, 5000, 5000]),
    "mlp [5000, 5000, 5000], lr 1e-4": _mlp([5000, 5000, 5000], lr=1e-4),
    "nmf": {
        "model": "NMFClock",
        "setup": {"normalize": "none"},
        "init": {
            "n_components": 100,
            "n_hidden": [20, 20],
            "dropout_rate": _DROPOUT,
            "gene_weight": "none",
            "n_fit": _N_CELLS,
            "age_loss": "mse",
            "subject_weight": "cells",
            "train_unit": "cell",
        },
        "train": _train(30, lr_schedule="constant"),
    },
    **{f"gaussian, latent {n}": _gaussian([300, 100], n) for n in (20, 30, 40, 50, 60, 70)},
    "gaussian [600, 150, 75], latent 50": _gaussian([600, 150, 75], 50),
    "gaussian [512, 256], latent 150, head [30, 20]": _gaussian([512, 256], 150, n_head=(30, 20)),
    "gaussian, latent 60, dropout, 200 epochs": _gaussian([300, 100], 60, max_epochs=200, dropout_rate=_DROPOUT),
    **{f"poisson, {n} epochs": _poisson(n) for n in (200, 500, 1000)},
    **{
        f"denoising, noise {level:g} of {unit}": _denoising(level, unit)
        for unit in ("input_sd", "max")
        for level in (5.0, 0.5)
    },
    **{
        f"denoising, noise 0.5 of {unit}, head [30, 20]": _denoising(0.5, unit, n_head=(30, 20))
        for unit in ("input_sd", "max")
    },
}
"""Every row of the paper's tables by name, in their order. The paper contradicts itself on the unit of the noise,
"relative to the maximum count" of z-scored inputs, so the denoising rows come in both units."""

NEURON_CLOCK = ROWS["poisson, 1000 epochs"]
"""The Poisson VAE, the best of the paper."""
NEURON_ELASTIC_NET = ROWS["elastic net"]
NEURON_MLP = ROWS["mlp [5000, 5000, 5000]"]
NEURON_NMF = ROWS["nmf"]
NEURON_GAUSSIAN_VAE = ROWS["gaussian, latent 50"]
NEURON_DENOISING_VAE = ROWS["denoising, noise 5 of input_sd"]
PRECIOUS1GPT: Preset = {
    "model": "TransformerClock",
    "setup": {},
    "init": {
        "architecture": "tab",
        "n_token": 32,
        "n_heads": 8,
        "n_layers": 6,
        "n_hidden": [128, 2048, 128],
        "activation": "elu",
        "dropout_rate": 0.0,
        "category_dropout": 0.0,
        "modality_dropout": 0.0,
        "skip": "none",
        "standardize_by": "modality",
        "age_loss": "mse",
        "subject_weight": "cells",
    },
    "train": {
        "batch_size": 96,
        "plan_kwargs": {"optimizer": "AdamW", "lr": 2.3e-4, "weight_decay": 0.0, "lr_schedule": "constant"},
    },
}
"""The TabTransformer of Urban et al., *Precious1GPT* (Aging 2023)."""
