from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import enet_path

from agevi.model.linear._fold_nets import FoldNet, FoldNets
from agevi.model.linear._scaled_rows import SampleTargets

OPTIONS = {"max_iter": 100_000, "tol": 1e-10}


@pytest.fixture(scope="module")
def wide():
    """Many more genes than samples, most of which go together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 300)) + 2 * rng.normal(size=(40, 3)) @ rng.normal(size=(3, 300))
    y = x[:, :5].sum(1) + rng.normal(0, 2, 40)
    return (x - x.mean(0)) / x.std(0), SampleTargets(
        (y - y.mean()) / y.std(), rng.uniform(0.5, 2, 40), np.arange(40) % 4
    )


def reference(x, samples, fold, alphas, ratio):
    """Coefficients of scikit-learn on all genes, (n_genes, n_alphas), and errors of the fold."""
    train, test = samples.fold != fold, samples.fold == fold
    weight = samples.weight[train] / samples.weight[train].mean()
    mean, level = np.average(x[train], axis=0, weights=weight), np.average(samples.target[train], weights=weight)
    root = np.sqrt(weight)
    values, target = (x[train] - mean) * root[:, None], (samples.target[train] - level) * root
    slopes = enet_path(values, target, l1_ratio=ratio, alphas=alphas, **OPTIONS)[1]
    left = (x[test] - mean) @ slopes + level - samples.target[test][:, None]
    return slopes, np.average(left**2, axis=0, weights=samples.weight[test])


@pytest.mark.parametrize(
    "few", [pytest.param(False, id="strong rule"), pytest.param(True, id="genes found afterwards")]
)
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_paths_equal_those_of_scikit_learn_on_all_genes(wide, ratio, few, monkeypatch):
    x, samples = wide
    solved = []
    if few:  # only genes that have a coefficient, so that each that enters breaks the rule
        inside = lambda net, slope, _: np.isin(np.arange(len(slope)), net.genes[net.slopes != 0])  # noqa: E731
        monkeypatch.setattr(FoldNet, "may_enter", inside)
    alphas = np.geomspace(1, 0.05, 25) / ratio
    nets = FoldNets(x, samples, **OPTIONS)
    monkeypatch.setattr(FoldNet, "solve", _counted(FoldNet.solve, solved))
    nets.start()
    errors = nets.errors(alphas, ratio)
    expected = [reference(x, samples, k, alphas, ratio) for k in range(4)]
    np.testing.assert_allclose(errors, np.mean([error for _, error in expected], axis=0), rtol=1e-6)
    for net, (slopes, _) in zip(nets.nets, expected, strict=True):
        own = np.zeros(300)
        own[net.genes] = net.slopes
        np.testing.assert_allclose(own, slopes[:, -1], atol=1e-5)
        np.testing.assert_array_equal(np.flatnonzero(own), np.flatnonzero(slopes[:, -1]))
    assert (len(solved) > 4 * 25) == few
    assert np.mean(solved) < 150 or few  # of 300 genes


def _counted(solve, sizes):
    def counted(net, x, genes, *args):
        sizes.append(len(genes))
        solve(net, x, genes, *args)

    return counted


def test_a_path_begins_without_genes(wide):
    nets = FoldNets(*wide, **OPTIONS)
    nets.start()
    first = nets.errors([0.5, 0.1], 0.5)
    nets.start()
    np.testing.assert_array_equal(nets.errors([0.5, 0.1], 0.5), first)
