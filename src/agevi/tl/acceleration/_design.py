"""The model of a comparison: group, age and covariates as columns of numbers, and what makes them unusable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks
from agevi.tl.acceleration._ancova import fitted_exactly

GROUP = 1
"""Column of the design with the group, behind the intercept."""
MANY_SUBJECTS = 25
"""Subjects of the smaller group from which age enters as a cubic; its price is a few percent of the interval there."""
CUBIC = 3
AGE_DF = ("auto", 1, CUBIC)
_RANK = 1e-7
CELL = 0.5
"""Cells added to every type of a sample before logarithms are taken."""


class Unusable(ValueError):
    """A comparison that these samples cannot give, with the flag that its row gets."""

    def __init__(self, message: str, flag: str) -> None:
        super().__init__(message)
        self.flag = flag


@dataclass(frozen=True)
class Covariate:
    """One adjustment: labels, a number per sample, or the composition of its cells."""

    name: str
    kind: str
    """``"categorical"``, ``"continuous"`` or ``"composition"``."""
    values: pd.DataFrame
    """One column of labels or numbers, or the number of cells of each type; one row per sample."""


@dataclass(frozen=True)
class Design:
    """Columns of the model of a comparison."""

    x: np.ndarray  # (n, p): intercept, group, powers of age, covariates
    line: np.ndarray  # the same with age as a line, whose coefficient is behind that of the group
    degree: int  # of the curve of age in ``x``
    scale: float  # units of age in one unit of the column of age
    explained: float  # share of the group that the covariates explain, 0 to 1


def make_design(
    frame: pd.DataFrame, covariates: list[Covariate], age_df: Any, argument: str, cluster: np.ndarray | None
) -> Design:
    """Design of a comparison of samples, or :class:`Unusable`; ``cluster`` (n,) numbers subjects of several samples."""
    age = frame["age"].to_numpy(dtype=np.float64)
    if np.ptp(age) <= _RANK * np.abs(age).max():
        raise Unusable(f"all {len(frame)} samples of {argument} have the age {age[0]:g}; the comparison at equal age "
                       "needs several ages. Compare their predictions with a t test instead.",
                       "no_age_signal")  # fmt: skip
    is_group = frame["is_group"].to_numpy(dtype=np.float64)
    powers, scale = age_columns(frame, age_df, argument)
    blocks = [(c.name, columns_of(c, frame)) for c in covariates]
    for covariate in covariates:
        _refuse_single(covariate, frame, argument)
    parts = [np.ones((len(frame), 1)), is_group[:, None], powers, *(block for _, block in blocks)]
    x = np.concatenate(parts, axis=1)
    n, p = x.shape
    df = n - p if cluster is None else int(cluster.max())
    if df < 1 or n <= p:
        raise Unusable(f"{n} samples of {argument} are too few for {p} terms of group, age and covariates; leave "
                       "covariates out, or merge their levels.", "few_subjects")  # fmt: skip
    _check_rank(powers, blocks, is_group, argument)
    alone = fitted_exactly(x, cluster)
    if alone.any():
        who = frame["subject"].iloc[int(alone.argmax())]
        names = _checks.listed([c.name for c in covariates]) if covariates else "no covariates"
        raise Unusable(f"subject {who!r} alone decides a term of the model of {argument} (covariates: {names}), so the "
                       "difference has no standard error; leave the covariate or the subject out.",
                       "confounded")  # fmt: skip
    line = np.delete(x, np.arange(GROUP + 2, GROUP + 1 + powers.shape[1]), axis=1)
    return Design(x, line, powers.shape[1], scale, _explained(is_group, [block for _, block in blocks]))


def check_age_df(age_df: Any) -> None:
    """Refuse what is not a degree of the curve of age."""
    if age_df not in AGE_DF or isinstance(age_df, bool):
        raise ValueError(f"age_df={age_df!r} is not known; choose one of 'auto', 1, 3.")


def age_columns(frame: pd.DataFrame, age_df: Any, argument: str) -> tuple[np.ndarray, float]:
    """Powers of standardised age, (n, 1 or 3), and the standard deviation of age."""
    age = frame["age"].to_numpy(dtype=np.float64)
    n_ages = len(np.unique(age))
    wanted = age_df
    if wanted == "auto":
        smaller = frame.groupby("is_group")["subject"].nunique().min()
        wanted = CUBIC if smaller >= MANY_SUBJECTS and n_ages > CUBIC + 1 else 1
    elif n_ages <= wanted:
        raise Unusable(f"age_df={wanted} needs more than {wanted} different ages, and the samples of {argument} have "
                       f"{n_ages}; pass age_df=1.", "few_subjects")  # fmt: skip
    centre, scale = age.mean(), age.std()
    return ((age - centre) / scale)[:, None] ** np.arange(1, wanted + 1), float(scale)


def columns_of(covariate: Covariate, frame: pd.DataFrame) -> np.ndarray:
    """A covariate as columns that vary in these samples, (n, 0 or more)."""
    values = covariate.values.loc[frame.index]
    if covariate.kind == "composition":
        return log_ratios(values.to_numpy(dtype=np.float64))
    column = values.iloc[:, 0]
    if covariate.kind == "categorical":
        levels = sorted(column.unique())
        return np.stack([(column == level).to_numpy(dtype=np.float64) for level in levels], axis=1)[:, 1:]
    number = column.to_numpy(dtype=np.float64)
    number = number - number.mean()
    scale = number.std()
    return (number / scale)[:, None] if scale > _RANK * np.abs(column).max() else np.empty((len(number), 0))


def log_ratios(cells: np.ndarray) -> np.ndarray:
    """Centred log-ratios of cells (n, n_types) (Aitchison, 1982), one type dropped, (n, n_types - 1), standardised."""
    cells = cells[:, cells.sum(axis=0) > 0] + CELL
    ratios = np.log(cells) - np.log(cells).mean(axis=1, keepdims=True)
    ratios = ratios[:, :-1] - ratios[:, :-1].mean(axis=0)  # the last one is minus the sum of the others
    scale = ratios.std(axis=0)
    return np.asarray(ratios[:, scale > _RANK] / scale[scale > _RANK])


def _refuse_single(covariate: Covariate, frame: pd.DataFrame, argument: str) -> None:
    """Refuse a level of one subject, whose residual is 0 by construction."""
    if covariate.kind != "categorical":
        return
    levels = covariate.values.loc[frame.index].iloc[:, 0]
    n = frame["subject"].groupby(levels.to_numpy()).nunique()
    if len(n) > 1 and n.min() == 1:
        level = n.index[n == 1][0]
        who = frame["subject"][(levels == level).to_numpy()].iloc[0]
        raise Unusable(f"covariates: {covariate.name}={level!r} has one subject, {who!r}, among the samples of "
                       f"{argument}, which gives the difference no standard error; merge the level with another, or "
                       "leave the subject or the covariate out.", "few_subjects")  # fmt: skip


def _check_rank(powers: np.ndarray, blocks: list[tuple[str, np.ndarray]], is_group: np.ndarray, argument: str) -> None:
    """Refuse covariates that repeat others, and those that tell the groups apart."""
    centred = powers - powers.mean(axis=0)
    for i, (name, block) in enumerate(blocks):
        before, centred = centred, np.concatenate([centred, block - block.mean(axis=0)], axis=1)
        if _rank(centred) < _rank(before) + block.shape[1]:
            others = _checks.listed(["age", *(other for other, _ in blocks[:i])])
            raise Unusable(f"covariates: {name!r} adds nothing to {others} among the samples of {argument}; leave it "
                           "out.", "confounded")  # fmt: skip
    own = (is_group - is_group.mean())[:, None]
    for name, block in blocks:
        alone = block - block.mean(axis=0)
        if block.shape[1] and _rank(np.concatenate([alone, own], axis=1)) == _rank(alone):
            raise Unusable(f"covariates: {name!r} tells the samples of {argument} apart (no value of it has both), so "
                           "that their difference and that of the covariate are one; leave it out, or compare samples "
                           "that share its values.", "confounded")  # fmt: skip
    if _rank(np.concatenate([centred, own], axis=1)) == _rank(centred):
        names = _checks.listed(["age", *(name for name, _ in blocks)])
        together, way_out = (f"{names} together tell", "leave covariates out") if blocks else (
            "ages alone tell", "compare samples of shared ages")  # fmt: skip
        raise Unusable(f"{together} the samples of {argument} apart, so that their difference cannot be separated; "
                       f"{way_out}.", "confounded")  # fmt: skip


def _rank(columns: np.ndarray) -> int:
    """Rank of centred columns after scaling each to length 1."""
    if not columns.shape[1]:
        return 0
    length = np.linalg.norm(columns, axis=0)
    return int(np.linalg.matrix_rank(columns / np.where(length > 0, length, 1), tol=_RANK))


def _explained(is_group: np.ndarray, blocks: list[np.ndarray]) -> float:
    """Share of the variance of the group that the covariates explain."""
    own = is_group - is_group.mean()
    columns = np.concatenate([np.empty((len(own), 0)), *(block - block.mean(axis=0) for block in blocks)], axis=1)
    if not columns.shape[1]:
        return 0.0
    left = own - columns @ np.linalg.lstsq(columns, own, rcond=None)[0]
    return float(1 - left @ left / (own @ own))
