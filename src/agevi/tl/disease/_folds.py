"""The folds of a comparison of transfers, each on its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi import _keys
from agevi._settings import quieter
from agevi.model.base._seed import as_seed
from agevi.model.transfer import CaseControlClassifier
from agevi.tl.disease._linear_models import NETWORKS, Samples, linear_probabilities
from agevi.tl.validate._fit_fold import alone
from agevi.tl.validate._run_jobs import in_parallel

_LEAST_VALIDATION = 2


@dataclass(frozen=True)
class Fold:
    """A fold of one repeat."""

    repeat: int
    number: int  # in its repeat
    held_out: np.ndarray  # (n_samples,) bool
    roles: pd.Series  # of every labelled subject
    seed: int


@dataclass(frozen=True)
class Fits:
    """What is fitted in every fold."""

    samples: Samples
    clock: Any  # trained, without data
    condition_key: str
    control: str
    train_kwargs: dict[str, Any]
    clock_kwargs: dict[str, Any] | None  # None: the clock stays as it is


def draw_folds(
    samples: Samples, repeat: int, n_folds: int, validation_size: float, rng: np.random.Generator
) -> list[Fold]:
    """Folds of whole subjects, balanced over the condition alone."""
    # Balanced over age too, each fold would repeat the chance association of age and condition, and what tells age
    # would tell cases from controls where labels mean nothing.
    case, out = samples.case_of, []
    dealt = np.concatenate([rng.permutation(case.index[case == label]) for label in (0.0, 1.0)])
    fold_of = pd.Series(np.arange(len(case)) % n_folds, index=dealt).loc[case.index]
    for fold in range(n_folds):
        seed = as_seed(rng)
        roles = _roles(case, fold_of == fold, validation_size, np.random.default_rng(seed))
        out.append(Fold(repeat, fold, (fold_of[samples.subject] == fold).to_numpy(), roles, seed))
    return out


def _roles(case: pd.Series, held_out: pd.Series, share: float, rng: np.random.Generator) -> pd.Series:
    """Role of every labelled subject in one fold."""
    roles = held_out.map({True: _keys.TEST, False: _keys.TRAIN}).astype(object)
    trained = [rng.permutation(case.index[(case == label) & ~held_out]) for label in (0.0, 1.0)]
    wanted = [min(round(share * len(names)), len(names) - 1) for names in trained]
    if min(wanted) >= _LEAST_VALIDATION:
        for names, n in zip(trained, wanted, strict=True):
            roles[names[:n]] = _keys.VALIDATION
    return roles


def fit_folds(fits: Fits, folds: Sequence[Fold], n_jobs: int | None) -> list[np.ndarray]:
    """Probabilities of the held-out samples of every fold, (n_rows, n_held_out) each."""
    words = [f"transfer, repeat {fold.repeat + 1}, fold {fold.number + 1}" for fold in folds]
    found: dict[int, np.ndarray] = {}
    jobs = {i: (fits, fold) for i, fold in enumerate(folds)}
    in_parallel(_fit_fold, jobs, words, "folds", n_jobs, found.__setitem__)
    return [found[i] for i in jobs]


def _fit_fold(fits: Fits, fold: Fold) -> np.ndarray:
    """Probabilities of the held-out samples from all rows, (n_rows, n_held_out)."""
    with alone():
        clock = fits.clock if fits.clock_kwargs is None else _refitted(fits, fold)
        return np.stack(
            [
                _network(fits, clock, row, fold)
                if row in NETWORKS
                else linear_probabilities(fits.samples, row, fold.held_out, fold.seed)
                for row in fits.samples.rows
            ]
        )


def _refitted(fits: Fits, fold: Fold) -> Any:
    """A clock of the same kind, arguments and genes, trained on the ages of the fold's training subjects alone."""
    samples, clock = fits.samples, fits.clock
    role = samples.cell_subject.map(fold.roles)
    used = role.isin(_keys.FITTED_ROLES).to_numpy()
    data = samples.data[used].copy()
    data.obs[_keys.SPLIT] = role[used].to_numpy()
    cls = type(clock)
    place = clock.find_genes(data)
    genes = data.var_names[place[place >= 0]].tolist()
    cls.setup_anndata(data, **(clock.setup_args | {"features": genes}))
    new = cls(data, **(clock.init_args | {"rng": fold.seed}))
    new.train(**({"enable_progress_bar": False} | (fits.clock_kwargs or {})))
    return new


def _network(fits: Fits, clock: Any, row: str, fold: Fold) -> np.ndarray:
    """Probabilities of the held-out samples from a network that they did not train, (n_held_out,)."""
    samples, data = fits.samples, fits.samples.data
    role = samples.cell_subject.map(fold.roles).fillna(_keys.TEST)
    data.obs[_keys.SPLIT] = role.to_numpy()
    classifier = CaseControlClassifier.from_clock(
        clock, data, condition_key=fits.condition_key, control=fits.control, rng=fold.seed, **NETWORKS[row]
    )
    with quieter(logging.WARNING, "agevi.model.transfer"):  # known subjects are reported once, by a warning
        choose = bool(fits.train_kwargs["early_stopping"]) and _keys.VALIDATION in set(fold.roles)
        classifier.train_on_all(fits.train_kwargs, choose=choose)
    cells = np.flatnonzero((role == _keys.TEST).to_numpy() & (samples.cell_sample >= 0))
    out = np.full(len(samples.case), np.nan)
    out[samples.cell_sample[cells]] = classifier.predict_proba(indices=cells.tolist())
    return out[fold.held_out]
