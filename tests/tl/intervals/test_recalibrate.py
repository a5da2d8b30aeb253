"""Recalibration of a new cohort: what is written, what is refused, and that the labelled subjects count nowhere."""

from __future__ import annotations

import logging

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.tl.intervals._recalibration import OldErrors, fit_line, fit_shift
from tests.files import stored
from tests.test_gates import check_style

N, CELLS = 40, 3


def cohorts(n: int = N, k: int = 10, transform: str = "none", noise: float = 3.0) -> ad.AnnData:
    """Two cohorts of predicted subjects, 15 years too old in one of them, of which ``k`` have an age in ``known``."""
    rng = np.random.default_rng(0)
    donors = [f"{cohort}{i:02d}" for cohort in "ab" for i in range(n)]
    age = rng.uniform(20, 80, 2 * n)
    predicted = 20 + 0.6 * age + rng.normal(0, noise, 2 * n) + 15 * (np.arange(2 * n) >= n)
    place = rng.permutation(n)
    known = np.where(np.concatenate([np.full(n, n), place]) < k, age, np.nan)
    of_cell = np.repeat(np.arange(2 * n), CELLS)
    obs = pd.DataFrame(
        {
            "donor": np.array(donors)[of_cell],
            "lab": np.repeat(["a", "b"], n)[of_cell],
            "age": age[of_cell],
            "known": known[of_cell],
            "agevi_predicted": predicted[of_cell].astype(np.float32),
            "agevi_role": pd.Categorical(np.full(len(of_cell), "new")),
            "stage": pd.Categorical(np.array(["x", "y"])[of_cell % 2], ordered=True),
        },
        index=[f"cell{i}" for i in range(len(of_cell))],
    )
    adata = ad.AnnData(np.ones((len(obs), 4), dtype=np.float32), obs=obs)
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age", "age_unit": "years"}
    adata.uns["agevi"] |= {"age_transform": transform, "min_age": -1.0, "median_age": 50.0, "params": {}}
    agevi.tl.aggregate_subjects(adata)
    return adata


def recalibrated(**kwargs) -> ad.AnnData:
    data = {name: kwargs.pop(name) for name in ("n", "k", "transform", "noise") if name in kwargs}
    adata = cohorts(**data)
    adata.uns["agevi_calibration_params"] = {"residuals": np.random.default_rng(2).normal(0, 5, 100)}
    agevi.tl.recalibrate(adata, **{"by": "lab", "labels": "known", **kwargs})
    return adata


@pytest.fixture(scope="module")
def done():
    return recalibrated()


