from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import get, metrics
from tests.files import stored

COLUMNS = ["sample", "subject", "age", "predicted", "n_cells", "sd_cells", "role"]


def subject_table(roles=("train",) * 6 + ("validation",) * 3 + ("test",) * 5, seed=0):
    rng = np.random.default_rng(seed)
    n = len(roles)
    age = rng.uniform(20, 90, n)
    return pd.DataFrame(
        {
            "subject": [f"d{i:02d}" for i in range(n)],
            "age": age,
            "predicted": age + rng.normal(0, 6, n),
            "n_cells": np.arange(n) + 5,
            "sd_cells": rng.uniform(5, 9, n),
            "role": list(roles),
        },
        index=pd.Index([f"d{i:02d}" for i in range(n)], name="sample"),
    )


def with_table(table, key="agevi"):
    adata = ad.AnnData(np.ones((2, 2), dtype=np.float32))
    adata.uns[f"{key}_subjects"] = table
    return adata


class Model:
    def __init__(self, history):
        self.history = history


def recorded(name, values, index="epoch", start=0, step=1):
    """A metric as scvi-tools keeps it: one column of objects."""
    frame = pd.DataFrame({name: values}, dtype=object)
    frame.index = pd.RangeIndex(start, start + step * len(values), step, name=index)
    return frame


def test_subjects_df_is_a_tidy_copy():
    table = subject_table()
    adata = with_table(table)
    out = get.subjects_df(adata)
    assert list(out) == COLUMNS
    assert out["sample"].tolist() == table.index.tolist()
    np.testing.assert_array_equal(out["predicted"], table["predicted"])
    out.loc[0, "age"] = -1.0
    assert adata.uns["agevi_subjects"]["age"].iloc[0] != -1.0


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_subjects_df_after_reading_a_file(tmp_path, store):
    adata = with_table(subject_table())
    back = stored(adata, store, tmp_path)
    pd.testing.assert_frame_equal(
        get.subjects_df(back), get.subjects_df(adata), check_dtype=False, check_column_type=False
    )
    pd.testing.assert_frame_equal(
        get.metrics_df(back), get.metrics_df(adata), check_index_type=False, check_names=False
    )


@pytest.mark.parametrize(
    ("roles", "n"),
    [
        pytest.param("test", 5, id="one"),
        pytest.param(["validation", "test"], 8, id="two"),
        pytest.param(["new"], 0, id="absent"),
        pytest.param(None, 14, id="all"),
    ],
)
def test_subjects_df_by_role(roles, n):
    out = get.subjects_df(with_table(subject_table()), roles=roles)
    assert len(out) == n
    assert out.index.tolist() == list(range(n))


@pytest.mark.parametrize("function", [get.subjects_df, get.metrics_df], ids=["subjects_df", "metrics_df"])
def test_messages(function):
    adata = with_table(subject_table())
    with pytest.raises(ValueError, match="roles='tests' is not known; choose one of 'train', 'validation', 'test'"):
        function(adata, roles="tests")
    with pytest.raises(
        KeyError, match=r"adata.uns\['mine_subjects'\] is absent; run .*aggregate_subjects\(adata, key_added='mine'\)"
    ):
        function(adata, key_added="mine")
    del adata.uns["agevi_subjects"]
    with pytest.raises(KeyError, match=r"run agevi.tl.aggregate_subjects\(adata\) first"):
        function(adata)


def test_metrics_df_has_one_row_per_role_with_every_metric():
    table = subject_table()
    out = get.metrics_df(with_table(table))
    assert out.index.tolist() == ["train", "validation", "test"]
    assert out.index.name == "role"
    for role, part in table.groupby("role"):
        expected = metrics.regression_metrics(part["age"], part["predicted"])
        assert {name: out.loc[role, name] for name in expected} == pytest.approx(expected)
        assert tuple(out.loc[role, ["mae_low", "mae_high"]]) == metrics.bootstrap_interval(
            metrics.mae, part["age"], part["predicted"]
        )
    assert out["n"].tolist() == [6, 3, 5]
    assert out["n"].dtype == np.int64
    assert out.columns.tolist()[:6] == ["n", "n_subjects", "mae", "mae_low", "mae_high", "mae_median"]


def test_median_predictor_uses_training_ages():
    table = subject_table()
    median = table.loc[table["role"] == "train", "age"].median()
    out = get.metrics_df(with_table(table))
    for role, part in table.groupby("role"):
        assert out.loc[role, "mae_median"] == pytest.approx((part["age"] - median).abs().mean())


def test_median_predictor_is_unknown_without_training_ages():
    out = get.metrics_df(with_table(subject_table(roles=("new",) * 5)))
    assert np.isnan(out.loc["new", "mae_median"])
    assert out.loc["new", "mae"] > 0


def test_median_predictor_of_folds_uses_the_other_folds():
    table = subject_table(roles=("out_of_fold",) * 9)
    table["fold"] = np.arange(9) % 3
    out = get.metrics_df(with_table(table))
    errors = []
    for fold, part in table.groupby("fold"):
        errors.extend((part["age"] - table.loc[table["fold"] != fold, "age"].median()).abs())
    assert out.loc["out_of_fold", "mae_median"] == pytest.approx(np.mean(errors))
    by_fold = get.metrics_df(with_table(table), groupby="fold")
    assert by_fold.index.tolist() == [0, 1, 2]
    assert by_fold["n"].tolist() == [3, 3, 3]
    no_fold = get.metrics_df(with_table(table.drop(columns="fold")))
    assert np.isnan(no_fold.loc["out_of_fold", "mae_median"])


