from __future__ import annotations

import concurrent.futures
import random

import numpy as np
import pytest
import torch

from agevi.tl.intervals._posterior_age import age_densities, summarise
from agevi.tl.intervals._posterior_fit import fit
from tests.tl.intervals import simulated
from tests.tl.intervals.simulated import GRID

NORMAL = -(GRID**2) / 2


def fitted(n, n_types, seed, method="laplace", **arguments):
    data, age = simulated.data(n, n_types, np.random.default_rng(seed), **arguments)
    return fit(data, torch.from_numpy(age), method, seed)


def judge(draws, new, age, log_prior=NORMAL):
    """Coverage at four levels, mean width at .9, and the estimates."""
    density = age_densities(new, draws, GRID, np.broadcast_to(log_prior, (len(age), len(GRID))))
    out = {}
    for level in (0.5, 0.8, 0.9, 0.95):
        found = summarise(density, GRID, level)
        out[level] = ((found["lower"] <= age) & (age <= found["upper"])).mean()
        if level == 0.9:
            out["width"] = (found["upper"] - found["lower"]).mean()
    slope = np.polyfit(age, found["mean"], 1)[0]
    return out | {"slope": slope, "density": density}


@pytest.fixture(scope="module")
def by_cohort():
    """Five cohorts of 150 labelled samples and 4 types, and the draws of their parameters."""
    return [(seed, fitted(150, 4, seed).draws) for seed in range(5)]


def pooled(by_cohort, log_prior=NORMAL, n=400, **arguments):
    """Mean over cohorts of what new samples show."""
    runs = []
    for seed, draws in by_cohort:
        new, age = simulated.data(n, 4, np.random.default_rng(100 + seed), **arguments)
        runs.append(judge(draws, new, age, log_prior))
    return {name: np.mean([run[name] for run in runs]) for name in runs[0] if name != "density"}


@pytest.mark.slow
def test_intervals_cover_as_they_say(by_cohort):
    found = pooled(by_cohort)
    for level, margin in ((0.5, 0.03), (0.8, 0.025), (0.9, 0.02), (0.95, 0.015)):
        assert found[level] == pytest.approx(level, abs=margin)
    assert found["slope"] < 0.9  # shrunk towards the mean age, as the prior says


@pytest.mark.slow
def test_flat_prior_undoes_the_shrinkage(by_cohort):
    found = pooled(by_cohort, np.zeros(len(GRID)))
    assert 0.96 <= found["slope"] <= 1.03
    assert found[0.9] == pytest.approx(0.9, abs=0.02)


@pytest.mark.slow
def test_samples_with_one_type_of_four(by_cohort):
    assert pooled(by_cohort, missing=0.999)[0.9] >= 0.86


@pytest.mark.slow
def test_more_cells_narrow_the_interval(by_cohort):
    few, many = (pooled(by_cohort, n=100, cells=cells)["width"] for cells in ((5, 6), (290, 300)))
    assert many <= 0.75 * few


@pytest.mark.slow
def test_few_labelled_samples_cover_a_little_less():
    runs = []
    for seed in range(8):
        new, age = simulated.data(200, 3, np.random.default_rng(200 + seed))
        runs.append(judge(fitted(30, 3, seed).draws, new, age)[0.9])
    assert 0.83 <= np.mean(runs) <= 0.92


@pytest.mark.slow
def test_outliers_widen_tails_and_not_everything():
    """Errors of 3 degrees of freedom: coverage holds."""
    runs = []
    for seed in range(4):
        new, age = simulated.data(300, 3, np.random.default_rng(300 + seed), df=3)
        draws = fitted(150, 3, seed, df=3).draws
        assert draws.df.median() < 10
        runs.append(judge(draws, new, age)[0.9])
    assert np.mean(runs) == pytest.approx(0.9, abs=0.03)


