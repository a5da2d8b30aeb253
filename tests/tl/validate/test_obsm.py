"""Tools that cross-validate clocks on tables of obsm."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.model import DenoisingVAE, PLSClock

KEYS = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture
def cohort(cohort):
    """The cohort with an array and a table of proteins."""
    counts = cohort.X.toarray()
    cohort.obsm["X_rep"] = np.log1p(counts[:, :6]) - 1
    names = [f"CD{i}" for i in range(6)]
    cohort.obsm["protein"] = pd.DataFrame(counts[:, 6:12], index=cohort.obs_names, columns=names)
    return cohort


@pytest.mark.slow
def test_folds_of_a_representation_are_those_of_its_values(cohort, tmp_path):
    other = ad.AnnData(cohort.obsm["X_rep"], obs=cohort.obs.copy())
    agevi.tl.cross_validate(other, PLSClock, **KEYS, setup_kwargs={"normalize": "none", "age_transform": "none"})
    options = KEYS | {"checkpoint_dir": tmp_path, "setup_kwargs": {"obsm_key": "X_rep"}}
    agevi.tl.cross_validate(cohort, PLSClock, obsm_key="X_rep", **options)
    np.testing.assert_array_equal(cohort.obs["agevi_predicted"], other.obs["agevi_predicted"])
    assert cohort.uns["agevi"]["age_transform"] == "none"
    cohort.obsm["X_rep"] = cohort.obsm["X_rep"] + 1
    with pytest.raises(ValueError, match="values"):  # of another run
        agevi.tl.cross_validate(cohort, PLSClock, **options)
    with pytest.raises(ValueError, match="obsm_key='X_pca', but setup_kwargs holds 'obsm_key': 'X_rep'"):
        agevi.tl.cross_validate(cohort, PLSClock, obsm_key="X_pca", **options)


@pytest.mark.slow
def test_a_clock_knows_the_predictions_of_its_recipe(cohort):
    setup = {"obsm_key": "protein", "normalize": "clr"}
    agevi.tl.cross_validate(cohort, PLSClock, **KEYS, setup_kwargs=setup)
    agevi.tl.aggregate_subjects(cohort)
    cohort.obs["everybody"] = "train"
    for own, refused in ((setup, False), ({"obsm_key": "protein"}, True)):
        PLSClock.setup_anndata(cohort, **KEYS, **own)
        clock = PLSClock(cohort)
        clock.train(split_key="everybody")
        if refused:
            with pytest.raises(ValueError, match="arguments of setup_anndata"):
                clock.set_evaluation(cohort)
        else:
            clock.set_evaluation(cohort)


@pytest.mark.slow
def test_one_leaderboard_of_genes_and_representations(cohort):
    cohort.layers["counts"] = cohort.X.copy()
    models = {
        "genes": PLSClock,
        "representation": (PLSClock, {"setup_kwargs": {"obsm_key": "X_rep"}}),
        "proteins": (PLSClock, {"setup_kwargs": {"obsm_key": "protein", "normalize": "clr"}}),
    }
    agevi.tl.compare_models(cohort, models, **KEYS, layer="counts", n_null_linear=0)
    found = agevi.get.leaderboard_df(cohort).set_index("model")
    assert not found["error"].str.len().any()
    table = cohort.uns["agevi_leaderboard_predictions"]
    folds = table.groupby("sample")["fold"].nunique()
    assert (folds == 1).all()
    agevi.tl.cross_validate(cohort, PLSClock, **KEYS, obsm_key="X_rep")
    first = cohort.obs.drop_duplicates("donor").set_index("donor")["agevi_predicted"]
    own = table[table["model"] == "representation"].set_index("sample")["predicted"]
    np.testing.assert_allclose(own, first[own.index], rtol=1e-6)


@pytest.mark.slow
def test_a_leaderboard_of_a_representation(cohort):
    """The ridge reads the means, and a clock of counts says why it cannot."""
    agevi.tl.compare_models(
        cohort, ["PLSClock", "DenoisingVAE"], **KEYS, obsm_key="X_rep", n_null_linear=0, n_null_network=0
    )
    found = agevi.get.leaderboard_df(cohort).set_index("model")
    assert "DenoisingVAE is fitted to raw counts of genes" in found["error"]["DenoisingVAE"]
    assert "model_kwargs={'gene_likelihood': 'normal'}" in found["error"]["DenoisingVAE"]
    assert np.isfinite(found["mae"][["pseudobulk ridge", "PLSClock"]]).all()


def test_tuning(cohort):
    pytest.importorskip("optuna")
    space = {"obsm_key": ["X_rep", "protein"]}
    study = agevi.tl.tune(cohort, PLSClock, space, **KEYS, n_trials=2)
    assert {trial.params["obsm_key"] for trial in study.trials} == {"X_rep", "protein"}
    one = agevi.tl.tune(cohort, PLSClock, {"weights": ["zscore"]}, **KEYS, n_trials=1, obsm_key="X_rep")
    assert one.best_trial.user_attrs["setup_kwargs"]["obsm_key"] == "X_rep"


@pytest.mark.slow
def test_a_learning_curve(cohort):
    agevi.tl.learning_curve(cohort, PLSClock, **KEYS, obsm_key="X_rep", n_subjects=[6, 12], n_repeats=1, n_folds=2)
    assert np.isfinite(cohort.uns["agevi_learning_curve"]["mae"]).all()


@pytest.mark.slow
def test_members_of_one_table(cohort):
    setup = {"PLSClock": {"obsm_key": "X_rep"}, "ElasticNetClock": {"obsm_key": "protein"}}
    with pytest.raises(ValueError, match="different values of obsm_key"):
        agevi.tl.cross_validate(cohort, ["PLSClock", "ElasticNetClock"], **KEYS, setup_kwargs=setup)
    agevi.tl.cross_validate(cohort, ["PLSClock", "ElasticNetClock"], **KEYS, obsm_key="protein", n_folds=2)
    assert np.isfinite(cohort.obs["agevi_predicted"]).all()


def test_a_subject_in_two_cohorts_trains_in_neither_fold(cohort):
    """Its cells are held out together, and no cell trains while its own cohort is held out."""
    code = cohort.obs["donor"].cat.codes.to_numpy()
    cohort.obs["cohort"] = np.where(code % 2, "a", "b")
    cells = np.flatnonzero(code == 0)
    cohort.obs.loc[cohort.obs_names[cells[:3]], "cohort"] = "a"
    with pytest.warns(UserWarning, match="1 of 24 subjects have cells in several folds"):
        agevi.tl.cross_validate(cohort, PLSClock, **KEYS, obsm_key="X_rep", fold_key="cohort")
    assert (cohort.obs["agevi_fold"].to_numpy() == np.where(code % 2, "a", "b")).all()
    n_cells = cohort.uns["agevi"]["folds"].set_index("fold")["n_cells"]
    assert n_cells["a"] == (code % 2 == 0).sum() - 3
    assert n_cells["b"] == (code % 2 == 1).sum()


def test_models_of_their_own_likelihood(cohort):
    arguments = {
        "model_kwargs": DenoisingVAE.test_params()["init"] | {"gene_likelihood": "normal", "noise": "gaussian"}
    }
    agevi.tl.cross_validate(
        cohort, DenoisingVAE, **KEYS, obsm_key="X_rep", n_folds=2, **arguments, train_kwargs={"max_epochs": 1}
    )
    assert np.isfinite(cohort.obs["agevi_predicted"]).all()
