"""Several classes that are fitted in each fold and averaged."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.model import ElasticNetClock, MLPClock, PLSClock, PoissonVAE
from agevi.tl.validate import _fit_fold
from agevi.tl.validate._recipe import recipe_of
from tests.conftest import QUIET
from tests.test_gates import check_message
from tests.tl.clocks import AllClock, MeanClock, SumClock

KEYS = {"age_key": "age", "subject_key": "donor"}
RUN = {**KEYS, "n_folds": 3, "rng": 4}
TRAIN = {"max_epochs": 2, **QUIET}
MODEL = {
    "ElasticNetClock": {"alphas": 5, "l1_ratios": 0.2},
    "PLSClock": {"n_components": 3},
    "MLPClock": {"n_hidden": [8], "train_unit": "cell"},
    "PoissonVAE": {"n_hidden": [8], "n_latent": 3, "n_head": [4]},
}


def arguments(classes, **joining):
    names = [cls.__name__ for cls in classes]
    return {
        "model_kwargs": {name: MODEL.get(name, {}) for name in names} | ({"EnsembleClock": joining} if joining else {}),
        "train_kwargs": {name: TRAIN for name in names if name not in ("PLSClock", "ElasticNetClock")},
    }


def alone(adata, cls, **more):
    """Cross-validation of one class."""
    name = cls.__name__
    own = arguments([cls])
    return agevi.tl.cross_validate(
        adata,
        cls,
        **RUN,
        model_kwargs=own["model_kwargs"][name],
        train_kwargs=own["train_kwargs"].get(name),
        copy=True,
        **more,
    )


def log_mean(ages, weights=None):
    logs = np.log(np.maximum(np.asarray(ages, dtype=np.float64), -1) + 2)
    return np.exp(np.average(logs, axis=0, weights=weights)) - 2


def samples_of(adata):
    """Prediction of each cell's sample: from its sum, or the mean of its cells."""
    if "agevi_predicted_sample" in adata.obs:
        return adata.obs["agevi_predicted_sample"]
    return adata.obs.groupby("donor", observed=True)["agevi_predicted"].transform("mean")


@pytest.mark.slow
@pytest.mark.parametrize(
    "classes",
    [
        pytest.param([PLSClock, PoissonVAE], id="sums"),
        pytest.param([PLSClock, MLPClock], id="sums and cells"),
        pytest.param([MLPClock, MeanClock], id="cells"),
    ],
)
def test_equals_the_mean_of_the_members_own_cross_validations(cohort, classes):
    joined = agevi.tl.cross_validate(cohort, classes, **RUN, **arguments(classes), copy=True)
    members = [alone(cohort, cls) for cls in classes]
    assert (joined.obs["agevi_fold"] == members[0].obs["agevi_fold"]).all()
    if any("agevi_predicted_sample" in m.obs for m in members):
        expected = log_mean([samples_of(m) for m in members])
        assert (joined.obs["agevi_predicted"] == joined.obs["agevi_predicted_sample"]).all()
    else:
        expected = log_mean([m.obs["agevi_predicted"] for m in members])
        assert "agevi_predicted_sample" not in joined.obs
    np.testing.assert_allclose(joined.obs["agevi_predicted"], expected, rtol=1e-5)
    assert joined.uns["agevi"]["model"] == "EnsembleClock"
    assert joined.uns["agevi"]["members"] == ";".join(cls.__name__ for cls in classes)


@pytest.mark.slow
def test_scale_and_weights_are_those_of_the_ensemble(cohort):
    classes = [PLSClock, SumClock]
    members = [alone(cohort, cls).obs["agevi_predicted"] for cls in classes]
    got = agevi.tl.cross_validate(cohort, classes, **RUN, **arguments(classes, scale="age", weights=[3, 1]), copy=True)
    np.testing.assert_allclose(got.obs["agevi_predicted"], np.average(members, axis=0, weights=[3, 1]), rtol=1e-5)


