from __future__ import annotations

import gc
import weakref

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.model import PoissonVAE
from agevi.tl.validate import _fit_fold
from tests.conftest import QUIET
from tests.files import stored
from tests.tl.clocks import AllClock, MeanClock, SumClock

KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {
    "model_kwargs": {"n_hidden": [8], "n_latent": 2, "n_head": [4], "train_unit": "cell"},
    "train_kwargs": {"max_epochs": 3, **QUIET},
}


@pytest.fixture(autouse=True)
def no_calls():
    for cls in (MeanClock, AllClock, SumClock):
        cls.calls.clear()


def subjects_of(adata, column):
    return adata.obs.groupby(adata.obs["donor"].astype(str))[column].first()


def mean_age_elsewhere(adata, may_train=None):
    """Mean age of the subjects outside each subject's fold, from the written folds alone."""
    age, fold = subjects_of(adata, "age"), subjects_of(adata, "agevi_fold").astype(str)
    used = age.notna() if may_train is None else age.notna() & may_train
    return pd.Series({s: age[used & (fold != fold[s])].mean() for s in age.index})


def assert_predicts_from_other_folds(adata, may_train=None):
    predicted = subjects_of(adata, "agevi_predicted")
    np.testing.assert_allclose(predicted, mean_age_elsewhere(adata, may_train).loc[predicted.index], rtol=1e-6)


def test_each_subject_is_predicted_by_the_clock_that_never_saw_it(cohort):
    assert agevi.tl.cross_validate(cohort, MeanClock, **KEYS, n_folds=4) is None
    assert (cohort.obs.groupby("donor", observed=True)["agevi_fold"].nunique() == 1).all()
    assert subjects_of(cohort, "agevi_fold").value_counts().tolist() == [6] * 4
    assert_predicts_from_other_folds(cohort)
    assert cohort.obs["agevi_predicted"].dtype == np.float32
    assert cohort.obs["agevi_role"].cat.categories.tolist() == ["out_of_fold"]
    assert cohort.obs["agevi_fold"].cat.categories.tolist() == ["0", "1", "2", "3"]
    assert "agevi_predicted_sample" not in cohort.obs


def test_a_clock_that_selects_an_epoch_is_refitted_on_all_training_subjects(cohort):
    agevi.tl.cross_validate(cohort, MeanClock, **KEYS, n_folds=3)
    assert len(MeanClock.calls) == 6
    for first, final in zip(MeanClock.calls[::2], MeanClock.calls[1::2], strict=True):
        assert first["all"] == final["all"] == final["trained"]
        assert len(final["trained"]) == 16
        assert len(first["trained"]) == 14  # 15 % of 16 validate
        assert (first["max_epochs"], final["max_epochs"]) == (None, MeanClock.best)
    record = cohort.uns["agevi"]["folds"]
    assert record["best_epoch"].tolist() == [MeanClock.best] * 3
    age = subjects_of(cohort, "age")
    for error, first in zip(record["validation_mae"], MeanClock.calls[::2], strict=True):
        validation = age[sorted(first["all"] - first["trained"])]
        assert error == pytest.approx(np.abs(validation - first["ages"].mean()).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("cls", "train_kwargs"),
    [
        pytest.param(AllClock, {}, id="selects no epoch"),
        pytest.param(MeanClock, {"early_stopping": False, "max_epochs": 5}, id="early_stopping=False"),
    ],
)
def test_other_clocks_get_all_training_subjects_at_once(cohort, cls, train_kwargs):
    agevi.tl.cross_validate(cohort, cls, **KEYS, n_folds=3, train_kwargs=train_kwargs)
    assert [len(call["trained"]) for call in cls.calls] == [16] * 3
    assert (cohort.uns["agevi"]["folds"]["best_epoch"] == -1).all()
    assert {call["max_epochs"] for call in cls.calls} == {train_kwargs.get("max_epochs")}
    assert_predicts_from_other_folds(cohort)
    assert cohort.uns["agevi"]["folds"]["validation_mae"].isna().all()


