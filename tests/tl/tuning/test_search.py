from __future__ import annotations

import inspect

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import agevi
from agevi.model import DenoisingVAE, GaussianVAE, MLPClock, NMFClock, PoissonVAE
from agevi.tl.tuning._search import Search, default_space
from tests.clocks import TRAINABLE, each_clock
from tests.test_gates import check_style


class Trial:
    """Takes the lowest or the highest value of everything."""

    def __init__(self, *, last=False):
        self.last, self.asked = last, {}

    def suggest_categorical(self, name, choices):
        assert all(c is None or isinstance(c, bool | int | float | str) for c in choices)  # what a storage can hold
        self.asked[name] = choices
        return choices[-1 if self.last else 0]

    def suggest_int(self, name, low, high, **bounds):
        self.asked[name] = (int, low, high, bounds)
        return high if self.last else low

    def suggest_float(self, name, low, high, **bounds):
        self.asked[name] = (float, low, high, bounds)
        return high if self.last else low


def search(space, *, cls=PoissonVAE, is_default=False, **fixed):
    return Search(cls, space, fixed, is_default=is_default)


@pytest.mark.parametrize("cls", TRAINABLE, ids=lambda c: c.__name__)
def test_every_clock_has_a_space_of_its_own_arguments(cls):
    found = search(default_space(cls), cls=cls)
    assert len(found.entries) == len(default_space(cls))
    for last in (False, True):
        drawn = found.draw(Trial(last=last))
        takes = inspect.signature(cls).parameters
        assert set(drawn["model_kwargs"]) <= set(takes)
        assert set(drawn["train_kwargs"]) <= set(inspect.signature(cls.train).parameters)


@each_clock
def test_a_clock_takes_every_value_of_its_space(cls):
    """All choices, and both ends of bounds, one at a time beside the defaults."""
    adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=200)
    keys = {"age_key": "age", "subject_key": "donor"}
    space = default_space(cls)
    for name, values in space.items():
        for value in [values["low"], values["high"]] if isinstance(values, dict) else values:
            drawn = search({name: [value, None]}, cls=cls).draw(Trial())
            cls.setup_anndata(adata, **keys, **drawn["setup_kwargs"])
            model = cls(adata, **drawn["model_kwargs"])
            plan = getattr(cls, "_training_plan_cls", None)
            if drawn["train_kwargs"].get("plan_kwargs"):
                plan(
                    model.module,
                    sample_ages=torch.zeros(4),
                    subject_weights=None,
                    **drawn["train_kwargs"]["plan_kwargs"],
                )


@pytest.mark.parametrize("cls", TRAINABLE, ids=lambda c: c.__name__)
def test_the_space_holds_the_defaults_of_the_class(cls):
    """So that the first trial is the clock as it comes, and tuning never ends with a worse one."""
    found = search(default_space(cls), cls=cls)
    assert set(found.defaults()) == {entry.name for entry in found.entries}


def test_defaults_are_those_of_the_signature_and_of_the_plan():
    found = search({"n_latent": [10, 32], "n_hidden": [[64], [128, 128]], "plan_kwargs.lr": {"low": 1e-4, "high": 1.0}})
    n_latent = inspect.signature(PoissonVAE).parameters["n_latent"].default
    unit = inspect.signature(PoissonVAE).parameters["train_unit"].default
    expected = {
        "n_latent": n_latent,
        "n_hidden": "[128, 128]",
        "plan_kwargs.lr": PoissonVAE.plan_kwargs_of_unit[unit]["lr"],
    }
    assert found.defaults() == expected
    of_cells = search({"plan_kwargs.lr": {"low": 1e-4, "high": 1.0}}, model_kwargs={"train_unit": "cell"})
    assert of_cells.defaults() == {"plan_kwargs.lr": 1e-3}
    assert search({"n_latent": [1, 2], "dropout_rate": {"low": 0.3, "high": 0.5}}).defaults() == {}


def test_a_class_takes_the_space_of_the_one_it_derives_from():
    class Mine(PoissonVAE):
        pass

    assert default_space(Mine) == default_space(PoissonVAE)
    with pytest.raises(ValueError, match="object has no default space; pass space="):
        default_space(object)


