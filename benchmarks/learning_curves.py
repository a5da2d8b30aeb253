"""Accuracy against the number of training donors and of cells per donor, and errors by age, on the CD4 T benchmark.

``donors``: nested random subsets of the training donors, each with about the age distribution of all. ``cells``: 5 to 200
cells per donor, for training and held-out donors alike. ``tool``: what ``agevi.tl.learning_curve`` says of ``PLSClock`` on
``agevi.datasets.tcells()`` (300 donors, 30 cells each). ``ages``: mean error by age with and without weighting donors
inversely to how common their age is. Every clock is fitted in all 5 folds to the same donors and cells, with its defaults. A
run that was stopped goes on from its finished fits.

usage: python benchmarks/learning_curves.py --out FOLDER [--profiles FILE] [--seed 7] [--part donors cells ages tool]
"""

from __future__ import annotations

import argparse
import logging
import pathlib
from functools import lru_cache
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from accuracy import PROFILES, cells
from held_out import cells_of, donors_of, fitted_ages, kept, mean_of_logs, shown, stratified_order
from reference import pseudobulk, ridge

import agevi

RIDGE, PLS, VAE, BOTH = "pseudobulk ridge", "PLSClock", "PoissonVAE", "PLSClock + PoissonVAE"
SIZES = {25: 2, 50: 1, 100: 1, 200: 1, 400: 1, 604: 1}
"""Training donors, and random subsets of that size in every fold."""
CELLS = (5, 15, 60, 200)
BINS = {"under 40": (0, 40), "40 to 59": (40, 60), "60 and over": (60, 120)}
FOLDS = list("01234")
PARTS = ["donors", "cells", "ages", "tool"]
CLOCKS = (RIDGE, PLS, VAE, BOTH)
LABELS = {"n_donors": "training donors", "n_cells": "cells per donor"}


