"""The curve is made of cross-validations of whole subjects, and says no more than the data do."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import get, metrics
from agevi.tl.curves import _learning_curve
from agevi.tl.curves._curve_table import Point, Resampler, curve_table, figures, verdict
from agevi.tl.curves._levels import CELLS, SUBJECTS, Level, make_levels, subject_order
from tests.files import stored
from tests.test_gates import check_message, snapshot
from tests.tl.clocks import AllClock

KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {**KEYS, "n_subjects": [0.3, 0.6], "n_cells": [3, 8], "n_folds": 3, "n_repeats": 1}


@pytest.fixture
def jobs(monkeypatch):
    """What is fitted, as it is asked for."""
    seen = []

    def run(jobs, **arguments):
        seen.extend(jobs)
        return real(jobs, **arguments)

    real = _learning_curve.run_jobs
    monkeypatch.setattr(_learning_curve, "run_jobs", run)
    return seen


def of_level(jobs, axis, level, repeat, fold):
    (found,) = [job for _, job in jobs if job.name == f"{axis}_{level:02d}_repeat_{repeat:03d}_fold_{fold:03d}"]
    return found


def all_data(jobs, fold):
    (found,) = [job for _, job in jobs if job.name == f"fold_{fold:03d}"]
    return found


@pytest.mark.slow
def test_smaller_sets_are_parts_of_larger_ones(cohort, jobs):
    agevi.tl.learning_curve(cohort, AllClock, **SMALL | {"n_repeats": 2})
    donor = cohort.obs["donor"].astype(str).to_numpy()
    for fold in range(3):
        whole = all_data(jobs, fold)
        for repeat in range(2):
            for axis, sizes in ((SUBJECTS, (5, 10)), (CELLS, (3, 8))):
                small, large = (of_level(jobs, axis, i, repeat, fold) for i in range(2))
                assert set(small.train) < set(large.train) < set(whole.train)
                for job, size in zip((small, large), sizes, strict=True):
                    assert not set(donor[job.train]) & set(donor[job.test])
                    if axis == SUBJECTS:  # whole subjects, and all of those that are held out
                        assert np.array_equal(job.test, whole.test)
                        assert np.unique(donor[job.train], return_counts=True)[1].tolist() == [20] * size
                    else:  # as few cells of those that are held out
                        assert set(job.test) < set(whole.test)
                        for rows in (job.train, job.test):
                            assert set(np.unique(donor[rows], return_counts=True)[1]) == {size}
        first, second = (of_level(jobs, SUBJECTS, 0, repeat, fold) for repeat in range(2))
        assert set(first.train) != set(second.train)


@pytest.mark.slow
def test_all_data_equal_cross_validate(cohort, jobs):
    agevi.tl.learning_curve(cohort, "PLSClock", **SMALL, rng=3)
    agevi.tl.cross_validate(cohort, "PLSClock", **KEYS, n_folds=3, rng=3)
    agevi.tl.aggregate_subjects(cohort)
    expected, table = get.metrics_df(cohort).iloc[0], get.learning_curve_df(cohort)
    for axis in (SUBJECTS, CELLS):
        row = table[table["axis"] == axis].iloc[-1]
        assert row["mae"] == pytest.approx(expected["mae"], rel=1e-12)
        assert row["pearson"] == pytest.approx(expected["pearson"], rel=1e-9)
        assert row["mae_median"] == pytest.approx(expected["mae_median"], rel=1e-12)
        assert row["mae_low"] < row["mae"] < row["mae_high"]
    assert table["n"].tolist() == [5, 10, 16, 3, 8, 20]
    assert table["n_train"].tolist() == [5, 10, 16, 16, 16, 16]
    assert table["n_cells"].tolist() == [20, 20, 20, 3, 8, 20]


@pytest.mark.slow
def test_a_level_is_the_fit_of_these_cells(cohort, jobs):
    """The error of a level equals that of clocks that are made by hand from its cells."""
    agevi.tl.learning_curve(cohort, "PLSClock", **SMALL)
    table, errors = get.learning_curve_df(cohort), []
    for fold in range(3):
        job = of_level(jobs, CELLS, 0, 0, fold)
        train, test = cohort[job.train].copy(), cohort[job.test].copy()
        train.obs["agevi_split"] = "train"
        agevi.model.PLSClock.setup_anndata(train, **KEYS)
        model = agevi.model.PLSClock(train, rng=job.seed)
        model.train()
        frame = pd.DataFrame({"donor": test.obs["donor"].astype(str), "age": test.obs["age"]})
        frame["predicted"] = model.predict_age(test, level="sample")
        errors += (frame.groupby("donor")[["age", "predicted"]].mean().diff(axis=1)["predicted"].abs()).tolist()
    row = table[(table["axis"] == CELLS) & (table["n"] == 3)].iloc[0]
    assert row["mae"] == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("usual_fits")
def test_two_processes_and_a_stored_run_give_the_same(cohort, tmp_path, jobs):
    arguments = SMALL | {"n_subjects": [0.6], "n_cells": [5], "n_folds": 2}
    one = agevi.tl.learning_curve(cohort, "PLSClock", **arguments, copy=True, checkpoint_dir=tmp_path)
    two = agevi.tl.learning_curve(cohort, "PLSClock", **arguments, copy=True, n_jobs=2)
    n_fits, files = len(jobs) // 2, list(tmp_path.glob("*.npz"))
    assert len(files) == n_fits == 6
    files[0].unlink()
    again = agevi.tl.learning_curve(cohort, "PLSClock", **arguments, copy=True, checkpoint_dir=tmp_path)
    for other in (two, again):
        pd.testing.assert_frame_equal(get.learning_curve_df(one), get.learning_curve_df(other))
    with pytest.raises(ValueError) as raised:
        agevi.tl.learning_curve(cohort, "PLSClock", **arguments | {"n_repeats": 2}, checkpoint_dir=tmp_path)
    check_message(raised, "n_repeats was 1 and is 2")
    assert "agevi_learning_curve" not in cohort.uns


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zarr", "ignore:.*consolidated")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_files(cohort, tmp_path, suffix):
    before = snapshot(cohort)
    out = agevi.tl.learning_curve(cohort, AllClock, **SMALL, n_jobs=None, copy=True)
    assert snapshot(cohort) == before
    read = stored(out, suffix, tmp_path)
    pd.testing.assert_frame_equal(get.learning_curve_df(read), get.learning_curve_df(out))
    params = read.uns["agevi_learning_curve_params"]
    assert params["sentence"] == out.uns["agevi_learning_curve_params"]["sentence"]
    assert float(params["subjects"]["change"]) == out.uns["agevi_learning_curve_params"]["subjects"]["change"]
    with pytest.raises(KeyError) as raised:
        get.learning_curve_df(read, key_added="other")
    check_message(raised, "agevi.tl.learning_curve(adata, model_cls, age_key=..., subject_key=...)")


@pytest.mark.slow
def test_shuffled_ages_show_no_gain(caplog):
    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=8, n_genes=30, rng=2)
    donors = adata.obs["donor"].cat.categories
    age = pd.Series(np.random.default_rng(0).permutation(np.linspace(20, 80, len(donors))), index=donors)
    adata.obs["age"] = adata.obs["donor"].map(age).astype(float)
    with caplog.at_level(logging.INFO, logger="agevi"):
        agevi.tl.learning_curve(adata, "PLSClock", **KEYS, n_subjects=[10], n_cells=[5], n_repeats=1, n_folds=3)
    sentence = adata.uns["agevi_learning_curve_params"]["sentence"]
    assert sentence.startswith(
        "No gain can be shown, of more subjects or of more cells: with all data the clock is not shown"
    )
    (said,) = [r for r in caplog.records if r.getMessage() == sentence]
    assert said.levelno == logging.WARNING


def points(axis, n, error, age, rng, n_repeats=3):
    """Levels with errors of this size, which are the same subjects' from level to level in part."""
    own = rng.normal(size=len(age))
    out = []
    for size, scale in zip(n, error, strict=True):
        noise = 0.9 * own + np.sqrt(1 - 0.81) * rng.normal(size=(n_repeats, len(age)))
        predicted = age + scale * np.sqrt(np.pi / 2) * noise
        out.append(Point(Level(axis, size), size, predicted, np.full_like(predicted, np.median(age)), size, 10))
    return out


