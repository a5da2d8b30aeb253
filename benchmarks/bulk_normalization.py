"""What normalisation does to the error of a methylation clock: ridge regression on 902 blood controls of 11 studies.

The normaliser and the ridge regression of every fold see its training samples only. Samples are dealt into five folds,
stratified by study.

usage: python benchmarks/bulk_normalization.py [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import warnings

import anndata as ad
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
BLOOD = DATA / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad"
ROWS = {
    "as it is": None,
    "quantiles": {},
    "ComBat, age named": {"batch_key": "dataset", "age_key": "age", "quantile": False},
    "ComBat, age named, then quantiles": {"batch_key": "dataset", "age_key": "age"},
    "ComBat without ages": {"batch_key": "dataset", "quantile": False},
}


def normalized(adata: ad.AnnData, train: np.ndarray, arguments: dict[str, object] | None) -> np.ndarray:
    """M values of all samples, normalised as the samples ``train`` tell."""
    if arguments is None:
        return adata.layers["m"]
    normalizer = agevi.pp.BulkNormalizer(layer="m", **arguments).fit(adata[train])
    return normalizer.apply(adata, copy=True).layers["normalized"]


def main() -> None:
    """Print the mean absolute error of every row, in years."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="batches explain")
    adata = ad.read_h5ad(BLOOD)
    adata = adata[adata.obs["group"] == "control"].copy()
    agevi.pp.beta_to_m(adata)
    age, study = adata.obs["age"].to_numpy(float), adata.obs["dataset"].astype(str).to_numpy()
    errors: dict[str, list[float]] = {name: [] for name in ["median age", *ROWS]}
    for seed in args.seeds:
        predicted = {name: np.empty(len(age)) for name in errors}
        for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(age, study):
            predicted["median age"][test] = np.median(age[train])
            for name, arguments in ROWS.items():
                x = normalized(adata, train, arguments)
                model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
                predicted[name][test] = model.fit(x[train], age[train]).predict(x[test])
        for name, values in predicted.items():
            errors[name].append(float(np.abs(values - age).mean()))
    for name, values in errors.items():
        print(f"| {name} | {np.mean(values):.2f} | {np.min(values):.2f} to {np.max(values):.2f} |")


if __name__ == "__main__":
    main()
