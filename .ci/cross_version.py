"""A clock saved under one stack predicts the same under another, with the same intervals.

usage: python .ci/cross_version.py save FOLDER     (with one stack)
       python .ci/cross_version.py check FOLDER    (with the other)
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import agevi

TOLERANCE = 1e-6  # relative, in float32


def cells(folder: Path) -> ad.AnnData:
    """The cells that the saving stack simulated, from plain arrays."""
    with np.load(folder / "cells.npz") as stored:
        obs = pd.DataFrame({key: stored[key] for key in ("donor", "age", "batch", "cell_type")})
        obs.index = [f"c{i}" for i in range(len(obs))]
        return ad.AnnData(sp.csr_matrix(stored["x"]), obs=obs, var=pd.DataFrame(index=stored["genes"].astype(object)))


def others(folder: Path) -> ad.AnnData:
    """The same cells, of subjects whose names the clock does not know."""
    adata = cells(folder)
    adata.obs["donor"] = "other " + adata.obs["donor"].astype(str)
    return adata


def odd(folder: Path) -> ad.AnnData:
    """Cells without an age and without one of the types, some of a type that no clock knows, with their genes reversed."""
    adata = others(folder)
    del adata.obs["age"]
    adata.obs["cell_type"] = np.where(np.arange(adata.n_obs) % 7, adata.obs["cell_type"].astype(str), "unknown")
    return adata[(adata.obs["cell_type"] != "type0").to_numpy(), adata.var_names[::-1]].copy()


def intervals(folder: Path, clock: agevi.model.PoissonVAE) -> np.ndarray:
    """Limits of the age of every new subject, (n_subjects, 2)."""
    adata = others(folder)
    del adata.obs["age"]
    agevi.tl.predict_age(adata, clock)
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata)[["lower", "upper"]].to_numpy(dtype=float)


def save(folder: Path) -> None:
    """Train and save a clock, its cells and its predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    sim = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=20, n_genes=200, rng=0)
    plain = {key: sim.obs[key].astype(str).to_numpy(dtype=str) for key in ("donor", "batch", "cell_type")}
    genes = sim.var_names.to_numpy(dtype=str)
    np.savez(
        folder / "cells.npz", x=sp.csr_matrix(sim.X).toarray(), age=sim.obs["age"].to_numpy(), genes=genes, **plain
    )
    adata = cells(folder)
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", batch_key="batch")
    model = agevi.model.PoissonVAE(adata, encode_covariates=True)
    model.train(max_epochs=5, accelerator="cpu", enable_progress_bar=False)
    held_out = others(folder)
    agevi.tl.predict_age(held_out, model)
    agevi.tl.aggregate_subjects(held_out)
    agevi.tl.calibrate(held_out)
    model.set_calibration(held_out)
    model.set_evaluation(held_out)
    model.save(folder / "clock", overwrite=True)
    np.save(folder / "ages.npy", model.predict_age(cells(folder)))
    agevi.model.CellTypeClock.setup_anndata(adata, age_key="age", subject_key="donor", cell_type_key="cell_type")
    of_types = agevi.model.CellTypeClock(adata, min_cells=2, composition=True)
    of_types.train(enable_progress_bar=False)
    of_types.save(folder / "types", overwrite=True)
    np.save(folder / "types.npy", of_types.predict_types(odd(folder)).to_numpy())
    np.save(folder / "types_ages.npy", of_types.predict_age(odd(folder), level="sample"))
    np.save(folder / "intervals.npy", intervals(folder, model))


def check(folder: Path) -> None:
    """Load the clock and compare its predictions with those of the stack that saved it."""
    clock = agevi.io.load_clock(folder / "clock")
    difference = np.abs(clock.predict_age(cells(folder)) / np.load(folder / "ages.npy") - 1).max()
    print(
        f"scvi-tools {agevi._compat.version('scvi-tools')} reads the clock; largest relative difference {difference:.1e}"
    )
    if not difference <= TOLERANCE:
        raise SystemExit(f"predictions differ by more than {TOLERANCE:g}")
    if clock.evaluation is None or not np.allclose(
        intervals(folder, clock), np.load(folder / "intervals.npy"), rtol=1e-5, atol=1e-4
    ):
        raise SystemExit("the clock lost its evaluation, or its intervals differ")
    of_types = agevi.io.load_clock(folder / "types")
    found = {
        "types": of_types.predict_types(odd(folder)).to_numpy(),
        "types_ages": of_types.predict_age(odd(folder), level="sample"),
    }
    for name, ages in found.items():
        if not np.isfinite(ages).any() or not np.allclose(ages, np.load(folder / f"{name}.npy"), 1e-5, equal_nan=True):
            raise SystemExit(f"{name} of the clock of cell types differ")
    print("the clock of cell types predicts the same of other types and genes")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    {"save": save, "check": check}[sys.argv[1]](Path(sys.argv[2]))