def distances(method, n_draws=300):
    """Largest total variation between ages by Laplace and by another method, and the ratio of widths."""
    new, age = simulated.data(500, 2, np.random.default_rng(9))
    data, labels = simulated.data(100, 2, np.random.default_rng(1))
    one, other = (fit(data, torch.from_numpy(labels), m, 1, n_draws=n_draws) for m in ("laplace", method))
    a, b = (judge(f.draws, new, age) for f in (one, other))
    return np.abs(a["density"] - b["density"]).sum(1).max() / 2, b["width"] / a["width"], other


@pytest.mark.slow
def test_variational_inference_agrees_with_laplace(monkeypatch):
    monkeypatch.setattr("agevi.tl.intervals._posterior_fit._SVI_STEPS", 400)
    distance, ratio, found = distances("svi")
    assert distance < 0.1
    assert ratio == pytest.approx(1, abs=0.03)
    tail = found.diagnostics["elbo_tail"]
    assert len(tail) == 100
    assert tail[:50].mean() == pytest.approx(tail[50:].mean(), abs=3)  # it has levelled off


@pytest.mark.slow  # chains of NUTS
def test_nuts_agrees_with_laplace():
    distance, ratio, found = distances("nuts", n_draws=200)
    assert distance < 0.1
    assert ratio == pytest.approx(1, abs=0.03)
    assert found.diagnostics["n_divergences"] == 0
    assert max(np.max(r) for r in found.diagnostics["r_hat"].values()) < 1.1


@pytest.mark.slow
def test_seed_decides_the_draws():
    one, two = fitted(40, 1, 0), fitted(40, 1, 0)
    data, age = simulated.data(40, 1, np.random.default_rng(0))
    other = fit(data, torch.from_numpy(age), "laplace", 7)
    torch.testing.assert_close(one.draws.slope, two.draws.slope, rtol=0, atol=0)
    assert not torch.equal(one.draws.slope, other.draws.slope)


def legacy():
    """State of the generator that all of numpy shares."""
    return np.random.get_state()[1].copy()  # noqa: NPY002


@pytest.mark.parametrize("method", ["laplace", "svi", "nuts"])
def test_states_of_the_process_stay_as_they_were(method, monkeypatch):
    import pyro

    for name, value in (("_SVI_STEPS", 5), ("_WARM_UP", 2)):
        monkeypatch.setattr(f"agevi.tl.intervals._posterior_fit.{name}", value)
    monkeypatch.setattr("agevi.tl.intervals._posterior_fit._TAIL", 3)
    data, age = simulated.data(20, 2, np.random.default_rng(0))
    pyro.get_param_store().clear()
    pyro.param("mine", torch.tensor(3.0))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        states = torch.get_rng_state(), legacy(), random.getstate(), pyro.settings.get()
        fit(data, torch.from_numpy(age), method, 0, n_draws=4)
        assert torch.equal(torch.get_rng_state(), states[0])
        np.testing.assert_array_equal(legacy(), states[1])
        assert random.getstate() == states[2]
        assert pyro.settings.get() == states[3]
        assert (torch.get_default_dtype(), torch.get_num_threads()) == (torch.float64, 2)
        assert list(pyro.get_param_store().keys()) == ["mine"]
        assert pyro.param("mine").item() == 3
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(before)
        pyro.get_param_store().clear()


@pytest.mark.slow
def test_threads_get_what_they_would_alone():
    alone = [fitted(30, 2, seed).draws.slope for seed in range(3)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: fitted(30, 2, seed).draws.slope, range(3)))
    for one, two in zip(alone, found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.slow
def test_a_thousand_samples_of_five_types_take_seconds():
    import time

    new, _ = simulated.data(1000, 5, np.random.default_rng(1))
    start = time.process_time()
    draws = fitted(1000, 5, 0).draws
    prior = np.zeros((1000, len(GRID)))
    age_densities(new, draws, GRID, prior)
    for t in range(5):
        age_densities(new.of_type(t), draws.of_type(t), GRID, prior)
    assert time.process_time() - start < 15
