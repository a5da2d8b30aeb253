from __future__ import annotations

import re

import numpy as np
import pytest

from agevi.model import ElasticNetClock, PLSClock, PoissonVAE
from agevi.tl import compare_models, cross_validate, tune
from agevi.tl.validate._arguments import as_called, with_matrix
from agevi.tl.validate._recipe import recipe_of
from tests.test_gates import check_style, set_obs
from tests.tl.tuning.spied import KEYS, quiet_optuna  # noqa: F401

TOOLS = {
    "cross_validate": lambda adata, **kw: cross_validate(adata, PLSClock, n_folds=2, **KEYS, **kw),
    "compare_models": lambda adata, **kw: compare_models(
        adata, [PLSClock], n_folds=2, n_null_linear=0, n_null_network=0, **KEYS, **kw
    ),
    "tune": lambda adata, **kw: tune(adata, PLSClock, {"method": ["ridge"]}, n_trials=1, **KEYS, **kw),
}


@pytest.fixture
def logged(cohort):
    """Counts in a layer, logarithms in X."""
    cohort.layers["counts"] = cohort.X.copy()
    cohort.X = cohort.X.log1p()
    return cohort


def results(adata, out):
    if out is not None:
        return [out.best_value]
    slots = ("agevi_leaderboard_predictions", "agevi_leaderboard")
    return [adata.uns[slots[0]]["predicted"]] if slots[0] in adata.uns else [adata.obs["agevi_predicted_sample"]]


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_layer_is_named_beside_the_other_arguments(logged, tool):
    plain = logged.copy()
    plain.X = plain.layers["counts"].copy()
    found = [
        results(adata, tool(adata, **arguments))
        for adata, arguments in (
            (plain, {}),
            (logged.copy(), {"layer": "counts"}),
            (logged.copy(), {"setup_kwargs": {"layer": "counts"}}),
            (logged.copy(), {"layer": "counts", "setup_kwargs": {"layer": "counts"}}),
        )
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other[0], found[0][0], rtol=1e-6)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        pytest.param(
            lambda a: a.layers.pop("counts"), {}, "Pass them with layer=..., or set setup_kwargs={'normalize': 'none'} for values",
            id="counts",
        ),
        pytest.param(
            set_obs("age", lambda a: a.obs["age"] - 50), {"layer": "counts"}, "below setup_kwargs={'min_age': ", id="min_age",
        ),
        pytest.param(
            None, {"layer": "counts", "setup_kwargs": {"age_transform": "horvath", "age_unit": "visits"}},
            "setup_kwargs={'age_unit': 'visits'}", id="age_unit",
        ),
        pytest.param(
            None, {}, "adata.layers['counts'] holds counts; pass layer='counts'.", id="counts in a layer",
        ),
        pytest.param(
            None, {"layer": "counts", "setup_kwargs": {"layer": "raw"}},
            "layer='counts', but setup_kwargs holds 'layer': 'raw'; name the layer in one of them.", id="two layers",
        ),
        pytest.param(None, {"layer": "count"}, "layer='count' is not in adata.layers; closest: 'counts'", id="layer"),
    ],
)  # fmt: skip
def test_messages_name_arguments_as_the_tool_takes_them(logged, tool, change, arguments, words):
    if change:
        change(logged)
    with pytest.raises((ValueError, KeyError)) as raised:
        tool(logged, **arguments)
    message = str(raised.value.args[0])
    assert words in message
    check_style(message)


def test_errors_of_the_constructor_and_of_training_too(cohort):
    bad = {"model_kwargs": {"pseudocell_groupby": "cell_type", "train_unit": "cell"}}
    with pytest.raises(ValueError, match="train_unit") as raised:
        cross_validate(cohort, PoissonVAE, n_folds=2, **KEYS, **bad)
    message = str(raised.value)
    assert "model_kwargs={'pseudocell_groupby': 'cell_type'} with model_kwargs={'train_unit': 'cell'};" in message
    assert "train on pseudocells with model_kwargs={'train_unit': 'pseudocell'}." in message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("pass min_age=-1.", "pass setup_kwargs={'min_age': -1}."),
        ("below min_age=-0.75; correct it", "below setup_kwargs={'min_age': -0.75}; correct it"),
        ("n_hidden=[8, 4] is", "model_kwargs={'n_hidden': [8, 4]} is"),
        ("train(max_epochs=5), or", "train(train_kwargs={'max_epochs': 5}), or"),
        ("age_key='age', layer=... stay", "age_key='age', layer=... stay"),
        ("model_kwargs={'n_latent': 3} stays", "model_kwargs={'n_latent': 3} stays"),
        ("own_min_age=3 stays", "own_min_age=3 stays"),
    ],
)
def test_arguments_inside_those_of_a_tool(message, expected):
    recipe = recipe_of(PoissonVAE, KEYS, None, None, None)
    with pytest.raises(ValueError, match="") as raised, as_called(recipe):
        raise ValueError(message)
    assert raised.value.args == (expected,)


