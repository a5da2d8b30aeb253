from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from agevi.io import _bundle, _files
from tests.io.bundles import every_file, names, number_in, save

META = {"class": "PoissonVAE", "genes": ["CD3E", "LEF1"], "arguments": {"n_hidden": [20, 20], "age": 61.25, "x": None}}
TENSORS = {"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "age_mean": torch.tensor(43.5)}
CARD = "# A clock\n\nFür Menschen.\n"


# what is written is what is read


def test_round_trip(tmp_path):
    _bundle.write_bundle(tmp_path / "clock", META, TENSORS, CARD)
    bundle = _bundle.read_bundle(tmp_path / "clock")
    assert bundle.meta == META
    assert bundle.card == CARD
    assert bundle.path == (tmp_path / "clock").resolve()
    assert list(bundle.tensors) == list(TENSORS)
    assert names(tmp_path) == ["clock"]
    assert names(tmp_path / "clock") == ["README.md", "clock.json", "weights.safetensors"]


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.tensor([0.1, -0.0, 1e-45, 3.4e38]), id="float32"),
        pytest.param(torch.tensor([0.1, 5e-324, 1.7e308], dtype=torch.float64), id="float64"),
        pytest.param(torch.tensor([0.1, 65504.0], dtype=torch.float16), id="float16"),
        pytest.param(torch.tensor([[0.1], [3e38]], dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(torch.tensor([-(2**63), 2**63 - 1]), id="int64"),
        pytest.param(torch.tensor([-(2**31)], dtype=torch.int32), id="int32"),
        pytest.param(torch.tensor([-(2**15)], dtype=torch.int16), id="int16"),
        pytest.param(torch.tensor([-128, 127], dtype=torch.int8), id="int8"),
        pytest.param(torch.tensor([0, 255], dtype=torch.uint8), id="uint8"),
        pytest.param(torch.tensor([[True, False]]), id="bool"),
        pytest.param(torch.tensor(2.5), id="no axis"),
        pytest.param(torch.empty(0, 4), id="empty"),
        pytest.param(torch.arange(12.0).reshape(3, 4).T, id="transposed"),
        pytest.param(torch.arange(12.0)[::3], id="strided"),
        pytest.param(torch.ones(3).expand(2, 3), id="expanded"),
        pytest.param(torch.nn.Parameter(torch.randn(2, 2)), id="parameter"),
    ],
)
def test_tensors_come_back_bit_for_bit(tmp_path, tensor):
    _bundle.write_bundle(tmp_path / "clock", {}, {"before": torch.zeros(1), "t": tensor, "after": torch.zeros(1)}, "")
    back = _bundle.read_bundle(tmp_path / "clock").tensors["t"]
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert back.is_contiguous()
    assert not back.requires_grad
    assert torch.equal(back.reshape(-1).view(torch.uint8), tensor.detach().contiguous().reshape(-1).view(torch.uint8))


def test_tensors_that_share_memory_come_back_apart(tmp_path):
    tied = torch.zeros(4)
    _bundle.write_bundle(tmp_path / "clock", {}, {"a": tied, "b": tied, "part": tied[1:3]}, "")
    back = _bundle.read_bundle(tmp_path / "clock").tensors
    back["a"] += 1
    assert back["b"].sum() == 0
    assert back["part"].shape == (2,)


def test_no_tensors_and_no_meta(tmp_path):
    _bundle.write_bundle(tmp_path / "clock", {}, OrderedDict(), "")
    bundle = _bundle.read_bundle(tmp_path / "clock")
    assert (bundle.meta, bundle.tensors, bundle.card) == ({}, {}, "")