def summary(curves, age, seed=0):
    subject = np.arange(len(age))
    resampler = Resampler.of(subject, 500, np.random.SeedSequence(seed))
    table, laws = curve_table(curves, age, subject, resampler)
    return table, laws, verdict(curves[SUBJECTS], laws, age, subject, "years")


def test_sentence_of_a_falling_and_a_flat_curve():
    rng = np.random.default_rng(0)
    age, n = rng.uniform(20, 80, 400), np.array([20, 40, 80, 160, 320])
    curves = {
        SUBJECTS: points(SUBJECTS, n, 3 + 40 * n**-0.5, age, rng),
        CELLS: points(CELLS, n[:3], np.full(3, 3 + 40 * 320**-0.5), age, rng),
    }
    table, laws, (sentence, gains) = summary(curves, age)
    true = 40 * (640**-0.5 - 320**-0.5)
    assert laws[SUBJECTS]["change_low"] < true < laws[SUBJECTS]["change_high"] < 0
    assert laws[CELLS]["change_low"] < 0 < laws[CELLS]["change_high"]
    last = 40 * (320**-0.5 - 160**-0.5)
    assert laws[SUBJECTS]["last_low"] < last < laws[SUBJECTS]["last_high"] < 0
    first, second = sentence.split("; ")
    assert first.startswith("Twice the subjects (640 instead of 320 in training): -0.")
    assert first.endswith(
        f"after {laws[SUBJECTS]['last_change']:+.1f} years [{laws[SUBJECTS]['last_low']:+.1f}, "
        f"{laws[SUBJECTS]['last_high']:+.1f}] from 160 to 320"
    )
    assert second.startswith("twice the cells (160 instead of 80 per sample): no gain can be shown (")
    assert gains
    own = table[table["axis"] == SUBJECTS]
    assert own["fitted"].to_numpy() == pytest.approx(3 + 40 * n**-0.5, rel=0.1)
    low, high = metrics.bootstrap_interval(metrics.mae, age, curves[SUBJECTS][0].predicted[0])
    assert own["mae_low"].iloc[0] == pytest.approx(low, rel=0.1)
    assert own["mae_high"].iloc[0] == pytest.approx(high, rel=0.1)


