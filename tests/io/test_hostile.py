"""Directories and files that are not what a bundle holds: pickles, links, cut files, other people's models."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from agevi.io import _bundle, _files
from tests.io.bundles import FILES, refused, sign


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
    assert _bundle.read_bundle(clock).meta["epochs"] == 12


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
        refused(clock, "clock.json is not plain JSON .*it was edited or damaged")


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
        _bundle.read_bundle(clock.parent / "clok")


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
    survey = _files.survey

    def late(directory):
        survey(directory)
        (clock / "README.md").rename(clock.parent / "outside")
        (clock / "README.md").symlink_to(clock.parent / "outside")

    monkeypatch.setattr(_files, "survey", late)
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
        if size <= _files._HEAD:
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
    monkeypatch.setattr(_files, "opened", Odd)
    refused(clock, message)


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_too_large(clock, monkeypatch, name):
    monkeypatch.setitem(_files.LIMITS, name, 5)
    refused(clock, rf"{name} has \d+ bytes, more than the 5 that agevi writes")


# nothing runs

CHILD = """
import sys, types

for name, path in (("agevi", sys.argv[1] + "/.."), ("agevi.io", sys.argv[1])):  # the storage layer alone
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from agevi.io import _bundle, _files

good, *planted = sys.argv[2:]
_bundle.read_bundle(good)
ran = []
watched = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
sys.addaudithook(lambda event, args: ran.append(event) if event in watched else None)
for path in planted:
    try:
        _bundle.read_bundle(path)
        print("LOADED", path)
    except _files.BundleError:
        print("REFUSED", path)
print("RAN", *ran)
import os
os.system("true")
print("HOOK", *ran)
"""


@pytest.mark.slow
def test_nothing_planted_is_executed(tmp_path):
    def bundle(name: str) -> Path:
        _bundle.write_bundle(tmp_path / name, {"a": [1, 2]}, {"w": torch.ones(3)}, "# A clock\n")
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
    command = [sys.executable, "-c", CHILD, str(Path(_bundle.__file__).parent), str(bundle("good")), *map(str, planted)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    lines = done.stdout.splitlines()
    assert lines == [*(f"REFUSED {path}" for path in planted), "RAN", "HOOK os.system"]
    assert not (tmp_path / "owned").exists()
