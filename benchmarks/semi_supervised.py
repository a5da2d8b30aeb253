"""When few training donors have an age: what unlabelled donors add, on the CD4 T benchmark.

Of the training donors of each fold, 10, 25 or 50 % keep their age, drawn at random with about the age distribution
of all; the others have none, but their cells are there. Held-out donors are never seen. All recipes see the same draws.

- ``ridge, PLSClock, PoissonVAE``: trained on the labelled donors alone;
- ``PCA on labelled``, ``PCA on all``: principal components of log1p CP10K of summed cells, 50 at most, then a ridge on them;
- ``PoissonVAE joint``: trained on all donors at once, where unlabelled cells shape the latent space alone;
- ``PoissonVAE two stages``: first on all donors with ``age_weight=0``, for which ages do not exist, then as "joint" from
  these weights;
- ``mean``: of the logarithms of the ages of ``PCA on all`` and ``PLSClock``.

Both ridges are fitted to the logarithm of the age. A run that was stopped goes on from its finished fits.

usage: python benchmarks/semi_supervised.py --out FOLDER [--profiles FILE] [--seed 7] [--share 10 25 50] [--fold 0 1 2 3 4]
       [--draws 5] [--recipe NAME ...] [--base PLSClock]
"""

from __future__ import annotations

import argparse
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from accuracy import PROFILES, cells
from depth import donor_ages
from held_out import cells_of, donors_of, fitted_ages, kept, mean_of_logs, shown, stratified_order, trained
from reference import pseudobulk, ridge
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from agevi.model import PLSClock, PoissonVAE

FOLDS = list("01234")
N_COMPONENTS = 50
LINEAR = ["PLSClock", "ridge", "PCA on labelled", "PCA on all", "mean"]
NETWORKS = ["PoissonVAE", "PoissonVAE joint", "PoissonVAE two stages"]
"""About a minute a fit."""


