"""Calibration of subject tables: who counts, what is written, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import agevi
from agevi.tl.intervals._conformal import Calibration
from agevi.tl.intervals._report import with_intervals
from tests.files import stored
from tests.tl.intervals.cohorts import predicted

PARAMS = "agevi_calibration_params"


def test_report_is_of_the_intervals_in_the_table():
    adata = predicted(200)
    agevi.tl.calibrate(adata, groupby="cohort")
    table, report = agevi.get.subjects_df(adata), agevi.get.calibration_df(adata)
    inside = (table["lower"] <= table["age"]) & (table["age"] <= table["upper"])
    assert report.loc[0, "coverage"] == pytest.approx(inside.mean())
    assert report.loc[0, "width"] == pytest.approx((table["upper"] - table["lower"]).mean())
    assert 0.86 <= inside.mean() <= 0.94
    assert report["groupby"].unique().tolist() == ["overall", "predicted", "age", "cohort"]
    assert report.loc[report["groupby"] == "cohort", "group"].tolist() == ["a", "b"]
    assert (report["coverage_low"] < report["coverage"]).all()
    assert (report["interval_score"] < report["interval_score_trivial"]).loc[0]
    assert adata.uns[PARAMS]["cohorts"].tolist() == ["a", "b"]


def test_own_age_has_no_part_in_the_interval():
    adata = predicted(60)
    agevi.tl.calibrate(adata)
    before = agevi.get.subjects_df(adata).set_index("sample")
    name = before.index[7]
    adata.obs.loc[adata.obs["visit"] == name, "age"] += 40.0
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    after = agevi.get.subjects_df(adata).set_index("sample")
    assert after.loc[name, ["lower", "upper"]].tolist() == before.loc[name, ["lower", "upper"]].tolist()


def test_aggregating_again_keeps_intervals_of_calibrated_and_gives_new_ones_theirs():
    adata = predicted(80)
    agevi.tl.calibrate(adata)
    before = agevi.get.subjects_df(adata)
    agevi.tl.aggregate_subjects(adata)
    after = agevi.get.subjects_df(adata)
    np.testing.assert_array_equal(after[["lower", "upper"]], before[["lower", "upper"]])
    new = predicted(30, seed=5)
    del new.obs["age"]
    new.uns[PARAMS] = adata.uns[PARAMS]
    agevi.tl.aggregate_subjects(new)
    table = agevi.get.subjects_df(new)
    whole = Calibration.from_dict(adata.uns[PARAMS])
    low, high = whole.interval(table["predicted"], table["n_cells"])
    np.testing.assert_allclose(table[["lower", "upper"]], np.stack([low, high], axis=1))


@pytest.mark.parametrize("role", ["train", "validation"])
def test_samples_that_shaped_the_clock_are_refused(role):
    adata = predicted(40, role=role)
    with pytest.raises(ValueError, match=r"all 40 samples .* have the role train or validation.*cross_validate"):
        agevi.tl.calibrate(adata)
    assert PARAMS not in adata.uns


def test_samples_that_shaped_the_clock_get_no_interval_beside_those_that_did_not():
    adata = predicted(40, role="test")
    adata.obs["agevi_role"] = np.where(adata.obs["donor"] < "s0010", "train", "test")
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    table = agevi.get.subjects_df(adata)
    assert table["lower"].isna().tolist() == (table["role"] == "train").tolist()
    assert adata.uns[PARAMS]["n"] == 30
    assert adata.uns[PARAMS]["roles"].tolist() == ["test"]


def test_residuals_of_training_subjects_cover_too_little():
    """Why they are refused: least squares on 30 features, 60 subjects."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(20):
        x, x_new = rng.normal(size=(2, 60, 30))
        y, y_new = x[:, 0] * 8 + rng.normal(size=60) * 8 + 50, x_new[:, 0] * 8 + rng.normal(size=60) * 8 + 50
        weight = np.linalg.lstsq(x, y - 50, rcond=None)[0]
        fitted = Calibration.fit(y, x @ weight + 50, scale="constant")
        low, high = fitted.interval(x_new @ weight + 50)
        covered.append(agevi.metrics.coverage(y_new, low, high))
    assert np.mean(covered) < 0.75


def test_samples_without_age_or_prediction_calibrate_nothing():
    adata = predicted(50)
    adata.obs.loc[adata.obs["donor"] < "s0010", "age"] = np.nan
    adata.obs.loc[adata.obs["donor"] == "s0020", "agevi_predicted"] = np.nan
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    table = agevi.get.subjects_df(adata).set_index("subject")
    assert adata.uns[PARAMS]["n"] == 39
    assert table["lower"].isna().sum() == 1
    assert np.isnan(table.loc["s0020", "upper"])