@pytest.mark.slow
def test_inner_weights_come_from_training_subjects(cohort, monkeypatch):
    seen = []

    def spy(data, job):
        result, held = single(data, job)
        seen.append((job, result.validation_mae, held))
        return result, held

    single = _fit_fold._single
    monkeypatch.setattr(_fit_fold, "_single", spy)
    classes = [PLSClock, AllClock]
    joined = agevi.tl.cross_validate(cohort, classes, **RUN, **arguments(classes, weights="inner"), copy=True)
    inner = seen[:]
    members = [alone(cohort, cls).obs["agevi_predicted"].to_numpy() for cls in classes]  # final fits do not differ
    age = cohort.obs["age"].to_numpy()
    errors = joined.uns["agevi"]["folds"]["validation_mae"]
    for (job, error, held), (other, other_error, other_held), own in zip(inner[::2], inner[1::2], errors, strict=True):
        cells = job.train[job.validation]
        assert len(cells)
        assert not set(cells) & set(job.test)
        assert np.array_equal(job.validation, other.validation)
        donors = cohort.obs["donor"].to_numpy()[cells]
        taken = np.abs(
            pd.Series(other_held).groupby(donors).mean() - pd.Series(age[cells]).groupby(donors).mean()
        ).mean()
        assert other_error == pytest.approx(taken, rel=1e-4)
        weights = [1 / error, 1 / other_error]
        expected = log_mean([m[job.test] for m in members], weights)
        np.testing.assert_allclose(joined.obs["agevi_predicted"].to_numpy()[job.test], expected, rtol=1e-4)
        means = pd.Series(log_mean([held, other_held], weights)).groupby(donors).mean()
        assert own == pytest.approx(np.abs(means - pd.Series(age[cells]).groupby(donors).mean()).mean(), rel=1e-4)


@pytest.mark.slow
def test_no_validation_subjects_where_nobody_needs_them(cohort):
    AllClock.calls.clear()
    agevi.tl.cross_validate(cohort, [PLSClock, AllClock], **RUN)
    assert [len(call["trained"]) for call in AllClock.calls] == [16] * 3


@pytest.mark.slow
def test_arguments_of_setup_go_to_all_or_to_one(cohort):
    cohort.layers["counts"] = cohort.X.copy()
    cohort.X = np.log1p(np.asarray(cohort.X.todense()))
    classes = [PLSClock, ElasticNetClock]
    setup = {"layer": "counts", "ElasticNetClock": {"age_transform": "none"}}
    joined = agevi.tl.cross_validate(cohort, classes, **RUN, setup_kwargs=setup, **arguments(classes), copy=True)  # fmt: skip
    members = [
        alone(cohort, PLSClock, setup_kwargs={"layer": "counts"}),
        alone(cohort, ElasticNetClock, setup_kwargs={"layer": "counts", "age_transform": "none"}),
    ]
    expected = log_mean([m.obs["agevi_predicted"] for m in members])
    np.testing.assert_allclose(joined.obs["agevi_predicted"], expected, rtol=1e-5)