@pytest.mark.parametrize("name", ["layer", "obsm_key"])
def test_a_matrix_of_one_class_that_differs_is_refused(name):
    matrix = {"layer": None, "obsm_key": None, name: "a"}
    with pytest.raises(ValueError, match=f"{name}='a', but setup_kwargs holds '{name}': 'b'"):
        with_matrix({"PLSClock": {name: "b"}}, **matrix)
    assert with_matrix({"PLSClock": {name: "a"}}, **matrix) == {"PLSClock": {name: "a"}, name: "a"}
    assert with_matrix(None, None, None) is None
    assert with_matrix([1], **matrix) == [1]


@pytest.mark.slow
def test_clocks_by_name(cohort):
    """Alone, in lists, as values of a dictionary and inside an ensemble, the results are those of the classes."""
    run = {**KEYS, "n_folds": 2}
    for by_name, by_class in (("PLSClock", PLSClock), (["PLSClock", "ElasticNetClock"], [PLSClock, ElasticNetClock])):
        for key, model in (("name", by_name), ("class", by_class)):
            cross_validate(cohort, model, key_added=key, **run)
        np.testing.assert_array_equal(cohort.obs["name_predicted"], cohort.obs["class_predicted"])
    run |= {"n_null_linear": 0, "n_null_network": 0}
    pair = ("PLSClock", {"method": "ridge"})
    models = {
        "one": "PLSClock",
        "ridge": pair,
        "both": ["PLSClock", "ElasticNetClock"],
        "pair": ("PLSClock", "ElasticNetClock"),
    }
    compare_models(cohort, models, key_added="name", **run)
    classes = {"one": PLSClock, "ridge": (PLSClock, pair[1]), "both": [PLSClock, ElasticNetClock]}
    compare_models(cohort, classes, key_added="class", **run)
    found, expected = (cohort.uns[f"{key}_leaderboard"]["mae"] for key in ("name", "class"))
    assert found[list(classes)].tolist() == expected[list(classes)].tolist()
    assert found["pair"] == found["both"]
    compare_models(cohort, "PLSClock", **run)
    assert "PLSClock" in cohort.uns["agevi_leaderboard"].index
    compare_models(cohort, [pair, ["PLSClock", "ElasticNetClock"]], **run)
    assert {"PLSClock", "PLSClock + ElasticNetClock"} < set(cohort.uns["agevi_leaderboard"].index)
    values = [
        tune(cohort, model, {"method": ["ridge"]}, n_trials=1, **KEYS).best_value for model in ("PLSClock", PLSClock)
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("given", ["plsclock", "PLS_Clock", "PLSClocks"])
@pytest.mark.parametrize(
    "call",
    [
        lambda adata, name: cross_validate(adata, name, **KEYS),
        lambda adata, name: cross_validate(adata, ["PoissonVAE", name], **KEYS),
        lambda adata, name: compare_models(adata, [name], **KEYS),
        lambda adata, name: compare_models(adata, name, **KEYS),
        lambda adata, name: compare_models(adata, {"a": (name, {})}, **KEYS),
        lambda adata, name: compare_models(adata, {"a": ["PoissonVAE", name]}, **KEYS),
        lambda adata, name: tune(adata, name, **KEYS),
    ],
    ids=["one", "list", "models", "model", "pair", "ensemble", "tune"],
)
def test_a_wrong_name_gets_the_closest(cohort, call, given):
    with pytest.raises(
        ValueError, match="is not the name of a clock; closest: 'PLSClock'. Available: 'PoissonVAE'"
    ) as raised:
        call(cohort, given)
    check_style(str(raised.value))


def test_a_class_that_is_not_trained_is_refused_by_name_too(cohort):
    with pytest.raises(ValueError, match="LinearClock is not trained on ages"):
        cross_validate(cohort, "LinearClock", **KEYS)


@pytest.mark.parametrize("tool", [compare_models, cross_validate, tune])
def test_subjects_need_names_of_their_own(cohort, tool):
    cohort.obs["age"] = cohort.obs["age"].round()
    with pytest.raises(ValueError, match="age_key='age' is also the column of the subjects; pass the column with"):
        tool(cohort, [PLSClock] if tool is compare_models else PLSClock, age_key="age", subject_key="age")


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_dictionaries_are_asked_for(cohort, tool):
    with pytest.raises(TypeError, match="setup_kwargs is a str; pass a dictionary of arguments"):
        tool(cohort, setup_kwargs="layer")


def test_clocks_are_asked_for(cohort):
    with pytest.raises(TypeError, match=re.escape("models is a int; pass a list of clocks, such as ['PLSClock'].")):
        compare_models(cohort, 3, **KEYS)


@pytest.mark.parametrize("n_jobs", [0, "2", 1.5])
@pytest.mark.parametrize("tool", ["cross_validate", "compare_models"])
def test_workers_are_counted(cohort, tool, n_jobs):
    with pytest.raises(ValueError, match=f"n_jobs={n_jobs!r} is not a number of workers; pass a whole number from 1"):
        TOOLS[tool](cohort, n_jobs=n_jobs)
