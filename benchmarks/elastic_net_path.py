"""Time of the choice of an elastic net's penalty on samples: paths that end early beside scikit-learn's whole ones.

Bulk profiles of the human cortex (94 of 146 donors) and profiles of CD4 T cells (250 of 755 donors), with their ages and with shuffled
ones. Five folds, three shares of the penalty on absolute values, 100 penalties each. CPU seconds of one thread.

usage: python benchmarks/elastic_net_path.py

The profiles are looked for in ``$AGEVI_DATA`` (default: ``../shared/data``).
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import ElasticNetCV

import agevi
from agevi.model.linear._path import search_samples
from agevi.model.linear._scaled_rows import SampleTargets

DATA = Path(os.environ.get("AGEVI_DATA", Path(__file__).parents[2] / "shared" / "data"))
FILES = {"bulk_ba11_brain_146/bulk_ba11_brain_146.h5ad": 94, "pb_tcells_cd4/cd4t_donors.h5ad": 250}
RATIOS, N_FOLDS = (0.1, 0.5, 0.9), 5


def profiles(path: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised log profiles of ``n`` donors and the logarithms of their ages."""
    adata = ad.read_h5ad(DATA / path)
    rows = np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:n])
    x = sp.csr_matrix(adata.X[rows]).toarray().astype(np.float64)
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4)
    varies = x.std(axis=0) > 1e-9
    x, age = x[:, varies], np.log(adata.obs["age"].to_numpy(dtype=np.float64)[rows] + 1)
    return (x - x.mean(axis=0)) / x.std(axis=0), (age - age.mean()) / age.std()


def main() -> None:
    """A line per data set and kind of ages."""
    warnings.filterwarnings("ignore")
    agevi.settings.verbosity = "error"
    for path, n in FILES.items():
        x, age = profiles(path, n)
        rng = np.random.default_rng(1)
        fold = rng.permutation(n) % N_FOLDS
        folds = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(N_FOLDS)]
        for what in ("ages", "shuffled ages", "shuffled again"):
            target = age if what == "ages" else rng.permutation(age)
            start = time.process_time()
            nets = [ElasticNetCV(l1_ratio=r, alphas=100, cv=folds, max_iter=1000).fit(x, target) for r in RATIOS]
            best = min(nets, key=lambda net: net.mse_path_.mean(axis=1).min())
            whole = time.process_time() - start
            start = time.process_time()
            samples = SampleTargets(target, np.ones(n), fold)
            found = search_samples(x, samples, 100, RATIOS, max_iter=1000, tol=1e-4)
            own = time.process_time() - start
            same = np.allclose(found.chosen, (best.alpha_, best.l1_ratio))
            print(
                f"{path} {x.shape}, {what}: whole {whole:.1f} s, ended early {own:.1f} s, same penalty: {same}",
                flush=True,
            )


if __name__ == "__main__":
    main()
