from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from agevi.tl.sets._target_lists import read_druggable
from tests.test_gates import check_message


def test_lists_of_drug_targets(tmp_path):
    text = tmp_path / "genes.txt"
    text.write_text(" blaT-3\nABAT\n\nABCA1\r\nABAT\n")
    assert read_druggable(text).tolist() == ["blaT-3", "ABAT", "ABCA1"]
    table = tmp_path / "targets.csv.gz"
    table.write_bytes(gzip.compress(b"DRUG,GENE\na,PTGS1|PTGS2\nb,KDR\nc,\n"))
    assert read_druggable(str(table)).tolist() == ["PTGS1", "PTGS2", "KDR"]
    tabs = tmp_path / "targets.tsv"
    tabs.write_text("gene_name\tdrug\nCDK7\tx\n")
    assert read_druggable(tabs).tolist() == ["CDK7"]
    assert set(read_druggable({"A", "B"})) == {"A", "B"}
    assert read_druggable(pd.Index(["A", np.nan, None])).tolist() == ["A"]
    assert read_druggable(pd.DataFrame({"Symbol": ["A"]})).tolist() == ["A"]
    assert read_druggable(None) is None


@pytest.mark.parametrize(
    ("file", "content", "genes"),
    [
        pytest.param("a.txt.gz", gzip.compress(b"EGFR\nKDR\n"), ["EGFR", "KDR"], id="a list in gzip"),
        pytest.param("a.txt", b"Gene\tdrug\nEGFR\tx\n", ["EGFR"], id="a table with tabs called a list"),
        pytest.param("a.csv", b"drug;gene\nx;EGFR\n", ["EGFR"], id="semicolons"),
        pytest.param("a.csv", b'drug, Gene\n"x, y",EGFR\n', ["EGFR"], id="a space in the header"),
        pytest.param("a.csv", b"gene\nEGFR\nKDR|FLT1\n", ["EGFR", "KDR", "FLT1"], id="one column"),
        pytest.param("a.tsv", b"gene\tdrug, approved\nEGFR\tx, y\n", ["EGFR"], id="commas in a table with tabs"),
        pytest.param("a.csv", "gene,drug\nEGFR,\xfcber\n".encode("latin-1"), ["EGFR"], id="Latin-1"),
        pytest.param("a.csv", "\ufeffgene,drug\r\nEGFR,x\r\n".encode(), ["EGFR"], id="as Excel writes it"),
        pytest.param("a.txt", b"EGFR;KDR\nFLT1\t\n", ["EGFR", "KDR", "FLT1"], id="joined genes and a tab at the end"),
    ],
)
def test_files_are_read_whatever_their_ending_and_separator(tmp_path, file, content, genes):
    path = tmp_path / file
    path.write_bytes(content)
    assert read_druggable(path).tolist() == genes


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        pytest.param("a.csv", b"\n  \n", "druggable holds no genes", id="empty"),
        pytest.param("a.xlsx", b"PK\x03\x04\x14\0\0", "a.xlsx' is not text, or damaged; lists with a gene", id="a spreadsheet"),
        pytest.param("a.txt.gz", gzip.compress(b"EGFR\n" * 99)[:-9], "Export a spreadsheet as CSV first", id="gzip cut off"),
        pytest.param("a.txt", b"target\tdrug\nEGFR\tx\n", "has a line with tabs ('target\\tdrug')", id="a table called a list"),
        pytest.param("a.csv", b"gene,drug\nA,x\nB,x,y\n", "is not a table of columns between ',' (", id="a ragged table"),
    ],
)  # fmt: skip
def test_refuses_files(tmp_path, file, content, words):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as raised:
        read_druggable(tmp_path / file)
    check_message(raised, words)


def test_columns_between_semicolons_are_listed(tmp_path):
    (tmp_path / "a.csv").write_text("target;drug\nEGFR;x\n")
    with pytest.raises(KeyError, match="Available: 'target', 'drug'"):
        read_druggable(tmp_path / "a.csv")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "n"),
    [
        ("approved_drug_target_genes_drugcentral.txt", 691),
        ("drugcentral_moa_targets_2016.csv.gz", 691),
        ("dgidb_interactions_2021ish.csv.gz", 2533),
    ],
)
def test_published_lists_are_read_as_they_are(data_dir, file, n):
    genes = read_druggable(data_dir / "reference" / file)
    assert len(genes) == n
    assert "EGFR" in genes
    assert not genes.str.contains(r"[|;\s]").any()
