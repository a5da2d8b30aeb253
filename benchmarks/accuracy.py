"""Donor-level accuracy on the CD4 T benchmark: 755 donors, 60 semi-synthetic cells each, 5 fixed folds.

For every fold a PoissonVAE is trained on the other folds: an inner validation split of whole donors chooses the epoch,
a refit on all training donors makes the clock, and the held-out donors are predicted once. Ridge on pseudobulk and the
median predictor run on the same folds. Cells are independent draws from one real profile per donor
(``agevi.datasets.sample_cells``), so pseudobulk is nearly sufficient here; see the README of the data.

usage: python benchmarks/accuracy.py [--profiles FILE] [--seed 7] [--folds 0 1 2 3 4] [--out FILE.csv]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import time

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PROFILES = DATA / "pb_tcells_cd4" / "cd4t_donors.h5ad"


def pseudobulk(adata: ad.AnnData) -> pd.DataFrame:
    """log1p CP10K of the summed counts of every donor."""
    donors, codes = np.unique(adata.obs["donor"].astype(str), return_inverse=True)
    sums = sp.csr_matrix((np.ones(adata.n_obs), (codes, np.arange(adata.n_obs)))) @ adata.X
    sums = np.asarray(sums.todense())
    return pd.DataFrame(np.log1p(sums / sums.sum(1, keepdims=True) * 1e4), index=donors)


def ridge(train: pd.DataFrame, age: pd.Series, test: pd.DataFrame) -> np.ndarray:
    """Ridge on z-scored pseudobulk, penalty by leave-one-out on the training donors."""
    scaler = StandardScaler().fit(train)
    return RidgeCV(np.logspace(0, 5, 15)).fit(scaler.transform(train), age).predict(scaler.transform(test))


def half_depth(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """The same cells with every transcript kept with probability one half."""
    x = adata.X.tocsr()
    thinned = sp.csr_matrix((rng.binomial(x.data.astype(int), 0.5), x.indices, x.indptr), shape=x.shape)
    return ad.AnnData(thinned.astype(np.float32), obs=adata.obs[["donor"]].copy(), var=adata.var[[]].copy())


def donor_ages(adata: ad.AnnData, model: agevi.model.PoissonVAE) -> pd.Series:
    """Predicted age of every donor, mean over its cells."""
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata).set_index("subject")["predicted"]


def run_fold(adata: ad.AnnData, bulk: pd.DataFrame, age: pd.Series, fold: str, seed: int) -> pd.DataFrame:
    """Out-of-fold predictions of one fold."""
    start = time.time()
    held_out = (adata.obs["fold"] == fold).to_numpy()
    train, test = adata[~held_out].copy(), adata[held_out].copy()
    agevi.pp.split_subjects(train, subject_key="donor", age_key="age", test_size=0, validation_size=0.15, rng=seed)
    agevi.model.PoissonVAE.setup_anndata(train, subject_key="donor", age_key="age")
    model = agevi.model.PoissonVAE(train, rng=seed)
    model.train(accelerator="cpu", enable_progress_bar=False)
    best = model.best_epoch_
    model.train(best, train_roles=("train", "validation"), accelerator="cpu", enable_progress_bar=False)
    del test.obs["age"]
    predicted = donor_ages(test, model)
    halved = donor_ages(half_depth(test, np.random.default_rng(seed)), model)
    in_train = bulk.index.difference(predicted.index)
    out = pd.DataFrame({"fold": fold, "age": age[predicted.index], "agevi": predicted, "agevi_half": halved})
    out["ridge"] = ridge(bulk.loc[in_train], age[in_train], bulk.loc[predicted.index])
    out["median"] = age[in_train].median()
    mae = (out["agevi"] - out["age"]).abs().mean()
    print(f"fold {fold}: MAE {mae:.2f}, epoch {best}, {time.time() - start:.0f} s", flush=True)
    return out


def main() -> None:
    """Run the folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=pathlib.Path, default=PROFILES)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folds", nargs="+", default=list("01234"))
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = agevi.datasets.sample_cells(ad.read_h5ad(args.profiles), n_cells=60, rng=args.seed)
    adata.obs["fold"] = agevi.datasets.benchmark_folds(adata.obs["donor"]).astype(str)
    bulk = pseudobulk(adata)
    age = adata.obs.groupby(adata.obs["donor"].astype(str), observed=True)["age"].first().astype(float)
    table = pd.concat([run_fold(adata, bulk, age, fold, args.seed) for fold in args.folds])
    for name in ("median", "ridge", "agevi"):
        m = agevi.metrics.regression_metrics(table["age"], table[name])
        low, high = agevi.metrics.bootstrap_interval(agevi.metrics.mae, table["age"], table[name])
        print(f"{name:8s} n {m['n']}, MAE {m['mae']:.2f} [{low:.2f}, {high:.2f}], r {m['pearson']:.3f}")
    moved = (table["agevi_half"] - table["agevi"]).abs().mean()
    print(f"half the depth moves predictions by {moved:.2f} years (mean over donors of the absolute change)")
    if args.out:
        table.to_csv(args.out)


if __name__ == "__main__":
    main()