def test_visits_are_drawn_by_subject():
    table = subject_table(roles=("test",) * 20)
    twice = pd.concat([table, table.set_axis([f"{i}_2" for i in table.index])]).rename_axis("sample")
    out = get.metrics_df(with_table(twice))
    single = get.metrics_df(with_table(table))
    assert out.loc["test", ["n", "n_subjects"]].tolist() == [40, 20]
    np.testing.assert_allclose(out[["mae_low", "mae_high"]], single[["mae_low", "mae_high"]], rtol=0.05)


def test_samples_without_age_or_prediction_are_left_out():
    table = subject_table()
    table.loc["d09", "age"] = np.nan
    table.loc["d10", "predicted"] = np.nan
    out = get.metrics_df(with_table(table))
    part = table.loc[["d11", "d12", "d13"]]
    assert out.loc["test", "n"] == 3
    assert out.loc["test", "mae"] == pytest.approx(metrics.mae(part["age"], part["predicted"]))


def test_one_sample_has_a_row_without_metrics(recwarn, caplog):
    out = get.metrics_df(with_table(subject_table(roles=("train", "train", "test"))))
    said = "1 of 2 rows by 'role' have one sample with age and prediction ('test'); their metrics are NaN, since they need two."
    assert [r.getMessage() for r in caplog.records].count(said) == 1
    assert out.loc["test", "n"] == 1
    assert np.isnan(out.loc["test", ["mae", "mae_low", "rmse", "slope"]].astype(float)).all()
    alone = get.metrics_df(with_table(subject_table(roles=("test",))))
    assert list(alone) == list(out)
    assert len(recwarn) == 0


def test_training_rows_warn_only_when_asked_for_by_name():
    adata = with_table(subject_table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "train" in get.metrics_df(adata).index
        assert get.metrics_df(adata, roles="test").index.tolist() == ["test"]
    with pytest.warns(UserWarning, match="metrics on role 'train' show how well these subjects were fitted") as caught:
        out = get.metrics_df(adata, roles=["train", "test"])
    assert caught[0].filename == __file__
    assert out.index.tolist() == ["train", "test"]


def test_training_ages_count_though_training_rows_are_not_shown():
    adata = with_table(subject_table())
    shown, all_rows = get.metrics_df(adata, roles="test"), get.metrics_df(adata)
    pd.testing.assert_frame_equal(shown, all_rows.loc[["test"]])


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param(
            {}, {"groupby": "sex"}, KeyError, "groupby='sex' is not a column.*'sample', 'subject'", id="groupby"
        ),
        pytest.param(
            {"age": np.nan}, {}, ValueError, "no sample has an age and a prediction in.*age_key", id="no ages"
        ),
        pytest.param({}, {"roles": "new"}, ValueError, "no sample of the roles 'new' has an age", id="role absent"),
        pytest.param({}, {"level": 2}, ValueError, "level=2 is not a coverage", id="level"),
    ],
)
def test_metrics_df_refuses(change, arguments, error, message):
    with pytest.raises(error, match=message):
        get.metrics_df(with_table(subject_table().assign(**change)), **arguments)


def test_history_df_is_tidy():
    model = Model(
        {
            "age_mae_train": recorded("age_mae_train", [9.0, 8.0, 7.0]),
            "age_mae_validation": recorded("age_mae_validation", [9.5, 9.0, 9.1]),
            "train_loss": recorded("train_loss", [3, 2, 1]),
            "kl_weight": recorded("kl_weight", [0.0, 0.5, 1.0]),
        }
    )
    out = get.history_df(model)
    assert list(out) == ["epoch", "metric", "value", "quantity", "role"]
    assert out.dtypes[["epoch", "value"]].tolist() == [np.int64, np.float64]
    best = out[out["metric"] == "age_mae_validation"].set_index("epoch")["value"]
    assert best.to_dict() == {1: 9.5, 2: 9.0, 3: 9.1}
    names = out.drop_duplicates("metric").set_index("metric")
    assert names["quantity"].tolist() == ["age_mae", "age_mae", "loss", "kl_weight"]
    assert names["role"].tolist() == ["train", "validation", "train", ""]


@pytest.mark.parametrize(
    ("steps", "epochs"),
    [
        pytest.param(recorded("kl_weight", [0, 1, 2, 3, 4, 5], "step", 0, 2), [1, 1, 2, 2, 3, 3], id="12 steps"),
        pytest.param(recorded("kl_weight", [], "step"), [], id="no step"),
    ],
)
def test_history_df_gives_steps_their_epoch(steps, epochs):
    model = Model({"age_mae_train": recorded("age_mae_train", [1.0, 2.0, 3.0]), "kl_weight": steps})
    out = get.history_df(model)
    assert out.loc[out["metric"] == "kl_weight", "epoch"].tolist() == epochs


@pytest.mark.parametrize("history", [None, {}], ids=["None", "empty"])
def test_history_df_needs_training(history):
    with pytest.raises(RuntimeError, match=r"this Model has no history; call model.train\(\) first"):
        get.history_df(Model(history))


def test_history_df_needs_a_model():
    with pytest.raises(TypeError, match="model is a str, which keeps no history; pass a model of agevi.model"):
        get.history_df("model")