class Study:
    """Predictions of recipes, fitted where they are not on file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed, self.out = args.seed, args.out / "semi_supervised"
        self.data = cells(args.profiles, args.seed)
        self.donors, self.bulk = donors_of(self.data), pseudobulk(self.data)
        self.recipes: dict[str, Callable[..., pd.Series]] = {
            "ridge": self.ridge,
            "PLSClock": self.pls,
            "PCA on labelled": lambda fold, labelled, test: self.pca(labelled, labelled, test),
            "PCA on all": lambda fold, labelled, test: self.pca(self.train(fold), labelled, test),
            "PoissonVAE": self.vae,
            "PoissonVAE joint": self.joint,
            "PoissonVAE two stages": self.two_stages,
        }

    def train(self, fold: str) -> list[str]:
        """Training donors of a fold."""
        return self.donors.index[self.donors["fold"] != fold].tolist()

    def labelled(self, fold: str, share: int, draw: int) -> list[str]:
        """Donors that keep their age."""
        train = self.train(fold)
        order = stratified_order(self.donors.loc[train, "age"], np.random.default_rng([self.seed, int(fold), draw]))
        return order[: round(len(train) * share / 100)]

    def predicted(self, name: str, fold: str, share: int, draw: int) -> pd.Series:
        """Ages of the held-out donors of a fold."""
        if name == "mean":
            return mean_of_logs(*(self.predicted(member, fold, share, draw) for member in ("PCA on all", "PLSClock")))

        def make() -> pd.Series:
            test = self.donors.index[self.donors["fold"] == fold].tolist()
            return self.recipes[name](fold, self.labelled(fold, share, draw), test)

        return kept(self.out / f"{name.replace(' ', '_')}_{share}_{draw}_{fold}.csv", make)

    # --- recipes ---------------------------------------------------------------------------------------------

    def ridge(self, fold: str, labelled: list[str], test: list[str]) -> pd.Series:
        """Ridge on z-scored pseudobulk of the labelled donors."""
        age = np.log(self.donors.loc[labelled, "age"])
        return pd.Series(np.exp(ridge(self.bulk.loc[labelled], age, self.bulk.loc[test])), index=test)

    def pca(self, seen: list[str], labelled: list[str], test: list[str]) -> pd.Series:
        """Principal components of the donors ``seen``, and a ridge on those of the labelled ones."""
        pca = PCA(min(N_COMPONENTS, len(seen) - 1), svd_solver="full").fit(self.bulk.loc[seen])
        model = RidgeCV(np.logspace(-3, 5, 33))
        model.fit(pca.transform(self.bulk.loc[labelled]), np.log(self.donors.loc[labelled, "age"]))
        return pd.Series(np.exp(model.predict(pca.transform(self.bulk.loc[test]))), index=test)

    def pls(self, fold: str, labelled: list[str], test: list[str]) -> pd.Series:
        """PLSClock of the labelled donors."""
        return fitted_ages(PLSClock, cells_of(self.data, labelled), cells_of(self.data, test), self.seed)

    def vae(self, fold: str, labelled: list[str], test: list[str]) -> pd.Series:
        """PoissonVAE of the labelled donors."""
        return fitted_ages(PoissonVAE, cells_of(self.data, labelled), cells_of(self.data, test), self.seed)

    def joint(
        self, fold: str, labelled: list[str], test: list[str], weights: dict[str, Any] | None = None
    ) -> pd.Series:
        """PoissonVAE of all training donors, whose ages are known for the labelled ones."""
        train = cells_of(self.data, self.train(fold))
        train.obs.loc[~train.obs["donor"].isin(labelled), "age"] = np.nan
        return donor_ages(cells_of(self.data, test), trained(PoissonVAE, train, self.seed, weights))

    def two_stages(self, fold: str, labelled: list[str], test: list[str]) -> pd.Series:
        """The same from the weights of a PoissonVAE without an age loss."""
        path = self.out / f"first_stage_{fold}.pt"  # the same for all draws, since no age counts
        if not path.exists():
            train = cells_of(self.data, self.train(fold))
            torch.save(trained(PoissonVAE, train, self.seed, age_weight=0.0).module.state_dict(), path)
        return self.joint(fold, labelled, test, torch.load(path))

    # --- table -----------------------------------------------------------------------------------------------

    def table(self, args: argparse.Namespace) -> str:
        """Errors, and differences to one recipe on the same donors."""
        names, shares, base = args.recipe, args.share, args.base
        columns = [f"{k} % ({round(len(self.train('0')) * k / 100)} donors) | minus {base}" for k in shares]
        lines = [f"| recipe | {' | '.join(columns)} |", "| --- |" + " --- |" * 2 * len(shares)]
        errors = {
            (name, share): pd.concat([
                (p - self.donors["age"][p.index]).abs()
                for p in (self.predicted(name, k, share, d) for k in args.fold for d in range(args.draws))
            ])
            for name in {*names, base}
            for share in shares
        }  # fmt: skip
        for name in names:
            each = []
            for share in shares:
                shift = "" if name == base else shown(errors[name, share] - errors[base, share], "+")
                each += [shown(errors[name, share]), shift]
            lines.append(f"| {name} | {' | '.join(each)} |")
        return "\n".join(lines)


def main() -> None:
    """Fit what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for finished fits")
    parser.add_argument("--profiles", type=pathlib.Path, default=PROFILES)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--share", nargs="+", type=int, default=[10, 25, 50], help="percent of donors with an age")
    parser.add_argument("--fold", nargs="+", choices=FOLDS, default=FOLDS)
    parser.add_argument("--draws", type=int, default=5, help="random draws of the labelled donors in every fold")
    parser.add_argument("--recipe", nargs="+", default=LINEAR, choices=[*LINEAR, *NETWORKS])
    parser.add_argument("--base", default="PLSClock", help="recipe that others are compared with")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    study = Study(args)
    print(study.table(args), flush=True)


if __name__ == "__main__":
    main()
