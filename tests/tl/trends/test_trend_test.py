from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats

import agevi
from agevi import get
from agevi.tl.trends._trend_test import permutation_p, slope, trend_test
from tests.test_gates import check_message, set_obs, snapshot


def samples_of(n=40, noise=5.0, seed=0, subjects=None):
    """Samples of two cells each with a day, a step of a category and a line, as the tools leave them."""
    rng = np.random.default_rng(seed)
    names = np.array([f"s{i:02d}" for i in range(n)])
    day = rng.choice([0.0, 3.0, 7.0, 11.0], n)
    table = pd.DataFrame(
        {
            "subject": names if subjects is None else subjects,
            "age": np.nan,
            "predicted": 40 - 2 * day + rng.normal(0, noise, n),
            "n_cells": 2,
            "sd_cells": 1.0,
            "role": "new",
        },
        index=pd.Index(names, name="sample", dtype=object),
    )
    step = pd.Categorical.from_codes(
        np.searchsorted([0, 3, 7, 11], day), ["none", "low", "mid/high", "all"], ordered=True
    )
    columns = pd.DataFrame({"day": day, "step": step, "line": rng.choice(["a b", "CD4/CD8"], n)}, index=names)
    of_cell = rng.permutation(np.repeat(np.arange(n), 2))
    obs = columns.iloc[of_cell].assign(sample=names[of_cell])
    obs.index = [f"cell{i}" for i in range(2 * n)]
    adata = ad.AnnData(np.ones((2 * n, 2), dtype=np.float32), obs=obs)
    adata.uns["agevi"] = {"subject_key": "sample", "sample_key": "sample", "age_unit": "years"}
    adata.uns["agevi_subjects"] = table
    return adata, table.join(columns)


def table_of(adata, **arguments):
    trend_test(adata, **({"n_boot": 50, "n_permutations": 99} | arguments))
    return get.trend_df(adata)


@pytest.mark.slow
def test_equals_scipy():
    adata, samples = samples_of()
    (row,) = table_of(adata, order_key="day", n_boot=2000, n_permutations=2000).to_dict("records")
    expected = scipy.stats.spearmanr(samples["day"], samples["predicted"])
    assert row["spearman"] == pytest.approx(expected.statistic)
    assert row["slope"] == pytest.approx(scipy.stats.linregress(samples["day"], samples["predicted"]).slope)
    assert (row["n"], row["n_subjects"], row["n_levels"]) == (40, 40, 4)
    assert row["p"] == 1 / 2001  # none of the permutations comes near

    data = (samples["day"].to_numpy(), samples["predicted"].to_numpy())

    def intervals(statistic):
        found = scipy.stats.bootstrap(
            data, statistic, paired=True, vectorized=False, method="percentile",
            n_resamples=1500, rng=1,
        )  # fmt: skip
        return found.confidence_interval

    for name, statistic in (
        ("spearman", lambda x, y: scipy.stats.spearmanr(x, y).statistic),
        ("slope", lambda x, y: scipy.stats.linregress(x, y).slope),
    ):
        low, high = intervals(statistic)
        width = high - low
        assert row[f"{name}_low"] == pytest.approx(low, abs=0.15 * width)
        assert row[f"{name}_high"] == pytest.approx(high, abs=0.15 * width)


def test_p_equals_an_enumeration_of_all_permutations():
    adata, samples = samples_of(n=7, noise=20.0, seed=4)
    ranks = [scipy.stats.rankdata(samples[name]) for name in ("day", "predicted")]
    (row,) = table_of(adata, order_key="day", n_permutations=20_000).to_dict("records")
    exact = scipy.stats.permutation_test(
        ranks[:1],
        lambda x: abs(np.corrcoef(x, ranks[1])[0, 1]).round(9),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    ).pvalue
    assert 0.02 < exact < 0.9
    assert row["p"] == pytest.approx(exact, abs=0.015)


def test_counted_levels_are_steps():
    adata, samples = samples_of()
    (row,) = table_of(adata, order_key="step").to_dict("records")
    expected = scipy.stats.linregress(samples["step"].cat.codes, samples["predicted"]).slope
    assert row["slope"] == pytest.approx(expected)
    assert adata.uns["agevi_trend_params"]["levels"].tolist() == ["none", "low", "mid/high", "all"]


def in_thirds(adata, samples):
    """Write the steps none, low and all of a scale of six; give the categories of the samples."""
    scale = ["absent", "none", "low", "spare", "all", "beyond"]
    name = samples["step"].astype(str).replace("mid/high", "low")
    adata.obs["step"] = pd.Categorical(adata.obs["sample"].astype(str).map(name), scale, ordered=True)
    return name.map({"none": 0, "low": 1, "all": 2})


