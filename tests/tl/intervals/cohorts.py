"""Subject tables whose errors are known, as an AnnData of one or more samples per subject."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

import agevi


def predicted(n=60, *, visits=1, role="out_of_fold", seed=0, sd=8.0, unit=1.0, cells=2, spread=0.0):
    """Cells of subjects with a prediction whose error has this standard deviation; ``unit`` years are one of the ages."""
    rng = np.random.default_rng(seed)
    n_samples = n * visits
    subject = np.repeat([f"s{i:04d}" for i in range(n)], visits)
    age = np.repeat(rng.uniform(20, 90, n), visits) + np.tile(np.arange(visits), n)
    own = np.repeat(rng.normal(size=n) * spread, visits)
    found = age + own + rng.normal(size=n_samples) * sd
    of_cell = np.repeat(np.arange(n_samples), cells)
    obs = pd.DataFrame(
        {
            "donor": subject[of_cell],
            "visit": np.array([f"{s}_{i}" for i, s in enumerate(subject)])[of_cell],
            "age": age[of_cell] / unit,
            "agevi_predicted": (found[of_cell] / unit).astype(np.float32),
            "agevi_role": pd.Categorical(np.full(len(of_cell), role, dtype=object)),
        },
        index=[f"c{i}" for i in range(len(of_cell))],
    )
    obs["cohort"] = np.where(obs["donor"].str[-1].isin(["0", "1", "2"]), "a", "b")
    adata = ad.AnnData(np.ones((len(obs), 1), dtype=np.float32), obs=obs)
    adata.uns["agevi"] = {
        "subject_key": "donor",
        "sample_key": "visit",
        "age_key": "age",
        "age_unit": "years" if unit == 1 else "days",
        "min_age": -1.0,
    }
    agevi.tl.aggregate_subjects(adata)
    return adata