@pytest.mark.parametrize("clusters", [0.0, 8.0])
def test_a_level_holds_for_samples_of_new_subjects_with_several(clusters):
    """Some subjects have one sample and some ten: each subject counts once, whatever its errors share."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        size = np.where(np.arange(30) < 15, 1, 10)
        subject = np.repeat(np.arange(30), size)
        kind = np.repeat(np.where(np.arange(30) < 15, 3.0, 1.0), size)  # those with one sample are predicted worse
        residual = np.repeat(rng.normal(size=30), size) * clusters * kind + rng.normal(size=len(subject)) * 5 * kind
        fitted = Calibration.fit(50 + residual, np.full(len(subject), 50.0), subject=subject, scale="constant")
        half = fitted.quantiles()[0]
        new_kind = np.where(rng.random(200) < 0.5, 3.0, 1.0)
        new = rng.normal(size=200) * clusters * new_kind + rng.normal(size=200) * 5 * new_kind
        covered.append((np.abs(new) <= half).mean())
    assert np.mean(covered) == pytest.approx(28 / 31, abs=0.02)


def test_visits_of_a_subject_share_its_weight_and_its_fold():
    adata = predicted(25, visits=4, spread=10.0)
    agevi.tl.calibrate(adata, scale="constant")
    params, report = adata.uns[PARAMS], agevi.get.calibration_df(adata)
    assert params["n"] == 25
    assert params["n_samples"] == 100
    assert set(params["weights"]) == {0.25}
    assert report.loc[0, ["n", "n_subjects"]].tolist() == [100, 25]
    table = agevi.get.subjects_df(adata)
    width = (table["upper"] - table["lower"])[table["lower"] > 0].round(6)
    assert (width.groupby(table["subject"]).nunique() <= 1).all()  # all visits are left out together


def test_ages_in_days_give_the_same_intervals():
    years, days = predicted(100), predicted(100, unit=1 / 365.25)
    for adata in (years, days):
        agevi.tl.calibrate(adata, scale="constant")
    of_years, of_days = agevi.get.subjects_df(years), agevi.get.subjects_df(days)
    np.testing.assert_allclose(of_days["upper"] / 365.25, of_years["upper"], rtol=1e-4)
    assert days.uns[PARAMS]["age_unit"] == "days"
    agevi.tl.calibrate(days)
    assert 0.86 <= agevi.get.calibration_df(days).loc[0, "coverage"] <= 0.95


def test_the_log_scale_is_narrow_for_the_young_and_stays_above_the_lowest_age():
    adata = predicted(100, sd=4.0)
    agevi.tl.calibrate(adata, scale="log")
    whole = Calibration.from_dict(adata.uns[PARAMS])
    low, high = whole.interval(np.array([0.0, 1.0, 40.0, 80.0]))
    assert (np.diff(high - low) > 0).all()
    assert low.min() >= 0
    assert adata.uns[PARAMS]["guarantee"] == "approximate"


def test_width_follows_the_number_of_cells_where_there_are_40_subjects():
    rng = np.random.default_rng(0)
    for n, features in ((39, ["predicted"]), (600, ["predicted", "n_cells"])):
        age, cells = rng.uniform(20, 90, n), rng.integers(2, 200, n)
        found = age + rng.normal(size=n) * 40 / np.sqrt(cells)
        whole = Calibration.fit(age, found, cells)
        assert list(whole.features) == features
    low, high = whole.interval(np.full(4, 50.0), np.array([4, 150, 199, 10**6]))
    width = high - low
    assert width[0] > 3 * width[1]
    assert width[2] == pytest.approx(width[3], rel=0.05)  # more cells than any that calibrated promise nothing


@pytest.mark.parametrize(("role", "scale", "kind"), [("test", "constant", "split"), ("new", "auto", "approximate")])
def test_the_guarantee_is_that_of_one_clock_with_a_fixed_scale(role, scale, kind):
    adata = predicted(40, role=role)
    agevi.tl.calibrate(adata, scale=scale)
    assert adata.uns[PARAMS]["guarantee"] == kind


def test_thirds_of_the_predictions_have_their_own_width():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 90, 300)
    found = age + rng.normal(size=300) * np.where(age > 60, 15, 3)
    whole = Calibration.fit(age, found, scale="mondrian")
    low, high = whole.interval([30.0, 80.0])
    assert (high - low)[1] > 3 * (high - low)[0]
    with pytest.raises(ValueError, match="scale='mondrian' needs 150 calibration subjects, and there are 149"):
        Calibration.fit(age[:149], found[:149], scale="mondrian")
    with pytest.raises(ValueError, match="scale='mondrian' needs 300 calibration subjects"):
        Calibration.fit(age[:299], found[:299], scale="mondrian", level=0.99)


def test_as_many_subjects_as_a_level_needs_calibrate_new_ones_alone(caplog):
    adata = predicted(9)
    with caplog.at_level("WARNING", logger="agevi"):
        agevi.tl.calibrate(adata)
    assert "the intervals of the subjects that calibrate are NaN" in caplog.text
    assert agevi.get.subjects_df(adata)["lower"].isna().all()
    assert np.isnan(agevi.get.calibration_df(adata).loc[0, "coverage"])
    assert np.isfinite(Calibration.from_dict(adata.uns[PARAMS]).interval([50.0])).all()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        pytest.param(None, {"level": 0.9}, r"8 calibration subjects cannot give level=0\.9, which needs 9", id="few"),
        pytest.param(None, {"level": 90}, "level=90 is not a coverage", id="percent"),
        pytest.param(None, {"scale": "sqrt", "level": 0.5}, "scale='sqrt' is not known", id="scale"),
        pytest.param(None, {"scale": "predicted", "level": 0.5}, "scale='predicted' needs 20", id="few for scale"),
        pytest.param(None, {"difficulty": "n_cells", "level": 0.5}, "difficulty='n_cells' is not known", id="text"),
        pytest.param(None, {"difficulty": None, "level": 0.5}, "difficulty=None is not known", id="none"),
        pytest.param("no ages", {}, "no sample of .* has an age; pass age_key", id="no ages"),
        pytest.param(
            "no roles", {}, r"no sample of .* one of the roles .*predict_age, which record roles", id="no roles"
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused(change, options, message):
    adata = predicted(8)
    table = adata.uns["agevi_subjects"]
    if change == "no ages":
        table["age"] = np.nan
    if change == "no roles":
        table["role"] = ""
    with pytest.raises(ValueError, match=message):
        agevi.tl.calibrate(adata, **options)
    assert PARAMS not in adata.uns
    assert "lower" not in adata.uns["agevi_subjects"]


def test_rounding_of_another_machine_keeps_the_intervals_of_the_other_folds():
    adata = predicted(60)
    agevi.tl.calibrate(adata)
    table, params = adata.uns["agevi_subjects"], adata.uns[PARAMS]
    rounded = table["predicted"] * (1 + 1e-6 * np.random.default_rng(0).choice([-1, 1], len(table)))
    again = with_intervals(table.assign(predicted=rounded), params)
    np.testing.assert_allclose(again["lower"], table["lower"], rtol=1e-4, atol=1e-3)
    whole = Calibration.from_dict(params).interval(table["predicted"], table["n_cells"])[0]
    assert np.abs(whole - table["lower"]).max() > 0.01


def test_a_level_in_text_is_refused():
    with pytest.raises(TypeError, match="level='0.9' is a str; pass a number"):
        agevi.tl.calibrate(predicted(8), level="0.9")


def test_the_table_comes_first():
    adata = predicted(20)
    del adata.uns["agevi_subjects"]
    with pytest.raises(KeyError, match=r"run agevi.tl.aggregate_subjects\(adata, key_added='agevi'\) first"):
        agevi.tl.calibrate(adata)
    with pytest.raises(KeyError, match=r"run agevi.tl.calibrate\(adata, key_added='agevi'\) first"):
        agevi.get.calibration_df(adata)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_slots_survive_files(tmp_path, kind):
    adata = predicted(50, visits=2)
    agevi.tl.calibrate(adata, groupby="cohort")
    read = stored(adata, kind, tmp_path)
    before, after = Calibration.from_dict(adata.uns[PARAMS]), Calibration.from_dict(read.uns[PARAMS])
    np.testing.assert_array_equal(before.scores, after.scores)
    assert before.features == after.features
    agevi.tl.aggregate_subjects(read)
    columns = ["lower", "upper"]
    np.testing.assert_array_equal(agevi.get.subjects_df(read)[columns], agevi.get.subjects_df(adata)[columns])


def test_copy_leaves_the_data_alone():
    adata = predicted(30)
    out = agevi.tl.calibrate(adata, copy=True)
    assert PARAMS in out.uns
    assert PARAMS not in adata.uns


@pytest.mark.slow
def test_new_predictions_take_an_old_calibration_away():
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=30)
    keys = {"age_key": "age", "subject_key": "donor"}
    for call in ("cross_validate", "predict_age"):
        agevi.tl.cross_validate(adata, agevi.model.PLSClock, **keys, n_folds=2)
        agevi.tl.aggregate_subjects(adata)
        agevi.tl.calibrate(adata)
        assert "lower" in adata.uns["agevi_subjects"]
        if call == "cross_validate":
            agevi.tl.cross_validate(adata, agevi.model.PLSClock, **keys, n_folds=3)
        else:
            agevi.model.PLSClock.setup_anndata(adata, **keys)
            model = agevi.model.PLSClock(adata)
            model.train()
            agevi.tl.predict_age(adata, model, overwrite=True)
        assert not [name for name in adata.uns if name.startswith(("agevi_calibration", "agevi_subjects"))]
        agevi.tl.aggregate_subjects(adata)
        assert "lower" not in adata.uns["agevi_subjects"]