def test_levels_of_no_cell_are_no_steps():
    adata, samples = samples_of()
    place = in_thirds(adata, samples)
    (row,) = table_of(adata, order_key="step").to_dict("records")
    assert row["slope"] == pytest.approx(scipy.stats.linregress(place, samples["predicted"]).slope)
    assert adata.uns["agevi_trend_params"]["levels"].tolist() == ["none", "low", "all"]
    adata.uns["agevi_subjects"]["stage"] = adata.obs.groupby("sample", observed=True)["step"].first()
    (of_table,) = table_of(adata, order_key="stage").to_dict("records")
    assert of_table["slope"] == pytest.approx(row["slope"])


def test_levels_of_samples_that_are_left_out_are_steps():
    adata, samples = samples_of()
    place = in_thirds(adata, samples)
    adata.uns["agevi_subjects"].loc[(place == 1).to_numpy(), "role"] = "train"
    (row,) = table_of(adata, order_key="step").to_dict("records")
    kept = place != 1
    assert row["slope"] == pytest.approx(scipy.stats.linregress(place[kept], samples["predicted"][kept]).slope)
    assert adata.uns["agevi_trend_params"]["levels"].tolist() == ["none", "low", "all"]


def test_without_draws_there_are_no_intervals():
    (row,) = table_of(samples_of()[0], order_key="day", n_boot=0).to_dict("records")
    assert np.isnan([row["spearman_low"], row["slope_high"]]).all()
    assert row["slope"] < 0


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda day: pd.Timestamp("2024-05-01") + pd.to_timedelta(day, unit="D"), id="dates"),
        pytest.param(lambda day: pd.to_timedelta(day, unit="D"), id="durations"),
        pytest.param(lambda day: day.astype(int).astype(object), id="whole numbers as objects"),
        pytest.param(lambda day: day.astype(str).astype("category"), id="numbers as a category of text"),
    ],
)
def test_the_advised_expression_keeps_distances(change):
    """What the message says is run as it stands, and gives the slope per day."""
    adata, samples = samples_of()
    adata.obs["day"] = change(adata.obs["day"])
    with pytest.raises(TypeError) as raised:
        trend_test(adata, order_key="day")
    words = str(raised.value)
    start = min(i for i in (words.find("(adata"), words.find("pandas.to_numeric"), words.find("adata.obs")) if i > 0)
    expression = words[start:].removesuffix(".").removesuffix(", in a column of its own")
    adata.obs["number"] = eval(expression, {"adata": adata, "pandas": pd})
    (row,) = table_of(adata, order_key="number").to_dict("records")
    assert row["slope"] == pytest.approx(scipy.stats.linregress(samples["day"], samples["predicted"]).slope)


def test_a_category_of_numbers_keeps_its_numbers():
    adata, samples = samples_of()
    adata.obs["day"] = adata.obs["day"].astype("category")
    (row,) = table_of(adata, order_key="day").to_dict("records")
    assert row["slope"] == pytest.approx(scipy.stats.linregress(samples["day"], samples["predicted"]).slope)
    assert "levels" not in adata.uns["agevi_trend_params"]


def test_groups_have_rows_below_all_samples():
    adata, samples = samples_of()
    adata.uns["agevi_subjects"]["few"] = np.where(np.arange(40) < 2, "rare", "rest")
    out = table_of(adata, order_key="day", groupby="line")
    assert out["group"].tolist() == ["", "CD4/CD8", "a b"]
    assert out["groupby"].tolist() == ["overall", "line", "line"]
    for name in ("CD4/CD8", "a b"):
        part = samples[samples["line"] == name]
        row = out.set_index("group").loc[name]
        assert row["n"] == len(part)
        assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(part["day"], part["predicted"]).statistic)
    out = table_of(adata, order_key="day", groupby="few").set_index("group")
    assert out.loc["rare", ["spearman", "slope", "p"]].isna().all()
    assert out.loc["rare", "n"] == 2
    assert out.loc["rest", "p"] == 1 / 100


def test_only_held_out_samples_with_values_count(caplog):
    adata, samples = samples_of()
    table = adata.uns["agevi_subjects"]
    table["role"] = np.resize(["train", "test", "validation", "out_of_fold", "new", ""], 40)
    table.loc[table.index[1], "predicted"] = np.nan
    adata.obs.loc[adata.obs["sample"] == "s03", "day"] = np.nan
    with caplog.at_level(logging.INFO):
        (row,) = table_of(adata, order_key="day").to_dict("records")
    kept = samples.assign(role=table["role"])
    kept = kept[kept["role"].isin(["test", "out_of_fold", "new"])].drop(index=["s01", "s03"])
    assert row["n"] == len(kept)
    assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(kept["day"], kept["predicted"]).statistic)
    n_fitted = table["role"].isin(["train", "validation"]).sum()
    assert adata.uns["agevi_trend_params"]["n_left_out"] == n_fitted
    assert f"{n_fitted} samples of role train, validation or recalibration" in caplog.text


