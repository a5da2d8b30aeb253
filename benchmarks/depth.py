"""How far half the sequencing depth moves predicted ages: fold 0 of the CD4 T benchmark, every clock.

Each clock is trained on the donors of the other folds. The cells of the held-out donors are predicted as they are, and
with every transcript kept with probability one half.

usage: python benchmarks/depth.py [--profiles FILE] [--seed 7] [--n-cells 60] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import logging
import pathlib

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from accuracy import COUNTED, PROFILES, cells
from reference import pseudobulk, ridge

import agevi


def thinned(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """The same cells with every transcript kept with probability one half."""
    x = adata.X.tocsr()
    halved = sp.csr_matrix((rng.binomial(x.data.astype(int), 0.5), x.indices, x.indptr), shape=x.shape)
    return ad.AnnData(halved.astype(np.float32), obs=adata.obs[["donor"]].copy(), var=adata.var[[]].copy())


def donor_ages(adata: ad.AnnData, model: object) -> pd.Series:
    """Predicted age of every donor."""
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata).set_index("subject")["predicted"]


def main() -> None:
    """Train every clock once and print how far its predictions move."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=pathlib.Path, default=PROFILES)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--n-cells", type=int, default=60, help="cells of every donor")
    parser.add_argument("--models", nargs="*", choices=COUNTED, default=COUNTED)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = cells(args.profiles, args.seed, args.n_cells)
    held_out = (adata.obs["fold"] == "0").to_numpy()
    train, test = adata[~held_out].copy(), adata[held_out].copy()
    half = thinned(test, np.random.default_rng(args.seed))
    train.obs["agevi_split"] = "train"
    bulk, age = pseudobulk(train), train.obs.groupby(train.obs["donor"].astype(str))["age"].first().astype(float)
    moved = {"ridge on pseudobulk": ridge(bulk, age, pseudobulk(half)) - ridge(bulk, age, pseudobulk(test))}
    for name in args.models:
        cls = getattr(agevi.model, name)
        cls.setup_anndata(train, subject_key="donor", age_key="age")
        model = cls(train, rng=args.seed)
        model.train(accelerator="cpu", enable_progress_bar=False)
        moved[name] = (donor_ages(half, model) - donor_ages(test, model)).to_numpy()
    for name, change in moved.items():
        print(f"{name}: mean absolute change {np.abs(change).mean():.2f} years, mean change {change.mean():+.2f}")


if __name__ == "__main__":
    main()
