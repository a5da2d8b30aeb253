from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.model import presets
from agevi.tl.neuron_clock._study_rows import make_rows
from agevi.tl.validate import _run_jobs

KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {"epochs": 0.02, "widths": 0.02, "rows": ["mlp [1000, 1000]", "mlp [500, 500]", "gaussian, latent 20"]}


@pytest.fixture(scope="module")
def studied():
    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=8, n_genes=40, age_range=(25, 94), rng=1)
    return agevi.tl.neuron_clock_study(adata, **KEYS, stratify_by="sex", **SMALL, copy=True)


def errors(adata, row, role):
    """Absolute errors by hand from the kept predictions."""
    table = adata.uns["agevi_neuron_clock_study_predictions"]
    part = table[(table["row"] == row) & (table["role"] == role)]
    return (part["predicted"] - part["age"]).abs()


@pytest.mark.slow
def test_split_is_the_papers():
    adata = agevi.datasets.simulate_cohort(n_subjects=69, n_cells=2, n_genes=20, rng=0)
    agevi.tl.neuron_clock_study(adata, **KEYS, epochs=0.01, widths=0.01, rows=["mlp [500, 500]"])
    roles = adata.uns["agevi_neuron_clock_study_params"]["roles"]
    assert roles["role"].value_counts().to_dict() == {"train": 50, "test": 10, "validation": 9}
    assert set(roles["subject"]) == set(adata.obs["donor"].astype(str))


def test_every_row_of_the_paper_is_there_with_its_number():
    rows = make_rows(KEYS, n_train=100, n_genes=40, epochs=1, widths=1, rows=None, defaults=True)
    by_table = pd.Series([row.table for row in rows]).value_counts().to_dict()
    assert by_table == {"1": 4, "2": 9, "3": 3, "4": 6, "others": 2, "defaults": 7}
    for row in rows:
        assert np.isfinite(row.published) == (row.table in "1234"), row.name
    assert {row.name for row in rows if row.table != "defaults"} == set(presets.ROWS)
    best = min((row for row in rows if row.table in "1234"), key=lambda row: row.published)
    assert (best.name, best.published) == ("mlp [5000, 5000, 5000]", 7.78)


def test_scaling_keeps_cycles_and_steps():
    full = presets.NEURON_CLOCK["train"]
    of = {"n_genes": 17_658, "rows": ["poisson, 1000 epochs"], "defaults": False}
    same = make_rows(KEYS, n_train=10**6, epochs=1, widths=1, **of)[0].recipe
    assert {k: same.train_kwargs[k] for k in full} == full
    assert same.model_kwargs == presets.NEURON_CLOCK["init"]
    small = make_rows(KEYS, n_train=13_727, epochs=0.2, widths=0.1, **of)[0].recipe
    assert small.train_kwargs["max_epochs"] == 200
    assert small.train_kwargs["plan_kwargs"]["kl_kwargs"] == {"n_off": 4, "n_rise": 2, "n_full": 2}
    assert small.train_kwargs["plan_kwargs"]["lr_kwargs"] == {"t_0": 4}
    assert small.train_kwargs["batch_size"] == 410  # a tenth of the cells, and of the batch
    assert small.model_kwargs["n_hidden"] == [30, 15]


@pytest.mark.slow
def test_errors_are_those_of_the_predictions(studied):
    table = agevi.get.neuron_clock_study_df(studied)
    for found in table.itertuples():
        role = "test" if found.table == "test" else "validation"
        assert found.mae == pytest.approx(errors(studied, found.row, role).mean())
        assert found.n == 4
        assert found.mae_low <= found.mae <= found.mae_high
    roles = studied.uns["agevi_neuron_clock_study_params"]["roles"].set_index("subject")["role"]
    kept = studied.uns["agevi_neuron_clock_study_predictions"]
    assert (roles[kept["subject"]].to_numpy() == kept["role"].to_numpy()).all()


@pytest.mark.slow
def test_the_best_row_of_each_model_is_tested(studied):
    table = agevi.get.neuron_clock_study_df(studied)
    mlps = table[table["table"] == "1"].set_index("row")["mae"]
    tested = table[table["table"] == "test"]
    assert tested["row"].tolist() == [mlps.idxmin(), "gaussian, latent 20", "median age", "pseudobulk ridge"]
    assert tested["published"].iloc[0] == 15.97
    assert tested["published"].iloc[1:].isna().all()


@pytest.mark.slow
def test_baselines_never_see_who_is_scored(studied):
    roles = studied.uns["agevi_neuron_clock_study_params"]["roles"].set_index("subject")["role"]
    age = studied.obs.groupby(studied.obs["donor"].astype(str))["age"].first()
    kept = studied.uns["agevi_neuron_clock_study_predictions"]
    for role, fitted in (("validation", ["train"]), ("test", ["train", "validation"])):
        predicted = kept[(kept["row"] == "median age") & (kept["role"] == role)]["predicted"]
        np.testing.assert_allclose(predicted, age[roles.isin(fitted)[age.index]].median())