@pytest.mark.slow
def test_one_ensemble_per_type(cohort):
    classes = [PLSClock, AllClock]
    agevi.tl.cross_validate(cohort, classes, **RUN, **arguments(classes), groupby="cell_type", min_cells=2)
    table = cohort.uns["agevi_by_group"]
    assert np.isfinite(table["validation_mae"]).all()
    assert np.isfinite(table["combined"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_survives_a_file(cohort, tmp_path):
    classes = [PLSClock, AllClock]
    agevi.tl.cross_validate(cohort, classes, **RUN, **arguments(classes, weights=[1, 2]))
    cohort.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    assert back.uns["agevi"]["members"] == "PLSClock;AllClock"
    np.testing.assert_array_equal(back.obs["agevi_predicted"], cohort.obs["agevi_predicted"])


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoints(cohort, tmp_path):
    classes = [PLSClock, SumClock]
    given = {**RUN, **arguments(classes), "copy": True}
    plain = agevi.tl.cross_validate(cohort, classes, **given).obs["agevi_predicted"]
    agevi.tl.cross_validate(cohort, classes, **given, checkpoint_dir=tmp_path / "run")
    SumClock.calls.clear()
    stored = agevi.tl.cross_validate(cohort, classes, **given, checkpoint_dir=tmp_path / "run")
    np.testing.assert_array_equal(stored.obs["agevi_predicted"], plain)
    assert not SumClock.calls
    for other in ([SumClock, PLSClock], [PLSClock, AllClock]):
        with pytest.raises(ValueError, match="holds folds of another run: members"):
            agevi.tl.cross_validate(cohort, other, **RUN, **arguments(other), checkpoint_dir=tmp_path / "run")


def test_recipes_travel_to_other_processes():
    recipe = recipe_of(
        [PLSClock, AllClock], KEYS, {"AllClock": {"min_age": -3.0}}, {"EnsembleClock": {"weights": [1, 3]}}, None
    )
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.model_kwargs == {"scale": "log", "weights": [0.25, 0.75]}
    assert recipe.full_setup["min_age"] == -3.0
    assert [part.full_setup["min_age"] for part in recipe.parts] == [-1.0, -3.0]


def test_what_is_linear_follows_from_the_members():
    def linear(model_cls, **model_kwargs):
        return recipe_of(
            model_cls, KEYS, {"cell_type_key": "kind"} if "Type" in str(model_cls) else None, model_kwargs
        ).linear

    assert linear("PLSClock") and not linear("MLPClock")
    assert linear("CellTypeClock") and linear("CellTypeClock", clock=ElasticNetClock)
    assert not linear("CellTypeClock", clock="MLPClock")
    assert linear(["PLSClock", "ElasticNetClock"])
    assert not linear(["PLSClock", "MLPClock"])


@pytest.mark.slow
def test_a_row_of_the_leaderboard(cohort):
    classes = [PLSClock, MLPClock]
    models = {
        "ensemble": (classes, arguments(classes)),
        "of constructors": (classes, {"PLSClock": {"n_components": 3}}),
    }
    models["of constructors"] = ([PLSClock, AllClock], {"PLSClock": {"n_components": 3}})
    agevi.tl.compare_models(cohort, models, **RUN, n_null_linear=0, n_null_network=1)
    board = agevi.get.leaderboard_df(cohort).set_index("model")
    assert (board["error"] == "").all()
    assert not board.loc["ensemble", "linear"]
    assert board.loc["ensemble", "n_null"] == 1
    table = cohort.uns["agevi_leaderboard_predictions"]
    for name, cls in (("ensemble", MLPClock), ("of constructors", AllClock)):
        own = table[table["model"] == name].set_index("sample")["predicted"]
        cells = pd.DataFrame({"p": log_mean([samples_of(alone(cohort, c)) for c in (PLSClock, cls)]), "d": cohort.obs["donor"].to_numpy()})  # fmt: skip
        np.testing.assert_allclose(own, cells.groupby("d", observed=True)["p"].first().loc[own.index], rtol=1e-5)
    agevi.tl.compare_models(cohort, [[PLSClock, AllClock], AllClock], **RUN, n_null_linear=0, n_null_network=0)
    assert "PLSClock + AllClock" in set(agevi.get.leaderboard_df(cohort)["model"])


CASES = {
    "empty": ({"model_cls": []}, TypeError, "model_cls is empty; pass a class"),
    "no class": ({"model_cls": [PLSClock, dict]}, TypeError, "model_cls is dict, no clock"),
    "ensemble": ({"model_cls": [PLSClock, agevi.model.EnsembleClock]}, ValueError, "EnsembleClock is not trained on ages"),
    "ensemble alone": ({"model_cls": agevi.model.EnsembleClock}, ValueError, "EnsembleClock is not trained on ages"),
    "twice": ({"model_cls": [PLSClock, PLSClock]}, ValueError, "model_cls holds PLSClock twice, and arguments go by the name"),
    "flat": ({"model_kwargs": {"n_components": 3}}, TypeError, "model_kwargs holds 'n_components', which is not a class of model_cls"),
    "flat value": ({"train_kwargs": {"MLPClock": 3}}, TypeError, "train_kwargs['MLPClock'] is a int; pass a dictionary of arguments"),
    "list": ({"model_kwargs": [1]}, TypeError, "model_kwargs is a list; pass a dictionary of arguments by class"),
    "misspelt": ({"model_kwargs": {"PLSClock": {"n_component": 3}}}, TypeError, "'n_component', which PLSClock does not take"),
    "setup": ({"setup_kwargs": {"laier": "x"}}, TypeError, "'laier', which PLSClock.setup_anndata does not take"),
    "layers": ({"setup_kwargs": {"PLSClock": {"layer": "x"}}}, ValueError, "setup_kwargs gives the classes of model_cls different values of layer"),
    "weights": ({"model_kwargs": {"EnsembleClock": {"weights": [1]}}}, ValueError, "nor one number from 0 for each of the 2 clocks"),
    "joining": ({"model_kwargs": {"EnsembleClock": {"clocks": []}}}, ValueError, "which is set for each fold"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_trace(cohort, case):
    given, error, message = CASES[case]
    before = cohort.obs.columns.tolist(), set(cohort.uns)
    with pytest.raises(error) as raised:
        agevi.tl.cross_validate(cohort, **{"model_cls": [PLSClock, MLPClock], **RUN, **given})
    check_message(raised, message)
    assert (cohort.obs.columns.tolist(), set(cohort.uns)) == before