def test_train_on_and_unlabelled_subjects(cohort):
    """Only those who satisfy the query train; everybody is predicted once, by a clock of its own fold."""
    names = np.array(sorted(cohort.obs["donor"].astype(str).unique()))
    sick, unlabelled = set(names[3::3]), set(names[:4])
    donor = cohort.obs["donor"].astype(str)
    cohort.obs["condition"] = pd.Categorical(np.where(donor.isin(sick), "sick", "healthy"))
    cohort.obs.loc[donor.isin(unlabelled), "age"] = np.nan
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, n_folds=4, train_on="condition == 'healthy'")
    assert set(cohort.obs["agevi_role"]) == {"out_of_fold"}
    assert cohort.obs["agevi_predicted"].notna().all()
    fold = subjects_of(cohort, "agevi_fold")
    for group in (sick, unlabelled - sick, set(names) - sick - unlabelled):
        sizes = fold[sorted(group)].value_counts()
        assert sizes.max() - sizes.min() <= 1
    assert_predicts_from_other_folds(cohort, may_train=~fold.index.isin(sick))
    trained = [call["trained"] for call in AllClock.calls]
    assert not set.union(*trained) & sick
    assert set.union(*trained) >= unlabelled - sick  # they shape the latent space of the other folds' clocks


def test_a_query_may_keep_some_cells_of_a_subject(cohort):
    cohort.obs["cell type"] = np.where(np.arange(cohort.n_obs) % 2, "a", "b")
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, n_folds=3, train_on="`cell type` == 'a'")
    assert [call["cells"] for call in AllClock.calls] == [160] * 3  # 16 subjects of 20 cells, every second one
    assert_predicts_from_other_folds(cohort)


def test_fixed_folds(cohort):
    cohort.obs["cohort"] = "site " + (cohort.obs["donor"].cat.codes % 3).astype(str)
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, fold_key="cohort")
    assert (cohort.obs["agevi_fold"].astype(str) == cohort.obs["cohort"]).all()
    assert_predicts_from_other_folds(cohort)
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, fold_key="agevi_fold")  # the folds of an earlier run
    assert (cohort.obs["agevi_fold"].astype(str) == cohort.obs["cohort"]).all()


def test_visits_stay_together(cohort):
    visit = np.arange(cohort.n_obs) % 2
    cohort.obs["visit"] = cohort.obs["donor"].astype(str) + "-" + visit.astype(str)
    cohort.obs["age"] += 4.0 * visit
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, sample_key="visit", n_folds=4)
    assert (cohort.obs.groupby("donor", observed=True)["agevi_fold"].nunique() == 1).all()
    agevi.tl.aggregate_subjects(cohort)
    assert len(cohort.uns["agevi_subjects"]) == 48


def test_predictions_from_sums(cohort):
    agevi.tl.cross_validate(cohort, SumClock, **KEYS, n_folds=3)
    assert (cohort.obs["agevi_predicted_sample"] > 1000).all()
    assert (cohort.obs["agevi_predicted"] == cohort.obs["agevi_predicted_sample"]).all()
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, n_folds=3)
    assert "agevi_predicted_sample" not in cohort.obs


@pytest.mark.slow
def test_the_order_of_cells_and_the_seed(cohort):
    shuffled = cohort[np.random.default_rng(0).permutation(cohort.n_obs)].copy()
    other = cohort.copy()
    for adata, rng in ((cohort, 0), (shuffled, 0), (other, 1)):
        agevi.tl.cross_validate(adata, AllClock, **KEYS, n_folds=4, rng=rng)
    folds = [subjects_of(adata, "agevi_fold").astype(str) for adata in (cohort, shuffled, other)]
    pd.testing.assert_series_equal(folds[0], folds[1])
    assert (folds[0] != folds[2]).any()
    seeds = [call["seed"] for call in AllClock.calls]
    assert seeds[:4] == seeds[4:8]
    assert len(set(seeds)) == 8


