"""What a save replaces, what it refuses to replace, and what it makes of the leftovers of a killed one."""

from __future__ import annotations

import os
import time

import pytest

from agevi.io import _bundle, _files
from tests.io.bundles import every_file, names, number_in, save

# what is not replaced


def test_existing_bundle_needs_overwrite(tmp_path):
    save(tmp_path / "clock", 1)
    with pytest.raises(FileExistsError, match="already exists; pass overwrite=True to replace it"):
        save(tmp_path / "clock", 2)
    assert number_in(tmp_path / "clock") == 1
    save(tmp_path / "clock", 3, overwrite=True)
    assert number_in(tmp_path / "clock") == 3
    assert names(tmp_path) == ["clock"]


def test_failed_save_keeps_the_old_bundle(tmp_path):
    save(tmp_path / "clock", 1)
    before = every_file(tmp_path / "clock")
    with pytest.raises(TypeError, match="is of type set"):
        _bundle.write_bundle(tmp_path / "clock", {"a": {1}}, {}, "", overwrite=True)
    assert every_file(tmp_path / "clock") == before
    assert names(tmp_path) == ["clock"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({}, id="empty directory"),
        pytest.param({".DS_Store": b""}, id="file manager's directory"),
        pytest.param({"clock.json": b"cut", "weights.safetensors": b""}, id="damaged bundle"),
    ],
)
def test_what_overwrite_replaces(tmp_path, content):
    (tmp_path / "clock").mkdir()
    for name, data in content.items():
        (tmp_path / "clock" / name).write_bytes(data)
    with pytest.raises(_files.BundleExistsError, match="pass overwrite=True"):
        save(tmp_path / "clock", 1)
    save(tmp_path / "clock", 1, overwrite=True)
    assert number_in(tmp_path / "clock") == 1
    assert names(tmp_path) == ["clock"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(["thesis.tex"], r"is not a clock bundle \(it holds 'thesis.tex'\)", id="a thesis"),
        pytest.param(["README.md"], r"\(it holds 'README.md'\)", id="only a readme"),
        pytest.param(["clock.json", "weights.safetensors", "notes.txt"], r"\(it holds 'notes.txt'\)", id="notes"),
        pytest.param(["clock.json", "weights.safetensors", ".git"], r"\(it holds '.git'\)", id="hidden file"),
        pytest.param(["model.pt"], r"\(it holds 'model.pt'\)", id="scvi-tools"),
    ],
)
def test_what_overwrite_refuses(tmp_path, content, message):
    (tmp_path / "clock").mkdir()
    for name in content:
        (tmp_path / "clock" / name).write_bytes(b"mine")
    with pytest.raises(_files.BundleExistsError, match=message + ".*even with overwrite=True"):
        save(tmp_path / "clock", 1, overwrite=True)
    assert names(tmp_path / "clock") == sorted(content)


def test_file_in_the_way(tmp_path):
    (tmp_path / "clock").write_text("mine")
    with pytest.raises(_files.BundleExistsError, match=r"is not a clock bundle \(it is a file\)"):
        save(tmp_path / "clock", 1, overwrite=True)
    with pytest.raises(_files.BundleExistsError, match="cannot be made: a part of its path is a file"):
        save(tmp_path / "clock" / "inner", 1)
    assert (tmp_path / "clock").read_text() == "mine"


def test_someone_elses_old(tmp_path):
    (tmp_path / "clock.old").mkdir()
    (tmp_path / "clock.old" / "mine").touch()
    with pytest.raises(_files.BundleExistsError, match="clock.old is not a clock bundle, and agevi needs this name"):
        save(tmp_path / "clock", 1, overwrite=True)
    assert names(tmp_path / "clock.old") == ["mine"]


def test_bundle_that_appears_during_the_save_is_not_replaced(tmp_path, monkeypatch):
    sync = _files._sync

    def late(directory):
        monkeypatch.setattr(_files, "_sync", sync)
        save(tmp_path / "clock", 1)

    monkeypatch.setattr(_files, "_sync", late)
    with pytest.raises(_files.BundleExistsError, match="already exists"):
        save(tmp_path / "clock", 2)
    assert number_in(tmp_path / "clock") == 1
    assert names(tmp_path) == ["clock"]