def test_default_spaces_cover_what_the_papers_varied():
    for cls in (PoissonVAE, GaussianVAE, DenoisingVAE):
        space = cls.search_space
        assert space["n_latent"]["low"] <= 20 and space["n_latent"]["high"] >= 150
        assert all(widths in space["n_hidden"] for widths in ([300, 100], [300, 150], [512, 256], [600, 150, 75]))
        assert all(widths in space["n_head"] for widths in ([20, 20], [30, 20]))
    levels = [(c["noise"], c["noise_level"]) for c in DenoisingVAE.search_space["noise"]]
    assert {("gaussian", 0.5), ("gaussian", 5.0)} <= set(levels)
    for cls in (PoissonVAE, GaussianVAE, DenoisingVAE, MLPClock, NMFClock):
        space = cls.search_space
        assert {100, 200, 500, 1000} == {c["max_epochs"] for c in space["train_unit"] if "max_epochs" in c}
        for varied in ("dropout_rate", "batch_size", "n_hidden", "plan_kwargs.weight_decay", "plan_kwargs.optimizer"):
            assert varied in space
        assert space["plan_kwargs.lr"]["low"] <= 1e-4 and space["plan_kwargs.lr"]["high"] >= 1e-3
    assert all(w in MLPClock.search_space["n_hidden"] for w in ([500, 500], [1000, 1000], [5000] * 3, [128, 2048, 128]))


def test_arguments_go_to_the_call_that_takes_them():
    space = {"n_latent": [7], "n_hidden": [[4, 2]], "max_epochs": [3], "normalize": ["none"], "plan_kwargs.lr": [0.1]}
    space["plan_kwargs.lr_kwargs.t_0"] = [5]
    fixed = {"train_kwargs": {"batch_size": 9, "plan_kwargs": {"eps": 1.0}}, "model_kwargs": {"n_head": []}}
    found = search(space, **fixed)
    assert found.draw(Trial()) == {
        "model_kwargs": {"n_head": [], "n_latent": 7, "n_hidden": [4, 2]},
        "train_kwargs": {
            "batch_size": 9,
            "max_epochs": 3,
            "plan_kwargs": {"eps": 1.0, "lr": 0.1, "lr_kwargs": {"t_0": 5}},
        },
        "setup_kwargs": {"normalize": "none"},
    }
    assert fixed["train_kwargs"] == {"batch_size": 9, "plan_kwargs": {"eps": 1.0}}


def test_bounds_are_whole_numbers_where_both_are():
    trial = Trial()
    search({"n_latent": {"low": 2, "high": 9, "log": True}, "dropout_rate": {"low": 0, "high": 0.5, "step": 0.1}}).draw(
        trial
    )
    assert trial.asked["n_latent"] == (int, 2, 9, {"log": True, "step": 1})
    assert trial.asked["dropout_rate"] == (float, 0.0, 0.5, {"log": False, "step": 0.1})


def test_distributions_of_optuna_stand_for_bounds_and_choices():
    bounds = {"n_latent": {"low": 2, "high": 9}, "age_weight": {"low": 0.1, "high": 1.0, "log": True}, "n_head": ["a"]}
    trials = Trial(), Trial()
    search(bounds).draw(trials[0])
    search(
        {
            "n_latent": IntDistribution(2, 9),
            "age_weight": FloatDistribution(0.1, 1.0, log=True),
            "n_head": CategoricalDistribution(["a"]),
        }
    ).draw(trials[1])
    assert trials[0].asked == trials[1].asked


def test_a_choice_that_is_a_dictionary_sets_several_arguments():
    space = {"age": [{"age_loss": "mse", "age_weight": 2.0}, {"age_loss": "mae"}]}
    assert search(space).draw(Trial())["model_kwargs"] == {"age_loss": "mse", "age_weight": 2.0}
    assert search(space).draw(Trial(last=True))["model_kwargs"] == {"age_loss": "mae"}


def test_fixed_arguments_take_entries_out_of_a_default_space():
    space = default_space(PoissonVAE)
    found = search(
        space, is_default=True, model_kwargs={"n_latent": 5}, train_kwargs={"plan_kwargs": {"lr": 0.1, "eps": 1e-8}}
    )
    assert set(space) - {entry.name for entry in found.entries} == {"n_latent", "plan_kwargs.lr"}


