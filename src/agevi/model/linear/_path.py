"""Choice of the penalty of an elastic net by cross-validation over whole subjects."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet

from agevi._progress import Bar, progress, steps
from agevi.model.linear._fold_nets import FoldNets
from agevi.model.linear._moments import LinearMap, MomentProblem
from agevi.model.linear._scaled_rows import SampleTargets

EPS = 1e-3
"""Smallest over largest alpha of a path, as in scikit-learn."""
_BAR = "ElasticNetClock, choice of the penalty"
PATIENCE = 10
"""Alphas without a better error after which an automatic path of 100 ends; in proportion for other lengths."""
PATIENCE_OF_SAMPLES = 20
"""The same for samples, which are fewer: with 10 the best penalty of the whole path was missed in one of 20 cohorts."""
_PART = 5  # of a path of 100 between two looks at whether it ends


@dataclass(frozen=True)
class Search:
    """Mean squared errors of held-out samples, one entry per pair that was tried, in the order of trial."""

    l1_ratio: np.ndarray
    alpha: np.ndarray
    mse: np.ndarray

    @property
    def chosen(self) -> tuple[float, float]:
        """Alpha and l1_ratio with the least error, the first where several are equal."""
        best = int(np.argmin(self.mse))
        return float(self.alpha[best]), float(self.l1_ratio[best])


def alpha_grid(largest: float, l1_ratio: float, n_alphas: int) -> np.ndarray:
    """Penalties from the one that removes all genes to a thousandth of it, as scikit-learn spaces them, (n_alphas,)."""
    top = max(largest / l1_ratio, np.finfo(np.float64).resolution)
    return np.geomspace(top, top * EPS, n_alphas)


def search(problem: MomentProblem, alphas: int | Sequence[float], l1_ratios: Sequence[float]) -> Search:
    """Mean over folds of the mean squared error of all pairs; a number of ``alphas`` may end early."""
    tried: list[tuple[float, float, float]] = []
    grids = [_grid(problem.largest(), ratio, alphas) for ratio in l1_ratios]
    with progress(sum(map(len, grids)), _BAR, "penalties") as bar:
        for ratio, grid in zip(l1_ratios, grids, strict=True):
            errors = _errors(problem, grid, ratio, bar, stops=isinstance(alphas, int))
            tried += [(ratio, alpha, error) for alpha, error in zip(grid, errors, strict=False)]
    if not tried:
        raise ValueError(
            f"alphas={alphas!r}: at the largest, {np.max(alphas):g}, more genes enter than fit into the memory of a "
            "fit to cells. Pass larger ones, or their number to have them chosen."
        )
    return Search(*np.array(tried).T)


def _errors(problem: MomentProblem, grid: np.ndarray, ratio: float, bar: Bar, *, stops: bool) -> list[float]:
    """Errors along one path, of as many penalties as were tried."""
    patience = max(PATIENCE * len(grid) / 100, 1) if stops else np.inf
    errors: list[float] = []
    problem.begin()
    for alpha in grid:
        of_folds = problem.errors(alpha, ratio)
        if of_folds is None:
            break
        errors.append(float(of_folds.mean()))
        bar.step()
        if len(errors) - 1 - int(np.argmin(errors)) >= patience:
            break
    bar.step(len(grid) - len(errors))
    return errors


def search_samples(
    x: np.ndarray,
    samples: SampleTargets,
    alphas: int | Sequence[float],
    l1_ratios: Sequence[float],
    *,
    max_iter: int,
    tol: float,
) -> Search:
    """Errors of pairs on values of samples, (n_samples, n_genes), as scikit-learn's ElasticNetCV has them.

    A number of ``alphas`` may end early.
    """
    share = samples.weight / samples.weight.sum()
    largest = float(np.abs((share * (samples.target - share @ samples.target)) @ x).max())
    nets, tried = FoldNets(x, samples, max_iter=max_iter, tol=tol), []
    for ratio in steps(l1_ratios, len(l1_ratios), _BAR, "paths"):
        grid = _grid(largest, ratio, alphas)
        errors = _errors_of_samples(nets, grid, ratio, stops=isinstance(alphas, int))
        tried.append((np.full(len(errors), ratio), grid[: len(errors)], errors))
    return Search(*np.concatenate(tried, axis=1))


def _errors_of_samples(nets: FoldNets, grid: np.ndarray, ratio: float, *, stops: bool) -> np.ndarray:
    """Mean over folds of the mean squared errors along one path, of as many penalties as were tried."""
    patience, size = (max(n * len(grid) // 100, 1) for n in (PATIENCE_OF_SAMPLES, _PART))
    errors = np.zeros(0)
    nets.start()
    for start in range(0, len(grid), size):
        errors = np.append(errors, nets.errors(grid[start : start + size], ratio))
        if stops and len(errors) - 1 - int(np.argmin(errors)) >= patience:
            break
    return errors


def fit_samples(
    x: np.ndarray, samples: SampleTargets, alpha: float, l1_ratio: float, *, max_iter: int, tol: float
) -> LinearMap:
    """The net on all samples, (n_samples, n_genes), by scikit-learn."""
    net = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, max_iter=max_iter, tol=tol, random_state=0)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", ConvergenceWarning)
        net.fit(x, samples.target, sample_weight=_uneven(samples.weight))
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in raised)
    return LinearMap(net.coef_, float(net.intercept_), converged)


def _grid(largest: float, l1_ratio: float, alphas: int | Sequence[float]) -> np.ndarray:
    """Penalties to try, falling."""
    return alpha_grid(largest, l1_ratio, alphas) if isinstance(alphas, int) else np.sort(alphas)[::-1]


def _uneven(weight: np.ndarray) -> np.ndarray | None:
    """Weights, or None where they are all equal, since scikit-learn then rounds differently."""
    return None if np.ptp(weight) == 0 else weight