# what a killed process left


def test_leftover_old_beside_a_whole_bundle(tmp_path):
    save(tmp_path / "clock", 2)
    save(tmp_path / "clock.old", 1)
    assert number_in(tmp_path / "clock") == 2
    save(tmp_path / "clock", 3, overwrite=True)
    assert number_in(tmp_path / "clock") == 3
    assert names(tmp_path) == ["clock"]


def test_old_alone_is_read_with_a_warning(tmp_path):
    save(tmp_path / "clock.old", 1)
    with pytest.warns(UserWarning, match=r"clock does not exist.*Read .*clock\.old instead.*interrupted") as caught:
        assert _bundle.read_bundle(tmp_path / "clock").path.name == "clock.old"
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="interrupted"):
        assert number_in(tmp_path / "clock") == 1


def test_old_alone_is_not_replaced_unasked(tmp_path):
    save(tmp_path / "clock.old", 1)
    with pytest.raises(_files.BundleExistsError, match="an interrupted save.*pass overwrite=True"):
        save(tmp_path / "clock", 2)
    save(tmp_path / "clock", 2, overwrite=True)
    assert number_in(tmp_path / "clock") == 2
    assert names(tmp_path) == ["clock"]


def test_old_stands_in_for_a_damaged_bundle_and_survives_until_the_next_is_whole(tmp_path, monkeypatch):
    save(tmp_path / "clock", 2)
    save(tmp_path / "clock.old", 1)
    (tmp_path / "clock" / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="weights.safetensors has 0 bytes where clock.json says"):
        assert number_in(tmp_path / "clock") == 1
    there = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: (there.append((tmp_path / "clock.old").exists()), rename(a, b)))
    save(tmp_path / "clock", 3, overwrite=True)
    assert there == [True, True, True]  # damaged one away, new one in, old one away
    assert number_in(tmp_path / "clock") == 3
    assert names(tmp_path) == ["clock"]


def test_old_does_not_stand_in_for_a_newer_schema(tmp_path):
    save(tmp_path / "clock.old", 1)
    path = save(tmp_path / "clock.new", 2).rename(tmp_path / "clock") / "clock.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(_files.BundleVersionError, match="install a newer agevi"):
        _bundle.read_bundle(tmp_path / "clock")


def test_damaged_old_does_not_hide_the_first_problem(tmp_path):
    save(tmp_path / "clock.old", 1)
    (tmp_path / "clock.old" / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match="clock does not exist"):
        _bundle.read_bundle(tmp_path / "clock")


@pytest.mark.parametrize(("age", "left"), [(0, True), (25 * 3600, False)], ids=["young", "old"])
def test_abandoned_temporary_directories_are_swept_and_nothing_else(tmp_path, age, left):
    keep = [".clock.mine", ".clock.0123.agevi-tmp.txt", ".other.0123.agevi-tmp", "clock.0123.agevi-tmp"]
    for name in [*keep, ".clock.0123.agevi-tmp"]:
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / "clock.json").touch()
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    (tmp_path / ".clock.link.agevi-tmp").symlink_to(tmp_path / ".clock.mine")
    save(tmp_path / "clock", 1)
    assert names(tmp_path) == sorted([*keep, *[".clock.0123.agevi-tmp"] * left, ".clock.link.agevi-tmp", "clock"])
    assert names(tmp_path / ".clock.mine" / "new") == ["clock.json"]


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path / "clock", 1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "clock", 2, overwrite=True)
    assert number_in(tmp_path / "clock") == 1
    assert names(tmp_path) == ["clock"]


def test_bundle_replaced_while_it_is_read(tmp_path, monkeypatch):
    save(tmp_path / "clock", 1)
    read = _files.read

    def late(path, *args):
        if path.name == "weights.safetensors":  # clock.json was read from the old bundle
            monkeypatch.setattr(_files, "read", read)
            save(tmp_path / "clock", 2, overwrite=True)
        return read(path, *args)

    monkeypatch.setattr(_files, "read", late)
    assert number_in(tmp_path / "clock") == 2
