"""Bundles that were edited, most of them by someone who made sizes, checksums and digest right again."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from agevi.io import _format, _format_json, _format_tensors
from tests.io.bundles import FILES, refused, sign


@pytest.fixture
def clock(tmp_path) -> Path:
    meta = {"genes": ["CD3E", "LEF1"], "epochs": 12}
    _format.write_bundle(tmp_path / "clock", meta, {"w": torch.ones(2, 3), "flag": torch.tensor([True])}, "# A clock\n")
    return tmp_path / "clock"


def test_signing_is_right(clock):
    sign(clock, epochs=13)
    assert _format.read_bundle(clock).meta["epochs"] == 13


# clock.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"", r"is not JSON \(Expecting value in line 1\)", id="empty"),
        pytest.param(b"\xff{}", "is not UTF-8 text", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", "is not JSON", id="byte order mark"),
        pytest.param(b"[]", "does not hold a JSON object", id="list"),
        pytest.param(b"null", "does not hold a JSON object", id="null"),
        pytest.param(b'{"a": 1, "a": 2}', "the key 'a' is there twice", id="same key twice"),
        pytest.param(b'{"x": {"a": 1, "b": 1, "a": 1}}', "the key 'a' is there twice", id="same inner key twice"),
        pytest.param(b'{"a": NaN}', "NaN is not a JSON number", id="NaN"),
        pytest.param(b'{"a": -Infinity}', "-Infinity is not a JSON number", id="infinity"),
        pytest.param(b'{"a": [1e999]}', r"it\['a'\]\[0\] is inf", id="overflow"),
        pytest.param(
            b'{"a": 1' + b"0" * 39 + b"}", r"it\['a'\] is a whole number of more than 39 digits", id="big int"
        ),
        pytest.param(b'{"a": ' + b"9" * 100_000 + b"}", "a whole number has 100,000 digits", id="huge int"),
        pytest.param(b"[" * 100_000, "is nested too deep|is not JSON", id="abyss"),
        pytest.param(b'{"a":' * 100_000, "is nested too deep|is not JSON", id="abyss of objects"),
        pytest.param(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 deep", id="deep"),
        pytest.param(b'{"a": "\\ud800"}', r"it\['a'\] is text with a lone surrogate", id="surrogate"),
        pytest.param(b'{"a": 1} {"a": 1}', r"is not JSON \(Extra data", id="two documents"),
    ],
)
def test_text_of_clock_json(clock, text, message):
    (clock / "clock.json").write_bytes(text)
    refused(clock, f"clock.json .*{message}.*edited or damaged")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"format": "other"}, "is not that of a clock: its format is 'other'", id="other format"),
        pytest.param({"format": None}, "is not that of a clock: its format is None", id="no format"),
        pytest.param({"schema": "1"}, "its schema is '1', not a positive number", id="schema as text"),
        pytest.param({"schema": True}, "its schema is True", id="schema as bool"),
        pytest.param({"schema": 0}, "its schema is 0", id="schema 0"),
        pytest.param({"schema": None}, "its schema is None", id="no schema"),
        pytest.param({"tensors": None}, "as clock.json does not record its tensors", id="no tensors"),
        pytest.param({"tensors": []}, "as clock.json does not record its tensors", id="tensors as list"),
        pytest.param({"tensors": {}}, r"in one of the two only: 'flag', 'w'", id="fewer tensors"),
        pytest.param(
            {"tensors": {"w": {"dtype": "F32", "shape": [3, 2]}, "flag": {"dtype": "BOOL", "shape": [1]}}},
            r"holds the tensor 'w' as .*\[2, 3\].*, clock.json as .*\[3, 2\]",
            id="other shape",
        ),
        pytest.param(
            {"tensors": {"w": 3, "flag": 3}}, "holds the tensor '(w|flag)' as .*, clock.json as 3", id="no shape"
        ),
    ],
)
def test_signed_changes(clock, changes, message):
    sign(clock, **changes)
    refused(clock, message)


def test_newer_schema(clock):
    sign(clock, schema=2)
    text = refused(clock, "has schema 2, and this agevi reads up to 1; upgrade agevi", _format.BundleVersionError)
    assert "pip install -U agevi" in text


@pytest.mark.parametrize("digest", ["0" * 64, "", None, 3])
def test_digest(clock, digest):
    document = json.loads((clock / "clock.json").read_text())
    (clock / "clock.json").write_text(json.dumps(document | {"digest": digest}))
    refused(clock, "was edited or damaged: its text is not the one that its digest is of")


def test_edited_value(clock):
    text = (clock / "clock.json").read_text()
    (clock / "clock.json").write_text(text.replace('"epochs": 12', '"epochs": 21'))
    refused(clock, "was edited or damaged: its text")


ENTRY = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"../../etc/passwd": ENTRY}, r"that are no part of a bundle: '../../etc/passwd'", id="way out"),
        pytest.param({"/etc/passwd": ENTRY}, r"that are no part of a bundle: '/etc/passwd'", id="absolute"),
        pytest.param({"model.pt": ENTRY}, r"that are no part of a bundle: 'model.pt'", id="extra"),
        pytest.param({"clock.json": ENTRY}, r"that are no part of a bundle: 'clock.json'", id="itself"),
        pytest.param({"a\nb" * 99: ENTRY}, r"that are no part of a bundle: 'a\\nba", id="long name with a line break"),
        pytest.param({"README.md": ENTRY}, "does not list weights.safetensors and README.md", id="too few"),
        pytest.param([], "does not list weights.safetensors and README.md", id="list"),
        pytest.param("README.md", "does not list weights.safetensors and README.md", id="text"),
        pytest.param(dict.fromkeys(FILES[1:], 1), "does not give the size and sha256 of", id="numbers"),
        pytest.param({n: ENTRY | {"size": -1} for n in FILES[1:]}, "does not give the size", id="negative size"),
        pytest.param({n: ENTRY | {"size": 2.0} for n in FILES[1:]}, "does not give the size", id="size as float"),
        pytest.param({n: ENTRY | {"sha256": []} for n in FILES[1:]}, "does not give the size", id="sum as list"),
        pytest.param(
            {n: ENTRY | {"size": 10**30} for n in FILES[1:]}, "bytes where clock.json says 1,000", id="vast size"
        ),
    ],
)
def test_list_of_files(clock, files, message):
    sign(clock, files=files)
    refused(clock, message)


# weights.safetensors


def weights(clock: Path, header: bytes | dict, data: bytes, length: int | None = None) -> None:
    """A signed bundle whose weights have this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (clock / "weights.safetensors").write_bytes(
        struct.pack("<Q", len(text) if length is None else length) + text + data
    )
    entries = json.loads(text) if not isinstance(header, bytes) else {}
    record = {k: {"dtype": v.get("dtype"), "shape": v.get("shape")} for k, v in entries.items() if isinstance(v, dict)}
    sign(clock, tensors=record)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_header_made_by_hand_is_read(clock):
    weights(clock, {"w": entry(), "v": entry("I16", (1, 1), (8, 10))}, struct.pack("<ffh", 1.5, -2, 7))
    tensors = _format.read_bundle(clock).tensors
    assert tensors["w"].tolist() == [1.5, -2.0]
    assert tensors["v"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        pytest.param({"w": entry("F8")}, 8, "a tensor 'w' of the unknown dtype 'F8'", id="unknown dtype"),
        pytest.param({"w": entry(["F32"])}, 8, r"a tensor 'w' of the unknown dtype \['F32'\]", id="dtype as list"),
        pytest.param({"w": entry("I64")}, 8, "of 16 bytes at the offsets", id="other size"),
        pytest.param(
            {"w": entry(shape=(2**40, 2**40))}, 8, "of 4,835,703,278,458,516,698,824,704 bytes", id="vast shape"
        ),
        pytest.param(
            {"w": entry(shape=(0, 2**41), offsets=(0, 0))}, 0, "of the impossible shape", id="vast empty shape"
        ),
        pytest.param({"w": entry(shape=(1,) * 17)}, 8, "of the impossible shape", id="many axes"),
        pytest.param({"w": entry(shape=(-1, -2))}, 8, r"of the impossible shape \[-1, -2\]", id="negative shape"),
        pytest.param({"w": entry(shape=(True, 2))}, 8, "of the impossible shape", id="shape of bool"),
        pytest.param({"w": entry(shape=(2.0,))}, 8, "of the impossible shape", id="shape of float"),
        pytest.param({"w": entry(offsets=(0, 2**63))}, 8, "of 8 bytes at the offsets", id="vast offset"),
        pytest.param(
            {"w": entry(offsets=(2**63, 2**63 + 8))}, 8, "leave a gap, overlap or end beyond", id="beyond the end"
        ),
        pytest.param({"w": entry(offsets=(8, 0))}, 8, "of 8 bytes at the offsets", id="backwards"),
        pytest.param({"w": entry(offsets=(-8, 0))}, 8, "at the impossible offsets", id="negative offset"),
        pytest.param({"w": entry(offsets=(0, 8, 9))}, 8, "at the impossible offsets", id="three offsets"),
        pytest.param({"w": entry(), "v": entry()}, 8, "leave a gap, overlap", id="overlap"),
        pytest.param({"w": entry(), "v": entry(offsets=(12, 20))}, 20, "leave a gap, overlap", id="gap"),
        pytest.param({"w": entry()}, 12, "leave a gap, overlap", id="bytes left over"),
        pytest.param({"w": entry()}, 4, "leave a gap, overlap", id="bytes missing"),
        pytest.param({}, 8, "leave a gap, overlap", id="bytes of nobody"),
        pytest.param({"w": entry(offsets=(8, 16))}, 16, "leave a gap, overlap", id="gap at the start"),
        pytest.param({"w": entry() | {"x": 1}}, 8, "without exactly a dtype, a shape and data_offsets", id="extra key"),
        pytest.param({"w": {"dtype": "F32"}}, 8, "without exactly a dtype", id="missing keys"),
        pytest.param({"w": None}, 8, "without exactly a dtype", id="null"),
        pytest.param({"__metadata__": {"a": "b"}, "w": entry()}, 8, "'__metadata__' without exactly", id="metadata"),
        pytest.param(b"", 0, "has a header that is not JSON", id="empty header"),
        pytest.param(b"[]", 0, "has a header that does not hold a JSON object", id="list"),
        pytest.param(b"\xff\xff", 0, "has a header that is not UTF-8 text", id="not UTF-8"),
        pytest.param(b"{" * 100_000, 0, "has a header that is not JSON", id="not JSON"),
        pytest.param(b'{"a":' * 100_000, 0, "has a header that is (nested too deep|not JSON)", id="abyss"),
        pytest.param(b'{"w":{},"w":{}}', 0, "the key 'w' is there twice", id="same name twice"),
    ],
)
def test_header_of_the_weights(clock, header, data, message):
    weights(clock, header, bytes(data))
    refused(clock, f"weights.safetensors .*{message}")


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 3])
def test_declared_length_of_the_header(clock, length):
    weights(clock, b"{}", b"", length)
    refused(clock, "weights.safetensors is not a safetensors file: its header of [0-9,]+ bytes")


