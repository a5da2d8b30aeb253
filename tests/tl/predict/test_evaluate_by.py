from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, median_absolute_error, r2_score

import agevi
from agevi import get, metrics
from agevi.tl.predict._evaluate_by import binned, evaluate_by
from tests.files import stored


def predicted_cohort(n=60, seed=0):
    """Samples of two cells each, with predictions, roles, tissue, modality and sex, as the tools leave them."""
    rng = np.random.default_rng(seed)
    names = np.array([f"s{i:02d}" for i in range(n)])
    age = rng.uniform(10, 90, n).round(1)
    table = pd.DataFrame(
        {
            "subject": names,
            "age": age,
            "predicted": age + rng.normal(2, 7, n),
            "n_cells": 2,
            "sd_cells": 1.0,
            "role": np.array(["train", "test", "test"])[np.arange(n) % 3],
        },
        index=pd.Index(names, name="sample", dtype=object),
    )
    labels = pd.DataFrame(
        {
            "tissue": pd.Categorical(rng.choice(["skin", "CD4/CD8", "a b"], n), categories=["skin", "a b", "CD4/CD8"]),
            "modality": rng.choice(["RNA", "methylation"], n),
            "year": rng.choice([2, 10], n),
        },
        index=names,
    )
    of_cell = rng.permutation(np.repeat(np.arange(n), 2))
    obs = labels.iloc[of_cell].assign(donor=names[of_cell], cell_type=np.arange(2 * n) % 2)
    obs.index = [f"cell{i}" for i in range(2 * n)]
    adata = ad.AnnData(np.ones((2 * n, 2), dtype=np.float32), obs=obs)
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age", "age_unit": "years"}
    adata.uns["agevi_subjects"] = table
    return adata, table.join(labels)


def table_of(adata, *args, **kwargs):
    evaluate_by(adata, *args, **({"n_boot": 50} | kwargs))
    return get.metrics_by_df(adata)


def by_hand(part):
    """The metrics from scikit-learn and scipy."""
    age, predicted = part["age"], part["predicted"]
    line = scipy.stats.linregress(age, predicted)
    return {
        "n": len(part),
        "mae": mean_absolute_error(age, predicted),
        "mse": mean_squared_error(age, predicted),
        "rmse": mean_squared_error(age, predicted) ** 0.5,
        "mdae": median_absolute_error(age, predicted),
        "mad": scipy.stats.median_abs_deviation(predicted - age),
        "r2": r2_score(age, predicted),
        "pearson": scipy.stats.pearsonr(age, predicted)[0],
        "spearman": scipy.stats.spearmanr(age, predicted)[0],
        "slope": line.slope,
        "intercept": line.intercept,
    }


def test_rows_are_those_of_the_published_table():
    """Overall, per modality, per tissue and modality, in the order of categories and names."""
    adata, samples = predicted_cohort()
    out = table_of(adata, ["modality", ("tissue", "modality")])
    held_out = samples[samples["role"] == "test"]
    expected = [("overall", "", held_out)]
    expected += [("modality", name, held_out[held_out["modality"] == name]) for name in ("RNA", "methylation")]
    for tissue in ("skin", "a b", "CD4/CD8"):
        for name in ("RNA", "methylation"):
            part = held_out[(held_out["tissue"] == tissue) & (held_out["modality"] == name)]
            expected.append(("tissue;modality", f"{tissue};{name}", part))
    assert list(zip(out["groupby"], out["group"], strict=True)) == [(by, group) for by, group, _ in expected]
    for row, (_, _, part) in zip(out.to_dict("records"), expected, strict=True):
        reference = by_hand(part)
        assert {name: row[name] for name in reference} == pytest.approx(reference)


def test_interval_and_guess_are_those_of_the_group():
    adata, samples = predicted_cohort()
    out = table_of(adata, "modality").set_index("group")
    part = samples[(samples["role"] == "test") & (samples["modality"] == "RNA")]
    interval = metrics.bootstrap_interval(metrics.mae, part["age"], part["predicted"], n_boot=50)
    assert tuple(out.loc["RNA", ["mae_low", "mae_high"]]) == interval
    median = samples.loc[samples["role"] == "train", "age"].median()
    assert out.loc["RNA", "mae_median"] == pytest.approx((part["age"] - median).abs().mean())