def test_a_row_equals_the_same_steps_by_hand(studied):
    adata = studied.copy()
    roles = adata.uns["agevi_neuron_clock_study_params"]["roles"].set_index("subject")["role"]
    role = adata.obs["donor"].astype(str).map(roles).to_numpy()
    train = adata[role == "train"].copy()
    train.obs["agevi_split"] = "train"
    row = make_rows(KEYS, n_train=train.n_obs, n_genes=40, defaults=False, **SMALL | {"rows": ["mlp [500, 500]"]})[0]
    from agevi.tl.validate._jobs import FITS, stream

    seed = int(stream(0, FITS).generate_state(1)[0] >> 1)
    cls = row.recipe.model_cls
    cls.setup_anndata(train, **row.recipe.setup)
    model = cls(train, rng=seed, **row.recipe.model_kwargs)
    model.train(**row.recipe.train_kwargs)
    held = adata[role == "validation"]
    ages = pd.Series(model.predict_age(held), dtype=float).groupby(held.obs["donor"].astype(str).to_numpy()).mean()
    kept = adata.uns["agevi_neuron_clock_study_predictions"]
    kept = kept[(kept["row"] == "mlp [500, 500]") & (kept["role"] == "validation")].set_index("sample")["predicted"]
    np.testing.assert_allclose(kept, ages[kept.index], rtol=1e-5)


@pytest.mark.slow
def test_prints_the_table_as_it_grows_and_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=4, n_genes=30, rng=2)
    settings = {**KEYS, **SMALL, "rows": ["mlp [500, 500]", "gaussian, latent 20"], "checkpoint_dir": tmp_path}
    agevi.tl.neuron_clock_study(adata, **settings)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Table 1: multilayer perceptrons, validation subjects"
    assert lines[1].startswith("  mlp [500, 500]  ")
    assert "paper   8.44  here " in lines[1]
    assert "Table 2: Gaussian autoencoders, validation subjects" in lines
    first = adata.uns["agevi_neuron_clock_study"]
    monkeypatch.setattr(_run_jobs, "run_fold", lambda *a, **k: pytest.fail("trained again"))
    again = adata.copy()
    agevi.tl.neuron_clock_study(again, **settings)
    pd.testing.assert_frame_equal(again.uns["agevi_neuron_clock_study"], first)


def test_columns_of_a_table_are_those_of_the_paper(studied):
    assert agevi.get.neuron_clock_study_df(studied, 1).columns.tolist()[:7] == [
        "row", "model", "n_hidden", "learning_rate", "dropout", "epochs", "published",
    ]  # fmt: skip
    assert "n_latent" in agevi.get.neuron_clock_study_df(studied, "2")
    with pytest.raises(ValueError, match="table='5' is not known; choose one of '1', '2'"):
        agevi.get.neuron_clock_study_df(studied, 5)


def test_survives_a_file(studied, tmp_path):
    import anndata as ad

    studied.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad").uns
    for name in ("agevi_neuron_clock_study", "agevi_neuron_clock_study_predictions"):
        assert back[name]["row"].tolist() == studied.uns[name]["row"].tolist()


@pytest.mark.slow
def test_a_split_of_your_own_and_a_layer(studied):
    adata = studied.copy()
    roles = adata.uns["agevi_neuron_clock_study_params"]["roles"].set_index("subject")["role"]
    adata.obs["part"] = adata.obs["donor"].astype(str).map(roles).to_numpy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    agevi.tl.neuron_clock_study(adata, **KEYS, **SMALL, layer="counts", split_key="part")
    for name in ("mae", "pearson"):
        np.testing.assert_allclose(
            adata.uns["agevi_neuron_clock_study"][name], studied.uns["agevi_neuron_clock_study"][name], rtol=1e-5
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"rows": ["mlp [500,500]"]}, ValueError, r"rows holds 'mlp \[500,500\]'.*closest: 'mlp", id="row"),
        pytest.param({"epochs": 0}, ValueError, "epochs=0 is not a share of the published number", id="epochs"),
        pytest.param({"widths": "small"}, TypeError, "widths='small' is a str; pass a number", id="widths"),
        pytest.param({"split_key": "parts"}, KeyError, "split_key='parts' is not a column", id="split"),
    ],
)
def test_bad_arguments_change_nothing(cohort, arguments, error, message):
    before = set(cohort.uns), set(cohort.obs)
    with pytest.raises(error, match=message):
        agevi.tl.neuron_clock_study(cohort, **KEYS, **arguments)
    assert (set(cohort.uns), set(cohort.obs)) == before


def test_a_role_without_subjects_is_refused(cohort):
    cohort.obs["part"] = np.where(cohort.obs["agevi_split"] == "test", "test", "train")
    with pytest.raises(ValueError, match="0 validation subjects have an age in adata.obs\\['age'\\]; the study needs"):
        agevi.tl.neuron_clock_study(cohort, **KEYS, split_key="part")


def test_values_that_are_not_counts_are_refused(cohort):
    cohort.X = np.log1p(cohort.X.toarray())
    with pytest.raises(ValueError, match="non-integer values"):
        agevi.tl.neuron_clock_study(cohort, **KEYS)