@pytest.mark.parametrize("transform", ["none", "log"])
def test_a_cohort_gets_the_line_of_its_labelled_subjects(transform):
    adata = recalibrated(transform=transform)
    old, new = (agevi.get.subjects_df(adata, key_added=key).set_index("sample") for key in ("agevi", "recalibrated"))
    to, back = (np.log, np.exp) if transform == "log" else (lambda a: a, lambda a: a)
    shift = 2 * (transform == "log")  # log(age - min_age + 1)
    k = new.index[new["role"] == "recalibration"]
    assert len(k) == 10
    assert set(k.str[0]) == {"b"}
    move = fit_line(to(old.loc[k, "predicted"] + shift).to_numpy(), to(old.loc[k, "age"] + shift).to_numpy(), 0.9)
    rest = old.index[(old.index.str[0] == "b") & ~old.index.isin(k)]
    wanted = [back(v) - shift for v in move.apply(to(old.loc[rest, "predicted"] + shift).to_numpy())]
    for column, values in zip(("predicted", "lower", "upper"), wanted, strict=True):
        np.testing.assert_allclose(new.loc[rest, column], np.maximum(values, -1), rtol=1e-9)
    assert new.loc[k, ["lower", "upper"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(old.loc["a00":"a39", old.columns], new.loc["a00":"a39", old.columns])
    assert new["lower"].dtype == new["upper"].dtype == np.float64


def test_errors_become_small_and_intervals_hold(done):
    before = agevi.get.metrics_df(done)["mae"].iloc[0]
    new = agevi.get.subjects_df(done, key_added="recalibrated")
    rest = new[new["sample"].str.startswith("b") & (new["role"] == "new")]
    assert np.abs(rest["predicted"] - rest["age"]).mean() < 5.5 < 9 < before
    assert ((rest["lower"] <= rest["age"]) & (rest["age"] <= rest["upper"])).mean() >= 0.8


def test_cells_carry_the_age_of_their_sample(done):
    table = agevi.get.subjects_df(done, key_added="recalibrated").set_index("sample")
    wanted = table["predicted"].loc[done.obs["donor"]].to_numpy(np.float32)
    for column in ("recalibrated_predicted", "recalibrated_predicted_sample"):
        assert done.obs[column].dtype == np.float32
        np.testing.assert_array_equal(done.obs[column], wanted)
    assert done.obs["recalibrated_role"].astype(str).tolist() == table["role"].loc[done.obs["donor"]].tolist()
    assert (done.obs["agevi_role"] == "new").all()


def test_the_record_says_what_was_done(done):
    row = done.uns["recalibrated_recalibration"].set_index("cohort").loc["b"]
    assert (row["kind"], row["n_labelled"], row["n"]) == ("line", 10, 30)
    assert row["gap"] == pytest.approx(15, abs=4)
    assert done.uns["recalibrated_recalibration"].set_index("cohort").loc["a", "kind"] == "none"
    assert done.uns["recalibrated"]["recalibrated_from"] == "agevi"
    assert done.uns["recalibrated_recalibration_params"]["level"] == 0.9


@pytest.mark.parametrize(("k", "kind", "found"), [(5, "auto", "shift"), (9, "auto", "shift"), (6, "line", "line"), (12, "shift", "shift"), (10, "auto", "line")])  # fmt: skip
def test_the_number_of_labelled_subjects_chooses(k, kind, found):
    adata = recalibrated(k=k, kind=kind)
    row = adata.uns["recalibrated_recalibration"].set_index("cohort").loc["b"]
    assert (row["kind"], row["n_labelled"]) == (found, k)
    if found == "shift":
        table = agevi.get.subjects_df(adata).set_index("sample")
        known = adata.obs.dropna(subset="known").groupby("donor")["known"].first()
        old = OldErrors(adata.uns["agevi_calibration_params"]["residuals"])
        move = fit_shift(table.loc[known.index, "predicted"].to_numpy(), known.to_numpy(), old, 0.9)
        assert row["intercept"] == pytest.approx(move.intercept)


def test_a_table_made_again_keeps_ages_and_intervals(done):
    adata = done.copy()
    agevi.tl.aggregate_subjects(adata, key_added="recalibrated")
    former, again = done.uns["recalibrated_subjects"], adata.uns["recalibrated_subjects"]
    pd.testing.assert_frame_equal(again, former[again.columns], rtol=1e-5, check_dtype=False)
    part = done[done.obs["donor"].str.startswith("b")].copy()
    part.obs["recalibrated_predicted"] = part.obs["recalibrated_predicted_sample"] = np.float32(50)
    agevi.tl.aggregate_subjects(part, key_added="recalibrated")
    assert part.uns["recalibrated_subjects"]["lower"].isna().all()


def test_labels_are_the_ages_where_no_column_is_named():
    adata = cohorts(k=12)
    adata.obs.loc[adata.obs["lab"] == "b", "age"] = adata.obs["known"]
    agevi.tl.aggregate_subjects(adata)
    new = adata[adata.obs["lab"] == "b"].copy()
    new.uns["agevi_subjects"] = adata.uns["agevi_subjects"].loc["b00":]
    agevi.tl.recalibrate(new, by=None)
    assert new.uns["recalibrated_recalibration"][["cohort", "kind", "n_labelled"]].values.tolist() == [["", "line", 12]]


def test_a_subject_of_two_samples_counts_once_and_leaves_with_both():
    adata = cohorts(k=10)
    adata.obs["visit"] = adata.obs["donor"].astype(str)
    twice = adata[adata.obs["known"].notna()].copy()
    twice.obs["visit"] += "-2"
    twice.obs["known"] = np.nan
    both = ad.concat([adata, twice], index_unique="-")
    both.uns["agevi"] = adata.uns["agevi"] | {"sample_key": "visit"}
    agevi.tl.aggregate_subjects(both)
    agevi.tl.recalibrate(both, by="lab", labels="known")
    agevi.tl.recalibrate(adata, by="lab", labels="known")
    one, two = (a.uns["recalibrated_recalibration"] for a in (adata, both))
    pd.testing.assert_frame_equal(one, two)
    roles = agevi.get.subjects_df(both, key_added="recalibrated").set_index("sample")["role"]
    assert (roles == "recalibration").sum() == 20


def test_copy_leaves_the_data_alone():
    adata = cohorts()
    before = adata.copy()
    out = agevi.tl.recalibrate(adata, by="lab", labels="known", copy=True)
    assert set(adata.uns) == set(before.uns)
    assert "recalibrated_subjects" in out.uns


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_files_hold_what_was_written(done, tmp_path, kind):
    back = stored(done, kind, tmp_path)
    pd.testing.assert_frame_equal(
        agevi.get.subjects_df(back, key_added="recalibrated"), agevi.get.subjects_df(done, key_added="recalibrated")
    )


def without_labelled(adata: ad.AnnData) -> ad.AnnData:
    """The same data in which the labelled subjects do not exist."""
    role = adata.obs["recalibrated_role"]
    out = adata[role != "recalibration"].copy()
    table = out.uns["recalibrated_subjects"]
    out.uns["recalibrated_subjects"] = table[table["role"] != "recalibration"]
    return out


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda a: agevi.get.metrics_df(a, key_added="recalibrated"), id="metrics_df"),
        pytest.param(lambda a: agevi.get.metrics_df(a, key_added="recalibrated", groupby="subject", n_boot=1), id="metrics_df by subject"),
        pytest.param(lambda a: _table(agevi.tl.evaluate_by, a, "metrics", "lab"), id="evaluate_by"),
        pytest.param(lambda a: _table(agevi.tl.evaluate_by, a, "metrics", roles=None), id="evaluate_by of all roles"),
        pytest.param(lambda a: _table(agevi.tl.trend_test, a, "trend", order_key="age", n_boot=5, n_permutations=9), id="trend_test"),
    ],
)  # fmt: skip
def test_labelled_subjects_count_nowhere(done, run):
    with_them, without = done.copy(), without_labelled(done)
    pd.testing.assert_frame_equal(run(with_them), run(without))