def uniform_p(make, n_runs=300, seed=1):
    """Kolmogorov and Smirnov's p that p values of data without a trend are uniform."""
    rng = np.random.default_rng(seed)
    p = []
    for _ in range(n_runs):
        subject, order, predicted = make(rng)
        frame = pd.DataFrame({"subject": subject, "order": order, "predicted": predicted})
        p.append(permutation_p(frame, 199, rng))
    # A p value is one of 1/200, ..., 1; spread over its step it is uniform.
    return scipy.stats.kstest(np.asarray(p) - rng.random(n_runs) / 200, "uniform").pvalue


def one_each(rng):
    return np.arange(25), rng.permutation(25) // 2, rng.normal(size=25)


def followed(rng):
    """Eight subjects who differ, each over the same five days."""
    subject = np.repeat(np.arange(8), 5)
    return subject, np.tile(np.arange(5), 8), 5 * rng.normal(size=8)[subject] + rng.normal(size=40)


def one_dose_each(rng):
    """Five biopsies of each of twelve subjects who differ, all at the subject's dose."""
    subject = np.repeat(np.arange(12), 5)
    return subject, rng.permutation(12)[subject], 5 * rng.normal(size=12)[subject] + rng.normal(size=60)


def one_subject(rng):
    return np.zeros(15), np.arange(15), rng.normal(size=15)


@pytest.mark.slow
@pytest.mark.parametrize("make", [one_each, followed, one_dose_each, one_subject], ids=lambda f: f.__name__)
def test_p_is_uniform_without_a_trend(make):
    assert uniform_p(make) > 0.01


@pytest.mark.slow
def test_permuting_samples_of_a_subject_freely_would_not_be():
    """What the blocks are for: with every biopsy its own subject, the same data give too small p values."""

    def broken(rng):
        _, order, predicted = one_dose_each(rng)
        return np.arange(60), order, predicted

    assert uniform_p(broken) < 1e-6


@pytest.mark.slow
def test_intervals_draw_whole_subjects():
    """Copies of a sample as further samples of its subject tell nothing new."""
    adata, _ = samples_of(n=20)
    (single,) = table_of(adata, order_key="day", n_boot=2000).to_dict("records")
    copies, _ = samples_of(n=80, subjects=np.arange(80) % 20)
    table = copies.uns["agevi_subjects"]
    table["predicted"] = np.tile(adata.uns["agevi_subjects"]["predicted"], 4)
    table["day"] = np.tile(adata.obs.groupby("sample", observed=True)["day"].first(), 4)
    (fourfold,) = table_of(copies, order_key="day", n_boot=2000).to_dict("records")
    for end in ("spearman_low", "spearman_high", "slope_low", "slope_high"):
        assert fourfold[end] == pytest.approx(single[end], abs=0.03)
    assert (fourfold["n"], fourfold["n_subjects"]) == (80, 20)


def test_one_line_over_time_has_p_but_no_interval():
    adata, _ = samples_of(n=12, noise=1.0, subjects="fibroblasts")
    (row,) = table_of(adata, order_key="day").to_dict("records")
    assert row["p"] == 1 / 100
    assert np.isnan([row["spearman_low"], row["slope_high"]]).all()


def test_slope_of_a_constant_order():
    assert np.isnan(slope(np.ones(3), np.arange(3.0)))


def test_equal_predictions_have_no_correlation():
    adata, _ = samples_of()
    adata.uns["agevi_subjects"]["predicted"] = 40.0
    (row,) = table_of(adata, order_key="day").to_dict("records")
    assert np.isnan([row["spearman"], row["p"]]).all()
    assert row["slope"] == pytest.approx(0)


def test_copy_seed_and_file(tmp_path):
    adata, _ = samples_of()
    before = snapshot(adata)
    first = trend_test(adata, order_key="step", groupby="line", copy=True, n_boot=50, n_permutations=99)
    assert snapshot(adata) == before
    again = trend_test(adata, order_key="step", groupby="line", copy=True, n_boot=50, n_permutations=99)
    pd.testing.assert_frame_equal(first.uns["agevi_trend"], again.uns["agevi_trend"])
    first.write_h5ad(tmp_path / "x.h5ad")
    read = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(get.trend_df(read), get.trend_df(first), check_dtype=False)
    agevi.pl.trend(read)