@pytest.mark.slow
def test_nothing_else_is_touched(cohort, monkeypatch):
    cohort.obsm["X_agevi"] = np.ones((cohort.n_obs, 2))  # of an earlier clock
    cohort.layers["counts"] = cohort.X.copy()
    PoissonVAE.setup_anndata(cohort, **KEYS, layer="counts")
    model = PoissonVAE(cohort, **SMALL["model_kwargs"])
    obs, uns, x = cohort.obs.copy(), dict(cohort.uns), cohort.X
    before = x.copy()
    copies = []
    made = _fit_fold.FoldData.cells
    monkeypatch.setattr(
        _fit_fold.FoldData, "cells", lambda self, rows: copies.append(weakref.ref(out := made(self, rows))) or out
    )
    agevi.tl.cross_validate(cohort, PoissonVAE, **KEYS, n_folds=2, **SMALL, setup_kwargs={"layer": "counts"})
    gc.collect()
    assert len(copies) == 4
    assert all(ref() is None for ref in copies)
    assert cohort.X is x
    assert (cohort.X != before).nnz == 0
    pd.testing.assert_frame_equal(cohort.obs[obs.columns], obs)
    assert set(cohort.obs) - set(obs) == {"agevi_predicted", "agevi_role", "agevi_fold"}
    assert set(cohort.uns) - set(uns) == {"agevi"}
    assert "X_agevi" not in cohort.obsm
    model.train(max_epochs=1, **QUIET)


@pytest.mark.slow
def test_a_fold_equals_the_same_steps_by_hand(cohort):
    agevi.tl.cross_validate(cohort, PoissonVAE, **KEYS, n_folds=3, **SMALL)
    MeanClock.calls.clear()
    again = cohort.copy()
    agevi.tl.cross_validate(again, MeanClock, **KEYS, n_folds=3)
    first = MeanClock.calls[0]  # who trained and who validated in fold 0, and its seed
    donor = cohort.obs["donor"].astype(str)
    train = cohort[donor.isin(first["all"])].copy()
    train.obs["agevi_split"] = np.where(train.obs["donor"].isin(first["trained"]), "train", "validation")
    PoissonVAE.setup_anndata(train, **KEYS)
    model = PoissonVAE(train, rng=first["seed"], **SMALL["model_kwargs"])
    model.train(**SMALL["train_kwargs"])
    model.train(model.best_epoch_, train_roles=("train", "validation"), **QUIET)
    test = ~donor.isin(first["all"]).to_numpy()
    np.testing.assert_array_equal(cohort.obs["agevi_predicted"][test], model.predict_age(cohort[test]))


