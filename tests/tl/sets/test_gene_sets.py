from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from agevi.tl.sets import _gene_sets
from agevi.tl.sets._gene_sets import reactome_path, read_sets
from tests.test_gates import check_message

TEXT = b"Apoptosis\tR-HSA-109581\tBAX\tBCL2\nInterferon Signaling\tR-HSA-913531\tSTAT1\tIRF9\n"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A small file in place of the one on the net, and an empty cache."""
    source = tmp_path / "source.gmt"
    source.write_bytes(TEXT)
    monkeypatch.delenv("AGEVI_REACTOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_gene_sets, "REACTOME_URL", source.as_uri())
    monkeypatch.setattr(_gene_sets, "REACTOME_SHA256", hashlib.sha256(TEXT).hexdigest())
    return source


def test_downloads_once(elsewhere, tmp_path):
    path = reactome_path()
    assert path == tmp_path / "cache" / "agevi" / "ReactomePathways.gmt"
    assert path.read_bytes() == TEXT
    elsewhere.unlink()
    net, origin = read_sets("reactome")  # from the cache, since the source is gone
    assert origin == "reactome"
    assert net["source"].unique().tolist() == ["Apoptosis", "Interferon Signaling"]
    assert net["target"].tolist() == ["BAX", "BCL2", "STAT1", "IRF9"]
    assert [p.name for p in path.parent.iterdir()] == ["ReactomePathways.gmt"]


def test_the_cache_is_in_the_home_by_default(elsewhere, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    assert reactome_path() == tmp_path / "me" / ".cache" / "agevi" / "ReactomePathways.gmt"


def test_a_damaged_cache_is_fetched_again(elsewhere):
    reactome_path().write_bytes(TEXT[:20])
    assert reactome_path().read_bytes() == TEXT


def test_another_file_than_expected_is_not_kept(elsewhere, tmp_path):
    elsewhere.write_bytes(b"<html>sign in to the network</html>")
    with pytest.raises(ValueError) as raised:
        reactome_path()
    check_message(raised, "and nothing was kept; download it elsewhere and copy it to")
    assert not (tmp_path / "cache").exists()


def test_without_a_network(elsewhere):
    elsewhere.unlink()
    with pytest.raises(FileNotFoundError) as raised:
        reactome_path()
    check_message(raised, "cannot be reached")
    assert "set AGEVI_REACTOME to the path of any GMT file of Reactome, or pass sets=" in str(raised.value)


def test_a_file_that_the_environment_names(elsewhere, tmp_path, monkeypatch):
    mine = tmp_path / "mine.gmt"
    mine.write_text("Mine\t-\tTP53\n")
    monkeypatch.setenv("AGEVI_REACTOME", str(mine))
    assert read_sets("reactome")[0]["source"].tolist() == ["Mine"]
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("AGEVI_REACTOME", str(tmp_path / "absent.gmt"))
    with pytest.raises(FileNotFoundError) as raised:
        reactome_path()
    check_message(raised, "is not a file; set it to the path of a GMT file")


@pytest.mark.realdata
def test_the_checksum_is_that_of_reactome(data_dir, monkeypatch):
    monkeypatch.delenv("AGEVI_REACTOME", raising=False)
    path = data_dir / "reference" / "ReactomePathways_human.gmt.gz"
    assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() == _gene_sets.REACTOME_SHA256


PLAIN = "Apoptosis\tR-HSA-109581\tBAX\tBCL2\nInterferon Signaling\tR-HSA-913531\tSTAT1\tIRF9\n"
QUOTED = "\n".join("\t".join(f'"{field}"' for field in line.split("\t")) for line in PLAIN.splitlines())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PLAIN.encode("utf-8-sig"), id="utf-8-with-mark"),
        pytest.param(PLAIN.encode("utf-16"), id="utf-16-with-mark"),
        pytest.param(b"\xfe\xff" + PLAIN.encode("utf-16-be"), id="big-endian-with-mark"),
        pytest.param(PLAIN.encode("utf-16-le"), id="utf-16-le"),
        pytest.param(PLAIN.encode("utf-16-be"), id="utf-16-be"),
        pytest.param(PLAIN.replace("\n", "\r\n").encode(), id="windows-ends"),
        pytest.param(PLAIN.replace("\n", "\r").encode(), id="old-mac-ends"),
        pytest.param(PLAIN.replace("\n", "\t\t\n").encode(), id="trailing-tabs"),
        pytest.param(QUOTED.encode(), id="quoted-fields"),
        pytest.param("\n".join(f'"{line}"' for line in PLAIN.splitlines()).encode(), id="quoted-lines"),
        pytest.param(gzip.compress(QUOTED.encode("utf-16")), id="all-at-once-in-gzip"),
        pytest.param(PLAIN.replace("R-HSA-109581", "Alzheimer\u2019s").encode("cp1252"), id="windows-code-page"),
        pytest.param(PLAIN.replace("R-HSA-109581", "a\u2028b").encode(), id="separator-of-lines-in-a-description"),
    ],
)
def test_files_as_people_have_them(tmp_path, content):
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    net, _ = read_sets(path)
    assert net["source"].tolist() == ["Apoptosis"] * 2 + ["Interferon Signaling"] * 2
    assert net["target"].tolist() == ["BAX", "BCL2", "STAT1", "IRF9"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(
            b"PK\x03\x04\x14\x00\x00\x00", "is not text in UTF-8, UTF-16 or the code page of Windows", id="zip"
        ),
        pytest.param(gzip.compress(PLAIN.encode())[:30], "is a damaged gzip file", id="gzip"),
        pytest.param(PLAIN.replace("\t", "  ").encode("utf-16"), "is not text in UTF-8", id="utf-16-without-tabs"),
    ],
)
def test_other_files_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    with pytest.raises(ValueError) as raised:
        read_sets(path)
    check_message(raised, reason)
