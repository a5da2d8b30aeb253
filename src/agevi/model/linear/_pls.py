"""Partial least squares and ridge on sums of cells."""

from __future__ import annotations

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
from agevi.model.linear._base import FittedLinearClock, standardize
from agevi.model.linear._module import LinearModule
from agevi.model.linear._pls_folds import pls_errors
from agevi.model.linear._scaled_rows import sample_weights
from agevi.model.linear._training_cells import TrainingCells

METHODS = ("pls", "ridge")
WEIGHTS = ("reliability", "zscore")
MAX_COMPONENTS = 15
"""Components that the search tries."""
ALPHAS = np.logspace(0, 5, 16)
"""Penalties that the search tries, on the scale of scikit-learn's Ridge."""
_SEARCH = ("cv_value", "cv_mse", "cv_weight")
_DRAWS = {"pls": 50, "ridge": 10}  # of the folds: ridge costs more, and its errors depend less on them
_ROWS_OF_DRAWS = 20_000  # samples in all draws of "pls": with many samples their errors depend less on the folds
_LEAST = 1e-12  # of the first covariance with age: what rounding leaves where nothing is left to explain


class PLSClock(FittedLinearClock):
    """Ageing clock: partial least squares on the summed cells of each sample.

    Normalised sums are centred, scaled and weighted by how reliable each gene is; partial least squares (or ridge
    regression) maps them to the logarithm of the age. Maps with every number of components, or every penalty, are
    averaged, weighted by their error in a cross-validation over whole subjects inside the training subjects: several of
    them are often equally good, and which one is best depends on the folds. It trains in seconds and is the clock to
    try first: a more complex one has to beat it. A sample is predicted from the sum of its cells, and a single cell by
    the same weights plus one offset that brings the mean over cells to the level of their sum; the age of one cell is
    very uncertain. After Wold, Sjöström & Eriksson (2001); for the reliability see Spearman (1910) and Cochran (1977).

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; counts, or with ``normalize="none"`` any values, which are
        averaged and not summed. Batch and covariates are not used.
    method
        ``"pls"``: partial least squares; ``"ridge"``: ridge regression.
    n_components
        Components of partial least squares: their number, or ``"cv"`` to average 1 to 15 of them.
    weights
        ``"reliability"``: z-scores times the share of a gene's variance between samples that is not due to which cells
        were drawn, at least 0.05; slightly better ages. ``"zscore"``: z-scores alone; better rankings of genes.
    subject_weight
        ``"equal"``: every subject has equal weight; ``"cells"``: every cell does;
        ``"density"``: a subject weighs inversely to how common its age is among the training subjects (Gaussian kernel
        density, Scott's bandwidth; weights bounded to 0.2 to 5 times their mean), so that rare ages count more.
    n_folds
        Folds of whole subjects in the cross-validation; with fewer subjects than folds each is held out alone.
    rng
        Seed of the folds. They are drawn up to 50 times and errors are averaged, so that it hardly matters.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.predict_age(adata, model)
    >>> "agevi_predicted_sample" in adata.obs
    True
    """

    predicts_sums = True

    search_space: ClassVar[dict[str, Any]] = {
        "method": ["pls", "ridge"],
        "weights": ["reliability", "zscore"],
        "age_transform": ["auto", "none"],
    }

    def __init__(
        self,
        adata: AnnData,
        *,
        method: str = "pls",
        n_components: int | str = "cv",
        weights: str = "reliability",
        subject_weight: str = "equal",
        n_folds: int = 5,
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(method, METHODS, "method")
        _checks.choice(weights, WEIGHTS, "weights")
        _checks.choice(subject_weight, SUBJECT_WEIGHTS, "subject_weight")
        if n_components != "cv":
            n_components = _checks.count(n_components, "n_components")
        n_folds, rng = _checks.count(n_folds, "n_folds", low=2), as_seed(rng)
        super().__init__(adata)
        self.subject_weight = subject_weight
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = f"{type(self).__name__}: {self._width}, {method}, weights: {weights}"

    @property
    def cv_results_(self) -> pd.DataFrame:
        r"""Table of the search with ``value``, ``mse`` of held-out subjects, and ``weight`` in the clock.

        The value is a number of components or a penalty. The error is that of standardised ages, mean over the draws of
        the folds. With :math:`n` subjects, weights are proportional to
        :math:`\text{mse}^{-n/4}` and sum to 1: the likelihood of the held-out ages,
        :math:`\text{mse}^{-n/2}` (Geisser & Eddy 1979), flattened by a square root, because the errors of neighbouring
        models are nearly the same.
        """
        return self._searched(_SEARCH)

    def _fit(self, module: LinearModule, cells: TrainingCells) -> dict[str, np.ndarray]:
        """Average the maps with every number of components or penalty, fitted to all samples."""
        init = self.init_args
        every = np.arange(len(cells.subject))
        gene_weight = self._gene_weights(cells)
        x = standardize(module, cells.sums, every, every).standardized(every) * gene_weight
        y = module.age_scale.to_scale(torch.from_numpy(cells.age)).double().numpy()
        weight = sample_weights(
            cells.subject, np.ones(len(every)), cells.n_cells, self.subject_weight, subject_age=cells.subject_age
        )
        values, errors = self._search(x, y, weight, cells)
        log_share = -len(cells.subject_age) / 4 * np.log(np.maximum(errors, np.finfo(np.float64).tiny))
        share = np.exp(log_share - log_share.max())
        share /= share.sum()
        coefficients, intercept = _maps(x, y, weight, values, init["method"])
        module.set_map(torch.from_numpy(share @ coefficients * gene_weight), float(share @ intercept))
        return dict(zip(_SEARCH, (np.asarray(values, dtype=np.float64), errors, share), strict=True))

    def _gene_weights(self, cells: TrainingCells) -> np.ndarray:
        """Factor of every gene's z-score, (n_genes,)."""
        if self.init_args["weights"] == "zscore":
            return np.ones(cells.x.shape[1])
        kept, units = cells.unit_sums
        stats = kept.stats(units)
        return stats.scale * stats.sd

    def _search(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, cells: TrainingCells
    ) -> tuple[list[float], np.ndarray]:
        """Values to average over, and the squared error of held-out samples at each, mean over draws of the folds."""
        init = self.init_args
        draws = self._draw_folds(cells)
        if init["method"] == "ridge":
            values: list[float] = list(ALPHAS)
        else:
            most = max(1, min(len(x) - max(np.bincount(fold).max() for fold in draws) - 1, x.shape[1]))
            given = init["n_components"]
            values = [min(given, most)] if given != "cv" else list(range(1, min(MAX_COMPONENTS, most) + 1))
        if init["method"] == "pls" and x.shape[0] < x.shape[1]:
            held_out = np.concatenate([fold == np.arange(fold.max() + 1)[:, None] for fold in draws])
            of_folds = pls_errors(x, y, weight, held_out, int(max(values)))
            return values, of_folds.mean(axis=0)[np.asarray(values, dtype=int) - 1]
        x = _rotated(x)
        errors = []
        for fold in draws:
            for k in range(fold.max() + 1):
                held = fold == k
                coefficients, intercept = _maps(x[~held], y[~held], weight[~held], values, init["method"])
                predicted = x[held] @ coefficients.T + intercept
                errors.append(np.average((predicted - y[held, None]) ** 2, axis=0, weights=weight[held]))
        return values, np.mean(errors, axis=0)

    def _draw_folds(self, cells: TrainingCells) -> list[np.ndarray]:
        """Fold of every sample, (n_samples,), drawn as often as steadies the error."""
        init, n_subjects = self.init_args, len(cells.subject_age)
        most = _DRAWS[init["method"]]
        rng, n_folds = np.random.default_rng(init["rng"]), min(init["n_folds"], n_subjects)
        n_draws = int(np.clip(most * _ROWS_OF_DRAWS // (_DRAWS["pls"] * len(cells.subject)), most // 10, most))
        if n_folds == n_subjects:
            n_draws = 1  # every subject on its own: there is nothing to draw
        trains = np.ones(n_subjects, dtype=bool)
        return [assign_folds(cells.subject_age, trains, None, n_folds, rng)[cells.subject] for _ in range(n_draws)]


def _rotated(x: np.ndarray) -> np.ndarray:
    """Rows with the inner products of those of ``x``, (n, min(n, n_genes)), which is all that predictions depend on."""
    if x.shape[0] >= x.shape[1]:
        return x
    squares, axes = np.linalg.eigh(x @ x.T)
    return axes * np.sqrt(np.maximum(squares, 0.0))


def _maps(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, values: Sequence[Any], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, (n_values, n_genes), and intercepts, (n_values,), at every value; one ``weight`` a row."""
    center, level = np.average(x, axis=0, weights=weight), np.average(y, weights=weight)
    rows, target = (x - center) * np.sqrt(weight)[:, None], (y - level) * np.sqrt(weight)
    if method == "ridge":
        out = _ridge(rows, target, np.asarray(values))
    else:
        out = _pls(rows, target, int(max(values)))[np.asarray(values, dtype=int) - 1]
    return out, level - out @ center


def _ridge(rows: np.ndarray, target: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Coefficients of ridge regression with every penalty, (n_alphas, n_genes), from one decomposition."""
    wide = rows.shape[0] < rows.shape[1]
    squares, axes = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    along = axes.T @ (target if wide else rows.T @ target)
    out = axes @ (along[:, None] / (np.maximum(squares, 0.0)[:, None] + alphas))
    return (rows.T @ out if wide else out).T


def _pls(rows: np.ndarray, target: np.ndarray, most: int) -> np.ndarray:
    """Coefficients of partial least squares (Wold, one response) with 1 to ``most`` components, (most, n_genes)."""
    n, n_genes = rows.shape
    scores, loadings, rotations = np.zeros((most, n)), np.zeros((most, n_genes)), np.zeros((most, n_genes))
    steps, left, first = np.zeros((most, n_genes)), target.copy(), 0.0
    for a in range(most):
        direction = left @ rows
        length = float(np.linalg.norm(direction))
        first = first or length
        if length <= _LEAST * first:
            break  # further components add nothing
        direction /= length
        score = rows @ direction
        for _ in range(2):  # rounding leaves something of earlier scores the first time
            score -= (scores[:a] @ score) @ scores[:a]
        size = float(np.linalg.norm(score))
        scores[a] = score / size
        loadings[a] = scores[a] @ rows
        rotations[a] = (direction - (loadings[:a] @ direction) @ rotations[:a]) / size
        covered = scores[a] @ left
        left -= covered * scores[a]
        steps[a] = covered * rotations[a]
    return np.cumsum(steps, axis=0)