CASES = {
    "one level": (set_obs("day", lambda a: 7.0), ValueError, "order_key='day' is '7.0' in all 40 samples that count;"),
    "one step": (
        set_obs("day", lambda a: pd.Categorical(["low"] * 80, ["none", "low"], ordered=True)), ValueError,
        "is 'low' in all 40 samples that count; a trend needs two levels or more",
    ),
    "text": (set_obs("day", lambda a: "d" + a.obs["day"].astype(str)), TypeError, "text without an order; turn it into numbers"),
    "category without order": (
        set_obs("day", lambda a: a.obs["step"].cat.as_unordered()), TypeError, "ordered=True",
    ),
    "dates": (
        set_obs("day", lambda a: pd.Timestamp("2024-05-01") + pd.to_timedelta(a.obs["day"], unit="D")), TypeError,
        "which are dates; pass the days since the first, (adata.obs['day'] - adata.obs['day'].min()) / pandas.Timedelta(days=1)",
    ),
    "durations": (
        set_obs("day", lambda a: pd.to_timedelta(a.obs["day"], unit="D")), TypeError,
        "which are durations; pass them in days, adata.obs['day'] / pandas.Timedelta(days=1)",
    ),
    "whole numbers as objects": (
        set_obs("day", lambda a: a.obs["day"].astype(int).astype(object)), TypeError,
        "numbers stored as object; turn them into numbers with pandas.to_numeric(adata.obs['day'])",
    ),
    "numbers as a category of text": (
        set_obs("day", lambda a: a.obs["day"].astype(str).astype("category")), TypeError,
        "numbers stored as category; turn them into numbers with pandas.to_numeric(adata.obs['day'].astype(object))",
    ),
    "text in the table": (
        lambda a: a.uns["agevi_subjects"].__setitem__("day", "late"), TypeError,
        "pandas.Categorical(adata.uns['agevi_subjects']['day'], categories=",
    ),
    "no values": (
        set_obs("day", lambda a: np.nan), ValueError,
        "order_key='day' has no values in adata.obs: it is missing in all 40 samples. Fill the column in",
    ),
    "no values of text": (set_obs("day", lambda a: None), ValueError, "it is missing in all 40 samples"),
    "infinite": (
        set_obs("day", lambda a: a.obs["day"].where(a.obs["sample"] != "s03", np.inf)), ValueError,
        "is infinite in 1 samples (first: 's03')",
    ),
    "several values in a sample": (
        set_obs("day", lambda a: np.arange(80.0)), ValueError, "order_key takes columns with one value per sample",
    ),
    "no column": (lambda a: a.obs.pop("day"), KeyError, "order_key='day' is not a column of adata.obs"),
    "only training samples": (
        lambda a: a.uns["agevi_subjects"].__setitem__("role", "train"), ValueError, "train and validation shaped the clock",
    ),
    "no table": (lambda a: a.uns.pop("agevi_subjects"), KeyError, "run agevi.tl.aggregate_subjects(adata)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refuses(case):
    change, error, words = CASES[case]
    adata, _ = samples_of()
    change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        trend_test(adata, order_key="day")
    check_message(raised, words)
    assert snapshot(adata) == before


def test_refuses_text_as_draws():
    with pytest.raises(TypeError) as raised:
        trend_test(samples_of()[0], order_key="day", n_boot="a")
    check_message(raised, "n_boot='a' is a str; pass a whole number.")


def test_get_before_the_test():
    with pytest.raises(KeyError) as raised:
        get.trend_df(samples_of()[0])
    check_message(raised, "run agevi.tl.trend_test(adata, order_key=...)")


@pytest.fixture(scope="module")
def children(data_dir):
    """Controls below 20 years with the ages of a published clock, which knows none of them by name."""
    adata = ad.read_h5ad(data_dir / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    control = adata.obs["group"].astype(str).str.lower().str.contains("control")
    adata = adata[(control & (adata.obs["age"] < 20)).to_numpy()].copy()
    path = data_dir / "clocks" / "dnam_Horvath2013.csv"
    agevi.tl.predict_age(adata, agevi.model.LinearClock.from_coefficients(path, None, "horvath"))
    agevi.tl.aggregate_subjects(adata)
    return adata


@pytest.mark.realdata
def test_methylation_rises_in_childhood(children):
    row = table_of(children, order_key="age", n_boot=500, n_permutations=999).iloc[0]
    table = children.uns["agevi_subjects"]
    assert row["n"] == 379
    assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(table["age"], table["predicted"]).statistic)
    assert row["spearman_low"] > 0.7
    assert row["slope_low"] > 0.8
    assert row["p"] == 0.001


@pytest.mark.realdata
def test_p_of_shuffled_children_is_uniform(children):
    table = children.uns["agevi_subjects"]
    age, predicted = table["age"].to_numpy(), table["predicted"].to_numpy()
    assert uniform_p(lambda rng: (np.arange(len(age)), rng.permutation(age), predicted), n_runs=200) > 0.01
