from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from tests.clocks import each_clock, each_clock_of_counts
from tests.conftest import QUIET
from tests.files import stored


def test_slots(cohort, trained):
    assert agevi.tl.predict_age(cohort, trained) is None
    np.testing.assert_allclose(cohort.obs["agevi_predicted"], trained.predict_age(cohort))
    assert cohort.obs["agevi_predicted"].dtype == np.float32
    assert (cohort.obs["agevi_role"].astype(str) == cohort.obs["agevi_split"].astype(str)).all()
    assert cohort.obsm["X_agevi"].shape == (480, 5)
    assert cohort.obsm["X_agevi"].dtype == np.float32
    info = cohort.uns["agevi"]
    assert info["model"] == "PoissonVAE"
    assert info["version"] == agevi.__version__
    assert info["gene_coverage"] == 1
    assert (info["subject_key"], info["sample_key"], info["age_key"]) == ("donor", "donor", "age")
    assert info["age_unit"] == "years"


@pytest.mark.slow
def test_samples_finer_than_those_of_the_clock(cohort):
    """Each half of a donor's cells has the age that it would have as a donor of its own."""
    agevi.model.MLPClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    trained = agevi.model.MLPClock(cohort, n_hidden=[4])
    trained.train(max_epochs=1, **QUIET)
    half = np.where(np.arange(cohort.n_obs) % 2, " b", " a")
    cohort.obs["visit"] = cohort.obs["donor"].astype(str) + half
    apart = cohort.copy()
    apart.obs["donor"] = apart.obs["visit"]
    agevi.tl.predict_age(apart, trained)
    agevi.tl.predict_age(cohort, trained)
    with pytest.raises(ValueError, match=r"who has 2 samples by sample_key='visit'; sums were taken over 'donor'"):
        agevi.tl.aggregate_subjects(cohort, sample_key="visit")
    agevi.tl.predict_age(cohort, trained, sample_key="visit")
    expected = apart.obs["agevi_predicted_sample"]
    np.testing.assert_array_equal(cohort.obs["agevi_predicted_sample"], expected)
    assert expected.groupby(cohort.obs["donor"].to_numpy()).nunique().max() == 2
    agevi.tl.aggregate_subjects(cohort)
    assert len(agevi.get.subjects_df(cohort)) == cohort.obs["visit"].nunique()
    ensemble = agevi.model.EnsembleClock([trained])
    agevi.tl.predict_age(cohort, ensemble, sample_key="visit", key_added="mean")
    np.testing.assert_allclose(cohort.obs["mean_predicted_sample"], expected, rtol=1e-5)
    with pytest.raises(KeyError, match="sample_key='visits' is not a column of adata.obs; closest: 'visit'"):
        agevi.tl.predict_age(cohort, trained, sample_key="visits")
    with pytest.raises(TypeError, match=r"sample_key=\['visit'\] is a list; pass the name of one column"):
        agevi.tl.predict_age(cohort, trained, sample_key=["visit"])


@each_clock
def test_clocks_of_sums_predict_samples_and_cells_only_on_request(cls, cohort):
    small = {"NMFClock": {"n_components": 3}, "TransformerClock": {"n_tokens": 2, "n_token": 4, "n_layers": 1}}
    network = cls not in (agevi.model.PLSClock, agevi.model.ElasticNetClock)
    cls.setup_anndata(cohort, age_key="age", subject_key="donor")
    model = cls(cohort, **small.get(cls.__name__, {}))
    model.train(**({"max_epochs": 1} | QUIET if network else {}))
    kinds = cohort.obs["cell_type"].astype(object).where(np.arange(cohort.n_obs) != 5)
    cohort.obs["kind"] = kinds
    agevi.tl.predict_age(cohort, model, cell_type_key="kind")
    cells = pd.Series(model.predict_age(cohort), cohort.obs_names, dtype=float)
    per_donor = cohort.obs.groupby("donor", observed=True)["agevi_predicted"].nunique()
    if model.predicts_sums:
        np.testing.assert_array_equal(cohort.obs["agevi_predicted"], model.predict_age(cohort, level="sample"))
        assert (per_donor == 1).all()
    else:
        np.testing.assert_allclose(cohort.obs["agevi_predicted"], cells, rtol=1e-5)
        assert (per_donor > 1).all()
    deviation = cohort.obs["agevi_cell_deviation"]
    assert deviation.dtype == np.float32
    assert np.flatnonzero(deviation.isna()).tolist() == [5]
    for kind in kinds.dropna().unique():
        of_kind = (kinds == kind).to_numpy()
        np.testing.assert_allclose(deviation[of_kind], cells[of_kind] - cells[of_kind].mean(), atol=1e-3)
    agevi.tl.predict_age(cohort, model)
    assert "agevi_cell_deviation" not in cohort.obs
    with pytest.raises(KeyError, match="cell_type_key='kid' is not a column of adata.obs; closest: 'kind'"):
        agevi.tl.predict_age(cohort, model, cell_type_key="kid")