class Study:
    """Predictions of clocks, fitted where they are not on file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.seed = args, args.seed
        self.data = lru_cache(maxsize=1)(lambda n_cells: cells(args.profiles, args.seed, n_cells))
        self.bulk = lru_cache(maxsize=1)(lambda n_cells: pseudobulk(self.data(n_cells)))
        self.donors = donors_of(ad.AnnData(obs=cells(args.profiles, args.seed, 1).obs))

    def subset(self, fold: str, n_donors: int, repeat: int) -> list[str]:
        """Training donors of a fold."""
        age = self.donors.loc[self.donors["fold"] != fold, "age"]
        return stratified_order(age, np.random.default_rng([self.seed, int(fold), repeat]))[:n_donors]

    def predicted(
        self, name: str, fold: str, *, n_donors: int = 604, repeat: int = 0, n_cells: int = 60, weight: str = "equal"
    ) -> pd.Series:
        """Ages of the held-out donors of a fold."""

        def make() -> pd.Series:
            train = self.subset(fold, n_donors, repeat)
            test = self.donors.index[self.donors["fold"] == fold]
            if name == RIDGE:
                bulk = self.bulk(n_cells)
                return pd.Series(ridge(bulk.loc[train], self.donors.loc[train, "age"], bulk.loc[test]), index=test)
            data = self.data(n_cells)
            init = {} if weight == "equal" else {"subject_weight": weight}
            return fitted_ages(
                getattr(agevi.model, name), cells_of(data, train), cells_of(data, test), self.seed, **init
            )

        if name == BOTH:
            options = {"n_donors": n_donors, "repeat": repeat, "n_cells": n_cells, "weight": weight}
            return mean_of_logs(*(self.predicted(member, fold, **options) for member in (PLS, VAE)))
        file = f"{name.replace(' ', '_')}_{n_donors}_{repeat}_{n_cells}_{weight}_{fold}.csv"
        return kept(self.args.out / "learning_curves" / file, make)

    def errors(self, name: str, repeats: int = 1, **options: Any) -> pd.Series:
        """Signed error of every donor, held out, in every repeat."""
        parts = [self.predicted(name, k, repeat=r, **options) for k in FOLDS for r in range(repeats)]
        return pd.concat([p - self.donors["age"][p.index] for p in parts])

    # --- tables ----------------------------------------------------------------------------------------------

    def curve(self, variable: str, values: dict[int, int]) -> tuple[str, pd.DataFrame]:
        """Table of errors against training donors or cells, and its numbers; ``values`` with their repeats."""
        lines = [
            f"| {LABELS[variable]} | {' | '.join(CLOCKS)} | {VAE} minus {PLS} | {BOTH} minus {PLS} |",
            "| ---: |" + " --- |" * 6,
        ]
        rows = []
        for value, repeats in values.items():
            error = {name: self.errors(name, repeats, **{variable: value}).abs() for name in CLOCKS}
            shift = [shown(error[name] - error[PLS], "+") for name in (VAE, BOTH)]
            lines.append(f"| {value} | " + " | ".join([*map(shown, error.values()), *shift]) + " |")
            rows += [
                {variable: value, "model": name, "mae": e.groupby(level=0).mean().mean()} for name, e in error.items()
            ]
        return "\n".join(lines), pd.DataFrame(rows)

    def by_age(self) -> str:
        """Errors by age, with equal weights and with weights by density."""
        lines = [
            f"| clock | weight | MAE | difference | slope | {' | '.join(f'{name}: mean error, MAE' for name in BINS)} |",
            "| --- | --- | --- | --- | ---: |" + " --- |" * len(BINS),
        ]
        for name in (PLS, VAE, BOTH):
            equal = self.errors(name)
            for weight in ("equal", "density"):
                error = self.errors(name, weight=weight)
                age = self.donors["age"][error.index]
                parts = [error[(age >= low) & (age < high)] for low, high in BINS.values()]
                each = " | ".join(f"{e.mean():+.1f}, {e.abs().mean():.1f}" for e in parts)
                shift = shown(error.abs() - equal.abs(), "+") if weight == "density" else ""
                slope = np.polyfit(age, age + error, 1)[0]
                lines.append(f"| {name} | {weight} | {shown(error.abs())} | {shift} | {slope:.2f} | {each} |")
        return "\n".join(lines)


def draw(curves: dict[str, pd.DataFrame], path: pathlib.Path) -> None:
    """Error against donors and cells."""
    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 3.8), sharey=True, squeeze=False)
    for ax, (variable, table) in zip(axes[0], curves.items(), strict=True):
        for name in CLOCKS:
            rows = table[table["model"] == name]
            ax.plot(rows[variable], rows["mae"], marker="o", label=name)
        ax.set_xscale("log")
        ax.set_xticks(sorted(table[variable].unique()), sorted(table[variable].unique()))
        ax.minorticks_off()
        ax.set_xlabel(LABELS[variable])
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("mean absolute error (years)")
    axes[0, -1].legend(frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def by_tool(seed: int, path: pathlib.Path) -> str:
    """Table and sentence of ``tl.learning_curve``; its figure is written to ``path``."""
    adata = agevi.datasets.tcells()
    agevi.tl.learning_curve(adata, PLS, age_key="age", subject_key="donor", rng=seed, checkpoint_dir=path / "tool")
    agevi.pl.learning_curve(adata, save=path / "learning_curve.png")
    lines = ["| axis | n | MAE | median age | r |", "| --- | ---: | --- | ---: | ---: |"]
    for row in agevi.get.learning_curve_df(adata).to_dict("records"):
        error = f"{row['mae']:.2f} [{row['mae_low']:.2f}, {row['mae_high']:.2f}]"
        lines.append(f"| {row['axis']} | {row['n']} | {error} | {row['mae_median']:.2f} | {row['pearson']:.2f} |")
    return "\n".join([*lines, "", adata.uns["agevi_learning_curve_params"]["sentence"]])


def main() -> None:
    """Fit what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the figure and finished fits")
    parser.add_argument("--profiles", type=pathlib.Path, default=PROFILES)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    plt.switch_backend("agg")
    study, curves = Study(args), {}
    parts = {"donors": ("n_donors", SIZES), "cells": ("n_cells", dict.fromkeys(CELLS, 1))}
    for part in args.part:
        if part == "tool":
            print(f"\n{part}\n\n{by_tool(args.seed, args.out)}", flush=True)
            continue
        if part == "ages":
            print(f"\n{part}\n\n{study.by_age()}", flush=True)
            continue
        table, curves[parts[part][0]] = study.curve(*parts[part])
        print(f"\n{part}\n\n{table}", flush=True)
    if curves:
        draw(curves, args.out / "learning_curves.png")


if __name__ == "__main__":
    main()
