"""Bundles that someone damaged, edited or made to do harm. ``sign`` makes an edited one valid again, as an attacker would."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from agevi.io import _format, _format_files, _format_json, _format_tensors

FILES = ("clock.json", "weights.safetensors", "README.md")


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def archive(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.pkl", data)
    return buffer.getvalue()


def through(save, *args, **kwargs) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


PLANTS = {
    **{f"pickle {protocol}": (pickle.dumps(Evil(), protocol), "is a pickle") for protocol in range(6)},
    **{f"pickled dict {protocol}": (pickle.dumps({"a": Evil()}, protocol), "is a pickle") for protocol in (0, 1, 2)},
    "gzip": (gzip.compress(pickle.dumps(Evil())), "is compressed data"),
    "bzip2": (bz2.compress(pickle.dumps(Evil())), "is compressed data"),
    "xz": (lzma.compress(pickle.dumps(Evil())), "is compressed data"),
    "zip": (archive(pickle.dumps(Evil())), "is a zip archive"),
    "torch": (through(lambda file: torch.save({"w": Evil()}, file)), "is a zip archive"),
    "numpy": (through(np.save, np.array([Evil()]), allow_pickle=True), "is a numpy file"),
}


@pytest.fixture
def clock(tmp_path) -> Path:
    meta = {"genes": ["CD3E", "LEF1"], "epochs": 12}
    _format.write_bundle(tmp_path / "clock", meta, {"w": torch.ones(2, 3), "flag": torch.tensor([True])}, "# A clock\n")
    return tmp_path / "clock"


def sign(directory: Path, **changes) -> None:
    """Make sizes, checksums and digest of ``clock.json`` right after ``changes`` to it (None removes a key)."""
    document = json.loads((directory / "clock.json").read_text("utf-8"))
    for name in document["files"]:
        data = (directory / name).read_bytes()
        document["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    document = {key: value for key, value in (document | changes).items() if value is not None and key != "digest"}
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    document["digest"] = hashlib.sha256(canonical).hexdigest()
    (directory / "clock.json").write_text(json.dumps(document), "utf-8")


def refused(directory: Path, message: str, error: type[Exception] = _format.BundleError) -> str:
    with pytest.raises(error, match=message) as caught:
        _format.read_bundle(directory)
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    return text


def test_signing_is_right(clock):
    sign(clock, epochs=13)
    assert _format.read_bundle(clock).meta["epochs"] == 13


# planted and damaged files


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_file(clock, name, kind):
    data, message = PLANTS[kind]
    (clock / name).write_bytes(data)
    refused(clock, f"{name} {message}.*, which agevi never opens")


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("kind", PLANTS)
def test_planted_and_signed_file(clock, name, kind):
    data, message = PLANTS[kind]
    (clock / name).write_bytes(data)
    sign(clock)
    refused(clock, f"{name} {message}")


@pytest.mark.parametrize("kind", PLANTS)
def test_planted_unlisted_file(clock, kind):
    (clock / "more.bin").write_bytes(PLANTS[kind][0])
    refused(clock, "holds 'more.bin', .*which agevi neither writes nor opens; remove it")


def test_harmless_unlisted_files(clock):
    for name in (".DS_Store", ".gitattributes", "figure.png", "LICENSE"):
        (clock / name).write_bytes(b"\x89PNG harmless")
    (clock / ".cache").mkdir()
    (clock / "figures").mkdir()
    assert _format.read_bundle(clock).meta["epochs"] == 12


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.999])
def test_flipped_bit(clock, name, place):
    data = bytearray((clock / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (clock / name).write_bytes(bytes(data))
    refused(clock, "damaged|edited|is not that of a clock|is missing")


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_cut_or_longer_file(clock, name, change):
    (clock / name).write_bytes(change((clock / name).read_bytes()))
    refused(clock, rf"{name} has \d+ bytes where clock.json says \d+; it was cut or edited\. Copy the bundle again")


def test_every_cut_of_clock_json(clock):
    data = (clock / "clock.json").read_bytes()
    for length in range(0, len(data) - 2, 7):  # without the last brace
        (clock / "clock.json").write_bytes(data[:length])
        refused(clock, "clock.json is not JSON .*it was edited or damaged")


def test_edited_card(clock):
    (clock / "README.md").write_text("# B clock\n")
    refused(clock, r"README.md is not the file that clock.json describes \(its SHA-256 differs\)")


def test_card_that_is_not_text(clock):
    (clock / "README.md").write_bytes(b"\xff\xfe")
    sign(clock)
    refused(clock, "README.md is not UTF-8 text")


@pytest.mark.parametrize("name", FILES[1:])
def test_missing_file(clock, name):
    (clock / name).unlink()
    refused(clock, f"{name} is missing. Copy the bundle again, or save the clock anew")


# what is no bundle at all


def test_missing_path(clock):
    for number in range(6):
        (clock.parent / f"x{number}").touch()
    with pytest.raises(
        FileNotFoundError, match=r"clok does not exist; in .*: 'clock', 'x0', 'x1', 'x2', 'x3', \.\.\.\."
    ):
        _format.read_bundle(clock.parent / "clok")


def test_missing_parent(clock):
    refused(clock.parent / "a" / "b", "does not exist, nor does the directory", FileNotFoundError)


def test_file_instead_of_the_directory(clock):
    refused(clock / "clock.json", "is a file; a clock is a directory with clock.json in it")


def test_other_directory(tmp_path):
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, "is not a clock: it has no clock.json; in it: 'notes.txt'")


def test_empty_directory(tmp_path):
    refused(tmp_path, "is not a clock: it has no clock.json; in it: nothing")


@pytest.mark.parametrize("name", ["model.pt", "prefix_model.pt"])
def test_scvi_model(tmp_path, name):
    (tmp_path / name).write_bytes(PLANTS["torch"][0])
    refused(tmp_path, "holds a model of scvi-tools, whose model.pt is a pickle.*Train the clock with agevi")


# links and special files


@pytest.mark.parametrize("name", [*FILES, "extra"])
def test_link(clock, name):
    outside = clock.parent / "outside"
    outside.write_bytes((clock / name).read_bytes() if name != "extra" else b"secret")
    (clock / name).unlink(missing_ok=True)
    (clock / name).symlink_to(outside)
    refused(clock, f"holds '{name}', a link; put a copy of the file there")


@pytest.mark.parametrize("name", FILES)
def test_hard_link(clock, name):
    os.link(clock / name, clock.parent / "outside")
    refused(clock, f"{name} is a hard link: the same file has another name elsewhere")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_special_file(clock, name, make):
    (clock / name).unlink()
    make(clock / name)
    refused(clock, f"{name} is not a regular file")


def test_link_put_in_place_after_the_survey(clock, monkeypatch):
    survey = _format.survey

    def late(directory, names):
        survey(directory, names)
        (clock / "README.md").rename(clock.parent / "outside")
        (clock / "README.md").symlink_to(clock.parent / "outside")

    monkeypatch.setattr(_format, "survey", late)
    refused(clock, "README.md is not a regular file")


def test_unreadable_directory(clock, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    refused(clock, r"cannot be read \(Permission denied\)")


def test_unreadable_file(clock, monkeypatch):
    def denied(path, flags):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    refused(clock, r"clock.json cannot be read \(Permission denied\)")


class Odd(io.FileIO):
    """A file that fails, or is longer than it said."""

    def read(self, size=-1):
        if size <= _format_files.HEAD:
            return super().read(size)
        if self.answer is MemoryError:
            raise MemoryError
        return super().read(size) + self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(MemoryError, r"cannot be read: not enough memory \(\d+ bytes\)", id="memory"),
        pytest.param(b"more", "changed while it was read; try again", id="growing"),
    ],
)
def test_file_that_fails_while_it_is_read(clock, monkeypatch, answer, message):
    monkeypatch.setattr(Odd, "answer", answer, raising=False)
    monkeypatch.setattr(_format_files, "opened", Odd)
    refused(clock, message)


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_too_large(clock, monkeypatch, name):
    monkeypatch.setitem(_format_files.LIMITS, name, 5)
    refused(clock, rf"{name} has \d+ bytes, more than the 5 that agevi writes")


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


# nothing runs

CHILD = """
import sys, types

