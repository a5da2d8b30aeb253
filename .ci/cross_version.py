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
        obs = pd.DataFrame({key: stored[key] for key in ("donor", "age", "batch")})
        obs.index = [f"c{i}" for i in range(len(obs))]
        return ad.AnnData(sp.csr_matrix(stored["x"]), obs=obs, var=pd.DataFrame(index=stored["genes"].astype(object)))


def others(folder: Path) -> ad.AnnData:
    """The same cells, of subjects whose names the clock does not know."""
    adata = cells(folder)
    adata.obs["donor"] = "other " + adata.obs["donor"].astype(str)
    return adata


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
    plain = {key: sim.obs[key].astype(str).to_numpy(dtype=str) for key in ("donor", "batch")}
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


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    {"save": save, "check": check}[sys.argv[1]](Path(sys.argv[2]))
