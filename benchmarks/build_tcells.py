"""Derive the tables behind ``agevi.datasets.tcells`` from the full donor profiles, and measure what quantising costs.

usage: python benchmarks/build_tcells.py [--cell-type cd4|cd8] [--profiles FILE.h5ad] [--out FILE.npz]

The profiles are looked for in ``$AGEVI_DATA/pb_tcells_cd4/cd4t_donors.h5ad`` (default: ``../shared/data``), for CD8 T cells in
``pb_tcells_cd8/cd8t_donors.h5ad``. The cohort "zhang" is left out, because its licence is not stated. Every gene is stored as 8-bit steps between its lowest and highest value.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LEFT_OUT = "zhang"
LEVELS = 255
OUT = Path(__file__).resolve().parents[1] / "src/agevi/datasets/data"


def ridge_mae(x: np.ndarray, age: np.ndarray, n_repeats: int = 3) -> float:
    """Mean absolute error in years of ridge regression in 10-fold cross-validation, mean over shufflings."""
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 15)))
    errors = []
    for seed in range(n_repeats):
        predicted = cross_val_predict(model, x, age, cv=KFold(10, shuffle=True, random_state=seed))
        errors.append(np.abs(predicted - age).mean())
    return float(np.mean(errors))


def quantise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (n_subjects, n_genes) uint8, lowest value and step per gene (n_genes,) float32."""
    low = x.min(axis=0).astype(np.float32)
    step = ((x.max(axis=0) - low) / LEVELS).astype(np.float32)
    codes = np.rint((x - low) / np.where(step > 0, step, 1)).clip(0, LEVELS).astype(np.uint8)
    return codes, low, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("AGEVI_DATA", "../shared/data"))
    parser.add_argument("--cell-type", choices=("cd4", "cd8"), default="cd4")
    parser.add_argument("--profiles", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    name = arguments.cell_type
    out = arguments.out or OUT / f"{name}_tcells.npz"

    profiles = ad.read_h5ad(arguments.profiles or data / f"pb_tcells_{name}/{name}t_donors.h5ad")
    profiles = profiles[profiles.obs["dataset"] != LEFT_OUT].copy()
    x, age = np.asarray(profiles.X), profiles.obs["age"].to_numpy()
    if (age % 1 != 0).any() or age.max() > LEVELS:
        raise ValueError("ages are not whole years below 256; the table stores them as uint8.")
    codes, low, step = quantise(x)
    np.savez_compressed(
        out,
        codes=np.ascontiguousarray(codes.T),
        low=low,
        step=step,
        gene=profiles.var_names.to_numpy().astype(str),
        donor=profiles.obs["donor"].to_numpy().astype(str),
        age=age.astype(np.uint8),
        dataset=profiles.obs["dataset"].to_numpy().astype(str),
    )
    restored = low + codes * step
    print(f"{profiles.n_obs} donors x {profiles.n_vars} genes, {out.stat().st_size / 1e6:.2f} MB")
    print(f"largest rounding error {np.abs(restored - x).max():.4f} in log1p(CPM)")
    print(
        f"ridge, 10-fold, MAE in years: {ridge_mae(x, age):.3f} as published, {ridge_mae(restored, age):.3f} as bundled"
    )
    print(f"median predictor: {np.abs(age - np.median(age)).mean():.2f}")


if __name__ == "__main__":
    main()
