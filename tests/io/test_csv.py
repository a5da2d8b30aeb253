from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest

from agevi.io._csv import csv_text, safe, write_csv

FORMULAS = ['=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_text(text):
    table = pd.DataFrame({"donor": [text, "d1"], text: [1.0, -2.5]})
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows == [["donor", f"'{text}"], [f"'{text}", "1.0"], ["d1", "-2.5"]]


@pytest.mark.parametrize("value", [-1.5, 3, "d-1", "a=b", '<script>"', "", None, np.nan])
def test_other_values_stay_as_they_are(value):
    assert safe(value) is value


def test_categories_two_columns_of_one_name_and_missing_values():
    table = pd.DataFrame([["=1", -1.0], [None, np.nan]], columns=["a", "a"]).astype({"a": object})
    table = pd.concat([table, pd.DataFrame({"c": pd.Categorical(["-x", "y"])})], axis=1)
    assert csv_text(table).splitlines() == ["a,a,c", "'=1,-1.0,'-x", ",,y"]


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1]}))
    assert (tmp_path / "t.csv").read_text() == "a\n1\n"
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_csv(tmp_path / "other.csv", pd.DataFrame({"a": [1]}))
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_a_file_is_as_readable_as_other_new_files(tmp_path):
    (tmp_path / "other.txt").write_text("")
    write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1]}))
    assert (tmp_path / "t.csv").stat().st_mode == (tmp_path / "other.txt").stat().st_mode