@pytest.mark.parametrize("length", [640, 896, 1152, 1408], ids=["protocol 2", "protocol 3", "protocol 4", "protocol 5"])
def test_header_whose_length_reads_like_a_pickle(tmp_path, length):
    # safetensors pads its header to a multiple of 8, so one of 8 names in a row gives the length
    def begin(n: int) -> bytes:
        return safetensors.torch.save({"x" * n: torch.zeros(1)})[:8]

    n = next(n for n in range(length - 80, length) if begin(n) == length.to_bytes(8, "little"))
    _bundle.write_bundle(tmp_path / "clock", {}, {"x" * n: torch.zeros(1)}, "")
    assert (tmp_path / "clock" / "weights.safetensors").read_bytes()[0] == 0x80
    assert list(_bundle.read_bundle(tmp_path / "clock").tensors) == ["x" * n]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param((1, (2, 3)), [1, [2, 3]], id="tuple"),
        pytest.param(np.float32(0.5), 0.5, id="numpy float"),
        pytest.param(np.int64(-3), -3, id="numpy int"),
        pytest.param(np.bool_(True), True, id="numpy bool"),
        pytest.param(np.str_("é"), "é", id="numpy str"),
        pytest.param(OrderedDict(b=1, a=2), {"b": 1, "a": 2}, id="ordered dict"),
        pytest.param(2**128 - 1, 2**128 - 1, id="seed of 128 bits"),
        pytest.param(5e-324, 5e-324, id="smallest float"),
        pytest.param('"\\\n\t\u2028\x00\U0001f9ec', '"\\\n\t\u2028\x00\U0001f9ec', id="odd text"),
    ],
)
def test_values_become_plain(tmp_path, value, expected):
    _bundle.write_bundle(tmp_path / "clock", {"value": value}, {}, "")
    back = _bundle.read_bundle(tmp_path / "clock").meta["value"]
    assert back == expected
    assert type(back) is type(expected)


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        _bundle.write_bundle(tmp_path / name, META, {k: t.clone() for k, t in TENSORS.items()}, CARD)
    assert every_file(tmp_path / "a") == every_file(tmp_path / "b")


def test_clock_json_is_what_the_format_says(tmp_path):
    _bundle.write_bundle(tmp_path / "clock", META, TENSORS, CARD)
    files = every_file(tmp_path / "clock")
    text = files.pop("clock.json").decode()
    document = json.loads(text)
    assert text.startswith('{\n  "format": "agevi-clock",\n  "schema": 1,\n')
    assert document["tensors"] == {
        "weight": {"dtype": "F32", "shape": [2, 3]},
        "age_mean": {"dtype": "F32", "shape": []},
    }
    assert document["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in files.items()
    }
    digest = document.pop("digest")
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest == hashlib.sha256(canonical).hexdigest()
    assert safetensors.torch.load(files["weights.safetensors"]).keys() == TENSORS.keys()


def test_reformatted_json_is_the_same_clock(tmp_path):
    _bundle.write_bundle(tmp_path / "clock", META, TENSORS, CARD)
    path = tmp_path / "clock" / "clock.json"
    path.write_bytes(json.dumps(json.loads(path.read_text("utf-8")), indent=4).replace("\n", "\r\n").encode())
    assert _bundle.read_bundle(tmp_path / "clock").meta == META


# paths


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda d: d, id="Path"),
        pytest.param(str, id="str"),
        pytest.param(lambda d: f"{d}/", id="trailing slash"),
        pytest.param(lambda d: d.relative_to(Path.cwd()), id="relative"),
        pytest.param(lambda d: "~/new/parents/clock", id="home"),
        pytest.param(lambda d: d.parent / "x" / ".." / d.name, id="dots"),
    ],
)
def test_spellings_of_the_path(tmp_path, monkeypatch, spell):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = Path.cwd() / "new" / "parents" / "clock"
    save(spell(directory), 1)
    save(spell(directory), 2, overwrite=True)
    assert number_in(spell(directory)) == number_in(directory) == 2
    assert names(directory.parent) == ["clock"]


