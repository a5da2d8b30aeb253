"""Elastic net on sums of cells, on pseudocells, or on cells."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks
from agevi.dataloaders._folds import assign_folds
from agevi.model.base._roles import SUBJECT_WEIGHTS
from agevi.model.base._seed import as_seed
from agevi.model.linear._base import FittedLinearClock, sample_scores, scaled_rows, standardize
from agevi.model.linear._module import LinearModule
from agevi.model.linear._moments import LinearMap, MomentProblem
from agevi.model.linear._path import Search, fit_samples, search, search_samples
from agevi.model.linear._scaled_rows import SampleTargets, sample_weights
from agevi.model.linear._training_cells import TrainingCells

logger = logging.getLogger(__name__)

TRAIN_UNITS = ("sample", "pseudocell", "cell")
_SEARCH = ("cv_l1_ratio", "cv_alpha", "cv_mse")


class ElasticNetClock(FittedLinearClock):
    """Ageing clock: linear regression with an elastic-net penalty on standardised, normalised genes.

    The age, on its own scale and standardised, is a weighted sum of genes; a penalty keeps weights small and sets most
    of them to exactly 0. How strong it is, and how it is shared between the two kinds, is chosen by cross-validation
    over whole subjects inside the training subjects, and the clock is then fitted to all of them. It is quick, exact
    and hard to beat where cells of a donor differ by sampling noise alone. After training, :meth:`coefficients` gives
    the weights, ``cv_results_`` the errors of the search, ``split_`` the role of every subject. After Zou & Hastie
    (2005).

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; counts, or with ``normalize="none"`` any values. Batch and
        covariates are not used.
    train_unit
        What a row of the regression is. ``"sample"``: the summed counts of a sample's cells; ``"pseudocell"``: the sum
        of some of them, several times; ``"cell"``: every cell. Clocks of samples and pseudocells predict samples from
        the sums of their cells, and single cells by the same weights plus one offset that brings the mean over cells
        to the level of their sum.
    alphas
        Penalties to try: their number, spaced as in scikit-learn, or the values, which refer to the standardised age.
        A number is the most: the path ends once smaller ones do not help. Default: 100.
    l1_ratios
        Shares of the penalty on absolute values to try, above 0 (nearly ridge) to 1 (lasso).
    n_folds
        Folds of whole subjects; with fewer subjects than folds each is held out alone.
    subject_weight
        ``"equal"``: every subject has equal weight; ``"cells"``: every cell does;
        ``"density"``: a subject weighs inversely to how common its age is among the training subjects (Gaussian kernel
        density, Scott's bandwidth; weights bounded to 0.2 to 5 times their mean), so that rare ages count more.
    pseudocell_size
        Cells of a pseudocell: a share (below 1) of the sample's cells, or their number.
    n_pseudocells
        Pseudocells of each sample.
    max_iter, tol
        Iterations at most, and accuracy: for samples those of scikit-learn's solver, for pseudocells and cells the
        largest violation of the optimum's conditions, ``tol / 100`` of the strongest covariance with age.
    rng
        Seed of the folds and of the pseudocells.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.model.ElasticNetClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.ElasticNetClock(adata)
    >>> model.train()
    >>> agevi.tl.predict_age(adata, model)
    >>> "agevi_predicted_sample" in adata.obs
    True
    """

    search_space: ClassVar[dict[str, Any]] = {
        "train_unit": ["sample", "pseudocell"],
        "l1_ratios": [[0.05, 0.2, 0.5, 1.0], [0.01, 0.05, 0.1], [1.0]],
        "subject_weight": ["equal", "cells"],
    }

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"alphas": 20, "l1_ratios": 0.2}}

    @classmethod
    def _init_as_stored(cls, init: dict[str, Any]) -> dict[str, Any]:
        """Arguments of the constructor as a clock that was made with them stores them."""
        return init | {"alphas": _penalties(init["alphas"]), "l1_ratios": _ratios(init["l1_ratios"])}

    def __init__(
        self,
        adata: AnnData,
        *,
        train_unit: str = "sample",
        alphas: int | Sequence[float] | None = None,
        l1_ratios: float | Sequence[float] = (0.05, 0.2, 0.5, 1.0),
        n_folds: int = 5,
        subject_weight: str = "equal",
        pseudocell_size: float = 0.5,
        n_pseudocells: int = 10,
        max_iter: int = 10_000,
        tol: float = 1e-4,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(train_unit, TRAIN_UNITS, "train_unit")
        _checks.choice(subject_weight, SUBJECT_WEIGHTS, "subject_weight")
        alphas, l1_ratios = _penalties(alphas), _ratios(l1_ratios)
        n_folds, max_iter = _checks.count(n_folds, "n_folds", low=2), _checks.count(max_iter, "max_iter")
        n_pseudocells = _checks.count(n_pseudocells, "n_pseudocells")
        pseudocell_size = _checks.share_or_count(pseudocell_size, "pseudocell_size")
        tol, rng = _positive([tol], "tol", "1e-4")[0], as_seed(rng)
        super().__init__(adata)
        self.train_unit, self.subject_weight = train_unit, subject_weight
        self.predicts_sums = train_unit != "cell"
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = (
            f"{type(self).__name__}: {self._width}, train_unit: {train_unit}, l1_ratios: {l1_ratios}"
        )

    @property
    def cv_results_(self) -> pd.DataFrame:
        """Table of the search, ``l1_ratio``, ``alpha`` and ``mse``, the squared error of held-out standardised ages."""
        return self._searched(_SEARCH)

    @property
    def alpha_(self) -> float:
        """Penalty that was chosen."""
        return float(self._chosen["alpha"])

    @property
    def l1_ratio_(self) -> float:
        """Share of the penalty on absolute values that was chosen."""
        return float(self._chosen["l1_ratio"])

    @property
    def _chosen(self) -> pd.Series:
        table = self.cv_results_
        return table.iloc[int(np.argmin(table["mse"]))]

    def _fit(self, module: LinearModule, cells: TrainingCells) -> dict[str, np.ndarray]:
        """Choose the penalty, and fit to all samples."""
        init = self.init_args
        rng = np.random.default_rng(init["rng"])
        samples = self._samples(module, cells, rng)
        if self.train_unit == "sample":
            found, fit = self._fit_samples(module, cells, samples)
        else:
            found, fit = self._fit_rows(module, cells, samples, rng)
        if not fit.converged:
            warnings.warn(
                f"the elastic net did not converge in max_iter={init['max_iter']} iterations; raise max_iter, or pass "
                "larger alphas.",
                UserWarning,
                stacklevel=_checks.stack_depth(),
            )
        module.set_map(torch.from_numpy(fit.coefficients), fit.intercept)
        if self.train_unit == "pseudocell":  # logarithms of larger sums lie a little higher
            shift = samples.target - sample_scores(module, cells)
            module.intercept += float(np.average(shift, weights=samples.weight))
        return dict(zip(_SEARCH, (found.l1_ratio, found.alpha, found.mse), strict=True))

    def _fit_samples(
        self, module: LinearModule, cells: TrainingCells, samples: SampleTargets
    ) -> tuple[Search, LinearMap]:
        """Fit to the sums of samples; sets the scale of genes."""
        init = self.init_args
        every = np.arange(len(cells.subject))
        x = standardize(module, cells.sums, every, every).standardized(every)
        options = {"max_iter": init["max_iter"], "tol": init["tol"]}
        found = search_samples(x, samples, init["alphas"], init["l1_ratios"], **options)
        return found, fit_samples(x, samples, *found.chosen, **options)

    def _fit_rows(
        self, module: LinearModule, cells: TrainingCells, samples: SampleTargets, rng: np.random.Generator
    ) -> tuple[Search, LinearMap]:
        """Fit to pseudocells or cells; sets the scale of genes."""
        init, whole = self.init_args, None
        if self.train_unit == "cell":
            rows = standardize(module, cells.x, cells.index, cells.sample)
        else:
            drawn, sample = cells.pseudocells(init["pseudocell_size"], init["n_pseudocells"], rng)
            rows = standardize(module, drawn, np.arange(len(sample)), sample)
            every = np.arange(len(cells.subject))
            whole = scaled_rows(module, cells.sums, every, every).standardized(every)
        problem = MomentProblem(rows, samples, whole, max_iter=init["max_iter"], tol=init["tol"] / 100)
        found = search(problem, init["alphas"], init["l1_ratios"])
        return found, problem.refit(*found.chosen)

    def _samples(self, module: LinearModule, cells: TrainingCells, rng: np.random.Generator) -> SampleTargets:
        """Targets, weights and folds of the training samples."""
        age = cells.subject_age
        n_folds = self.init_args["n_folds"]
        if len(age) < n_folds:
            logger.info("%d subjects train, fewer than n_folds=%d; each is held out alone.", len(age), n_folds)
        fold = assign_folds(age, np.ones(len(age), dtype=bool), None, min(n_folds, len(age)), rng)
        size = cells.n_cells if self.train_unit == "cell" else np.ones(len(cells.subject))
        return SampleTargets(
            target=module.age_scale.to_scale(torch.from_numpy(cells.age)).double().numpy(),
            weight=sample_weights(
                cells.subject, size, cells.n_cells, self.subject_weight, subject_age=cells.subject_age
            ),
            fold=fold[cells.subject],
        )


def _penalties(alphas: Any) -> int | list[float]:
    """A number of penalties, or positive penalties."""
    if alphas is None:
        return 100
    if np.ndim(alphas) == 0:
        return _checks.count(alphas, "alphas")
    return _positive(alphas, "alphas", "np.logspace(-3, 0, 20)")


def _ratios(l1_ratios: Any) -> list[float]:
    """Shares above 0, up to 1."""
    out = _positive(np.atleast_1d(l1_ratios), "l1_ratios", "(0.1, 0.5, 1.0)")
    if max(out) > 1:
        raise ValueError(
            f"l1_ratios holds {max(out):g}; shares of the l1 penalty are above 0 and up to 1 (lasso). Pass for example "
            "(0.1, 0.5, 1.0)."
        )
    return out


def _positive(values: Any, argument: str, example: str) -> list[float]:
    """Positive finite numbers."""
    try:
        out = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise TypeError(f"{argument}={values!r} is not numeric; pass for example {example}.") from None
    if not len(out):
        raise ValueError(f"{argument} is empty; pass one positive number or more, for example {example}.")
    bad = out[~(np.isfinite(out) & (out > 0))]
    if len(bad):
        raise ValueError(f"{argument} holds {bad[0]:g}; pass positive numbers, for example {example}.")
    return [float(v) for v in out]