def _table(tool, adata, noun, *args, **kwargs):
    tool(adata, *args, key_added="recalibrated", **kwargs)
    return adata.uns[f"recalibrated_{noun}"]


def test_labelled_subjects_are_drawn_only_when_named(done):
    drawn = [
        sum(len(c.get_offsets()) for c in agevi.pl.predicted_vs_actual(a, key_added="recalibrated", roles=roles).collections)
        for a, roles in ((done, None), (without_labelled(done), None), (done, ["new", "recalibration"]))
    ]  # fmt: skip
    assert drawn == [70, 70, 80]
    plt.close("all")


def test_naming_the_role_warns(done):
    for call in (
        lambda: agevi.get.metrics_df(done, key_added="recalibrated", roles="recalibration"),
        lambda: agevi.tl.evaluate_by(done, roles="recalibration", key_added="recalibrated", copy=True),
    ):
        with pytest.warns(UserWarning, match="role 'recalibration' show how well these subjects were fitted"):
            call()


def test_cohorts_without_labels_are_named(caplog):
    with caplog.at_level(logging.WARNING, "agevi"):
        recalibrated()
    assert "1 cohorts of by='lab' have no labelled subject ('a'): they keep the predictions" in caplog.text


def test_a_clock_without_signal_in_the_cohort_is_named(caplog):
    with caplog.at_level(logging.WARNING, "agevi"):
        recalibrated(noise=400.0)
    assert "Predictions do not rise with age among the 10 labelled subjects of cohort 'b'" in caplog.text


