from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agevi.model.linear._table import read_coefficients
from tests.test_gates import check_message

PLAIN = pd.DataFrame({"probe": ["(Intercept)", "cg1", "cg2"], "coef": [0.5, 2.0, -1.0]})
SCALED = pd.DataFrame({"gene": ["A", "B"], "mean": [1.0, 2.0], "scale": [0.5, 4.0], "coef_scaled": [3.0, -2.0]})
SEVERAL = pd.DataFrame(
    {
        "feature_name": ["intercept", "A", "B", "intercept", "A", "intercept", "B"],
        "coefficient": [40.0, 1.0, 2.0, 50.0, 3.0, 7.0, 9.0],
        "model_key": ["SC_B", "SC_B", "SC_B", "SC_B", "SC_B", "SC_T", "SC_T"],
        "fold": ["fold_1", "fold_1", "fold_1", "fold_2", "fold_2", "fold_1", "fold_1"],
    }
)


def read(table, *, intercept=None, scale=None, fill=None, model=None):
    return read_coefficients(table, intercept=intercept, scale=scale, fill=fill, model=model)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(PLAIN, id="row in parentheses"),
        pytest.param(PLAIN.replace("(Intercept)", "intercept").rename(columns={"probe": "gene"}), id="plain row"),
        pytest.param(PLAIN.set_index("probe"), id="features in the index"),
        pytest.param(PLAIN.set_index("probe")["coef"], id="a Series"),
        pytest.param(PLAIN.rename(columns={"probe": "CpGmarker", "coef": "Coefficient"}), id="other names"),
        pytest.param(PLAIN.rename(columns={"probe": "site", "coef": "weights"}), id="the first column of text"),
        pytest.param(PLAIN.assign(CoefficientTrainingShrunk=[1.0, np.nan, np.nan]), id="columns that are not read"),
    ],
)
def test_layouts(table):
    found = read(table)
    assert found.features.tolist() == ["cg1", "cg2"]
    assert found.weight.tolist() == [2.0, -1.0]
    assert found.intercept == 0.5
    assert found.shift.tolist() == [0, 0]
    assert found.scale.tolist() == [1, 1]
    assert np.isnan(found.usual).all()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.txt"])
def test_files(tmp_path, name):
    PLAIN.to_csv(tmp_path / name, sep="," if ".csv" in name else "\t", index=False)
    found = read(str(tmp_path / name))
    assert found.features.tolist() == ["cg1", "cg2"]
    assert found.intercept == 0.5


def test_scaler_columns():
    found = read(SCALED, intercept=60)
    assert found.shift.tolist() == [1.0, 2.0]
    assert found.scale.tolist() == [0.5, 4.0]
    assert found.usual.tolist() == [1.0, 2.0]
    assert found.intercept == 60


def test_a_scaler_of_its_own(tmp_path):
    scaler = SCALED[["gene", "mean", "scale"]].rename(columns={"scale": "sd"}).iloc[::-1]
    scaler.to_csv(tmp_path / "scaler.csv", index=False)
    expected = read(SCALED, intercept=0)
    for given in (scaler, tmp_path / "scaler.csv", scaler.set_index("gene")):
        found = read(SCALED[["gene", "coef_scaled"]], intercept=0, scale=given)
        np.testing.assert_array_equal(found.shift, expected.shift)
        np.testing.assert_array_equal(found.scale, expected.scale)


@pytest.mark.parametrize(
    ("column", "fill", "usual"),
    [
        pytest.param("ref_mean", None, [0.2, 0.8], id="a reference"),
        pytest.param("model_mean", None, [0.2, 0.8], id="the mean of the training data"),
        pytest.param("medianByCpG", None, [0.2, 0.8], id="a median"),
        pytest.param("mean", None, [0.2, 0.8], id="a mean without a scale"),
        pytest.param("ref_mean", 0.4, [0.4, 0.4], id="one number"),
        pytest.param("ref_mean", {"cg2": 0.6}, [0.2, 0.6], id="some numbers"),
        pytest.param("varByCpG", pd.Series({"cg1": 0.3}), [0.3, np.nan], id="known of one only"),
    ],
)
def test_values_of_absent_features(column, fill, usual):
    found = read(PLAIN.assign(**{column: [np.nan, 0.2, 0.8]}), fill=fill)
    np.testing.assert_array_equal(found.usual, usual)
    assert found.shift.tolist() == [0, 0]