def test_roles_of_new_and_known_subjects(cohort, trained, caplog):
    names = cohort.obs["donor"].astype(str)
    cohort.obs["donor"] = np.where(np.arange(cohort.n_obs) < 100, "new " + names, names)
    with caplog.at_level(logging.INFO, "agevi"):
        agevi.tl.predict_age(cohort, trained, key_added="mine")
    roles = cohort.obs["mine_role"].astype(str).to_numpy()
    assert (roles[:100] == "new").all()
    assert (roles[100:] == cohort.obs["agevi_split"].astype(str).to_numpy()[100:]).all()
    assert f"{(roles == 'train').sum()} of 480 cells belong to subjects that trained the clock" in caplog.text


def test_without_subjects_all_roles_are_new_with_a_warning(cohort, trained):
    del cohort.obs["donor"]
    with pytest.warns(UserWarning, match="training subjects cannot be recognised"):
        agevi.tl.predict_age(cohort, trained)
    assert (cohort.obs["agevi_role"] == "new").all()


def test_copy(cohort, trained):
    out = agevi.tl.predict_age(cohort, trained, copy=True)
    assert "agevi_predicted" in out.obs
    assert "agevi_predicted" not in cohort.obs


def test_out_of_fold_predictions_are_kept(cohort, trained):
    cohort.obs["agevi_role"] = "out_of_fold"
    cohort.obs["agevi_predicted"] = 1.0
    with pytest.raises(ValueError, match="pass another key_added, or overwrite=True"):
        agevi.tl.predict_age(cohort, trained)
    assert (cohort.obs["agevi_predicted"] == 1).all()
    agevi.tl.predict_age(cohort, trained, key_added="mine")
    agevi.tl.predict_age(cohort, trained, overwrite=True)
    assert "out_of_fold" not in set(cohort.obs["agevi_role"])


@each_clock_of_counts
def test_a_clock_of_sums_needs_the_column_of_samples(cls, cohort):
    cls.setup_anndata(cohort, age_key="age", subject_key="donor")
    small = {"n_components": 3} if cls is agevi.model.NMFClock else {}
    model = cls(cohort, **small)
    model.train(**({} if cls in (agevi.model.PLSClock, agevi.model.ElasticNetClock) else {"max_epochs": 1} | QUIET))
    agevi.tl.predict_age(cohort, model)
    new = cohort.copy()
    new.obs = new.obs.rename(columns={"donor": "patient"}).drop(columns="agevi_predicted")
    with pytest.raises(KeyError, match="no 'donor', by which the cells of a sample are summed, .* pass sample_key="):
        agevi.tl.predict_age(new, model)
    assert "agevi_predicted" not in new.obs
    with pytest.warns(UserWarning, match="all roles are 'new'"):
        agevi.tl.predict_age(new, model, sample_key="patient")
    np.testing.assert_allclose(new.obs["agevi_predicted"], cohort.obs["agevi_predicted"], rtol=1e-5)


def test_something_else_than_a_clock_is_refused(cohort, trained):
    with pytest.raises(
        TypeError, match=r"model is the class PLSClock; pass a trained clock: model = PLSClock\(adata\)"
    ):
        agevi.tl.predict_age(cohort, agevi.model.PLSClock)
    with pytest.raises(TypeError, match="model is an AnnData; pass the data first and then a trained clock"):
        agevi.tl.predict_age(trained, cohort)
    with pytest.raises(TypeError, match="model is a str; pass a trained clock"):
        agevi.tl.predict_age(cohort, "clock")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PLSClock", "ensemble", "PoissonVAE"])
