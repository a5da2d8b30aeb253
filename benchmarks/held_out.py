"""Predictions of held-out donors for benchmarks that fit many clocks: one file a fit, so that a stopped run goes on."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from depth import donor_ages

SETUP = {"subject_key": "donor", "age_key": "age"}


def donors_of(adata: ad.AnnData) -> pd.DataFrame:
    """Age and fold of every donor."""
    table = adata.obs.groupby(adata.obs["donor"].astype(str))[["age", "fold"]].first()
    return table.astype({"age": float, "fold": str})


def cells_of(adata: ad.AnnData, donors: Iterable[str]) -> ad.AnnData:
    """Cells of some donors, with nothing but donor and age."""
    chosen = adata.obs["donor"].astype(str).isin(set(donors)).to_numpy()
    obs = adata.obs.loc[chosen, ["donor", "age"]].astype({"donor": str, "age": float})
    return ad.AnnData(adata.X[chosen], obs=obs, var=adata.var[[]])


def stratified_order(age: pd.Series, rng: np.random.Generator) -> list[str]:
    """Donors in a random order of which every start has about the ages of all."""
    age = age.iloc[rng.permutation(len(age))]
    tenth = pd.qcut(age.rank(method="first"), 10, labels=False)
    place = (tenth.groupby(tenth).cumcount() + rng.random(len(age))) / tenth.map(tenth.value_counts())
    return place.sort_values().index.tolist()


def trained(cls: Any, train: ad.AnnData, seed: int, weights: dict[str, Any] | None = None, **init: Any) -> Any:
    """A clock trained on all donors of ``train``, from new weights or from those of another clock's module."""
    train.obs["agevi_split"] = "train"
    cls.setup_anndata(train, **SETUP)
    model = cls(train, rng=seed, **init)
    if weights is not None:
        model.module.load_state_dict(weights)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def fitted_ages(cls: Any, train: ad.AnnData, test: ad.AnnData, seed: int, **init: Any) -> pd.Series:
    """Ages of the donors of ``test`` by a clock that is trained on all donors of ``train``."""
    return donor_ages(test, trained(cls, train, seed, **init))


def kept(path: pathlib.Path, make: Callable[[], pd.Series]) -> pd.Series:
    """Predicted ages by donor from a file, which is made where it is absent."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make().rename("predicted").rename_axis("donor")
        print(f"{path.parent.name}/{path.stem}", flush=True)
        made.to_csv(path)
    return pd.read_csv(path, dtype={"donor": str}, index_col="donor")["predicted"]


def mean_of_logs(a: pd.Series, b: pd.Series) -> pd.Series:
    """The mean on the log scale, as ``EnsembleClock`` takes it by default."""
    return np.exp((np.log(a + 2) + np.log(b + 2)) / 2) - 2  # log(age - min_age + 1) with min_age -1


def interval(values: pd.Series, n_boot: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval over donors of the mean of one value per donor."""
    rows = np.random.default_rng(0).integers(len(values), size=(n_boot, len(values)))
    low, high = np.quantile(values.to_numpy()[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def shown(values: pd.Series, sign: str = "") -> str:
    """Mean with its interval over donors; several values of a donor are averaged first."""
    by_donor = values.groupby(level="donor").mean()
    low, high = interval(by_donor)
    return f"{by_donor.mean():{sign}.2f} [{low:.2f}, {high:.2f}]"
