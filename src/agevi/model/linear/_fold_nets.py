"""Paths of elastic nets without one fold of samples each, with only those genes in the equations that may enter."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path

from agevi.model.linear._scaled_rows import SampleTargets

_MARGIN = 3.0  # of changes of the penalty; 1 is the strong rule
_FEW = 256  # genes that are all in the equations


class FoldNet:
    """The net without one fold: its samples, and where it is on its path."""

    def __init__(self, x: np.ndarray, samples: SampleTargets, fold: int) -> None:
        self.train, self.test = (np.flatnonzero(own) for own in (samples.fold != fold, samples.fold == fold))
        weight = samples.weight[self.train] / samples.weight[self.train].mean()
        self.mean = np.average(x[self.train], axis=0, weights=weight)  # (n_genes,)
        self.level = float(np.average(samples.target[self.train], weights=weight))
        self.root = np.sqrt(weight)
        self.target = (samples.target[self.train] - self.level) * self.root
        self.left = samples.target[self.test] - self.level  # what is to be explained of the held-out samples
        self.test_weight = samples.weight[self.test]

    def start(self) -> None:
        """No gene is in it."""
        self.genes, self.slopes, self.residual = np.zeros(0, dtype=np.intp), np.zeros(0), self.target
        self.penalty = np.inf

    def may_enter(self, slope: np.ndarray, penalty: float) -> np.ndarray:
        """Genes that have a coefficient, or may get one at a penalty on absolute values, (n_genes,)."""
        # The sequential strong rule (Tibshirani et al. 2012): the slope of the squared error, (n_genes,), hardly ever
        # changes by more than the penalty does. With a margin, since genes may enter for some steps and leave again,
        # and steps that are not those on all genes end elsewhere within the accuracy.
        if len(slope) <= _FEW:
            return np.ones(len(slope), dtype=bool)
        before = min(self.penalty, float(np.abs(slope).max()))
        out = np.abs(slope) >= min(before, penalty - _MARGIN * (before - penalty))
        out[self.genes[self.slopes != 0]] = True
        return out

    def solve(self, x: np.ndarray, genes: np.ndarray, alpha: float, ratio: float, options: dict[str, Any]) -> None:
        """The coefficients of ``genes``, from those before on; those of all others are 0."""
        place = np.searchsorted(genes, self.genes)
        kept = (place < len(genes)) & (genes[np.minimum(place, len(genes) - 1)] == self.genes) if len(genes) else []
        start = np.zeros(len(genes))
        start[place[kept]] = self.slopes[kept]
        self.genes, self.slopes, self.residual = genes, start, self.target
        self.penalty = alpha * ratio * len(self.train)
        if len(genes):
            columns = x[:, genes] - self.mean[genes]
            values = np.asfortranarray(columns[self.train] * self.root[:, None])
            fit = {"coef_init": start, "precompute": False, "check_input": False, **options}
            self.slopes = enet_path(values, self.target, l1_ratio=ratio, alphas=np.array([alpha]), **fit)[1][:, 0]
            self.residual = self.target - values @ self.slopes
            self.error = self._error(columns[self.test] @ self.slopes)
        else:
            self.error = self._error(np.zeros(len(self.test)))

    def _error(self, predicted: np.ndarray) -> float:
        """Mean squared error of the held-out samples."""
        return float(np.average((predicted - self.left) ** 2, weights=self.test_weight))


class FoldNets:
    """The nets without each fold on values of samples, (n_samples, n_genes), which go along one path together."""

    # Along a flat valley of errors the accuracy decides which penalty is the best: only scikit-learn's own solver finds
    # the same. Genes that stay out do not change its steps, and most of its time went to them.

    def __init__(self, x: np.ndarray, samples: SampleTargets, *, max_iter: int, tol: float) -> None:
        self.x, self.options = x, {"max_iter": max_iter, "tol": tol}
        self.nets = [FoldNet(x, samples, k) for k in range(samples.n_folds)]
        for net in self.nets:
            net.start()
        self._first = self._slopes()

    def start(self) -> None:
        """Begin a path."""
        for net in self.nets:
            net.start()
        self._slope = self._first

    def errors(self, alphas: np.ndarray | list[float], ratio: float) -> np.ndarray:
        """Mean over folds of the errors at penalties that go on falling, (n_alphas,)."""
        with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
            warnings.simplefilter("ignore", ConvergenceWarning)  # only the final fit has to arrive
            return np.array([self._step(float(alpha), ratio) for alpha in alphas])

    def _step(self, alpha: float, ratio: float) -> float:
        """Error at the next penalty."""
        penalties = [alpha * ratio * len(net.train) for net in self.nets]
        inside = [
            net.may_enter(slope, penalty) for net, slope, penalty in zip(self.nets, self._slope, penalties, strict=True)
        ]
        todo = list(range(len(self.nets)))
        while todo:
            for k in todo:
                self.nets[k].solve(self.x, np.flatnonzero(inside[k]), alpha, ratio, self.options)
            slopes = self._slopes()
            outside = [(np.abs(slopes[k]) > penalties[k]) & ~inside[k] for k in range(len(self.nets))]
            todo = [k for k, entering in enumerate(outside) if entering.any()]
            for k in todo:
                inside[k] |= outside[k]
        for net, slope in zip(self.nets, slopes, strict=True):
            slope[net.genes] -= alpha * (1 - ratio) * len(net.train) * net.slopes
        self._slope = slopes
        return float(np.mean([net.error for net in self.nets]))

    def _slopes(self) -> np.ndarray:
        """Slope of half the squared error along every gene, (n_folds, n_genes), in one pass over the values."""
        left = np.zeros((len(self.nets), len(self.x)))
        for own, net in zip(left, self.nets, strict=True):
            own[net.train] = net.root * net.residual
        return left @ self.x - left.sum(axis=1)[:, None] * [net.mean for net in self.nets]
