"""Bundles that were edited, most of them by someone who made sizes, checksums and digest right again."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from agevi.io import _bundle, _files
from tests.io.bundles import FILES, refused, sign


def test_signing_is_right(clock):
    sign(clock, epochs=13)
    assert _bundle.read_bundle(clock).meta["epochs"] == 13


# clock.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"", r"is not plain JSON \(Expecting value: line 1", id="empty"),
        pytest.param(b"\xff{}", "can't decode byte 0xff", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM", id="byte order mark"),
        pytest.param(b"[]", "it holds no object", id="list"),
        pytest.param(b"null", "it holds no object", id="null"),
        pytest.param(b'{"a": 1, "a": 2}', "a key is there twice", id="same key twice"),
        pytest.param(b'{"x": {"a": 1, "b": 1, "a": 1}}', "a key is there twice", id="same inner key twice"),
        pytest.param(b'{"a": NaN}', r"it\['a'\] is nan", id="NaN"),
        pytest.param(b'{"a": -Infinity}', r"it\['a'\] is -inf", id="infinity"),
        pytest.param(b'{"a": [1e999]}', r"it\['a'\]\[0\] is inf", id="overflow"),
        pytest.param(
            b'{"a": 1' + b"0" * 39 + b"}", r"it\['a'\] is a whole number of more than 39 digits", id="big int"
        ),
        pytest.param(b'{"a": ' + b"9" * 100_000 + b"}", r"Exceeds the limit \(4300 digits\)", id="huge int"),
        pytest.param(b"[" * 100_000, "maximum recursion|nested|Expecting", id="abyss"),
        pytest.param(b'{"a":' * 100_000, "maximum recursion|nested|Expecting", id="abyss of objects"),
        pytest.param(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 deep", id="deep"),
        pytest.param(b'{"a": "\\ud800"}', r"it\['a'\] is text with a lone surrogate", id="surrogate"),
        pytest.param(b'{"a": 1} {"a": 1}', r"is not plain JSON \(Extra data", id="two documents"),
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
        pytest.param({"tensors": None}, "they differ in 'flag', 'w'", id="no tensors"),
        pytest.param({"tensors": []}, "they differ in 'flag', 'w'", id="tensors as list"),
        pytest.param({"tensors": {}}, "they differ in 'flag', 'w'", id="fewer tensors"),
        pytest.param(
            {"tensors": {"w": {"dtype": "F32", "shape": [3, 2]}, "flag": {"dtype": "BOOL", "shape": [1]}}},
            "clock.json records; they differ in 'w'",
            id="other shape",
        ),
        pytest.param({"tensors": {"w": 3, "flag": 3}}, "they differ in '(w|flag)'", id="no shape"),
    ],
)
def test_signed_changes(clock, changes, message):
    sign(clock, **changes)
    refused(clock, message)


def test_newer_schema(clock):
    sign(clock, schema=2)
    refused(clock, "has schema 2, and this agevi reads up to 1; install a newer agevi", _files.BundleVersionError)


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
    "files",
    [
        pytest.param({"../../etc/passwd": ENTRY, "README.md": ENTRY}, id="way out"),
        pytest.param({"/etc/passwd": ENTRY, "README.md": ENTRY}, id="absolute"),
        pytest.param(dict.fromkeys([*FILES[1:], "model.pt"], ENTRY), id="extra"),
        pytest.param(dict.fromkeys(FILES, ENTRY), id="itself"),
        pytest.param({"a\nb" * 99: ENTRY}, id="long name with a line break"),
        pytest.param({"README.md": ENTRY}, id="too few"),
        pytest.param([], id="list"),
        pytest.param("README.md", id="text"),
        pytest.param(dict.fromkeys(FILES[1:], 1), id="numbers"),
        pytest.param({n: ENTRY | {"size": -1} for n in FILES[1:]}, id="negative size"),
        pytest.param({n: ENTRY | {"size": 2.0} for n in FILES[1:]}, id="size as float"),
        pytest.param({n: ENTRY | {"size": True} for n in FILES[1:]}, id="size as bool"),
        pytest.param({n: ENTRY | {"sha256": []} for n in FILES[1:]}, id="sum as list"),
    ],
)
def test_list_of_files(clock, files):
    sign(clock, files=files)
    text = refused(clock, "does not give the size and sha256 of weights.safetensors and README.md alone")
    assert len(text) < len(str(clock)) + 500


def test_vast_size_in_the_list_of_files(clock):
    sign(clock, files={n: ENTRY | {"size": 10**30} for n in FILES[1:]})
    refused(clock, "bytes where clock.json says 1,000")


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
    tensors = _bundle.read_bundle(clock).tensors
    assert tensors["w"].tolist() == [1.5, -2.0]
    assert tensors["v"].tolist() == [[7]]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param({"w": entry("F9")}, 8, id="unknown dtype"),
        pytest.param({"w": entry(["F32"])}, 8, id="dtype as list"),
        pytest.param({"w": entry("I64")}, 8, id="other size"),
        pytest.param({"w": entry(shape=(2**40, 2**40))}, 8, id="vast shape"),
        pytest.param({"w": entry(shape=(2**62, 4))}, 8, id="vast shape that overflows"),
        pytest.param({"w": entry(shape=(-1, -2))}, 8, id="negative shape"),
        pytest.param({"w": entry(shape=(2.5,))}, 8, id="shape of float"),
        pytest.param({"w": entry(offsets=(0, 2**63))}, 8, id="vast offset"),
        pytest.param({"w": entry(offsets=(2**63, 2**63 + 8))}, 8, id="beyond the end"),
        pytest.param({"w": entry(offsets=(8, 0))}, 8, id="backwards"),
        pytest.param({"w": entry(offsets=(-8, 0))}, 8, id="negative offset"),
        pytest.param({"w": entry(offsets=(0, 8, 9))}, 8, id="three offsets"),
        pytest.param({"w": entry(), "v": entry()}, 8, id="overlap"),
        pytest.param({"w": entry(), "v": entry(offsets=(12, 20))}, 20, id="gap"),
        pytest.param({"w": entry()}, 12, id="bytes left over"),
        pytest.param({"w": entry()}, 4, id="bytes missing"),
        pytest.param({}, 8, id="bytes of nobody"),
        pytest.param({"w": entry(offsets=(8, 16))}, 16, id="gap at the start"),
        pytest.param({"w": {"dtype": "F32"}}, 8, id="missing keys"),
        pytest.param({"w": None}, 8, id="null"),
        pytest.param({"__metadata__": {"a": 1}, "w": entry()}, 8, id="metadata that is not text"),
        pytest.param(b"", 0, id="empty header"),
        pytest.param(b"[]", 0, id="list"),
        pytest.param(b"\xff\xff", 0, id="not UTF-8"),
        pytest.param(b"{" * 100_000, 0, id="not JSON"),
        pytest.param(b'{"a":' * 100_000, 0, id="abyss"),
    ],
)
def test_header_of_the_weights(clock, header, data):
    weights(clock, header, bytes(data))
    refused(clock, r"weights.safetensors cannot be opened by safetensors \(.+\)\. Copy the bundle again")


def test_dtype_that_agevi_does_not_write(clock):
    weights(clock, {"w": entry("F8_E4M3", (8,))}, bytes(8))
    refused(clock, "weights.safetensors does not hold the tensors that clock.json records; they differ in 'w'")


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 3])
def test_declared_length_of_the_header(clock, length):
    weights(clock, b"{}", b"", length)
    refused(clock, "weights.safetensors cannot be opened by safetensors")


@pytest.mark.parametrize("size", [0, 7])
def test_weights_shorter_than_a_header(clock, size):
    (clock / "weights.safetensors").write_bytes(bytes(size))
    sign(clock)
    refused(clock, "weights.safetensors cannot be opened by safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(clock, value):
    weights(clock, {"w": entry()}, struct.pack("<ff", 1.0, value))
    refused(clock, "weights.safetensors has NaN or infinite values in the tensor 'w'")


def test_boolean_that_is_neither(clock):
    weights(clock, {"w": entry("BOOL", (2,), (0, 2))}, b"\x01\x02")
    refused(clock, "weights.safetensors has bytes other than 0 and 1 in the boolean tensor 'w'")


def test_repeated_key_is_found_in_one_pass(clock):
    # a search for each key would take minutes
    (clock / "clock.json").write_bytes(b"{" + b",".join(b'"%d": 0' % i for i in range(200_000)) + b', "199999": 0}')
    refused(clock, "a key is there twice")