def test_folds_of_a_model_are_averaged():
    found = read(SEVERAL, model="SC_B")
    assert dict(zip(found.features, found.weight, strict=True)) == {"A": 2.0, "B": 1.0}
    assert found.intercept == 45
    assert read(SEVERAL, model="SC_T").weight.tolist() == [9.0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        pytest.param("T_cell_intercept.txt", "12.5\n", id="a file"),
        pytest.param("intercepts.tsv", "B cell\t3\nT cell\t12.5\n", id="a row of a file"),
        pytest.param("intercepts.csv", "B cell,3\nT cell,12.5\n", id="a row of a csv"),
    ],
)
def test_the_intercept_beside_the_table(tmp_path, file, text):
    SCALED.to_csv(tmp_path / "T_cell_coefs.csv", index=False)
    (tmp_path / file).write_text(text)
    assert read(tmp_path / "T_cell_coefs.csv").intercept == 12.5
    assert read(tmp_path / "T_cell_coefs.csv", intercept=1).intercept == 1


def test_repeated_features_add_up_with_a_warning():
    table = pd.concat([PLAIN, PLAIN.iloc[[1]]])
    with pytest.warns(UserWarning, match="names 1 features more than once") as caught:
        found = read(table)
    check_message(caught_as(caught), "their coefficients are added up")
    assert found.weight.tolist() == [4.0, -1.0]


def caught_as(caught):
    """A warning in the form of an error, for ``check_message``."""
    return type("Raised", (), {"value": caught[0].message})


BAD = {
    "no intercept": (PLAIN.iloc[1:], {}, ValueError, "pass intercept=..., 0 if the clock has none"),
    "several models": (SEVERAL, {}, ValueError, "holds 2 models in its column 'model_key'; pass model=..., one of 'SC_B', 'SC_T'"),
    "an unknown model": (SEVERAL, {"model": "SC_BB"}, ValueError, "closest: 'SC_B'. Available: 'SC_B', 'SC_T'"),
    "a model of one": (PLAIN, {"model": "SC_B"}, ValueError, "it has no column 'model'. Leave model out"),
    "two intercepts": (pd.concat([PLAIN, PLAIN]), {}, ValueError, "has 2 rows of an intercept"),
    "no coefficients": (PLAIN.rename(columns={"coef": "x"}), {}, ValueError, "has no column of coefficients ('coef', "),
    "no features": (PLAIN[["coef"]], {}, ValueError, "has no column of features ('feature', "),
    "a feature without a name": (PLAIN.replace("cg2", None), {}, ValueError, "1 rows without the name of a feature"),
    "a missing coefficient": (PLAIN.replace(2.0, np.nan), {}, ValueError, "is missing or infinite in 1 rows (e.g. 'cg1')"),
    "text as coefficients": (PLAIN.assign(coef=["a", "b", "c"]), {}, TypeError, "coefficients are numbers"),
    "only an intercept": (PLAIN.iloc[:1], {}, ValueError, "names no feature beside the intercept"),
    "no rows": (PLAIN.iloc[:0], {}, ValueError, "is a table without rows"),
    "scaled without a scaler": (SCALED[["gene", "coef_scaled"]], {"intercept": 0}, ValueError, "refers to standardised features"),
    "a scaler of other columns": (PLAIN, {"scale": PLAIN}, ValueError, "scale has none of the columns 'mean', 'scale', 'sd', 'std'"),
    "a scaler of other features": (PLAIN, {"scale": SCALED}, ValueError, "scale lacks 2 of the 2 features of the table"),
    "a scale of 0": (SCALED.replace(0.5, 0.0), {"intercept": 0}, ValueError, "1 features have a standard deviation that is missing or not above 0 (e.g. 'A')"),
    "text as intercept": (PLAIN, {"intercept": "x"}, TypeError, "intercept='x' is a str; pass a number"),
    "an infinite intercept": (PLAIN, {"intercept": np.inf}, ValueError, "intercept=inf is not finite"),
    "no table": ([1, 2], {}, TypeError, "table_or_path is a list; pass a path or a pandas DataFrame or Series"),
    "another format": ("coefs.xlsx", {}, ValueError, "ends in none of .csv, .tsv"),
    "no such file": ("no-such-table.csv", {}, FileNotFoundError, "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(case):
    table, arguments, error, words = BAD[case]
    with pytest.raises(error) as raised:
        read(table, **arguments)
    check_message(raised, words)


def test_the_closest_file_is_named(tmp_path):
    PLAIN.to_csv(tmp_path / "horvath.csv", index=False)
    with pytest.raises(FileNotFoundError, match=r"does not exist; closest: 'horvath.csv'"):
        read(tmp_path / "horvat.csv")


def test_clocks_of_ranks_are_refused(tmp_path):
    PLAIN.to_csv(tmp_path / "RANKS_coefs.csv", index=False)
    (tmp_path / "RANKS_meta.csv").write_text("intercept,scaling_factor\n1,-2\n")
    with pytest.raises(ValueError) as raised:
        read(tmp_path / "RANKS_coefs.csv")
    check_message(raised, "LinearClock adds up values as they are")
