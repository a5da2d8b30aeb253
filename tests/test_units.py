"""Names of units, the one value of each, and what is refused where their cells disagree."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from agevi import _units
from agevi._units import PerUnit

UNIT = pd.Series(["b", "a", "b", "a", "c"])


@pytest.mark.parametrize(
    ("values", "wanted", "several", "part"),
    [
        pytest.param([1.0, 2.0, 1.0, 2.0, np.nan], [2.0, 1.0, np.nan], [], [], id="numbers"),
        pytest.param([np.nan, 2.0, 1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [], ["b"], id="in part of the cells"),
        pytest.param([1.0, 2.0, 3.0, np.nan, 3.0], [2.0, 1.0, 3.0], ["b"], ["a"], id="two values"),
        pytest.param(["x", "y", "x", "y", "x"], ["y", "x", "x"], [], [], id="text"),
        pytest.param(pd.Categorical(["x", "y", "z", "y", None]), ["y", "x", np.nan], ["b"], [], id="categories"),
    ],
)
def test_values_of_units(values, wanted, several, part):
    found = PerUnit(values, UNIT)
    assert found.values.index.tolist() == ["a", "b", "c"]
    pd.testing.assert_series_equal(found.values.astype(object), pd.Series(wanted, index=list("abc"), dtype=object))
    assert (found.several.tolist(), found.part.tolist()) == (several, part)


def test_cells_of_a_unit():
    assert PerUnit([1, 2, 3, 4, 5], UNIT).cells("b").tolist() == [1, 3]


N_CELLS = 12


@pytest.fixture
def adata(twelve_cells):
    return twelve_cells


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.arange(N_CELLS), id="int64"),
        pytest.param(np.arange(N_CELLS, dtype=np.float32), id="float32"),
        pytest.param(pd.array([*range(N_CELLS - 1), None], dtype="Int64"), id="nullable Int64"),
    ],
)
def test_ages_become_float64(adata, values):
    adata.obs["age"] = values
    out = _units.ages(adata, "age")
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out[:-1], np.arange(N_CELLS - 1))
    assert out[-1] == N_CELLS - 1 or np.isnan(out[-1])


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        pytest.param(["60-69"] * N_CELLS, TypeError, r"e\.g\. '60-69'.*agevi.pp.parse_age\(adata, 'age'\)", id="bins"),
        pytest.param(pd.Categorical([">89"] * N_CELLS), TypeError, "category values.*parse_age", id="categorical"),
        pytest.param([True] * N_CELLS, TypeError, "bool values", id="bool"),
        pytest.param([np.inf] + [1.0] * 11, ValueError, r"infinite in 1 cells \(first: 'cell0'\)", id="infinite"),
        pytest.param([-5.0] + [1.0] * 11, ValueError, "an age of -5, below min_age=-1; correct it", id="below min_age"),
        pytest.param([np.nan] * N_CELLS, ValueError, "no ages: all 12 values are missing", id="all NaN"),
        pytest.param([None] * N_CELLS, ValueError, "no ages: all 12 values are missing", id="all None"),
    ],
)
def test_ages_refuse(adata, values, error, message):
    adata.obs["age"] = values
    with pytest.raises(error, match=message):
        _units.ages(adata, "age")


def test_min_age_may_be_lowered(adata):
    adata.obs["age"] = -20.0
    assert _units.ages(adata, "age", min_age=-40).tolist() == [-20.0] * N_CELLS


def test_units(adata):
    adata.obs["visit"] = [f"{d}_{i % 2}" for i, d in enumerate(adata.obs["donor"])]
    subject, sample = _units.units(adata, "donor", "visit")
    assert subject.tolist() == adata.obs["donor"].tolist()
    assert sample.tolist() == adata.obs["visit"].tolist()
    for sample_key in (None, "donor"):
        subject, sample = _units.units(adata, "donor", sample_key)
        assert sample is subject


def test_units_refuse_a_sample_in_two_subjects(adata):
    adata.obs["visit"] = "v1"
    with pytest.raises(
        ValueError, match=r"sample 'v1' belongs to 4 subjects \('d1', 'd2', 'd3', ...\).*obs\['visit'\].astype\(str\)"
    ):
        _units.units(adata, "donor", "visit")


def test_the_advice_on_visits_makes_samples(adata):
    """What the messages tell to run gives every visit a name of its own."""
    adata.obs["visit"] = 1
    with pytest.raises(ValueError, match="pass sample_key='sample'") as error:
        _units.units(adata, "donor", "visit")
    code = re.search(r"unique: (.*), and pass", str(error.value)).group(1)
    exec(code, {"adata": adata})
    assert adata.obs["sample"].tolist() == [f"{donor}_1" for donor in adata.obs["donor"]]
    assert _units.units(adata, "donor", "sample")[1].nunique() == 4


def test_age_per_unit(adata):
    out = _units.age_per_unit(adata.obs["age"].to_numpy(), adata.obs["donor"], "age", is_sample=False)
    assert out.index.tolist() == ["d1", "d2", "d3", "d4"]
    np.testing.assert_array_equal(out, [20.0, 41.0, 60.0, np.nan])


@pytest.mark.parametrize(
    ("is_sample", "message"),
    [
        pytest.param(
            False, r"subject 'd2' has two ages \(41.0, 43.0\) in adata.obs\['age'\].*pass sample_key", id="subject"
        ),
        pytest.param(True, r"sample 'd2' has two ages \(41.0, 43.0\).*A sample has one age\.", id="sample"),
    ],
)
def test_age_per_unit_refuses_two_ages(adata, is_sample, message):
    age = adata.obs["age"].to_numpy().copy()
    age[3] = 43.0
    with pytest.raises(ValueError, match=message):
        _units.age_per_unit(age, adata.obs["donor"], "age", is_sample=is_sample)


def test_age_per_unit_refuses_a_part(adata):
    age = adata.obs["age"].to_numpy().copy()
    age[3] = np.nan
    with pytest.raises(ValueError, match="subject 'd2' has an age in 2 of its 3 cells.*or none"):
        _units.age_per_unit(age, adata.obs["donor"], "age", is_sample=False)


def test_learnable():
    owner = pd.Series({"a": "A", "b": "B", "c": "C", "c2": "C"})
    _units.learnable(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0}), owner, "age")
    with pytest.raises(ValueError, match=r"only 2 subjects have an age in adata.obs\['age'\].*at least 3"):
        _units.learnable(pd.Series({"a": 1.0, "b": np.nan, "c": 3.0, "c2": 4.0}), owner, "age")
    with pytest.raises(ValueError, match=r"adata.obs\['age'\] is 7 for every subject"):
        _units.learnable(pd.Series({"a": 7.0, "b": 7.0, "c": 7.0}), owner, "age")
