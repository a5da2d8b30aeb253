"""The posterior of age on real data: coverage, width and error on subjects whose ages were hidden, and the null.

Predictions are those of benchmarks/intervals.py, out of fold. The posterior is fitted to half of the subjects and judged on the
other half, both ways; with fewer labelled subjects, to that many of the half. In the null the predictions are shuffled
against the ages first.

usage: python benchmarks/posterior.py [--cache FOLDER] [--part ages few cells null horvath methods]

Prints tables in Markdown. ``raw`` is the error of the predictions themselves.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from intervals import predictions

from agevi import metrics
from agevi._ages import AgeTransform
from agevi.tl.intervals._posterior_age import age_densities, make_prior, summarise
from agevi.tl.intervals._posterior_fit import fit
from agevi.tl.intervals._posterior_model import Data

LEVELS = (0.5, 0.8, 0.9, 0.95)
PARTS = ("ages", "few", "cells", "null", "horvath", "methods")


def hidden(labelled: pd.DataFrame, others: pd.DataFrame, transform: str, prior: str, method: str) -> pd.DataFrame:
    """Estimates and intervals at every level for subjects whose ages are hidden: one fit of what tl.subject_posterior does."""
    scale = AgeTransform(transform)
    known = scale.forward(labelled["age"].to_numpy())
    centre, unit = known.mean(), known.std()

    def standardised(values: pd.Series | np.ndarray) -> np.ndarray:
        return (scale.forward(np.asarray(values, dtype=np.float64)) - centre) / unit

    usual = labelled["n_cells"].median()
    data, new = (
        Data.of(standardised(t["predicted"])[:, None], t["n_cells"].to_numpy()[:, None] / usual)
        for t in (labelled, others)
    )
    ages = make_prior(prior, labelled["age"].to_numpy(), labelled.index.to_numpy(), scale.min_age)
    draws = fit(data, torch.from_numpy((known - centre) / unit), method, 0).draws
    density = age_densities(new, draws, standardised(ages.grid), ages.for_subjects(others.index.to_numpy()))
    out = others[["age", "predicted", "n_cells"]].copy()
    for level in LEVELS:
        found = summarise(density, ages.grid, level)
        out = out.assign(**{"mean": found["mean"], f"lower {level}": found["lower"], f"upper {level}": found["upper"]})
    return out


def judge(
    table: pd.DataFrame,
    *,
    transform: str = "log",
    n_labelled: int | None = None,
    repeats: int = 1,
    prior: str = "cohort",
    method: str = "laplace",
) -> pd.DataFrame:
    """Each half judged by what the other, or some of it, says."""
    parts = []
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        half = rng.permutation(len(table)) % 2
        for k in (0, 1):
            labelled = np.flatnonzero(half != k)
            labelled = labelled if n_labelled is None else rng.choice(labelled, n_labelled, replace=False)
            parts.append(hidden(table.iloc[labelled], table.iloc[half == k], transform, prior, method))
    return pd.concat(parts)


def row(judged: pd.DataFrame) -> dict[str, str]:
    """One line of a table."""
    age, low, high = (judged[name].to_numpy() for name in ("age", "lower 0.9", "upper 0.9"))
    covered = [
        metrics.coverage(age, judged[f"lower {level}"].to_numpy(), judged[f"upper {level}"].to_numpy())
        for level in LEVELS
    ]
    return {
        "50/80/90/95 %": "/".join(f"{value:.3f}".lstrip("0") for value in covered),
        "width 90": f"{metrics.mean_width(low, high):.1f}",
        "IS": f"{metrics.interval_score(age, low, high, level=0.9):.1f}",
        "MAE": f"{metrics.mae(age, judged['mean'].to_numpy()):.2f}",
        "raw": f"{metrics.mae(age, judged['predicted'].to_numpy()):.2f}",
        "slope": f"{np.polyfit(age, judged['mean'], 1)[0]:.2f}",
    }


def show(title: str, rows: dict[str, dict[str, str]]) -> None:
    """A table in Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n| {title} | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(values[column] for column in columns)} |", flush=True)


def ages(cache: pathlib.Path) -> None:
    """Priors and scales on CD4 T cells."""
    table = predictions("cd4", cache)
    rows = {
        f"{prior} prior, {transform} scale": row(judge(table, prior=prior, transform=transform))
        for prior in ("cohort", "flat")
        for transform in ("log", "none")
    }
    show(f"CD4, {len(table)}", rows)


def few(cache: pathlib.Path) -> None:
    """Few labelled subjects."""
    table = predictions("cd4", cache)
    show("labelled", {str(n): row(judge(table, n_labelled=n, repeats=3)) for n in (15, 30, 100)})


def cells(cache: pathlib.Path) -> None:
    """3 to 200 cells a subject."""
    judged = judge(predictions("cells", cache))
    bins = {"<= 10": judged["n_cells"] <= 10, ">= 60": judged["n_cells"] >= 60}
    show("cells", {"all": row(judged), **{name: row(judged[mask]) for name, mask in bins.items()}})


def null(cache: pathlib.Path) -> None:
    """Predictions shuffled against the ages: the posterior is the prior."""
    table = predictions("cd4", cache)
    shuffled = table.assign(predicted=np.random.default_rng(0).permutation(table["predicted"]))
    show("shuffled", {prior: row(judge(shuffled, prior=prior)) for prior in ("cohort", "flat")})


def horvath(cache: pathlib.Path) -> None:
    """Methylation controls from 0 to 92 years on the scale of Horvath, and by terciles of the prediction."""
    judged = judge(predictions("methylation", cache), transform="horvath")
    third = pd.qcut(judged["predicted"], 3, labels=["youngest third", "middle", "oldest"])
    show(
        f"methylation, {len(judged)}",
        {"all": row(judged), **{name: row(p) for name, p in judged.groupby(third, observed=True)}},
    )


def methods(cache: pathlib.Path) -> None:
    """Laplace and variational inference, with CPU seconds for one fit of half of the subjects."""
    table = predictions("cd4", cache)
    rows = {}
    for method in ("laplace", "svi"):
        start = time.process_time()
        judged = judge(table, method=method)
        seconds = (time.process_time() - start) / 2
        rows[method] = {**row(judged), "CPU s": f"{seconds:.1f}"}
    show("method", rows)


RUN: dict[str, Callable[[pathlib.Path], None]] = {
    "ages": ages, "few": few, "cells": cells, "null": null, "horvath": horvath, "methods": methods,
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("cache"))
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    chosen = parser.parse_args()
    logging.getLogger("agevi").setLevel(logging.ERROR)
    for part in chosen.part:
        RUN[part](chosen.cache)