def test_small_changes_keep_a_digit():
    age = np.random.default_rng(1).uniform(20, 80, 300)
    law = {"n": 200, "change": -0.05, "change_low": -0.08, "change_high": -0.02}
    laws = {"subjects": law | {"last_change": -0.06, "last_low": -0.08, "last_high": -0.04}}
    curve = points(SUBJECTS, [200], [3.0], age, np.random.default_rng(2))
    said, _ = verdict(curve, laws, age, np.arange(300), "years")
    assert "-0.05 years [-0.08, -0.02], after -0.06 years [-0.08, -0.04] from 100 to 200; " in said
    for high, shown in (
        (-0.04, "-0.30 years [-0.90, -0.04]"),
        (-0.06, "-0.3 years [-0.9, -0.1]"),
        (0.04, "-0.3 years [-0.9, +0.0]"),
    ):
        assert figures({"change": -0.3, "change_low": -0.9, "change_high": high}, "years") == shown
    assert said.endswith("cells: not varied, since a sample is one row.")


@pytest.mark.slow
def test_bulk_data_have_no_cells(cohort):
    bulk = cohort[~cohort.obs["donor"].duplicated()].copy()
    agevi.tl.learning_curve(bulk, AllClock, **KEYS, n_folds=3, n_repeats=1)
    assert set(get.learning_curve_df(bulk)["axis"]) == {SUBJECTS}
    with pytest.raises(ValueError) as raised:
        agevi.tl.learning_curve(bulk, AllClock, **KEYS, n_cells=[0.5])
    check_message(raised, "n_cells=[0.5] was given, and every sample is one row of adata")


