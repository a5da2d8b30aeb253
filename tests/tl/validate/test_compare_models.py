from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import agevi
from agevi.model import PoissonVAE
from agevi.tl.validate._compare_models import named_recipes
from tests.clocks import OF_COUNTS
from tests.conftest import QUIET
from tests.files import stored
from tests.tl.clocks import AllClock, MeanClock, SumClock

KEYS = {"age_key": "age", "subject_key": "donor"}
QUICK = {"n_folds": 3, "n_null_linear": 4, "n_null_network": 0}
SMALL = {"model_kwargs": {"n_hidden": [8], "n_latent": 2, "n_head": [4]}, "train_kwargs": {"max_epochs": 3, **QUIET}}


class Failing(AllClock):
    """Cannot be trained."""

    calls: list = []

    def train(self, *args, **kwargs):
        raise RuntimeError("out of luck")


class Stopped(MeanClock):
    """Can be interrupted."""

    calls: list = []


@pytest.fixture(autouse=True)
def no_calls():
    for cls in (MeanClock, AllClock, SumClock, Stopped):
        cls.calls.clear()


@pytest.mark.slow
def test_every_model_has_the_folds_and_numbers_of_its_cross_validation(cohort):
    agevi.tl.compare_models(cohort, {"a": (PoissonVAE, SMALL), "b": AllClock, "sums": SumClock}, **KEYS, **QUICK, rng=3)
    table = cohort.uns["agevi_leaderboard_predictions"]
    assert set(table["model"]) == {"a", "b", "sums", "median age", "pseudobulk ridge"}
    folds = table.pivot(index="sample", columns="model", values="fold")
    assert (folds.nunique(axis=1) == 1).all()
    for name, cls, arguments in (("a", PoissonVAE, SMALL), ("b", AllClock, {}), ("sums", SumClock, {})):
        agevi.tl.cross_validate(cohort, cls, **KEYS, n_folds=3, rng=3, key_added="own", **arguments)
        agevi.tl.aggregate_subjects(cohort, key_added="own")
        own = cohort.uns["own_subjects"]
        found = table[table["model"] == name].set_index("sample").loc[own.index]
        np.testing.assert_allclose(found["predicted"], own["predicted"], rtol=1e-6)
        assert found["fold"].tolist() == own["fold"].astype(str).tolist()
        np.testing.assert_allclose(found["age"], own["age"])


def test_metrics_and_differences(cohort):
    agevi.tl.compare_models(cohort, [AllClock], **KEYS, **QUICK)
    board = agevi.get.leaderboard_df(cohort).set_index("model")
    assert list(board.index) == board["mae"].sort_values().index.tolist()
    wide = cohort.uns["agevi_leaderboard_predictions"].pivot(index="sample", columns="model", values="predicted")
    age = cohort.obs.groupby(cohort.obs["donor"].astype(str))["age"].first().loc[wide.index]
    for name, row in board.iterrows():
        error = wide[name] - age
        assert row["n"] == 24
        np.testing.assert_allclose(row["mae"], error.abs().mean())
        np.testing.assert_allclose(row["rmse"], np.sqrt((error**2).mean()))
        np.testing.assert_allclose(row["mdae"], error.abs().median())
        np.testing.assert_allclose(row["pearson"], scipy.stats.pearsonr(age, wide[name])[0])
        np.testing.assert_allclose(row["slope"], scipy.stats.linregress(age, wide[name]).slope)
        difference = error.abs() - (wide["pseudobulk ridge"] - age).abs()
        np.testing.assert_allclose(row["difference"], difference.mean(), atol=1e-12)
        assert row["mae_low"] < row["mae"] < row["mae_high"]
        half = 1.96 * difference.std() / np.sqrt(24)
        np.testing.assert_allclose(
            [row["difference_low"], row["difference_high"]],
            [difference.mean() - half, difference.mean() + half],
            atol=0.35 * half,
        )
        assert row["seconds"] >= 0
        assert row["peak_memory"] >= 0
    assert board["linear"].to_dict() == {"pseudobulk ridge": True, "AllClock": False, "median age": False}
    assert board["n_null"].to_dict() == {"pseudobulk ridge": 4, "AllClock": 0, "median age": 0}
    assert board["error"].tolist() == [""] * 3
    # the mean of the other folds is a poor guess, and the median is hardly a better one
    np.testing.assert_allclose(board.loc["AllClock", "mae"], board.loc["median age", "mae"], rtol=0.1)


