"""Ridge on pseudobulk, written without agevi: what the benchmarks compare with.

usage: python benchmarks/reference.py
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler


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


def main() -> None:
    """Error of the ridge on the donors' profiles with a whole cohort held out, on two scales."""
    from accuracy import PROFILES

    profiles = ad.read_h5ad(PROFILES)
    cpm = np.expm1(pd.DataFrame(np.asarray(profiles.X.toarray() if sp.issparse(profiles.X) else profiles.X)))
    age, cohort = profiles.obs["age"].to_numpy(float), profiles.obs["dataset"].to_numpy(str)
    scales = {"counts per million": cpm, "counts per 10,000": cpm.div(cpm.sum(axis=1), axis=0) * 1e4}
    for name, values in scales.items():
        for held_out in np.unique(cohort):
            test = cohort == held_out
            error = ridge(np.log1p(values[~test]), age[~test], np.log1p(values[test])) - age[test]
            print(f"log(1 + {name}), {held_out}: MAE {np.abs(error).mean():.2f}, mean error {error.mean():+.1f}")


if __name__ == "__main__":
    main()
