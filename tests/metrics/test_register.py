"""What the register says of metrics, against their docstrings and their values."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import pytest

from agevi import metrics
from agevi.metrics._register import COMPARED, OF_AGES, OF_CLASSES, ROW

REGISTER = OF_AGES | OF_CLASSES


@pytest.mark.parametrize("name", REGISTER)
def test_the_public_metric_is_registered_with_its_unit(name):
    entry = REGISTER[name]
    assert getattr(metrics, name) is entry.function
    assert pickle.loads(pickle.dumps(entry.function)) is entry.function
    first = inspect.getdoc(entry.function).splitlines()[0]
    assert first.endswith("in the unit of age." if entry.unit == "age" else "without unit.")
    assert inspect.signature(entry.function).return_annotation == "float"


@pytest.mark.parametrize("name", REGISTER)
def test_exact_predictions_are_better_than_shuffled_ones(name):
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 90, 40) if name in OF_AGES else rng.permutation(np.arange(40.0) % 2)
    exact, shuffled = (REGISTER[name].function(truth, given) for given in (truth, rng.permutation(truth)))
    assert exact < shuffled if REGISTER[name].better == "lower" else exact > shuffled


@pytest.mark.parametrize("name", OF_CLASSES)
def test_scores_by_chance(name):
    """Probabilities at random for 5,000 cases and 15,000 controls; for the Brier score one half for all."""
    rng, case = np.random.default_rng(1), (np.arange(20_000) % 4 == 0).astype(float)
    coin = np.full(20_000, 0.5) if name == "brier" else rng.random(20_000)
    assert OF_CLASSES[name].function(case, coin) == pytest.approx(OF_CLASSES[name].by_chance(0.25), abs=0.02)


def test_columns_of_tables():
    assert set(OF_AGES) < set(ROW)
    assert set(COMPARED) < set(ROW)