@pytest.mark.slow
def test_shuffled_ages_train_and_judge(cohort):
    agevi.tl.compare_models(cohort, [AllClock], **KEYS, **(QUICK | {"n_null_network": 5}), null_folds=2)
    own, shuffled = AllClock.calls[:3], AllClock.calls[3:]
    assert len(shuffled) == 10
    for i, call in enumerate(shuffled):
        assert call["trained"] == own[i % 2]["trained"]
        assert call["seed"] == own[i % 2]["seed"]
        assert (call["ages"] != own[i % 2]["ages"]).any()
    everybody = cohort.obs.groupby("donor", observed=True)["age"].first().round(6)
    for first, second in zip(shuffled[::2], shuffled[1::2], strict=True):
        both = first["ages"].combine_first(second["ages"])
        assert sorted(both.round(6)) == sorted(everybody)
    row = agevi.get.leaderboard_df(cohort).set_index("model").loc["AllClock"]
    assert row["n_null"] == 5
    assert row["null_gain"] < 2 * row["null_se"]


def test_only_those_who_may_train_are_judged(cohort):
    cohort.obs.loc[cohort.obs["donor"].isin(["d00", "d01"]), "age"] = np.nan
    agevi.tl.compare_models(cohort, [AllClock], **KEYS, **QUICK, train_on="sex == 'male'")
    table = cohort.uns["agevi_leaderboard_predictions"]
    assert len(table) == 3 * 24
    male = cohort.obs.groupby("donor", observed=True)["sex"].first() == "male"
    judged = male & ~male.index.isin(["d00", "d01"])
    assert agevi.get.leaderboard_df(cohort)["n"].tolist() == [judged.sum()] * 3
    assert (table.set_index("sample")["trains"] == male.loc[table["sample"]].to_numpy()).all()


@pytest.mark.slow
def test_acceleration_stays_in_the_gaps_of_those_who_do_not_train():
    """Cases whose cells are ten years older: the gap shrinks, and that of controls falls, when cases train too."""
    adata = agevi.datasets.simulate_cohort(200, 20, 300, acceleration=10, case_fraction=0.4, rng=3)
    case = adata.obs.groupby(adata.obs["donor"].astype(str))["condition"].first() == "case"
    gaps = {}
    for name, query in (("controls", "condition == 'control'"), ("all", None)):
        agevi.tl.compare_models(adata, [], **KEYS, train_on=query, n_null_linear=0)
        table = adata.uns["agevi_leaderboard_predictions"].query("model == 'pseudobulk ridge'").set_index("sample")
        gap = table["predicted"] - table["age"]
        gaps[name] = gap[case.loc[gap.index]].mean(), gap[~case.loc[gap.index]].mean()
    assert gaps["controls"][0] > 5
    assert abs(gaps["controls"][1]) < 1
    assert gaps["all"][0] < gaps["controls"][0] - 1
    assert gaps["all"][1] < -1.5


def test_a_failing_model_loses_nothing_else(cohort):
    models = {"fails": Failing, "counts only": (PoissonVAE, SMALL), "works": AllClock}
    cohort.X = cohort.X.log1p()
    agevi.tl.compare_models(
        cohort, models, **KEYS, **(QUICK | {"n_null_network": 1}), setup_kwargs={"normalize": "none"}
    )
    board = agevi.get.leaderboard_df(cohort).set_index("model")
    assert board.loc["fails", "error"] == "fold '0': RuntimeError: out of luck"
    assert board.loc["counts only", "error"].startswith("ValueError: adata.X has non-integer values")
    assert board.loc[["fails", "counts only"], "mae"].isna().all()
    assert board.loc[["fails", "counts only"], "n"].tolist() == [0, 0]
    assert board.loc[["works", "pseudobulk ridge", "median age"], "mae"].notna().all()
    assert list(board.index[-2:]) == ["fails", "counts only"]
    assert set(cohort.uns["agevi_leaderboard_predictions"]["model"]) == {"works", "pseudobulk ridge", "median age"}


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on(cohort, tmp_path, monkeypatch):
    models = {"CD4/CD8": AllClock, "CD4 CD8": (AllClock, {"train_kwargs": {"max_epochs": 2}}), "c": Stopped}
    monkeypatch.setattr(Stopped, "best", property(lambda self: (_ for _ in ()).throw(KeyboardInterrupt)))
    arguments = KEYS | QUICK | {"n_null_network": 2, "checkpoint_dir": tmp_path, "rng": None}
    with pytest.raises(KeyboardInterrupt):
        agevi.tl.compare_models(cohort, models, **arguments)
    assert "agevi_leaderboard" not in cohort.uns
    assert len(AllClock.calls) == 2 * 5
    monkeypatch.undo()
    AllClock.calls.clear()
    agevi.tl.compare_models(cohort, models, **arguments)
    assert not AllClock.calls
    assert len(Stopped.calls) == 2 * 5
    board = cohort.uns["agevi_leaderboard"].drop(columns=["seconds", "peak_memory"])
    agevi.tl.compare_models(cohort, models, **arguments)
    pd.testing.assert_frame_equal(cohort.uns["agevi_leaderboard"].drop(columns=["seconds", "peak_memory"]), board)
    with pytest.raises(ValueError, match='train_kwargs was {"max_epochs": 2} and is {}'):
        agevi.tl.compare_models(cohort, {"CD4 CD8": AllClock}, **arguments)


