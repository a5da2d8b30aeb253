"""What models make of ages that were shuffled between subjects: nothing, unless folds share a subject."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from agevi.tl.validate._baselines import Units, median_ages
from agevi.tl.validate._cohort import Cohort

logger = logging.getLogger(__name__)

LEVEL = 0.05
"""Share of clean comparisons in which any model is suspected, at most."""
N_EXCHANGES = 1999
COLUMNS = ["n_null", "null_mae", "null_mae_median", "null_gain", "null_se", "null_p"]

Shuffle = tuple[
    np.ndarray, np.ndarray
]  # ages (n_samples,), and predictions of them (n_units,), NaN where there is none
Group = tuple[
    np.ndarray, np.ndarray
]  # shuffled ages and predictions of the subjects that one fold held out in one shuffle


def null_summary(shuffles: list[Shuffle], cohort: Cohort, units: Units, rng: np.random.Generator) -> dict[str, float]:
    """How well a model predicts ages that were shuffled between subjects."""
    if not shuffles:
        return {"n_null": 0}
    errors, medians, groups = [], [], []
    for i, (age, predicted) in enumerate(shuffles):
        judged = units.trains & np.isfinite(age[units.sample]) & np.isfinite(predicted)
        of_unit = age[units.sample[judged]]
        errors.append(np.abs(predicted[judged] - of_unit).mean())
        medians.append(np.abs(median_ages(units, age[None])[0, judged] - of_unit).mean())
        owner = cohort.owner[units.sample[judged]]
        drawn = replace(cohort, age=age).subject_ages(np.arange(len(cohort.sample))).loc[owner].to_numpy()
        frame = pd.DataFrame({"fold": units.fold[judged], "age": drawn, "predicted": predicted[judged]})
        means = frame.groupby(["fold", owner]).mean()
        # One fold of each shuffle, in turn: whom it held out trained the models of the others, so folds go together.
        tried = means.index.unique("fold")
        groups.append(tuple(means.loc[tried[i % len(tried)], ["age", "predicted"]].to_numpy().T))
    gain, n = np.subtract(medians, errors), len(shuffles)
    return {
        "n_null": n,
        "null_mae": float(np.mean(errors)),
        "null_mae_median": float(np.mean(medians)),
        "null_gain": float(gain.mean()),
        "null_se": float(gain.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan,
        "null_p": exchange_p(groups, rng),
        "null_smallest_p": max(
            1 / math.prod(math.factorial(min(len(age), 20)) for age, _ in groups), 1 / (N_EXCHANGES + 1)
        ),
    }


def exchange_p(groups: list[Group], rng: np.random.Generator) -> float:
    """One-sided p value of the covariance of ages and predictions within groups, over exchanges of ages within them."""
    # Subjects that a fold held out play no part in its model: ages dealt out at random are as likely in any other order
    # there, whatever was learnt, and the p value holds for any number of shuffles and subjects.
    drawn = np.zeros(N_EXCHANGES + 1)  # the order that was found comes first
    for age, predicted in groups:
        centred = predicted - predicted.mean()
        orders = np.concatenate([age[None], rng.permuted(np.tile(age, (N_EXCHANGES, 1)), axis=1)])
        drawn += orders @ centred
    tolerance = 1e-9 * np.abs(drawn).max()  # equal sums, added up in another order
    return float((drawn >= drawn[0] - tolerance).mean())


def tell(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Name the models that predict shuffled ages, by Holm's method over all models, and those too few to judge."""
    tried = sorted((row["null_p"], name) for name, row in found.items() if row["n_null"])
    suspected = []
    for i, (p, name) in enumerate(tried):
        if p > LEVEL / (len(tried) - i):
            break
        suspected.append(f"{name} (p {p:.2g})")
    if suspected:
        logger.warning(
            "%s: predicts ages that were shuffled between subjects, at a family-wise level of %.0f %% over %d models; "
            "cells of one subject may be on both sides of a fold.", ", ".join(suspected), 100 * LEVEL, len(tried),
        )  # fmt: skip
    silent = [name for _, name in tried if found[name]["null_smallest_p"] > LEVEL / len(tried)]
    if silent:
        logger.info(
            "The shuffled ages say nothing about %s: too few subjects were held out with them for a level of %.0f %% "
            "over %d models. Raise n_null_network, n_null_linear or null_folds.",
            ", ".join(silent), 100 * LEVEL, len(tried),
        )  # fmt: skip