@pytest.mark.slow
def test_what_is_recorded(cohort):
    agevi.tl.cross_validate(
        cohort, PoissonVAE, **KEYS, n_folds=2, model_kwargs={"n_hidden": (8,), "n_latent": 2, "train_unit": "cell"},
        train_kwargs={"max_epochs": 2, "plan_kwargs": {"lr_schedule": abs}, "callbacks": []}, rng=np.random.default_rng(3),
    )  # fmt: skip
    info = cohort.uns["agevi"]
    assert (info["model"], info["version"], info["age_unit"]) == ("PoissonVAE", agevi.__version__, "years")
    assert (info["subject_key"], info["sample_key"], info["age_key"]) == ("donor", "donor", "age")
    assert info["params"]["train_kwargs"]["plan_kwargs"]["lr_schedule"] == "builtins.abs"
    assert info["params"]["seed"] == np.random.default_rng(3).integers(2**31)
    folds = info["folds"]
    assert folds["fold"].tolist() == ["0", "1"]
    assert folds["n_subjects"].tolist() == [12, 12]
    assert folds["n_cells"].tolist() == [240, 240]
    assert (folds["seconds"] > 0).all()
    assert (folds["peak_memory"] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_everything_written_survives_a_file(cohort, tmp_path, form):
    cohort.obs["cell type"] = np.resize(["CD4/CD8", "", "a b"], cohort.n_obs)
    agevi.tl.cross_validate(cohort, AllClock, **KEYS, n_folds=2, groupby="cell type", min_cells=6, stratify_by=["sex"])
    agevi.tl.aggregate_subjects(cohort)
    back = stored(cohort, form, tmp_path)
    for column in ("agevi_predicted", "agevi_predicted_sample"):
        np.testing.assert_array_equal(back.obs[column], cohort.obs[column])
    for column in ("agevi_role", "agevi_fold"):
        assert back.obs[column].astype(str).tolist() == cohort.obs[column].astype(str).tolist()
    for table in ("agevi_by_group", "agevi_subjects"):
        found, expected = back.uns[table], cohort.uns[table]
        assert found.astype(str).to_numpy().tolist() == expected.astype(str).to_numpy().tolist()
    assert back.uns["agevi"]["folds"]["n_cells"].tolist() == cohort.uns["agevi"]["folds"]["n_cells"].tolist()
    assert back.uns["agevi_by_group_params"] == {"groupby": "cell type", "min_cells": 6}


def test_copy_and_roles_afterwards(cohort, trained):
    out = agevi.tl.cross_validate(cohort, AllClock, **KEYS, n_folds=2, copy=True)
    assert "agevi_predicted" not in cohort.obs
    with pytest.raises(ValueError, match="holds out-of-fold predictions of tl.cross_validate"):
        agevi.tl.predict_age(out, trained)
    agevi.tl.aggregate_subjects(out)
    table = out.uns["agevi_subjects"]
    assert set(table["role"]) == {"out_of_fold"}
    assert sorted(table["fold"].unique()) == [0, 1]
    assert agevi.get.metrics_df(out).loc["out_of_fold", "n"] == 24


def drop_ages(adata):
    adata.obs["age"] = np.where(adata.obs["donor"].cat.codes < 4, adata.obs["age"], np.nan)


def two_folds(adata):
    adata.obs["fold"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")


def one_cohort(adata):
    adata.obs["fold"] = np.where(adata.obs["donor"].cat.codes < 22, "a", "b")


CASES = {
    "no clock": ({"model_cls": 3}, TypeError, "model_cls is int, no clock; pass a class such as"),
    "another class": ({"model_cls": dict}, TypeError, "model_cls is dict, no clock"),
    "column missing": ({"subject_key": "donr"}, KeyError, "closest: 'donor'"),
    "fold column missing": ({"fold_key": "folds"}, KeyError, "fold_key='folds' is not a column"),
    "stratum missing": ({"stratify_by": "gender"}, KeyError, "stratify_by='gender' is not a column"),
    "type missing": ({"groupby": "celltype"}, KeyError, "groupby='celltype' is not a column of adata.obs; closest: 'cell_type'"),
    "subject in two folds": ({"fold_key": "fold", "change": two_folds}, ValueError, "a subject is held out as a whole"),
    "too few outside a fold": (
        {"fold_key": "fold", "change": one_cohort}, ValueError, "outside fold 'a', 2 subjects with 2 different ages have an age",
    ),
    "too few with an age": ({"n_folds": 5, "change": drop_ages}, ValueError, "n_folds=5 is not between 2 and the 4 subjects"),
    "one fold": ({"n_folds": 1}, ValueError, "n_folds=1 is not between 2 and the 24 subjects"),
    "folds as a share": ({"n_folds": 0.2}, TypeError, "n_folds=0.2 is a float; pass a whole number"),
    "query of a missing column": ({"train_on": "sexx == 'male'"}, KeyError, "train_on='sexx' is not a column of adata.obs; closest: 'sex'"),
    "query with an error": ({"train_on": "sex =="}, ValueError, "is not a query that pandas can evaluate on adata.obs"),
    "query without an answer": ({"train_on": "age + 1"}, ValueError, "does not say yes or no for every cell"),
    "query that is no text": ({"train_on": ["male"]}, TypeError, "train_on is a list; pass a pandas query"),
    "query without subjects": ({"train_on": "sex == 'x'"}, ValueError, "train_on=\"sex == 'x'\" holds for no cell of adata.obs; adata.obs['sex'] has 'female', 'male'."),
    "query beyond the ages": ({"train_on": "age > 200 and `sex` != 'x'"}, ValueError, "holds for no cell of adata.obs; adata.obs['age'] has 2"),
    "role set": ({"train_kwargs": {"split_key": "x"}}, ValueError, "train_kwargs holds 'split_key', which is set for each fold"),
    "key set": ({"setup_kwargs": {"age_key": "x"}}, ValueError, "setup_kwargs holds 'age_key', which is set for each fold"),
    "set-up misspelt": ({"setup_kwargs": {"layr": "x"}}, TypeError, "'layr', which PoissonVAE.setup_anndata does not take; closest: 'layer'"),
    "model misspelt": ({"model_kwargs": {"n_layers": 2}}, TypeError, "model_kwargs holds 'n_layers', which PoissonVAE does not take"),
    "arguments in a list": ({"model_kwargs": [1]}, TypeError, "model_kwargs is a list; pass a dictionary of arguments of PoissonVAE"),
    "values": ({"change": lambda a: setattr(a, "X", a.X * 0.5)}, ValueError, "has non-integer values"),
    "min_cells": ({"groupby": "cell_type", "min_cells": 0}, ValueError, "min_cells=0 is out of range; pass a whole number, 1 or more"),
    "types too rare": ({"groupby": "cell_type", "min_cells": 30}, ValueError, "no type in adata.obs['cell_type'] ('type0', 'type1', 'type2') has 3 training subjects of 2 ages with enough cells per sample (min_cells=30) in any fold; lower it."),
    "types missing": (
        {"groupby": "t", "change": lambda a: a.obs.insert(0, "t", np.nan)}, ValueError, "groupby needs the type of each cell",
    ),
    "input replaced": (
        {"age_key": "agevi_predicted", "change": lambda a: a.obs.insert(0, "agevi_predicted", a.obs["age"])}, ValueError,
        "key_added='agevi' would replace adata.obs['agevi_predicted'], which is read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_trace(cohort, case):
    arguments, error, message = CASES[case]
    arguments = {"model_cls": PoissonVAE, **KEYS, **SMALL, **arguments}
    arguments.pop("change", lambda a: None)(cohort)
    columns, uns = list(cohort.obs), set(cohort.uns)
    with pytest.raises(error) as caught:
        agevi.tl.cross_validate(cohort, **arguments)
    assert message in str(caught.value)
    assert (list(cohort.obs), set(cohort.uns)) == (columns, uns)


def test_a_clock_in_place_of_its_class(cohort, trained):
    with pytest.raises(TypeError, match="model_cls is a PoissonVAE that was made already; pass the class"):
        agevi.tl.cross_validate(cohort, trained, **KEYS)


def test_a_class_that_is_not_trained_on_ages(cohort):
    fixed = type("FixedClock", (PoissonVAE,), {"trainable": False})
    with pytest.raises(ValueError, match="FixedClock is not trained on ages"):
        agevi.tl.cross_validate(cohort, fixed, **KEYS)


def test_an_error_in_a_fold_says_where_and_writes_nothing(cohort, monkeypatch):
    monkeypatch.setattr(MeanClock, "fails_on", frozenset({"d00"}))
    with pytest.raises(RuntimeError, match="a planted failure") as caught:
        agevi.tl.cross_validate(cohort, MeanClock, **KEYS, n_folds=3)
    assert "of the cross-validation of MeanClock" in caught.value.__notes__[0]
    assert "agevi_predicted" not in cohort.obs


def test_folds_spelt_in_two_ways_are_named(cohort):
    code = cohort.obs["donor"].cat.codes.to_numpy()
    cohort.obs["fold"] = np.array(["site A", "Site A", "site B"])[code % 3]
    with pytest.warns(
        UserWarning, match=r"^folds in adata.obs\['fold'\] differ only in zeros, .* \('[Ss]ite A' for '[Ss]ite A'\); if"
    ):
        agevi.tl.cross_validate(cohort, AllClock, **KEYS, fold_key="fold")