def test_guess_of_out_of_fold_samples_is_that_of_the_other_folds():
    adata, samples = predicted_cohort()
    fold = np.arange(len(samples)) % 4
    adata.uns["agevi_subjects"]["role"] = "out_of_fold"
    adata.uns["agevi_subjects"]["fold"] = fold
    medians = np.array([samples.loc[fold != f, "age"].median() for f in fold])
    assert table_of(adata)["mae_median"][0] == pytest.approx(np.abs(samples["age"] - medians).mean())


def test_columns_of_the_subject_table_are_groups():
    adata, samples = predicted_cohort()
    out = table_of(adata, "role", roles=None).set_index("group")
    assert out.loc["train", "mae"] == pytest.approx(by_hand(samples[samples["role"] == "train"])["mae"])
    assert out.loc["", "n"] == 60


def test_numbers_are_in_the_order_of_their_size():
    adata, _ = predicted_cohort()
    assert table_of(adata, "year")["group"].tolist() == ["", "2", "10"]


def test_age_bins_are_rows_or_crossed():
    adata, samples = predicted_cohort()
    held_out = samples[samples["role"] == "test"]
    out = table_of(adata, age_bins=[0, 30, 90]).set_index("group")
    assert out.loc["0 to 30", "n"] == (held_out["age"] < 30).sum()
    assert out.loc["30 to 90", "mae"] == pytest.approx(by_hand(held_out[held_out["age"] >= 30])["mae"])
    crossed = table_of(adata, [("age_bin", "modality")], age_bins=[0, 30, 90])
    assert set(crossed["groupby"]) == {"overall", "age_bin;modality"}
    assert crossed["group"].tolist()[1:3] == ["0 to 30;RNA", "0 to 30;methylation"]


def test_edges_of_age_bins():
    out = binned(pd.Series([-1.0, 0.0, 19.9, 20.0, 40.0, 40.1, np.nan]), [0, 20, 40])
    assert out.astype(object).where(out.notna(), None).tolist() == [
        None, "0 to 20", "0 to 20", "20 to 40", "20 to 40", None, None
    ]  # fmt: skip


def test_samples_without_age_prediction_or_group_are_left_out(caplog):
    adata, samples = predicted_cohort()
    test = samples.index[samples["role"] == "test"]
    adata.uns["agevi_subjects"].loc[test[0], "age"] = np.nan
    adata.uns["agevi_subjects"].loc[test[1], "predicted"] = np.nan
    adata.obs.loc[adata.obs["donor"] == test[2], "modality"] = None
    with caplog.at_level(logging.INFO, logger="agevi"):
        out = table_of(adata, "modality")
    assert out["n"][0] == len(test) - 2
    assert out["n"][1:].sum() == len(test) - 3
    assert "1 samples have no value of ('modality',)" in caplog.text


def test_one_sample_has_a_row_without_metrics(recwarn):
    adata, _ = predicted_cohort(n=4)
    adata.uns["agevi_subjects"] = adata.uns["agevi_subjects"].assign(role=["train", "train", "train", "test"])
    out = table_of(adata)
    assert out["n"].tolist() == [1]
    assert out.drop(columns=["groupby", "group", "n", "n_subjects"]).dtypes.eq(np.float64).all()
    assert out.loc[0, "mae":].isna().all()
    assert len(recwarn) == 0


def test_visits_are_drawn_by_subject():
    adata, _ = predicted_cohort()
    adata.uns["agevi_subjects"]["subject"] = np.repeat([f"p{i}" for i in range(20)], 3)
    assert table_of(adata)[["n", "n_subjects"]].to_numpy().tolist() == [[40, 20]]


def test_fitted_roles_warn():
    adata, samples = predicted_cohort()
    with pytest.warns(UserWarning, match="role 'train' show how well these subjects were fitted") as caught:
        evaluate_by(adata, roles=["train", "test"], n_boot=5)
    assert caught[0].filename == __file__
    assert get.metrics_by_df(adata)["n"].tolist() == [60]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table_of(adata, roles="test")["n"].tolist() == [40]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_table_survives_a_file(tmp_path, form):
    adata, _ = predicted_cohort()
    adata.obs["odd"] = adata.obs["tissue"].map({"skin": "", "a b": "a b", "CD4/CD8": "CD4/CD8"}).astype(str)
    before = table_of(adata, ["odd", ("year", "odd")], age_bins=[0, 50, 100])
    read = stored(adata, form, tmp_path)
    pd.testing.assert_frame_equal(get.metrics_by_df(read), before, check_dtype=False)
    params = read.uns["agevi_metrics_params"]
    assert list(params["groupby"]) == ["odd", "year;odd", "age_bin"]
    assert list(params["roles"]) == ["test", "out_of_fold", "new"]
    assert params["n_boot"] == 50


