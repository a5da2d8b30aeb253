"""Ridge on pseudobulk, written without agevi: what the benchmarks compare with."""

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
