"""Samples of two modalities with some features in common, as a joined AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

SETUP = {
    "age_key": "age",
    "subject_key": "donor",
    "sample_key": "sample",
    "modality_key": "modality",
    "tissue_key": "tissue",
}
SMALL = {"n_tokens": 9, "n_token": 8, "n_heads": 2, "n_layers": 2, "dropout_rate": 0.0}
SETS = {"expression": slice(0, 20), "methylation": slice(12, 30)}
"""Features of each modality; features 12 to 19 are in both."""


def samples(n_subjects=60, *, paired=0.3, noise=1.0, seed=0) -> ad.AnnData:
    """Subjects aged 20 to 80; the share ``paired`` of them has a sample of each modality.

    Every feature changes with age by its own slope, the same in both modalities up to scale and level.
    """
    rng = np.random.default_rng(seed)
    age, slope = rng.uniform(20, 80, n_subjects), rng.normal(size=30)
    rows = []
    for modality in SETS:
        has = (np.arange(n_subjects) % 2 == (modality == "methylation")) | (rng.random(n_subjects) < paired)
        rows += [(i, modality, ("blood", "brain")[int(i % 3 == 0)]) for i in np.flatnonzero(has)]
    subject, modality, tissue = (np.asarray(v) for v in zip(*rows, strict=True))
    values = (age[subject, None] - 50) / 20 * slope + noise * rng.normal(size=(len(rows), 30))
    is_beta = modality == "methylation"
    values = np.where(is_beta[:, None], 0.5 + 0.05 * values, 6 + values + 2 * (tissue == "brain")[:, None])
    masks = np.zeros((30, 2), dtype=bool)
    for i, columns in enumerate(SETS.values()):
        masks[columns, i] = True
    obs = pd.DataFrame(
        {"donor": [f"d{i:02d}" for i in subject], "age": age[subject], "modality": modality, "tissue": tissue},
        index=[f"s{i:03d}" for i in range(len(rows))],
    )
    obs["sample"] = obs["donor"] + " " + obs["modality"]
    out = ad.AnnData(
        np.where(masks.T[is_beta.astype(int)], values, 0).astype(np.float32),
        obs=obs,
        var=pd.DataFrame(index=[f"g{i:02d}" for i in range(30)]),
    )
    out.varm["agevi_measured"] = masks
    out.uns["agevi_measured"] = {"sets": list(SETS), "key": "agevi_feature_set"}
    out.obs["agevi_feature_set"] = pd.Categorical(modality, categories=list(SETS))
    return out


def one(adata: ad.AnnData, modality: str) -> ad.AnnData:
    """The samples and features of one modality, as a user has them before anything is joined."""
    part = adata[(adata.obs["modality"] == modality).to_numpy(), SETS[modality]].copy()
    del part.varm["agevi_measured"], part.uns["agevi_measured"], part.obs["agevi_feature_set"]
    return part
