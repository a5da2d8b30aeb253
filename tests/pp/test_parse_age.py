from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import pp


def with_ages(values):
    adata = ad.AnnData(np.ones((len(values), 2), dtype=np.float32))
    adata.obs["age"] = pd.Series(values, index=adata.obs_names)
    return adata


def parsed(values, **arguments):
    adata = with_ages(values)
    pp.parse_age(adata, "age", **arguments)
    return adata.obs["age"].to_numpy()


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("41", 41.0),
        ("41.5", 41.5),
        (" 41  Years ", 41.0),
        ("41y", 41.0),
        ("41yo", 41.0),
        ("41 years old", 41.0),
        ("41-year-old stage", 41.0),
        ("41-year-old human stage", 41.0),
        ("18 weeks", 18 * 7 / 365.25),
        ("3 months", 0.25),
        ("24 mo", 2.0),
        ("10 days", 10 / 365.25),
        ("-0.5", -0.5),
        ("60-69", 64.5),
        ("60 – 69 years", 64.5),
        ("60 to 69", 64.5),
        ("6 months - 2 years", 1.25),
        ("18-20 weeks", 19 * 7 / 365.25),
        ("(20, 30]", 25.0),
        ("(0,5]", 2.5),  # as cut of R writes it
        ("[-1, 2)", 0.5),
        (">89", 89.0),
        ("≥ 89 years", 89.0),
        ("89+", 89.0),
        ("89 years+", 89.0),
        ("90 and over", 90.0),
        ("90 or older", 90.0),
        ("over 89", 89.0),
        ("<1", 1.0),
        ("<=18 months", 1.5),
        ("under 1 year", 1.0),
        ("41 yrs.", 41.0),
        ("41 y.o.", 41.0),
        ("3 mo.", 0.25),
        ("90+ years", 90.0),
        ("90 + yrs.", 90.0),
        ("80 year-old and over stage", 80.0),
        ("over-89-year-old stage", 89.0),
        ("at least 90", 90.0),
        ("more than 89 years", 89.0),
        ("65-79 year-old stage", 72.0),
        ("fifth decade stage", 45.0),
        ("third decade human stage", 25.0),
        ("P41Y", 41.0),
        ("P1Y6M", 1.5),
        ("P10D", 10 / 365.25),
        ("1 year 6 months", 1.5),
        ("1y6m", 1.5),
        ("2 years, 3 months", 2.25),
        (b"41 years", 41.0),
        ("20 month-old stage and over", 20 / 12),
        ("20-month-old stage and over (mouse)", 20 / 12),
        ("2-month-old stage (mouse)", 2 / 12),
        ("child stage (1-4 yo)", 2.5),
        ("newborn stage (0-28 days)", 14 / 365.25),
        ("2-5 year-old child stage", 3.5),
        ("3 mths", 0.25),
        ("41,5", 41.5),
        ("41,5 years", 41.5),
        ("0,5-1,5", 1.0),
    ],
)
def test_text_to_years(text, years):
    np.testing.assert_allclose(parsed([text]), [years], rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "Unknown",
        "nan",
        "NA",
        "n/a",
        "None",
        "not reported",
        "?",
        "-",
        "n.a.",
        "#N/A",
        "not applicable",
        "Not Applicable ",
        None,
        np.nan,
    ],
)
def test_missing(text):
    np.testing.assert_array_equal(parsed(["41 years", text]), [41.0, np.nan])


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        pytest.param("midpoint", [41, 64.5, 89, 1], id="midpoint"),
        pytest.param("lower", [41, 60, 89, 1], id="lower"),
        pytest.param("drop", [41, np.nan, np.nan, np.nan], id="drop"),
    ],
)
def test_strategies(strategy, expected):
    np.testing.assert_array_equal(parsed(["41", "60-69", ">89", "<1"], strategy=strategy), expected)


@pytest.mark.parametrize(
    ("age_unit", "expected"),
    [
        pytest.param("years", [3, 0.25, 7 / 365.25], id="years"),
        pytest.param("months", [3, 3, 12 * 7 / 365.25], id="months"),
        pytest.param("weeks", [3, 3 * 365.25 / 12 / 7, 1], id="weeks"),
        pytest.param("days", [3, 3 * 365.25 / 12, 7], id="days"),
    ],
)
def test_units_of_the_result(age_unit, expected):
    np.testing.assert_allclose(parsed(["3", "3 months", "1 week"], age_unit=age_unit), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([41, 20], [41, 20], id="int"),
        pytest.param(np.array([41.25, np.nan], dtype=np.float32), [41.25, np.nan], id="float32"),
        pytest.param([41, "60-69", 12.5, None], [41, 64.5, 12.5, np.nan], id="mixed"),
        pytest.param(pd.Categorical(["b 1", "5", "5"], categories=["5", "b 1", "x"])[1:], [5, 5], id="unused category"),
        pytest.param(pd.cut([25, 61, np.nan], [20, 30, 60, 70]), [25, 65, np.nan], id="pandas intervals"),
        pytest.param(pd.array(["41", None], dtype="string"), [41, np.nan], id="string dtype"),
        pytest.param([None, None], [np.nan, np.nan], id="all missing"),
    ],
)
def test_columns(values, expected):
    out = parsed(values)
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, expected)