@pytest.mark.parametrize(
    ("cls", "fixed", "name", "choices", "default"),
    [
        (PoissonVAE, {"train_kwargs": {"max_epochs": 9}}, "train_unit", [{"train_unit": "pseudocell"}, {"train_unit": "cell"}], 0),
        (PoissonVAE, {"model_kwargs": {"train_unit": "cell"}}, "train_unit", PoissonVAE.search_space["train_unit"][1:], 0),
        (PoissonVAE, {"model_kwargs": {"train_unit": "pseudocell"}}, "train_unit", None, None),
        (DenoisingVAE, {"model_kwargs": {"noise": "binomial"}}, "noise", DenoisingVAE.search_space["noise"][3:6], 1),
        (DenoisingVAE, {"model_kwargs": {"noise": "poisson", "noise_level": 7.0}}, "noise", None, None),
        (
            PoissonVAE, {"model_kwargs": {"train_unit": "cell"}, "train_kwargs": {"max_epochs": 500}}, "train_unit", None, None
        ),
    ],
    ids=["epochs", "cells", "pseudocells", "noise", "level", "both"],
)  # fmt: skip
def test_of_choices_that_set_several_arguments_those_remain_that_agree_with_fixed_ones(
    cls, fixed, name, choices, default
):
    found = search(default_space(cls), cls=cls, is_default=True, **fixed)
    entry = next((e for e in found.entries if e.name == name), None)
    assert (entry and list(entry.choices.values())) == choices
    if choices:
        assert entry.choices[found.defaults()[name]] == choices[default]


@pytest.mark.parametrize(
    ("space", "fixed", "error", "message"),
    [
        pytest.param(["n_latent"], {}, TypeError, "space is a list; pass a dictionary", id="no dictionary"),
        pytest.param({}, {}, ValueError, "space is empty", id="empty"),
        pytest.param({"n_latnt": [1]}, {}, ValueError, "'n_latnt', which PoissonVAE does not take; closest: 'n_latent'", id="typo"),
        pytest.param({"lr": [1]}, {}, ValueError, "written 'plan_kwargs.lr'", id="of the plan"),
        pytest.param({"rng": [1]}, {}, ValueError, "'rng', which PoissonVAE does not take", id="reserved"),
        pytest.param({"age_key": ["x"]}, {}, ValueError, "'age_key', which PoissonVAE does not take", id="key"),
        pytest.param({"a": [{"n_ltent": 1}]}, {}, ValueError, "'n_ltent', which PoissonVAE does not take", id="in a bundle"),
        pytest.param(
            {"n_latent": [1]}, {"model_kwargs": {"n_latent": 3}}, ValueError, "'n_latent', which model_kwargs fixes", id="twice"
        ),
        pytest.param(
            {"plan_kwargs.lr": [1]}, {"train_kwargs": {"plan_kwargs": {"lr": 3}}}, ValueError, "which train_kwargs fixes",
            id="twice, nested",
        ),
        pytest.param({"n_latent": 3}, {}, ValueError, r"space\['n_latent'\] is 3; pass a list of choices", id="a number"),
        pytest.param({"rate": "softmax"}, {}, ValueError, "is 'softmax'; pass a list of choices", id="text"),
        pytest.param({"n_latent": []}, {}, ValueError, r"is \[\]; pass a list of choices", id="no choice"),
        pytest.param({"n_latent": {"low": 1}}, {}, ValueError, "bounds are", id="one bound"),
        pytest.param({"n_latent": {"low": 1, "high": 2, "max": 1}}, {}, ValueError, "bounds are", id="unknown bound"),
        pytest.param({"n_latent": {"low": 2, "high": 2}}, {}, ValueError, "'low' must be below 'high'", id="order"),
        pytest.param(
            {"dropout_rate": {"low": 0, "high": 1, "log": True}}, {}, ValueError, "above 0 with 'log'", id="log of zero"
        ),
    ],
)  # fmt: skip
def test_refuses(space, fixed, error, message):
    with pytest.raises(error, match=message) as raised:
        search(space, **fixed)
    check_style(str(raised.value.args[0]))