@pytest.mark.parametrize(
    ("change", "arguments", "error", "message"),
    [
        pytest.param({"k": 4}, {}, ValueError, "4 subjects of cohort 'b' have an age in labels='known' and a held-out prediction, and recalibration needs 5, better 10", id="k = 4"),
        pytest.param({"k": 0}, {}, ValueError, "0 subjects of the cohorts of by='lab' have an age", id="nobody"),
        pytest.param({"k": 40}, {}, ValueError, "all 40 subjects of cohort 'b' have an age in labels='known', so recalibration would leave nobody", id="everybody"),
        pytest.param({}, {"labels": None}, ValueError, "all 40 subjects of cohort 'a' have an age in the subject table", id="ages of all"),
        pytest.param({"k": 7}, {}, KeyError, r"adata.uns\['agevi_calibration_params'\] has no held-out errors of the clock, by which a shift from 7", id="no calibration"),
        pytest.param({}, {"by": "labs"}, KeyError, "by='labs' is not a column", id="no cohort"),
        pytest.param({}, {"labels": "lab"}, TypeError, "labels='lab' holds .* values; pass a column with the ages", id="labels of text"),
        pytest.param({}, {"kind": "curve"}, ValueError, "kind='curve' is not known", id="kind"),
        pytest.param({}, {"level": 90}, ValueError, "level=90 is not a coverage", id="level"),
        pytest.param({}, {"level": "0.9"}, TypeError, "level='0.9' is a str", id="level as text"),
        pytest.param({}, {"key_added": "agevi"}, ValueError, "key_added='agevi' is also key", id="same key"),
        pytest.param({}, {"key": "other"}, KeyError, r"other_subjects'\] is absent; run agevi.tl.aggregate_subjects\(adata, key_added='other'\)", id="no table"),
    ],
)  # fmt: skip
def test_refusals(change, arguments, error, message):
    adata = cohorts(**change)
    before = set(adata.uns) | set(adata.obs)
    with pytest.raises(error, match=message) as raised:
        agevi.tl.recalibrate(adata, **{"by": "lab", "labels": "known", **arguments})
    check_style(str(raised.value.args[0]))
    assert set(adata.uns) | set(adata.obs) == before


def test_subjects_that_trained_the_clock_are_no_labels():
    adata = cohorts(k=6)
    adata.uns["agevi_subjects"].loc[adata.uns["agevi_subjects"].index.str.startswith("b"), "role"] = "train"
    with pytest.raises(ValueError, match="0 subjects of the cohorts of by='lab' have an age"):
        agevi.tl.recalibrate(adata, by="lab", labels="known")


def test_one_prediction_has_no_line():
    adata = cohorts()
    adata.uns["agevi_subjects"]["predicted"] = 44.0
    with pytest.raises(ValueError, match="the 10 labelled subjects of cohort 'b' have one prediction, 44.0"):
        agevi.tl.recalibrate(adata, by="lab", labels="known")


def test_an_age_that_cannot_be_is_refused():
    adata = cohorts()
    adata.obs["known"] = adata.obs["known"].where(adata.obs["donor"] != "b03", -7.0)
    with pytest.raises(ValueError, match="labels='known' has an age of -7 in sample 'b03'"):
        agevi.tl.recalibrate(adata, by="lab", labels="known")


def test_a_cohort_without_a_name_is_refused():
    adata = cohorts()
    adata.obs["lab"] = adata.obs["lab"].where(adata.obs["donor"] != "b03")
    with pytest.raises(ValueError, match="by='lab' is missing in 1 samples .first: 'b03'."):
        agevi.tl.recalibrate(adata, by="lab", labels="known")


def test_a_level_that_the_calibration_cannot_reach():
    adata = cohorts(k=6)
    adata.uns["agevi_calibration_params"] = {"residuals": np.arange(12.0)}
    with pytest.raises(ValueError, match="level=0.95 needs more than the 12 subjects of the calibration"):
        agevi.tl.recalibrate(adata, by="lab", labels="known", level=0.95)


