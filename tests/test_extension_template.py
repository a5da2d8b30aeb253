"""The clock that new ones are copied from keeps the contract."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

import agevi
from tests import test_contract
from tests.conftest import QUIET

PATH = Path(__file__).parents[1] / "docs" / "developer" / "extension_template.py"
PROMISES = [
    promise
    for name, promise in vars(test_contract).items()
    if name.startswith("test_")
    and set(inspect.signature(promise).parameters) <= {"cls", "fitted", "cohort", "tmp_path"}
]


@pytest.fixture(scope="module")
def template():
    spec = importlib.util.spec_from_file_location("extension_template", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TemplateClock


@pytest.fixture(scope="module")
def fitted(template, _cohort):
    return test_contract.fit(template, _cohort.copy())


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("test_"))
def test_the_template_keeps_the_contract(promise, template, fitted, cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(agevi.model.base._save.KNOWN, template.__name__, template)
    given = {"cls": template, "fitted": fitted, "cohort": cohort, "tmp_path": tmp_path}
    promise(**{name: given[name] for name in inspect.signature(promise).parameters})


def test_the_genes_of_the_template_are_attributed(template, cohort):
    model = test_contract.fit(template, cohort)
    agevi.tl.predict_age(cohort, model)
    agevi.tl.attribute_genes(cohort, model, n_boot=10)
    assert cohort.varm["agevi_attribution"].shape[0] == cohort.n_vars


def test_the_template_is_tuned_over_what_it_takes(template, cohort):
    agevi.pp.split_subjects(cohort, subject_key="donor", age_key="age")
    study = agevi.tl.tune(
        cohort, template, age_key="age", subject_key="donor", n_trials=2, train_kwargs={**QUIET, "max_epochs": 1}
    )
    assert set(study.trials[-1].params) == {
        "batch_size",
        "plan_kwargs.lr",
        "plan_kwargs.weight_decay",
        "plan_kwargs.optimizer",
    }
