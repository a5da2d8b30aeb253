"""Corruptions that nobody thought of: whatever is done to the bytes, reading gives a BundleError or a sound bundle."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agevi.io import _bundle, _files

META = {"class": "PoissonVAE", "genes": ["CD3E", "LEF1"], "arguments": {"n_hidden": [20, 20], "rate": 0.5, "x": None}}
TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "flag": torch.tensor([True, False]),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(3),
}
CARD = "# A clock\n"
CASES = {"raw clock.json": 500, "signed clock.json": 500, "raw header": 500, "signed header": 500}
LENGTH = 8  # bytes before the header of a safetensors file


@pytest.fixture(scope="module")
def clock(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "clock"
    _bundle.write_bundle(path, META, TENSORS, CARD)
    return path


# corruptions of bytes: each takes some and returns others

tokens = st.sampled_from(
    [
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 50,
        b"\\ud800",
        b"\x00",
    ]
    + [
        b"\xff",
        b"[" * 2000,
        b"../",
        b'"schema": 2',
        b'"digest": 0',
        b"F64",
        b"18446744073709551616",
        b"\x80\x05",
        b"PK",
    ]
)


@st.composite
def bytes_changed(draw, data: bytes) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), place + draw(st.sampled_from([0, 1, 2, 8, 64, 10**9])))
        piece = draw(
            st.one_of(
                st.just(b""),
                st.binary(max_size=8),
                tokens,
                st.just(data[place:end] * 2),
                st.just(data[place:end][::-1]),
                st.just(bytes(b ^ 1 for b in data[place : place + 1]) + data[place + 1 : end]),
            )
        )
        data = data[:place] + piece + data[end:]
    return data


# corruptions of JSON: somewhere inside, a value is replaced, removed, renamed or added

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, 2, 2**31, 2**63, 2**64 - 8, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["F32", "F64", "BOOL", "I8", "README.md", "../x", "agevi-clock", "weight", "0" * 64]),
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3))


def places(value, path=()):
    """Paths of everything inside ``value``."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


@st.composite
def json_changed(draw, text: bytes) -> bytes:
    document = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        *way, key = draw(st.sampled_from(list(places(document))[1:] or [("x",)]))
        parent = document
        for step in way:
            parent = parent[step]
        match draw(st.sampled_from(["set", "nudge", "remove", "rename", "swap"])):
            case "nudge" if isinstance(parent[key], int):
                parent[key] += draw(st.sampled_from([-8, -1, 1, 8]))
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=6))] = parent.pop(key)
            case "swap":
                parent[key] = parent[draw(st.sampled_from(list(parent) if isinstance(parent, dict) else [0]))]
            case _:
                parent[key] = draw(values)
    return json.dumps(document).encode()


def signed(text: bytes, files: dict[str, bytes]) -> bytes:
    """``text`` with sizes, checksums and digest made right, as far as it still is a JSON object."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            return text
        for name, data in files.items():
            document["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
    document.pop("digest", None)
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps(document | {"digest": digest}).encode()


@st.composite
def corrupted(draw, case: str, files: dict[str, bytes]) -> dict[str, bytes]:
    text, weights = files["clock.json"], files["weights.safetensors"]
    if case == "raw clock.json":
        return files | {"clock.json": draw(bytes_changed(text))}
    if case == "signed clock.json":
        changed = draw(st.one_of(json_changed(text), bytes_changed(text)))
        others = {name: files[name] for name in draw(st.sets(st.sampled_from(["README.md", "weights.safetensors"])))}
        return files | {"clock.json": signed(changed, others)}
    (length,) = struct.unpack_from("<Q", weights)
    header, data = weights[LENGTH : LENGTH + length], weights[LENGTH + length :]
    header = draw(st.one_of(json_changed(header), bytes_changed(header)))
    prefix = draw(st.one_of(st.just(struct.pack("<Q", len(header))), bytes_changed(weights[:LENGTH])))
    weights = prefix + header + data
    if case == "raw header":
        return files | {"weights.safetensors": weights}
    document = json.loads(text)
    try:  # an attacker records what the header says, so that only the header itself can be wrong
        entries = json.loads(header)
        record = {name: {key: entry[key] for key in ("dtype", "shape")} for name, entry in entries.items()}
        document["tensors"] = draw(st.sampled_from([record, document["tensors"]]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    text = signed(json.dumps(document).encode(), {"weights.safetensors": weights})
    return files | {"weights.safetensors": weights, "clock.json": text}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def check(directory: Path, case: str, files: dict[str, bytes]) -> str:
    """Read the corrupted bundle: "refused", or "read" when it is sound."""
    for name, data in files.items():
        (directory / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            bundle = _bundle.read_bundle(directory)
        except _files.BundleError as error:
            assert "\n" not in str(error)
            return "refused"
    assert bundle.card == CARD
    if case.startswith("raw"):  # nothing was changed that counts
        assert bundle.meta == META
        assert same(bundle.tensors, TENSORS)
    else:  # another bundle, and a valid one
        document = json.loads(files["clock.json"])
        assert {name: document[name] for name in bundle.meta} == bundle.meta
        assert all(torch.isfinite(tensor).all() for tensor in bundle.tensors.values())
        again = directory.with_name("again")
        _bundle.write_bundle(again, bundle.meta, bundle.tensors, bundle.card, overwrite=True)
        assert same(_bundle.read_bundle(again).tensors, bundle.tensors)
    return "read"


def corrupt(clock: Path, tmp_path: Path, case: str, examples: int) -> None:
    files = {path.name: path.read_bytes() for path in clock.iterdir()}
    directory = tmp_path / "clock"
    directory.mkdir()
    seen = []

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(corrupted(case, files))
    def one(changed):
        seen.append(check(directory, case, changed))

    one()
    assert len(seen) >= examples
    assert seen.count("refused") > 0.5 * len(seen)  # the corruptions do hurt


@pytest.mark.slow
@pytest.mark.parametrize(("case", "examples"), CASES.items(), ids=CASES)
def test_many_corruptions(clock, tmp_path, case, examples):
    corrupt(clock, tmp_path, case, examples)