def test_errors_without_scatter_say_nothing_of_a_width():
    adata = cohorts(k=6)
    adata.uns["agevi_calibration_params"] = {"residuals": np.full(30, 0.5)}
    with pytest.raises(ValueError, match=r"the 30 held-out errors in .* are all the same, as if predictions") as raised:
        agevi.tl.recalibrate(adata, by="lab", labels="known")
    check_style(str(raised.value))
    assert "recalibrated" not in adata.uns


@pytest.mark.slow
def test_predictions_say_on_which_scale_they_were_made(cohort):
    agevi.tl.cross_validate(cohort, "PLSClock", age_key="age", subject_key="donor", n_folds=3)
    assert (cohort.uns["agevi"]["age_transform"], cohort.uns["agevi"]["min_age"]) == ("log", -1.0)
    agevi.model.PLSClock.setup_anndata(cohort, age_key="age", subject_key="donor", age_transform="horvath")
    model = agevi.model.PLSClock(cohort)
    model.train()
    agevi.tl.predict_age(cohort, model, key_added="other")
    assert cohort.uns["other"]["age_transform"] == "horvath"


def test_a_calibration_tells_the_errors_that_shrink_a_shift(cohort):
    agevi.tl.cross_validate(cohort, "PLSClock", age_key="age", subject_key="donor", fold_key="batch")
    agevi.tl.aggregate_subjects(cohort)
    agevi.tl.calibrate(cohort, groupby="batch")
    params, table = cohort.uns["agevi_calibration_params"], agevi.get.subjects_df(cohort)
    residual = np.log(table["age"] + 2) - np.log(table["predicted"] + 2)
    mean = residual.groupby(table["fold"]).transform("mean")
    np.testing.assert_allclose(params["residuals"], np.sort(residual - mean), rtol=1e-6, atol=1e-9)
    assert params["shift_var"] == pytest.approx((residual.groupby(table["fold"]).mean() ** 2).mean(), rel=1e-5)
    agevi.tl.calibrate(cohort)
    assert "shift_var" not in cohort.uns["agevi_calibration_params"]
    np.testing.assert_allclose(
        cohort.uns["agevi_calibration_params"]["residuals"], np.sort(residual), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("transform", ["none", "log"])
def test_ages_beyond_those_of_the_labelled_are_told(caplog, transform):
    """The line is not clipped; its reach is counted and told with the ages that come out."""
    adata = cohorts(transform=transform)
    table = agevi.get.subjects_df(adata).set_index("sample")
    middle = table.loc["b00":].sort_values("predicted").index[12:24]
    adata.obs["known"] = adata.obs["age"].where(adata.obs["donor"].isin(middle))
    agevi.tl.recalibrate(adata, by="lab", labels="known")
    row = adata.uns["recalibrated_recalibration"].set_index("cohort")
    low, high = table.loc[middle, "predicted"].agg(["min", "max"])
    np.testing.assert_allclose(row.loc["b", ["labelled_low", "labelled_high"]].astype(float), [low, high])
    assert row["n_beyond"].tolist() == [0, 28]
    beyond = table.loc["b00":].index.difference(middle)
    new = agevi.get.subjects_df(adata, key_added="recalibrated").set_index("sample").loc[beyond, "predicted"]
    (line,) = [r.getMessage() for r in caplog.records if "extrapolated" in r.getMessage()]
    assert line.startswith(
        "28 of 28 samples of cohort 'b' are predicted outside the range of the 12 labelled controls ("
    )
    assert f"predictions {low:.1f} to {high:.1f}" in line
    assert f"their recalibrated ages, {new.min():.1f} to {new.max():.1f}, and" in line


def test_a_cohort_within_the_labelled_is_not_warned_of(caplog):
    adata = cohorts()
    table = agevi.get.subjects_df(adata).set_index("sample")
    order = table.loc["b00":].sort_values("predicted").index
    adata.obs["known"] = adata.obs["age"].where(adata.obs["donor"].isin([*order[:5], *order[-5:]]))
    agevi.tl.recalibrate(adata, by="lab", labels="known")
    assert adata.uns["recalibrated_recalibration"]["n_beyond"].tolist() == [0, 0]
    assert "extrapolated" not in caplog.text