def test_a_fold_that_failed_is_run_again(cohort, tmp_path):
    arguments = KEYS | QUICK | {"checkpoint_dir": tmp_path}
    agevi.tl.compare_models(cohort, [Failing], **arguments)
    train, Failing.train = Failing.train, AllClock.train
    try:
        agevi.tl.compare_models(cohort, [Failing], **arguments)
    finally:
        Failing.train = train
    assert agevi.get.leaderboard_df(cohort)["error"].tolist() == [""] * 3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_everything_written_survives_a_file(cohort, tmp_path, form):
    models = {"CD4/CD8": AllClock, "": Failing, "a b": (AllClock, {"train_kwargs": {"callbacks": [print]}})}
    agevi.tl.compare_models(cohort, models, **KEYS, **QUICK, stratify_by=["sex", "batch"])
    back = stored(cohort, form, tmp_path)
    for slot in ("agevi_leaderboard", "agevi_leaderboard_predictions"):
        found, expected = back.uns[slot], cohort.uns[slot]
        assert found.astype(str).to_numpy().tolist() == expected.astype(str).to_numpy().tolist()
        assert list(found.columns) == list(expected.columns)
    assert agevi.get.leaderboard_df(back)["model"].tolist() == agevi.get.leaderboard_df(cohort)["model"].tolist()
    assert back.uns["agevi_leaderboard_params"]["models"] == cohort.uns["agevi_leaderboard_params"]["models"]


def test_copy_and_nothing_else_is_touched(cohort):
    before = cohort.copy()
    out = agevi.tl.compare_models(cohort, [AllClock], **KEYS, **QUICK, copy=True, key_added="mine")
    assert set(out.uns) - set(cohort.uns) == {f"mine_leaderboard{s}" for s in ("", "_params", "_predictions")}
    pd.testing.assert_frame_equal(out.obs, before.obs)
    assert set(cohort.uns) == set(before.uns)


def test_models_by_name(cohort):
    given = {
        "class": PoissonVAE,
        "constructor": (PoissonVAE, {"n_latent": 3}),
        "all": (PoissonVAE, {"model_kwargs": {"n_latent": 4}, "setup_kwargs": {"batch_key": "batch"}, **{"train_kwargs": {"max_epochs": 2}}}),
        "none": (PoissonVAE, {}),
    }  # fmt: skip
    recipes = named_recipes(given, KEYS, {"layer": "counts"})
    assert [r.model_kwargs for r in recipes.values()] == [{}, {"n_latent": 3}, {"n_latent": 4}, {}]
    assert recipes["all"].setup == KEYS | {"layer": "counts", "batch_key": "batch"}
    assert recipes["all"].train_kwargs["max_epochs"] == 2
    trainable = [m.__name__ for m in OF_COUNTS]
    assert list(named_recipes(None, KEYS, None)) == trainable
    assert list(named_recipes(AllClock, KEYS, None)) == ["AllClock"]


def test_linear_classes():
    found = {cls.__name__ for cls in agevi.model.MODELS if cls.linear}
    assert found == {"ElasticNetClock", "PLSClock", "LinearClock"}
    assert type("Mine", (agevi.model.PLSClock,), {}).linear


