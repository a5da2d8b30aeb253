"""How often `tl.compare_models` suspects folds where nothing is wrong, and how often it finds cells on both sides of a fold.

Simulated cohorts of 24 subjects. First the ridge alone, on folds of subjects (clean; 5 % of p values at most may be below 0.05) and on
folds of cells (leaking). Then all of `tl.compare_models` on clean cohorts: the ridge and PLSClock with 6 shuffles, and a small MLPClock
with 3 shuffles; the share of cohorts with a warning beside that of the rule "gain above two standard errors".

usage: python benchmarks/shuffled_ages.py [--cohorts N] [--networks N] [--ridge N] [--shuffles 3 20]
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time

import anndata as ad
import numpy as np
import pandas as pd
import torch

import agevi
from agevi.tl.validate import _null
from agevi.tl.validate._baselines import make_units, profiles, ridge_ages, shuffled_ages
from agevi.tl.validate._cohort import make_cohort
from agevi.tl.validate._jobs import stream

KEYS = {"age_key": "age", "subject_key": "donor"}
MLP = (agevi.model.MLPClock, {"model_kwargs": {"n_hidden": [8]}, "train_kwargs": {"max_epochs": 8}})


def simulated(seed: int) -> ad.AnnData:
    """A small cohort in which every subject has a profile of its own."""
    return agevi.datasets.simulate_cohort(n_subjects=24, n_cells=8, n_genes=60, subject_sd=0.2, rng=seed, n_jobs=1)


class Warnings(logging.Handler):
    """Counts them."""

    n = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.n += record.levelno >= logging.WARNING


def clean(models: dict[str, object], n: int, counted: Warnings) -> None:
    """Shares of clean cohorts with a warning."""
    tables, warned = [], 0
    for seed in range(n):
        adata, before = simulated(seed), counted.n
        agevi.tl.compare_models(adata, models, **KEYS, n_folds=3, n_null_linear=6, rng=seed)
        warned += counted.n > before
        tables.append(agevi.get.leaderboard_df(adata).query("n_null > 0"))
    table = pd.concat(tables)
    table["below 0.05"] = table["null_p"] <= 0.05
    table["two errors"] = table["null_gain"] > 2 * table["null_se"]
    by_cohort = np.mean([(t["null_gain"] > 2 * t["null_se"]).any() for t in tables])
    print(f"\n{n} clean cohorts: {warned / n:.3f} with a warning, {by_cohort:.3f} by two standard errors")
    print(table.groupby("model")[["n_null", "null_gain", "below 0.05", "two errors"]].mean().round(3).to_string())


def ridge(n: int, n_shuffles: int) -> None:
    """Share of cohorts in which the ridge is suspected, with folds of subjects and with folds of cells."""
    setup = KEYS | {"sample_key": None, "min_age": -1.0, "age_unit": "years"}
    for name in ("subjects", "cells"):
        p = []
        for seed in range(n):
            adata = simulated(seed)
            cohort = make_cohort(
                adata, setup, n_folds=5, fold_key=None, stratify_by=None, train_on=None, seed=stream(seed, 0)
            )
            rng = np.random.default_rng(seed)
            if name == "cells":
                cohort = dataclasses.replace(cohort, fold=rng.permutation(np.arange(adata.n_obs) % 5))
            units = make_units(cohort)
            values = profiles(adata.X, units, cells=np.ones(adata.n_obs, dtype=bool), normalize="log1p_cp10k")
            ages = [shuffled_ages(cohort, rng) for _ in range(n_shuffles)]
            predicted = ridge_ages(values, values, units, np.stack(ages))
            p.append(_null.null_summary(list(zip(ages, predicted, strict=True)), cohort, units, rng)["null_p"])
        print(
            f"folds of {name}, {n_shuffles} shuffles: {np.mean(np.array(p) <= _null.LEVEL):.3f} of {n} with p <= 0.05"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=100, help="clean cohorts for linear models")
    parser.add_argument("--networks", type=int, default=100, help="clean cohorts for networks")
    parser.add_argument("--ridge", type=int, default=300, help="cohorts, clean and leaking, for the ridge alone")
    parser.add_argument("--shuffles", type=int, nargs="+", default=[3, 20], help="of each cohort, for the ridge alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    counted = Warnings()
    logging.getLogger(_null.__name__).addHandler(counted)
    logging.getLogger("agevi").setLevel(logging.ERROR)
    logging.getLogger(_null.__name__).setLevel(logging.WARNING)
    logging.getLogger(_null.__name__).propagate = False
    start = time.perf_counter()
    for n_shuffles in arguments.shuffles if arguments.ridge else ():
        ridge(arguments.ridge, n_shuffles)
    if arguments.cohorts:
        clean({"PLSClock": agevi.model.PLSClock}, arguments.cohorts, counted)
    if arguments.networks:
        clean({"MLPClock": MLP}, arguments.networks, counted)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
