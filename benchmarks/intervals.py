"""Intervals of ages on real data: coverage, width and interval score of cross-calibrated ones, and recalibration in new cohorts.

Predictions are out of fold (``tl.cross_validate`` with ``PLSClock``): CD4 T cells of 755 donors (60 cells each, 5 fixed folds),
the same with 3 to 200 cells a donor, 902 methylation controls (``age_transform="horvath"``), 146 brain arrays; and by clocks
that never saw the cohort. They are kept as tables in ``--cache``. Intervals are cross-calibrated over subjects (10 parts, 10
seeds); recalibration draws the labelled controls of a cohort at random and judges the others.

``bundled`` does the same with the 300 donors that come with agevi, and needs no other data.

usage: python benchmarks/intervals.py [--cache FOLDER] [--part sets cells cohorts bundled] [--seeds 10] [--draws 100]

Prints tables in Markdown. "ages" are the intervals from the 5 % and 95 % quantiles of the other subjects' ages.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import agevi
from agevi._ages import AgeTransform
from agevi.tl.intervals._conformal import Calibration
from agevi.tl.intervals._recalibration import OldErrors, fit_line, fit_shift

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PLS = agevi.model.PLSClock
BLOCK = 150  # donors whose cells are sampled at once
N_CELLS = (3, 200)
METHYLATION = {"age_key": "age", "subject_key": "subject", "train_on": "group == 'control'"}
HORVATH = {"normalize": "none", "age_transform": "horvath"}
MIN_CONTROLS = 40  # of a cohort of methylation


def tcells() -> ad.AnnData:
    """Sums of 60 cells of 755 donors with the fixed folds and the cohorts."""
    adata = agevi.datasets.sample_cells(ad.read_h5ad(DATA / "pb_tcells_cd4" / "cd4t_donors.h5ad"), n_cells=60, rng=0)
    return with_folds(adata)


def with_folds(adata: ad.AnnData) -> ad.AnnData:
    """The same with the fixed folds of whole donors."""
    adata.obs["fold"] = agevi.datasets.benchmark_folds(adata.obs["donor"]).astype(str)
    return adata


def varied_tcells() -> ad.AnnData:
    """The same donors with 3 to 200 cells, uniform on the log scale."""
    profiles = ad.read_h5ad(DATA / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    low, high = np.log(N_CELLS)
    wanted = np.exp(np.random.default_rng(5).uniform(low, high, profiles.n_obs)).round().astype(int)
    parts = []
    for start in range(0, profiles.n_obs, BLOCK):
        some = profiles[start : start + BLOCK].copy()
        cells = agevi.datasets.sample_cells(some, n_cells=N_CELLS[1], rng=100 + start)
        place = cells.obs.groupby(cells.obs["donor"].astype(str)).cumcount().to_numpy()
        limit = dict(zip(some.obs["donor"].astype(str), wanted[start:], strict=False))
        parts.append(cells[place < cells.obs["donor"].astype(str).map(limit).to_numpy()].copy())
    return with_folds(ad.concat(parts, index_unique="-"))


def methylation() -> ad.AnnData:
    """Blood samples at 353 CpGs."""
    adata = ad.read_h5ad(DATA / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    adata.obs["subject"] = adata.obs_names.astype(str)
    return adata


def brain() -> ad.AnnData:
    """Arrays of prefrontal cortex."""
    return ad.read_h5ad(DATA / "bulk_ba11_brain_146" / "bulk_ba11_brain_146.h5ad")


CELLS = {"age_key": "age", "subject_key": "donor"}
SETS: dict[str, tuple[Callable[[], ad.AnnData], dict[str, Any]]] = {
    "cd4": (tcells, {**CELLS, "fold_key": "fold"}),
    "cd4_cohorts": (tcells, {**CELLS, "fold_key": "dataset"}),
    "cells": (varied_tcells, {**CELLS, "fold_key": "fold"}),
    "methylation": (methylation, {**METHYLATION, "setup_kwargs": HORVATH}),
    "methylation_cohorts": (methylation, {**METHYLATION, "setup_kwargs": HORVATH, "fold_key": "dataset"}),
    "brain": (brain, {**CELLS, "setup_kwargs": {"normalize": "none"}}),
    "bundled": (agevi.datasets.tcells, CELLS),
}
"""What is predicted out of fold, and with which arguments."""


def predictions(name: str, cache: pathlib.Path) -> pd.DataFrame:
    """Subject table of a set with the columns of the cohort and the group, from the cache or computed into it."""
    path = cache / f"{name}.csv"
    if not path.exists():
        make, arguments = SETS[name]
        adata, start = make(), time.process_time()
        agevi.tl.cross_validate(adata, PLS, **arguments)
        agevi.tl.aggregate_subjects(adata)
        table = agevi.get.subjects_df(adata).set_index("subject")
        first = adata.obs.groupby(adata.obs[arguments["subject_key"]].astype(str)).first()
        for column in ("dataset", "group"):
            table[column] = first[column].astype(str) if column in first else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path)
        print(f"{name}: {len(table)} subjects, {time.process_time() - start:.0f} CPU s", flush=True)
    table = pd.read_csv(path, index_col="subject", keep_default_na=False, na_values=[""])
    table.index = table.index.astype(str)
    if name.startswith("methylation"):
        table = table[(table["group"] == "control") & (table["age"] >= 0)]
    return table.dropna(subset=["age", "predicted"])


def cross_calibrated(table: pd.DataFrame, seed: int, difficulty: tuple[str, ...], trivial: bool) -> tuple[Any, Any]:
    """Limits of every subject from nine tenths of the others."""
    n = len(table)
    part = np.random.default_rng(seed).permutation(n) % 10
    lower, upper = np.empty(n), np.empty(n)
    for k in range(10):
        rest, own = table[part != k], part == k
        if trivial:
            lower[own], upper[own] = np.quantile(rest["age"], [0.05, 0.95])
            continue
        fitted = Calibration.fit(rest["age"], rest["predicted"], rest["n_cells"], difficulty=difficulty)
        lower[own], upper[own] = fitted.interval(table["predicted"][own], table["n_cells"][own])
    return lower, upper


def judged(table: pd.DataFrame, lower: Any, upper: Any) -> dict[str, Any]:
    """Coverage overall and by third of the predicted and of the true age, width and interval score."""
    age = table["age"].to_numpy()
    inside = (lower <= age) & (age <= upper)
    thirds = {
        name: np.searchsorted(np.quantile(table[name], [1 / 3, 2 / 3]), table[name]) for name in ("predicted", "age")
    }
    return {
        "coverage": inside.mean(),
        **{f"{name} {k + 1}": inside[third == k].mean() for name, third in thirds.items() for k in range(3)},
        "width": (upper - lower).mean(),
        "score": agevi.metrics.interval_score(age, lower, upper, level=0.9),
    }


def sets(cache: pathlib.Path, n_seeds: int, names: tuple[str, ...] = ("cd4", "methylation", "brain")) -> None:
    """Cross-calibrated intervals of whole sets, beside quantiles of the ages."""
    rows = {}
    for name in names:
        table = predictions(name, cache)
        for kind in ("conformal", "ages"):
            found = [judged(table, *cross_calibrated(table, s, (), kind == "ages")) for s in range(n_seeds)]
            rows[f"{name}, {kind}"] = pd.DataFrame(found).mean()
    show(pd.DataFrame(rows).T)


def cells(cache: pathlib.Path, n_seeds: int) -> None:
    """Coverage and width of donors with few and with many cells, by whether the scale reads their number."""
    table = predictions("cells", cache)
    few, many = (table["n_cells"] <= 10).to_numpy(), (table["n_cells"] >= 60).to_numpy()
    rows = {}
    for difficulty in (("n_cells",), ()):
        found = []
        for seed in range(n_seeds):
            lower, upper = cross_calibrated(table, seed, difficulty, False)
            inside, width = table["age"].between(lower, upper).to_numpy(), upper - lower
            row = {"<= 10 cells": inside[few].mean(), ">= 60 cells": inside[many].mean()}
            found.append(
                row
                | {"width ratio": width[few].mean() / width[many].mean(), "score": judged(table, lower, upper)["score"]}
            )
        rows["with n_cells" if difficulty else "without"] = pd.DataFrame(found).mean()
    show(pd.DataFrame(rows).T)


def cohort_draws(
    table: pd.DataFrame, cohort: str, transform: AgeTransform, k: int, n_draws: int, old: Any
) -> dict[str, float]:
    """Mean coverage, width, score and error of the others when ``k`` subjects of a cohort are labelled; 0 for none."""
    part = table[table["dataset"] == cohort]
    age = part["age"].to_numpy()
    x, y = (transform.forward(part[name].to_numpy()) for name in ("predicted", "age"))
    rng, rows = np.random.default_rng(0), []
    for _ in range(n_draws if k else 1):
        chosen = np.zeros(len(part), dtype=bool)
        chosen[rng.choice(len(part), k, replace=False)] = True
        if not k:
            moved = x, x - old.reach(0.9) * old.sd, x + old.reach(0.9) * old.sd
        else:
            move = fit_line(x[chosen], y[chosen], 0.9) if k >= 10 else fit_shift(x[chosen], y[chosen], old, 0.9)
            moved = move.apply(x)
        predicted, lower, upper = (transform.back(values)[~chosen] for values in moved)
        true = age[~chosen]
        rows.append({
            "coverage": ((lower <= true) & (true <= upper)).mean(), "width": (upper - lower).mean(),
            "score": agevi.metrics.interval_score(true, lower, upper, level=0.9), "MAE": np.abs(predicted - true).mean(),
        })  # fmt: skip
    return pd.DataFrame(rows).mean().to_dict()


def cohorts(cache: pathlib.Path, n_draws: int) -> None:
    """Recalibration of cohorts that the clock never saw, by the number of labelled subjects."""
    for folds, name, transform in (("cd4", "cd4_cohorts", "log"), ("methylation", "methylation_cohorts", "horvath")):
        scale, within, table = AgeTransform(transform), predictions(folds, cache), predictions(name, cache)
        size = table["dataset"].value_counts()
        rows = []
        for cohort in size.index[size >= (MIN_CONTROLS if folds == "methylation" else 30)]:
            errors = [
                scale.forward(t["age"].to_numpy()) - scale.forward(t["predicted"].to_numpy()) for t in (within, table)
            ]
            here, left = (t["dataset"].to_numpy() == cohort for t in (within, table))
            means = pd.Series(errors[1][~left]).groupby(table["dataset"].to_numpy()[~left]).mean()
            old = OldErrors(np.sort(errors[0][~here]), float((means**2).mean()))
            for k in (0, 5, 10, 20):
                if size[cohort] >= k + 10:
                    rows.append({"cohort": cohort, "k": k, **cohort_draws(table, cohort, scale, k, n_draws, old)})
        found = pd.DataFrame(rows)
        if folds == "methylation":
            worst = found.groupby("k")["coverage"].min().rename("worst coverage")
            found = found.drop(columns="cohort").groupby("k").mean().join(worst).assign(cohort="mean").reset_index()
        show(found.set_index(["cohort", "k"]))


def show(table: pd.DataFrame) -> None:
    """A table in Markdown."""
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in table.index]
    print("| | " + " | ".join(map(str, table.columns)) + " |\n| --- |" + " ---: |" * table.shape[1])
    for key, values in zip(names, table.to_numpy(), strict=True):
        print(f"| {key} | " + " | ".join(f"{v:.3f}" if abs(v) < 1.5 else f"{v:.1f}" for v in values) + " |")
    print(flush=True)


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "agevi_intervals")
    parser.add_argument("--part", nargs="+", default=["sets", "cells", "cohorts"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    if "sets" in args.part:
        sets(args.cache, args.seeds)
    if "cells" in args.part:
        cells(args.cache, args.seeds)
    if "cohorts" in args.part:
        cohorts(args.cache, args.draws)
    if "bundled" in args.part:
        sets(args.cache, args.seeds, ("bundled",))


if __name__ == "__main__":
    main()
