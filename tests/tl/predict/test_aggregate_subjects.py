from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from agevi.tl.predict._aggregate_subjects import aggregate_subjects, per_group
from tests.files import stored

STATISTICS = {"mean": np.mean, "median": np.median, "trimmed_mean": lambda v: scipy.stats.trim_mean(v, 0.1)}


def predicted_cells(sizes=(7, 1, 12, 4), seed=0, key="agevi"):
    """Cells of subjects d0, d1, ... in random order, as tl.predict_age leaves them."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(len(sizes))]
    donor = rng.permutation(np.repeat(names, sizes))
    age = dict(zip(names, [30.0, 45.0, 60.0, 75.0, 80.0], strict=False))
    roles = dict(zip(names, ["train", "validation", "test", "test", "new"], strict=False))
    obs = pd.DataFrame({"donor": donor, "years": [age[d] for d in donor]})
    obs[f"{key}_predicted"] = (obs["years"] + rng.normal(0, 5, len(obs))).astype(np.float32)
    obs[f"{key}_role"] = pd.Categorical([roles[d] for d in donor])
    obs.index = [f"cell{i}" for i in range(len(obs))]
    adata = ad.AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)
    adata.uns[key] = {"subject_key": "donor", "sample_key": "donor", "age_key": "years", "age_unit": "years"}
    return adata


def table_of(adata, **arguments):
    aggregate_subjects(adata, **arguments)
    return adata.uns["agevi_subjects"]


@pytest.mark.parametrize("statistic", STATISTICS)
def test_statistics_equal_numpy_and_scipy(statistic):
    adata = predicted_cells(sizes=(7, 1, 12, 40, 2))
    table = table_of(adata, statistic=statistic)
    for name, cells in adata.obs.groupby("donor", observed=True)["agevi_predicted"]:
        values = cells.to_numpy(dtype=np.float64)
        np.testing.assert_allclose(table.loc[name, "predicted"], STATISTICS[statistic](values), rtol=1e-12)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_per_group_equals_its_reference_for_every_size(statistic):
    rng = np.random.default_rng(1)
    codes = rng.permutation(np.repeat(np.arange(32), np.arange(32)))  # sizes 0 ... 31
    values = rng.integers(0, 9, len(codes)).astype(float)  # with ties
    out = per_group(values, codes, 33, statistic)
    assert np.isnan(out[[0, 32]]).all()
    expected = [STATISTICS[statistic](values[codes == i]) for i in range(1, 32)]
    np.testing.assert_allclose(out[1:32], expected, rtol=1e-12)


def test_table_has_the_documented_columns():
    adata = predicted_cells()
    before = set(adata.obs)
    assert aggregate_subjects(adata) is None
    table = adata.uns["agevi_subjects"]
    assert list(table) == ["subject", "age", "predicted", "n_cells", "sd_cells", "role"]
    assert table.index.tolist() == ["d0", "d1", "d2", "d3"]
    assert table["subject"].tolist() == table.index.tolist()
    assert table["age"].tolist() == [30.0, 45.0, 60.0, 75.0]
    assert table["n_cells"].tolist() == [7, 1, 12, 4]
    assert table["role"].tolist() == ["train", "validation", "test", "test"]
    spread = adata.obs.astype({"agevi_predicted": float}).groupby("donor")["agevi_predicted"].std()
    np.testing.assert_allclose(table["sd_cells"], spread)
    assert np.isnan(table.loc["d1", "sd_cells"])
    assert [str(table[c].dtype) for c in ("age", "predicted", "n_cells", "sd_cells")] == [
        "float64", "float64", "int64", "float64"
    ]  # fmt: skip
    assert set(adata.obs) == before


def test_copy_leaves_the_original_alone():
    adata = predicted_cells()
    out = aggregate_subjects(adata, copy=True)
    assert "agevi_subjects" in out.uns
    assert "agevi_subjects" not in adata.uns


def test_order_of_cells_does_not_matter():
    adata = predicted_cells()
    shuffled = adata[np.random.default_rng(3).permutation(adata.n_obs)].copy()
    pd.testing.assert_frame_equal(table_of(adata), table_of(shuffled))


def test_samples_within_subjects():
    adata = predicted_cells()
    adata.obs["visit"] = np.where(adata.obs["donor"] == "d2", "d2_" + pd.Series(np.arange(24) % 2).astype(str), "v_" + adata.obs["donor"])  # fmt: skip
    adata.obs.loc[adata.obs["visit"] == "d2_1", "years"] = 65.0
    adata.uns["agevi"]["sample_key"] = "visit"
    stored = table_of(adata)
    assert stored.index.tolist() == ["d2_0", "d2_1", "v_d0", "v_d1", "v_d3"]
    assert stored["subject"].tolist() == ["d2", "d2", "d0", "d1", "d3"]
    assert stored["age"].tolist() == [60.0, 65.0, 30.0, 45.0, 75.0]
    adata.uns["agevi"]["sample_key"] = "donor"
    pd.testing.assert_frame_equal(table_of(adata, sample_key="visit"), stored)


def test_keys_given_need_no_stored_ones():
    adata = predicted_cells()
    expected = table_of(adata).copy()
    del adata.uns["agevi"]
    adata.obs["person"] = adata.obs["donor"]
    pd.testing.assert_frame_equal(table_of(adata, subject_key="person", age_key="years"), expected)
    assert table_of(adata, subject_key="person")["age"].isna().all()


def test_another_subject_column_is_the_sample_too():
    """Where samples were subjects in the prediction, a new subject column is not crossed with the old one."""
    adata = predicted_cells()
    adata.obs["person"] = "p" + adata.obs["donor"]
    table = table_of(adata, subject_key="person")
    assert table.index.tolist() == ["pd0", "pd1", "pd2", "pd3"]


@pytest.mark.parametrize("case", ["absent", "all NaN", "all None"])
def test_ages_are_not_needed(case):
    adata = predicted_cells()
    if case == "absent":
        del adata.obs["years"]
    else:
        adata.obs["years"] = np.nan if case == "all NaN" else None
    table = table_of(adata)
    assert table["age"].isna().all()
    assert table["age"].dtype == np.float64
    assert table["predicted"].notna().all()


def test_roles_are_not_needed():
    adata = predicted_cells()
    del adata.obs["agevi_role"]
    assert table_of(adata)["role"].tolist() == [""] * 4


def test_unlabelled_and_prenatal_samples_pass():
    adata = predicted_cells()
    adata.obs.loc[adata.obs["donor"] == "d0", "years"] = np.nan
    adata.obs.loc[adata.obs["donor"] == "d1", "years"] = -25.0  # weeks before birth
    np.testing.assert_array_equal(table_of(adata)["age"], [np.nan, -25.0, 60.0, 75.0])


def test_cells_without_prediction_are_left_out_and_counted(caplog):
    adata = predicted_cells()
    in_d0 = np.flatnonzero(adata.obs["donor"] == "d0")
    adata.obs.iloc[in_d0[:3], adata.obs.columns.get_loc("agevi_predicted")] = np.nan
    adata.obs.loc[adata.obs["donor"] == "d3", "agevi_predicted"] = np.nan
    with caplog.at_level(logging.INFO, logger="agevi"):
        table = table_of(adata)
    assert "7 of 24 cells have no prediction and are left out" in caplog.text
    assert table["n_cells"].tolist() == [4, 1, 12, 0]
    kept = adata.obs["agevi_predicted"].iloc[in_d0[3:]].to_numpy(dtype=float)
    assert table.loc["d0", "predicted"] == pytest.approx(kept.mean(), rel=1e-12)
    assert np.isnan(table.loc["d3", ["predicted", "sd_cells"]].astype(float)).all()
    assert table.loc["d3", "role"] == "test"


def test_level_sum_reads_the_sample_predictions():
    adata = predicted_cells()
    sums = pd.Series({"d0": 31.5, "d1": 40.0, "d2": 61.0, "d3": 70.5})
    by_cells = table_of(adata).copy()
    adata.obs["agevi_predicted_sample"] = adata.obs["donor"].map(sums).astype(np.float32)
    for level in ("auto", "sum"):
        table = table_of(adata, level=level)
        np.testing.assert_allclose(table["predicted"], sums)
        np.testing.assert_allclose(table["sd_cells"], by_cells["sd_cells"])
        assert table["n_cells"].tolist() == [7, 1, 12, 4]
    pd.testing.assert_frame_equal(table_of(adata, level="cells"), by_cells)
    adata.obs.loc[adata.obs["donor"] == "d3", "agevi_predicted_sample"] = np.nan
    table = table_of(adata, level="sum")
    assert np.isnan(table.loc["d3", "predicted"])
    assert table.loc["d3", "n_cells"] == 0
    del adata.obs["agevi_predicted"]
    assert table_of(adata, level="sum")["sd_cells"].isna().all()


@pytest.mark.parametrize(
    ("fold", "expected", "kind"),
    [
        pytest.param({"d0": 0, "d1": 1, "d2": 0, "d3": 2}, [0, 1, 0, 2], "i", id="numbers"),
        pytest.param({"d0": "0", "d1": "1", "d2": "0", "d3": "2"}, [0, 1, 0, 2], "i", id="numbers as text"),
        pytest.param({"d0": "a", "d1": "b", "d2": "a", "d3": "1"}, ["a", "b", "a", "1"], "O", id="text"),
        pytest.param({"d0": 0, "d1": 1, "d2": 0}, [0.0, 1.0, 0.0, np.nan], "f", id="some without"),
    ],
)
def test_folds(fold, expected, kind):
    adata = predicted_cells()
    adata.obs["agevi_fold"] = adata.obs["donor"].map(fold)
    column = table_of(adata)["fold"]
    assert list(table_of(adata))[-1] == "fold"
    if kind == "O":
        assert column.tolist() == expected
    else:
        assert column.dtype.kind == kind
        np.testing.assert_array_equal(column, expected)


def test_other_keys_do_not_meet():
    adata = predicted_cells(key="mine")
    aggregate_subjects(adata, key_added="mine")
    assert "mine_subjects" in adata.uns
    assert "agevi_subjects" not in adata.uns


@pytest.mark.slow
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_table_survives_writing(tmp_path, store):
    adata = predicted_cells()
    names = dict(zip(["d0", "d1", "d2", "d3"], ["CD4/CD8", " ", "a b", "7"], strict=True))
    adata.obs["donor"] = adata.obs["donor"].map(names)
    adata.obs["agevi_fold"] = adata.obs["donor"].map({"CD4/CD8": "x/y", " ": "", "a b": "a", "7": "1"})
    table = table_of(adata)
    back = stored(adata, store, tmp_path).uns["agevi_subjects"]
    assert back.index.tolist() == table.index.tolist()
    pd.testing.assert_frame_equal(back, table, check_dtype=False, check_index_type=False, check_column_type=False)
    assert back["n_cells"].dtype == table["n_cells"].dtype


def test_integer_names_become_text():
    adata = predicted_cells()
    adata.obs["donor"] = pd.Categorical(adata.obs["donor"].str[1:].astype(int))
    assert table_of(adata).index.tolist() == ["0", "1", "2", "3"]


def change(column, cell, value):
    def apply(adata):
        adata.obs[column] = adata.obs[column].astype(object)
        adata.obs.iloc[np.flatnonzero(adata.obs["donor"] == "d2")[cell], adata.obs.columns.get_loc(column)] = value
        if column in ("years", "agevi_predicted_sample"):
            adata.obs[column] = adata.obs[column].astype(float)

    return apply


def drop(column):
    return lambda a: a.obs.pop(column)


def add(column, make):
    return lambda a: a.obs.__setitem__(column, make(a.obs))


def in_turn(*steps):
    return lambda a: [step(a) for step in steps]


@pytest.mark.parametrize(
    ("prepare", "arguments", "error", "message"),
    [
        pytest.param(None, {"level": "sums"}, ValueError, "level='sums' is not known; choose one of 'auto'", id="level"),
        pytest.param(None, {"statistic": "mode"}, ValueError, "statistic='mode' is not known", id="statistic"),
        pytest.param(
            drop("agevi_predicted"), {}, KeyError,
            r"adata.obs\['agevi_predicted'\] is absent; run agevi.tl.predict_age\(adata, model, key_added='agevi'\)",
            id="no predictions",
        ),
        pytest.param(
            None, {"level": "sum"}, KeyError, r"adata.obs\['agevi_predicted_sample'\] is absent; run", id="no sums"
        ),
        pytest.param(
            lambda a: a.uns.clear(), {}, KeyError, r"adata.uns\['agevi'\] names no subject column; pass subject_key",
            id="no keys",
        ),
        pytest.param(None, {"subject_key": "donr"}, KeyError, "subject_key='donr'.*closest: 'donor'", id="subject_key"),
        pytest.param(None, {"sample_key": "visit"}, KeyError, "sample_key='visit' is not a column", id="sample_key"),
        pytest.param(None, {"age_key": "year"}, KeyError, "age_key='year'.*closest: 'years'", id="age_key"),
        pytest.param(change("years", 0, 61.0), {}, ValueError, r"subject 'd2' has two ages \(60.0, 61.0\)", id="ages"),
        pytest.param(add("years", lambda o: "60-69"), {}, TypeError, "parse_age", id="text ages"),
        pytest.param(
            change("agevi_role", 0, "train"), {}, ValueError,
            r"sample 'd2' has cells with different values \('t.*', 't.*'\) in adata.obs\['agevi_role'\]",
            id="two roles",
        ),
        pytest.param(
            in_turn(add("agevi_fold", lambda o: 0), change("agevi_fold", 0, 1)), {}, ValueError,
            r"sample 'd2' has cells with different values.*adata.obs\['agevi_fold'\]", id="two folds",
        ),
        pytest.param(
            in_turn(add("agevi_predicted_sample", lambda o: 50.0), change("agevi_predicted_sample", 0, 51.0)), {},
            ValueError, r"sample 'd2' has cells with different values \(50.00, 51.00\).*level='cells'", id="two sums",
        ),
        pytest.param(
            in_turn(add("agevi_predicted_sample", lambda o: 50.0), add("visit", lambda o: [f"v{i}" for i in range(len(o))])),
            {"sample_key": "visit"}, ValueError,
            r"one age for all cells of donor 'd2', who has 12 samples by sample_key='visit'.*sample_key='visit'\) first",
            id="sums of more than a sample",
        ),
        pytest.param(
            add("visit", lambda o: "v"), {"sample_key": "visit"}, ValueError, "sample 'v' belongs to 4 subjects",
            id="sample in two subjects",
        ),
    ],
)  # fmt: skip
def test_refuses_and_writes_nothing(prepare, arguments, error, message):
    adata = predicted_cells()
    if prepare:
        prepare(adata)
    with pytest.raises(error, match=message):
        aggregate_subjects(adata, **arguments)
    assert "agevi_subjects" not in adata.uns


def test_empty_data_are_refused():
    with pytest.raises(ValueError, match="adata is empty"):
        aggregate_subjects(predicted_cells()[:0].copy())


def test_samples_of_new_data_without_a_column_of_subjects_are_subjects(caplog):
    adata = predicted_cells()
    adata.obs = adata.obs.rename(columns={"donor": "patient"})
    adata.uns["agevi"]["sample_key"] = "patient"
    with caplog.at_level(logging.INFO, logger="agevi"):
        table = table_of(adata)
    assert table["subject"].tolist() == table.index.tolist() == ["d0", "d1", "d2", "d3"]
    assert "every sample of 'patient' is a subject of its own" in caplog.text
    with pytest.raises(KeyError, match="subject_key='donor' is not a column"):
        aggregate_subjects(adata, subject_key="donor")