def test_cells_are_read_once_unless_something_of_single_cells_is_wanted(kind, cohort, trained, monkeypatch):
    agevi.model.PLSClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    linear = agevi.model.PLSClock(cohort)
    linear.train()
    both = agevi.model.EnsembleClock([linear, trained])
    model = {"PLSClock": linear, "ensemble": both, "PoissonVAE": trained}[kind]
    part = cohort[:, 3:].copy()
    expected = model.predict_rows(part, min_gene_coverage=0.9)
    calls, predict = [], type(model).predict_rows
    monkeypatch.setattr(type(model), "predict_rows", lambda self, *a, **k: calls.append(1) or predict(self, *a, **k))
    agevi.tl.predict_age(part, model)
    assert len(calls) == (kind == "PoissonVAE")  # for its latent space
    assert part.uns["agevi"]["gene_coverage"] == expected.gene_coverage == pytest.approx(57 / 60)
    level = "sample" if model.predicts_sums else "cell"
    np.testing.assert_array_equal(part.obs["agevi_predicted"], model.predict_age(part, level=level))
    calls.clear()
    agevi.tl.predict_age(part, model, cell_type_key="cell_type")
    assert len(calls) == 1
    with pytest.raises(ValueError, match="needs 99% of its genes"):
        agevi.tl.predict_age(part, model, min_gene_coverage=0.99)


def test_coverage_is_logged_and_stored(cohort, trained, caplog):
    part = cohort[:, 3:].copy()
    with caplog.at_level(logging.INFO, "agevi"):
        agevi.tl.predict_age(part, trained)
    assert part.uns["agevi"]["gene_coverage"] == pytest.approx(57 / 60)
    assert "3 of the clock's 60 genes are absent (coverage 95.0 %)" in caplog.text
    assert {record.levelno for record in caplog.records if "are absent" in record.message} == {logging.INFO}
    with pytest.raises(ValueError, match="needs 99% of its genes"):
        agevi.tl.predict_age(part, trained, min_gene_coverage=0.99)


def test_few_genes_are_a_warning(cohort, trained, caplog):
    with caplog.at_level(logging.WARNING, "agevi"):
        agevi.tl.predict_age(cohort[:, 8:].copy(), trained)
    said = [record for record in caplog.records if "(coverage 86.7 %)" in record.message]
    assert [record.levelname for record in said] == ["WARNING"] and "may all be off" in said[0].message


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_everything_written_survives_a_file(cohort, trained, tmp_path, form):
    cohort.obs["cell type"] = np.where(np.arange(cohort.n_obs) % 2, "CD4/CD8", "a b")
    agevi.tl.predict_age(cohort, trained)
    agevi.tl.aggregate_subjects(cohort)
    back = stored(cohort, form, tmp_path)
    np.testing.assert_array_equal(back.obs["agevi_predicted"], cohort.obs["agevi_predicted"])
    np.testing.assert_array_equal(back.obs["agevi_role"].astype(str), cohort.obs["agevi_role"].astype(str))
    np.testing.assert_array_equal(back.obsm["X_agevi"], cohort.obsm["X_agevi"])
    table, expected = back.uns["agevi_subjects"], cohort.uns["agevi_subjects"]
    assert list(table.columns) == list(expected.columns)
    np.testing.assert_allclose(table["predicted"], expected["predicted"])
    assert back.uns["agevi"]["model"] == "PoissonVAE"
    agevi.tl.aggregate_subjects(back)
    np.testing.assert_allclose(back.uns["agevi_subjects"]["predicted"], expected["predicted"])


@pytest.mark.slow
def test_a_cohort_whose_ids_are_those_of_training_subjects(cohort, caplog, tmp_path):
    """Another cohort numbered like the training one is told of; the training data and a cohort with new ids are not."""
    agevi.model.PLSClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    clock = agevi.model.PLSClock(cohort)
    clock.train()
    other = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=5, n_genes=60, n_age_genes=20, rng=7)
    other.obs_names = "b" + other.obs_names
    line = "The ids of all 24 subjects in adata.obs['donor'] are those of subjects that the clock knows; "

    def said(adata, model):
        caplog.clear()
        agevi.tl.predict_age(adata, model)
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    clock.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    n_train = list(clock.split_.values()).count("train")
    for model in (clock, loaded):
        assert [text.startswith(f"{line}{n_train} have the role 'train'") for text in said(other, model)] == [True]
    assert said(cohort, clock) == said(cohort[cohort.obs["sex"] == "male"].copy(), clock) == []
    assert said(cohort, agevi.model.EnsembleClock([clock])) == []
    code = caplog_code(other, clock, caplog)
    exec(code, {"adata": other})
    assert said(other, clock) == []
    assert set(other.obs["agevi_role"]) == {"new"}


def caplog_code(adata, model, caplog):
    """The code that the line on ids tells to run."""
    caplog.clear()
    agevi.tl.predict_age(adata, model)
    return caplog.records[0].getMessage().split("predict again: ")[1].removesuffix(".")