@pytest.mark.slow
def test_unlabelled_and_unfit_subjects(cohort, jobs):
    """They are neither counted nor judged; those without an age train in proportion."""
    donors = cohort.obs["donor"].cat.categories
    cohort.obs["age"] = cohort.obs["age"].where(~cohort.obs["donor"].isin(donors[:6]))
    cohort.obs["ill"] = cohort.obs["donor"].isin(donors[6:9])
    agevi.tl.learning_curve(cohort, AllClock, **SMALL, train_on="not ill")
    table = get.learning_curve_df(cohort)
    assert set(table["n_samples"]) == {15}
    job, whole = of_level(jobs, SUBJECTS, 1, 0, 0), all_data(jobs, 0)
    donor = cohort.obs["donor"].astype(str).to_numpy()
    assert not set(donor[job.train]) & set(donors[6:9])
    unlabelled = [len(set(donor[rows]) & set(donors[:6])) for rows in (job.train, whole.train)]
    assert unlabelled == [3, 4]
    assert np.array_equal(job.test, whole.test)


@pytest.mark.parametrize(
    ("n", "axis", "sizes"),
    [
        pytest.param(32, SUBJECTS, [8, 12, 16, 23, 32], id="32 subjects"),
        pytest.param(604, SUBJECTS, [38, 66, 115, 200, 347, 604], id="604 subjects"),
        pytest.param(9, SUBJECTS, [9], id="9 subjects"),
        pytest.param(30, CELLS, [5, 10, 17, 30], id="30 cells"),
        pytest.param(1000, CELLS, [63, 125, 250, 500, 1000], id="1000 cells"),
        pytest.param(3, CELLS, [3], id="3 cells"),
    ],
)
def test_default_levels(n, axis, sizes):
    assert [int(level.of(n)) for level in make_levels(axis, None, n, n)] == sizes


def test_order_spans_the_ages():
    age = pd.Series(np.random.default_rng(0).uniform(20, 80, 200))
    order = subject_order(age, np.random.default_rng(1))
    assert sorted(order) == list(range(200))
    for start in (20, 50, 100):
        assert np.sort(age[order[:start]])[[0, start // 2, -1]] == pytest.approx([20, 50, 80], abs=6)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param(
            {"n_subjects": [30]}, ValueError, "n_subjects holds 30, more than the 16 training", id="many subjects"
        ),
        pytest.param({"n_cells": [21]}, ValueError, "n_cells holds 21, more than the 20 cells of the", id="many cells"),
        pytest.param({"n_subjects": [2]}, ValueError, "n_subjects holds 2, which leaves 2 of 16", id="few subjects"),
        pytest.param({"n_subjects": []}, ValueError, "n_subjects is empty", id="empty"),
        pytest.param({"n_subjects": [0.0]}, ValueError, "n_subjects=0 is neither a share", id="zero"),
        pytest.param({"n_cells": [2.5]}, ValueError, "nor a whole number of cells", id="part of a cell"),
        pytest.param({"n_subjects": "many"}, TypeError, "n_subjects='many' is a str", id="text"),
        pytest.param({"n_repeats": 0}, ValueError, "n_repeats=0 is out of range", id="no repeats"),
        pytest.param({"n_folds": 40}, ValueError, "n_folds=40 is not between 2 and the 24", id="folds"),
        pytest.param({"age_key": "years"}, KeyError, "age_key='years' is not a column", id="no column"),
    ],
)
def test_errors(cohort, arguments, error, words):
    before = snapshot(cohort)
    with pytest.raises(error) as raised:
        agevi.tl.learning_curve(cohort, AllClock, **SMALL | arguments)
    check_message(raised, words)
    assert snapshot(cohort) == before


def test_clocks_that_cannot_train(cohort):
    with pytest.raises(ValueError, match="LinearClock is not trained on ages"):
        agevi.tl.learning_curve(cohort, "LinearClock", **SMALL)
    cohort.X = cohort.X.astype(np.float32)
    cohort.X.data += 0.5
    with pytest.raises(ValueError, match="non-integer values"):
        agevi.tl.learning_curve(cohort, "PLSClock", **SMALL)
