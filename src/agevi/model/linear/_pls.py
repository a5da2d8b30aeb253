"""Partial least squares and ridge on sums of cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge

from agevi import _checks
from agevi.dataloaders._folds import assign_folds
from agevi.dataloaders._sums import sum_stats
from agevi.model._roles import SUBJECT_WEIGHTS
from agevi.model._seed import as_seed
from agevi.model.linear._base import FittedLinearClock, standardize
from agevi.model.linear._cells import TrainingCells
from agevi.model.linear._module import LinearModule
from agevi.model.linear._rows import sample_weights

METHODS = ("pls", "ridge")
WEIGHTS = ("reliability", "zscore")
MAX_COMPONENTS = 15
"""Components that the search tries."""
ALPHAS = np.logspace(0, 5, 16)
"""Penalties that the search tries, on the scale of scikit-learn's Ridge."""
_SEARCH = ("cv_value", "cv_mse")


class PLSClock(FittedLinearClock):
    """Ageing clock: partial least squares on the summed cells of each sample.

    Normalised sums are centred, scaled and weighted by how reliable each gene is; partial least squares (or ridge
    regression) maps them to the logarithm of the age. The number of components, or the penalty, is chosen by
    cross-validation over whole subjects inside the training subjects. It trains in seconds and is the clock to try
    first: a more complex one has to beat it. A sample is predicted from the sum of its cells, and a single cell by the
    same weights plus one offset that brings the mean over cells to the level of their sum; the age of one cell is
    very uncertain. After Wold, Sjöström & Eriksson (2001); for the reliability see Spearman (1910).

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`; counts, or with ``normalize="none"`` any values, which are
        averaged and not summed. Batch and covariates are not used.
    method
        ``"pls"``: partial least squares; ``"ridge"``: ridge regression.
    n_components
        Components of partial least squares: their number, or ``"cv"`` to choose 1 to 15 of them.
    weights
        ``"reliability"``: z-scores times the share of a gene's variance between samples that two random halves of their
        cells agree on, at least 0.05; slightly better ages. ``"zscore"``: z-scores alone; better rankings of genes.
    subject_weight
        ``"equal"``: every subject weighs the same; ``"cells"``: every cell does;
        ``"density"``: a subject weighs inversely to how common its age is among the training subjects (Gaussian kernel
        density, Scott's bandwidth; weights bounded to 0.2 to 5 times their mean), so that rare ages count more.
    n_folds
        Folds of whole subjects for the choice; with fewer subjects than folds each is held out alone.
    rng
        Seed of the folds and of the halves.

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
        self._model_summary_string = f"{type(self).__name__}: {len(self.genes):,} genes, {method}, weights: {weights}"

    @property
    def cv_results_(self) -> pd.DataFrame:
        """The search: ``value`` (components or penalty) and ``mse``, the squared error of held-out subjects."""
        self._check_trained("model.cv_results_")
        return pd.DataFrame({key[3:]: self.history_[key].iloc[:, 0].to_numpy() for key in _SEARCH})

    def _fit(self, module: LinearModule, cells: TrainingCells) -> dict[str, np.ndarray]:
        """Choose the number of components or the penalty, and fit to all samples."""
        init = self.init_params_["non_kwargs"]
        rng = np.random.default_rng(init["rng"])
        every = np.arange(len(cells.subject))
        gene_weight = self._gene_weights(module, cells, rng)
        x = standardize(module, cells.sums, every, every).standardized(every) * gene_weight
        y = module.age_scale.to_scale(torch.from_numpy(cells.age)).double().numpy()
        weight = sample_weights(
            cells.subject, np.ones(len(every)), cells.n_cells, self.subject_weight, subject_age=cells.subject_age
        )
        values, errors = self._search(x, y, weight, cells, rng)
        chosen = values[int(np.argmin(errors))]
        coefficients, intercept = _maps(x, y, weight, [chosen], init["method"])
        module.set_map(torch.from_numpy(coefficients[0] * gene_weight), float(intercept[0]))
        return dict(zip(_SEARCH, (np.asarray(values, dtype=np.float64), errors), strict=True))

    def _gene_weights(self, module: LinearModule, cells: TrainingCells, rng: np.random.Generator) -> np.ndarray:
        """Factor of every gene's z-score, (n_genes,)."""
        if self.init_params_["non_kwargs"]["weights"] == "zscore":
            return np.ones(cells.x.shape[1])
        codes = np.full(cells.x.shape[0], -1)
        codes[cells.index] = cells.sample
        stats = sum_stats(cells.x, codes, len(cells.subject), normalize=cells.normalize, rng=rng)
        return stats.scale * stats.sd

    def _search(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, cells: TrainingCells, rng: np.random.Generator
    ) -> tuple[list[float], np.ndarray]:
        """Values to choose from, and the squared error of held-out samples at each."""
        init, n_subjects = self.init_params_["non_kwargs"], len(cells.subject_age)
        fold = assign_folds(
            cells.subject_age, np.ones(n_subjects, dtype=bool), None, min(init["n_folds"], n_subjects), rng
        )[cells.subject]  # fmt: skip
        smallest = int(min((fold != k).sum() for k in range(fold.max() + 1)))
        if init["method"] == "ridge":
            values: list[float] = list(ALPHAS)
        else:
            most = max(1, min(smallest - 1, x.shape[1]))
            given = init["n_components"]
            values = [min(given, most)] if given != "cv" else list(range(1, min(MAX_COMPONENTS, most) + 1))
        errors = np.zeros((fold.max() + 1, len(values)))
        for k in range(fold.max() + 1):
            held = fold == k
            coefficients, intercept = _maps(x[~held], y[~held], weight[~held], values, init["method"])
            predicted = x[held] @ coefficients.T + intercept
            errors[k] = np.average((predicted - y[held, None]) ** 2, axis=0, weights=weight[held])
        return values, errors.mean(0)


def _maps(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, values: Sequence[Any], method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, (n_values, n_genes), and intercepts, (n_values,), at every value; one ``weight`` a row."""
    center, level = np.average(x, axis=0, weights=weight), np.average(y, weights=weight)
    rows, target = (x - center) * np.sqrt(weight)[:, None], (y - level) * np.sqrt(weight)
    if len(y) == 1:  # left of two samples in the search: nothing but its age
        out = np.zeros((len(values), x.shape[1]))
    elif method == "ridge":
        out = np.stack([Ridge(alpha=value, fit_intercept=False).fit(rows, target).coef_.ravel() for value in values])
    else:
        if np.ptp(weight):  # scikit-learn centres once more; with every row and its mirror image the mean is 0
            rows, target = np.vstack([rows, -rows]), np.concatenate([target, -target])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*residual is constant")  # fewer components than asked for
            pls = PLSRegression(n_components=int(max(values)), scale=False).fit(rows, target)
        steps = pls.x_rotations_ * pls.y_loadings_[0]  # components build on one another, so all come from one fit
        out = np.cumsum(steps, axis=1)[:, np.asarray(values, dtype=int) - 1].T
    return out, level - out @ center