@pytest.mark.parametrize("size", range(8))
def test_weights_shorter_than_a_header(clock, size):
    (clock / "weights.safetensors").write_bytes(bytes(size))
    sign(clock)
    refused(clock, f"weights.safetensors is not a safetensors file: it has {size} bytes")


def test_long_header_is_refused_by_its_length(clock, monkeypatch):
    monkeypatch.setattr(_format_tensors, "MAX_HEADER", 10)
    refused(clock, r"its header of \d+ bytes")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(clock, value):
    weights(clock, {"w": entry()}, struct.pack("<ff", 1.0, value))
    refused(clock, "weights.safetensors has NaN or infinite values in the tensor 'w'")


def test_boolean_that_is_neither(clock):
    weights(clock, {"w": entry("BOOL", (2,), (0, 2))}, b"\x01\x02")
    refused(clock, "weights.safetensors has bytes other than 0 and 1 in the boolean tensor 'w'")


def test_failure_inside_safetensors(clock, monkeypatch):
    def broken(data):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(_format_tensors.safetensors.torch, "load", broken)
    refused(clock, r"cannot be opened by safetensors \(no such thing\)")


def test_repeated_key_is_found_in_one_pass():
    # a search for each key would take minutes
    text = b"{" + b",".join(b'"%d": 0' % i for i in range(200_000)) + b', "199999": 0}'
    with pytest.raises(ValueError, match="the key '199999' is there twice"):
        _format_json.parse(text)