def test_copy_and_key():
    adata, _ = predicted_cohort()
    out = evaluate_by(adata, n_boot=5, copy=True)
    assert "agevi_metrics" in out.uns
    assert "agevi_metrics" not in adata.uns
    adata.uns["mine_subjects"] = adata.uns.pop("agevi_subjects")
    evaluate_by(adata, "modality", sample_key="donor", key_added="mine", n_boot=5)
    assert len(get.metrics_by_df(adata, key_added="mine")) == 3


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(
            None, {"groupby": "cell_type"}, ValueError,
            r"adata.obs\['cell_type'\] has 2 values \('.', '.'\) in sample 's.*groupby takes columns with one value per sample",
            id="several values",
        ),
        pytest.param(None, {"groupby": "tisue"}, KeyError, "groupby='tisue' is not a column.*closest: 'tissue'", id="column"),
        pytest.param(None, {"groupby": [()]}, ValueError, r"groupby has \(\); a crossing names different", id="empty"),
        pytest.param(None, {"groupby": [("sex", "sex")]}, ValueError, "a crossing names different", id="twice"),
        pytest.param(None, {"age_bins": [20, 10]}, ValueError, r"age_bins=\[20, 10\] are not bins", id="bins fall"),
        pytest.param(None, {"age_bins": [20]}, ValueError, "two or more rising edges", id="one edge"),
        pytest.param(None, {"roles": "tests"}, ValueError, "roles='tests' is not known", id="unknown role"),
        pytest.param(None, {"roles": "new"}, ValueError, "no sample of the roles 'new'.*roles there: 'test', 'train'", id="role"),
        pytest.param({"role": "train"}, {}, ValueError, "no sample of the roles 'test'.*train and validation shaped", id="fitted"),
        pytest.param({"age": np.nan}, {"roles": None}, ValueError, "no sample has an age and a prediction", id="no ages"),
        pytest.param(None, {"key_added": "x"}, KeyError, "run agevi.tl.aggregate_subjects", id="no table"),
        pytest.param(
            "uns", {"groupby": "tissue"}, KeyError, "names no sample column; pass sample_key", id="sample column unknown"
        ),
        pytest.param(
            None, {"groupby": "tissue", "sample_key": "tissue"}, ValueError, "have no cells in adata.obs", id="other samples"
        ),
    ],
)  # fmt: skip
def test_refuses(change, arguments, error, message):
    adata, _ = predicted_cohort()
    if change == "uns":
        del adata.uns["agevi"]
    elif change:
        adata.uns["agevi_subjects"] = adata.uns["agevi_subjects"].assign(**change)
    with pytest.raises(error, match=message):
        evaluate_by(adata, **arguments)
    assert "agevi_metrics" not in adata.uns


def test_table_must_exist():
    with pytest.raises(KeyError, match=r"run agevi.tl.evaluate_by\(adata, groupby=\[...\]\) first"):
        get.metrics_by_df(predicted_cohort()[0])


def test_from_cells_to_groups():
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=4, n_genes=20)
    adata.obs["agevi_predicted"] = adata.obs["age"] + np.where(adata.obs["sex"] == "male", 3.0, -1.0)
    adata.obs["agevi_role"] = "test"
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    agevi.tl.aggregate_subjects(adata)
    evaluate_by(adata, "sex", n_boot=10)
    out = get.metrics_by_df(adata).set_index("group")
    assert out.loc[["female", "male"], "mae"].tolist() == pytest.approx([1.0, 3.0])


def test_samples_of_another_spelling_are_named():
    adata = predicted_cohort()[0]
    sample = adata.uns["agevi"]["sample_key"]
    adata.obs[sample] = adata.obs[sample].astype(str).str.upper() + " "
    with pytest.raises(
        ValueError, match=r"have no cells in adata.obs.* \(only zeros, spaces, case or '.0' differ in '"
    ):
        agevi.tl.evaluate_by(adata, "tissue")