def test_column_is_replaced_unless_key_added_names_another():
    adata = with_ages(["60-69", "41"])
    assert pp.parse_age(adata, "age", key_added="years") is None
    assert adata.obs["age"].tolist() == ["60-69", "41"]
    assert adata.obs["years"].tolist() == [64.5, 41.0]
    out = pp.parse_age(adata, "age", copy=True)
    assert adata.obs["age"].tolist() == ["60-69", "41"]
    assert out.obs["age"].tolist() == [64.5, 41.0]


def test_log_counts_cells(caplog):
    adata = with_ages(["60-69", "60-69", ">89", "41", "unknown", None])
    with caplog.at_level(logging.INFO, logger="agevi"):
        pp.parse_age(adata, "age")
    assert "of 6 cells 2 have a binned age and 1 a bound (strategy 'midpoint'), 2 have none" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "old",
        "18 pcw",
        "60-",
        "69-60",
        "inf",
        "1,412",
        "34,37",  # two donors?
        "41 5",
        "P40",
        "60s",
        "-5-10",
        "E14.5",
        "ninth LMP month stage",
        "stage",
    ],
)
def test_unreadable_text_is_refused(text):
    adata = with_ages(["41", text, text])
    with pytest.raises(
        ValueError, match=r"adata.obs\['age'\] has 1 value that is not an age: '.*'; write them as '41', "
    ):
        pp.parse_age(adata, "age")
    assert adata.obs["age"].tolist() == ["41", text, text]


@pytest.mark.parametrize("age_unit", ["months", "weeks", "days"])
def test_m_is_months_but_in_years(age_unit):
    """Ages of mice; in years it may be the sex."""
    np.testing.assert_allclose(
        parsed(["24m", "3m"], age_unit=age_unit), parsed(["24 months", "3 months"], age_unit=age_unit)
    )
    with pytest.raises(
        ValueError, match="'m' is read as months with age_unit='months', and may be a man with 'years': '24m'"
    ):
        parsed(["24m"])


def test_drop_leaves_bounds_and_decades_out():
    np.testing.assert_array_equal(
        parsed(["90+ years", "fifth decade stage", "41"], strategy="drop"), [np.nan, np.nan, 41]
    )
    np.testing.assert_array_equal(parsed(["90+ years", "fifth decade stage"], strategy="lower"), [90, 40])


def test_what_is_not_read_may_become_missing():
    adata = with_ages(["41", "adult", "E14.5", "adult", "unknown", b"60-69"])
    with pytest.warns(
        UserWarning, match=r"2 values that are not ages: 'adult', 'E14.5'; their 3 cells have no age now"
    ) as found:
        pp.parse_age(adata, "age", errors="coerce", key_added="years")
    assert len(found) == 1 and found[0].filename == __file__
    np.testing.assert_array_equal(adata.obs["years"], [41, np.nan, np.nan, np.nan, np.nan, 64.5])


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_numbers_are_refused(value):
    with pytest.raises(ValueError, match="has 1 value that is not an age: '-?inf'"):
        parsed([41.0, value])


def test_five_examples_at_most():
    with pytest.raises(ValueError, match=r"has 7 values that are not ages: 'x0', 'x1', 'x2', 'x3', 'x4', \.\.\.;"):
        parsed([f"x{i}" for i in range(7)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param(
            {"age_key": "aeg"}, KeyError, "age_key='aeg' is not a column of adata.obs; closest: 'age'", id="key"
        ),
        pytest.param(
            {"strategy": "upper"}, ValueError, "strategy='upper' is not known.*'midpoint', 'lower'", id="strategy"
        ),
        pytest.param({"errors": "ignore"}, ValueError, "errors='ignore' is not known.*'raise', 'coerce'", id="errors"),
        pytest.param(
            {"age_unit": "hours"}, ValueError, "age_unit='hours' is not known; choose one of 'years'", id="unit"
        ),
    ],
)
def test_refuses_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        pp.parse_age(with_ages(["41"]), **{"age_key": "age", **arguments})