def test_a_link_to_the_directory_is_followed(tmp_path):
    save(tmp_path / "real", 1)
    (tmp_path / "latest").symlink_to(tmp_path / "real")
    save(tmp_path / "latest", 2, overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert number_in(tmp_path / "latest") == number_in(tmp_path / "real") == 2


@pytest.mark.parametrize("path", [b"clock", 3, None], ids=repr)
def test_path_of_another_type(path):
    with pytest.raises(TypeError, match=r"path is a (bytes|int|NoneType); pass the bundle's directory as str"):
        _bundle.read_bundle(path)


def test_root_of_the_file_system():
    with pytest.raises(_files.BundleError, match="is the root of the file system"):
        _bundle.write_bundle("/", {}, {}, "", overwrite=True)


# what is not written


@pytest.mark.parametrize(
    ("meta", "error", "message"),
    [
        pytest.param(
            {"a": {"b": [1, {2}]}}, TypeError, r"^meta\['a'\]\['b'\]\[1\] is of type set; only dict", id="set"
        ),
        pytest.param({"a": np.zeros(2)}, TypeError, r"^meta\['a'\] is of type ndarray", id="array"),
        pytest.param({"a": Path("x")}, TypeError, r"^meta\['a'\] is of type PosixPath", id="path"),
        pytest.param({"a": torch.tensor(1)}, TypeError, r"^meta\['a'\] is of type Tensor", id="tensor"),
        pytest.param({"a": np.longdouble(1)}, TypeError, r"^meta\['a'\] is of type longdouble", id="long double"),
        pytest.param({"a": {1: 2}}, TypeError, r"^meta\['a'\] has the key 1 of type int; keys must be str", id="key"),
        pytest.param({"a": float("nan")}, ValueError, r"^meta\['a'\] is nan; only finite numbers", id="nan"),
        pytest.param({"a": np.float32("-inf")}, ValueError, r"^meta\['a'\] is -inf; only finite", id="infinite"),
        pytest.param({"a": 10**39}, ValueError, r"^meta\['a'\] is a whole number of more than 39 digits", id="big int"),
        pytest.param({"a": "\ud800"}, ValueError, r"^meta\['a'\] is text with a lone surrogate", id="surrogate"),
        pytest.param({"\ud800": 1}, ValueError, "^a key of meta is text with a lone surrogate", id="surrogate key"),
        pytest.param({"digest": "x"}, ValueError, "^meta has the key 'digest', which the bundle itself", id="own key"),
        pytest.param([1], TypeError, "^meta is a list; pass a dict", id="no dict"),
    ],
)
def test_meta_that_is_not_stored(tmp_path, meta, error, message):
    with pytest.raises(error, match=message):
        _bundle.write_bundle(tmp_path / "clock", meta, {}, "")
    assert names(tmp_path) == []


def test_meta_that_holds_itself(tmp_path):
    meta: dict = {}
    meta["me"] = meta
    with pytest.raises(ValueError, match="is nested more than 32 deep"):
        _bundle.write_bundle(tmp_path / "clock", meta, {}, "")


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        pytest.param(
            {"w": torch.tensor([1.0, torch.nan])}, ValueError, "^tensor 'w' has values that are NaN", id="nan"
        ),
        pytest.param({"w": torch.tensor(torch.inf).half()}, ValueError, "^tensor 'w' has values", id="infinite"),
        pytest.param({"w": np.zeros(1)}, TypeError, "^tensor 'w' is a ndarray; pass a torch.Tensor", id="array"),
        pytest.param(
            {"w": torch.zeros(1, dtype=torch.cfloat)}, TypeError, r"^tensor 'w' \(torch.complex64", id="complex"
        ),
        pytest.param({"w": torch.eye(2).to_sparse()}, TypeError, "torch.sparse_coo.* cannot be stored", id="sparse"),
        pytest.param({"w": torch.zeros(1, device="meta")}, TypeError, "on meta.* cannot be stored", id="meta device"),
        pytest.param({"__metadata__": torch.zeros(1)}, TypeError, "'__metadata__' is reserved", id="reserved"),
        pytest.param({1: torch.zeros(1)}, TypeError, "^tensors has the key 1; names must be str", id="name"),
        pytest.param([torch.zeros(1)], TypeError, "^tensors is a list; pass a dict", id="no dict"),
    ],
)
def test_tensors_that_are_not_stored(tmp_path, tensors, error, message):
    with pytest.raises(error, match=message):
        _bundle.write_bundle(tmp_path / "clock", {}, tensors, "")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("card", "error", "message"),
    [
        pytest.param(b"# card", TypeError, "^card is a bytes; pass the text of README.md as str", id="bytes"),
        pytest.param("\ud800", ValueError, "^card is text with a lone surrogate", id="surrogate"),
        pytest.param("cos\nsystem\n(", _files.BundleError, "README.md is a pickle", id="like a pickle"),
    ],
)
def test_cards_that_are_not_stored(tmp_path, card, error, message):
    with pytest.raises(error, match=message):
        _bundle.write_bundle(tmp_path / "clock", {}, {}, card)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (_files.BundleError, (ValueError,)),
        (_files.BundleVersionError, (_files.BundleError,)),
        (_files.BundleMissingError, (_files.BundleError, FileNotFoundError)),
        (_files.BundleExistsError, (_files.BundleError, FileExistsError)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_errors_are_of_the_usual_kinds(error, kinds):
    assert all(issubclass(error, kind) for kind in kinds)
    assert str(error("what is wrong")) == "what is wrong"