for name, path in (("agevi", sys.argv[1] + "/.."), ("agevi.io", sys.argv[1])):  # the storage layer alone
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from agevi.io import _format

good, *planted = sys.argv[2:]
_format.read_bundle(good)
ran = []
watched = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
sys.addaudithook(lambda event, args: ran.append(event) if event in watched else None)
for path in planted:
    try:
        _format.read_bundle(path)
        print("LOADED", path)
    except _format.BundleError:
        print("REFUSED", path)
print("RAN", *ran)
import os
os.system("true")
print("HOOK", *ran)
"""


def test_nothing_planted_is_executed(tmp_path):
    def bundle(name: str) -> Path:
        _format.write_bundle(tmp_path / name, {"a": [1, 2]}, {"w": torch.ones(3)}, "# A clock\n")
        return tmp_path / name

    planted = []
    for name in (*FILES, "model.pt"):
        for kind, (data, _) in PLANTS.items():
            planted.append(bundle(f"{name} {kind}"))
            (planted[-1] / name).write_bytes(data)
            if name in FILES[1:]:
                planted.append(bundle(f"{name} {kind} signed"))
                (planted[-1] / name).write_bytes(data)
                sign(planted[-1])
    assert len(planted) >= 30
    command = [sys.executable, "-c", CHILD, str(Path(_format.__file__).parent), str(bundle("good")), *map(str, planted)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stdout.splitlines()
    assert lines == [*(f"REFUSED {path}" for path in planted), "RAN", "HOOK os.system"]
    assert not (tmp_path / "owned").exists()