@pytest.mark.slow
def test_a_clock_of_types_counts_as_its_members(cohort):
    cohort.obs["cell_type"] = ["type0", "type1"] * (cohort.n_obs // 2)
    init = {"min_cells": 3, "combine": "mean"}
    models = {
        name: (
            "CellTypeClock",
            {"setup_kwargs": {"cell_type_key": "cell_type"}, "model_kwargs": init | {"clock": clock}},
        )
        for name, clock in (("linear", "PLSClock"), ("networks", "MLPClock"))
    }
    models["networks"][1]["train_kwargs"] = {"max_epochs": 1}
    models["networks"][1]["model_kwargs"]["clock_kwargs"] = {"n_hidden": [4]}
    agevi.tl.compare_models(cohort, models, **KEYS, n_folds=2, n_null_linear=2, n_null_network=0)
    board = agevi.get.leaderboard_df(cohort).set_index("model")
    assert board.loc[["linear", "networks"], "linear"].tolist() == [True, False]
    assert board.loc[["linear", "networks"], "n_null"].tolist() == [2, 0]


CASES = {
    "no class": ({"models": [dict]}, TypeError, "model_cls is dict, no clock"),
    "twice": ({"models": [AllClock, AllClock]}, ValueError, "models holds 'AllClock' twice; pass a dictionary"),
    "reserved name": ({"models": {"median age": AllClock}}, ValueError, "the name 'median age', which the leaderboard has already"),
    "arguments in a list": ({"models": {"a": (AllClock, [1])}}, TypeError, "models['a'] holds a list; pass a dictionary"),
    "misspelt": ({"models": {"a": (AllClock, {"n_latnt": 1})}}, TypeError, "'n_latnt', which AllClock does not take; closest: 'n_latent'"),
    "times": ({"n_null_linear": -1}, ValueError, "n_null_linear=-1 is out of range; pass a whole number, 0 or more"),
    "fold times": ({"null_folds": 0.5}, TypeError, "null_folds=0.5 is a float; pass a whole number"),
    "column": ({"age_key": "Age"}, KeyError, "closest: 'age'"),
    "values": ({"change": lambda a: setattr(a, "X", a.X.log1p())}, ValueError, "the pseudobulk ridge normalises raw counts itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_trace(cohort, case):
    arguments, error, message = CASES[case]
    arguments = {"models": [AllClock], **KEYS, **QUICK, **arguments}
    arguments.pop("change", lambda a: None)(cohort)
    before = set(cohort.uns)
    with pytest.raises(error) as caught:
        agevi.tl.compare_models(cohort, **arguments)
    assert message in str(caught.value)
    assert set(cohort.uns) == before


def test_without_a_leaderboard(cohort):
    with pytest.raises(KeyError, match="adata.uns\\['agevi_leaderboard'\\] is absent; run agevi.tl.compare_models"):
        agevi.get.leaderboard_df(cohort)


@pytest.mark.slow
def test_whole_cohorts_held_out_stand_beside_folds_and_give_the_order():
    adata = agevi.datasets.simulate_cohort(n_subjects=36, n_cells=10, n_genes=60, n_batches=3, batch_sd=0.5, rng=2)
    models = {"few": (agevi.model.PLSClock, {"n_components": 1}), "PLSClock": agevi.model.PLSClock}
    common = {"age_key": "age", "subject_key": "donor", "n_folds": 3, "n_null_linear": 0}
    plain = agevi.tl.compare_models(adata, models, **common, copy=True)
    agevi.tl.compare_models(adata, models, **common, cohort_key="batch")
    table = agevi.get.leaderboard_df(adata).set_index("model")
    assert table["mae_cohorts"].is_monotonic_increasing
    before = agevi.get.leaderboard_df(plain).set_index("model")
    assert before["mae_cohorts"].isna().all()
    same = ["mae", "mae_low", "pearson", "difference", "difference_high"]
    pd.testing.assert_frame_equal(table.loc[before.index, same], before[same])
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor", fold_key="batch")
    agevi.tl.aggregate_subjects(adata)
    own = agevi.get.subjects_df(adata).set_index("subject")
    error = own["predicted"] - own["age"]
    row = table.loc["PLSClock"]
    assert row["mae_cohorts"] == pytest.approx(error.abs().mean(), rel=1e-5)
    assert row["level_cohorts"] == pytest.approx(np.sqrt((error.groupby(own["fold"]).mean() ** 2).mean()), rel=1e-5)
    assert row["mae_cohorts_low"] < row["mae_cohorts"] < row["mae_cohorts_high"]
    rows = adata.uns["agevi_leaderboard_predictions"]
    rows = rows[rows["model"] == "PLSClock"].set_index("subject")
    np.testing.assert_allclose(rows["predicted_cohorts"], own.loc[rows.index, "predicted"], rtol=1e-5)
    assert (rows["cohort"] == adata.obs.groupby("donor", observed=True)["batch"].first().astype(str)[rows.index]).all()
    medians = {name: own.loc[own["fold"] != name, "age"].median() for name in own["fold"].unique()}
    expected = (own["age"] - own["fold"].map(medians).astype(float)).abs().mean()
    assert table.loc["median age", "mae_cohorts"] == pytest.approx(expected)
    ax = agevi.pl.leaderboard(adata)
    assert "whole cohorts held out" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_cohorts_are_refused_by_the_argument_that_names_them(cohort):
    common = {"age_key": "age", "subject_key": "donor", "n_null_linear": 0}
    with pytest.raises(KeyError, match="cohort_key='lab' is not a column"):
        agevi.tl.compare_models(cohort, ["PLSClock"], **common, cohort_key="lab")
    cohort.obs["one"] = "a"
    with pytest.raises(ValueError, match=r"adata.obs\['one'\] has one fold"):
        agevi.tl.compare_models(cohort, ["PLSClock"], **common, cohort_key="one")
