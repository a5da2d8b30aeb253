from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import _keys

WITH_KEYS = {
    f"{module}.{name}": function
    for module in ("get", "pl", "tl")
    for name in getattr(agevi, module).__all__
    if callable(function := getattr(getattr(agevi, module), name))
    and "key_added" in inspect.signature(function).parameters
}


def test_default_slots_are_the_documented_ones():
    keys = _keys.Keys()
    assert (keys.uns, keys.predicted, keys.predicted_sample, keys.role, keys.fold, keys.latent, keys.subjects) == (
        "agevi",
        "agevi_predicted",
        "agevi_predicted_sample",
        "agevi_role",
        "agevi_fold",
        "X_agevi",
        "agevi_subjects",
    )
    assert _keys.SPLIT == "agevi_split"


def test_key_added_renames_every_slot():
    keys = _keys.Keys("mine")
    slots = {(slot.where, getattr(keys, name)) for name, slot in _keys.SLOTS.items() if name != "attribution"}
    assert len(slots) == len(_keys.SLOTS) - 1  # no two have one name
    assert all("mine" in name for _, name in slots)


def test_a_slot_that_is_not_declared():
    keys = _keys.Keys()
    with pytest.raises(AttributeError, match="'calibratoin' is not a slot of agevi; declare it in agevi._keys.SLOTS"):
        _ = keys.calibratoin
    assert copy.deepcopy(keys) == keys == pickle.loads(pickle.dumps(keys))


def test_tables_and_parts_of_attributions_by_their_nouns():
    keys = _keys.Keys("mine")
    assert (keys.table("metrics"), keys.table_params("metrics")) == ("mine_metrics", "mine_metrics_params")
    assert (keys.table("attribution"), keys.attribution()) == ("mine_attribution", "mine_attribution")
    assert keys.attribution("signed") == "mine_attribution_signed"
    assert (keys.calibration, keys.calibration_params) == ("mine_calibration", "mine_calibration_params")


@pytest.mark.parametrize("name", _keys.SLOTS)
def test_the_writers_of_a_slot_are_public_and_name_it(name):
    slot = _keys.SLOTS[name]
    assert slot.where in ("obs", "obsm", "varm", "layers", "uns")
    assert slot.content.endswith(".")
    for writer in slot.writers.split(", "):
        assert callable(getattr(agevi.tl, writer.removeprefix("tl.")))


def required(function):
    """Arguments that a function must have, as text that it cannot use."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {
        p.name: "nothing"
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        pytest.param(5, TypeError, "key_added=5 is a int; pass text, the prefix of the slots", id="number"),
        pytest.param(None, TypeError, "key_added=None is a NoneType; pass text", id="None"),
        pytest.param(["agevi"], TypeError, r"key_added=\['agevi'\] is a list; pass text", id="list"),
        pytest.param(
            "", ValueError, "key_added='' is empty; pass the prefix of the slots, such as 'agevi'", id="empty"
        ),
        pytest.param(" ", ValueError, "key_added=' ' is empty", id="space"),
    ],
)
@pytest.mark.parametrize("name", WITH_KEYS)
def test_what_is_no_prefix_is_refused_first(name, value, error, message):
    """Before other arguments are read, so that no fit is lost to it."""
    adata = ad.AnnData(np.ones((2, 2)))
    with pytest.raises(error, match=f"^{message}"):
        WITH_KEYS[name](adata, **required(WITH_KEYS[name]) | {"key_added": value})


def test_the_other_prefix_of_recalibrate():
    with pytest.raises(TypeError, match="^key=5 is a int; pass text, the prefix of the slots"):
        agevi.tl.recalibrate(ad.AnnData(np.ones((2, 2))), labels="age", by=None, key=5)


def test_held_out_roles_exclude_what_shaped_the_weights():
    assert set(_keys.ROLES) - set(_keys.HELD_OUT_ROLES) == {"train", "validation", "recalibration"}
    assert set(_keys.SHAPED_ROLES) | set(_keys.HELD_OUT_ROLES) == set(_keys.ROLES)
    assert set(_keys.SPLIT_ROLES) < set(_keys.ROLES)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param(3, 3, id="int"),
        pytest.param(2.5, 2.5, id="float"),
        pytest.param(True, True, id="bool"),
        pytest.param("text", "text", id="text"),
        pytest.param(None, "", id="None"),
        pytest.param(np.float32(0.5), 0.5, id="numpy scalar"),
        pytest.param(Path("a") / "b", "a/b", id="path"),
        pytest.param({"a": None, 1: {"b": 2}}, {"1": {"b": 2}}, id="mapping drops None, keys become text"),
        pytest.param(np.random.default_rng(0), "numpy.random.Generator(PCG64)", id="generator"),
    ],
)
def test_to_uns_scalars(value, stored):
    out = _keys.to_uns(value)
    assert out == stored
    assert type(out) is type(stored)


@pytest.mark.parametrize(
    ("value", "stored", "kind"),
    [
        pytest.param((1, 2), [1, 2], "i", id="tuple of int"),
        pytest.param([1, 2.5], [1.0, 2.5], "f", id="int and float"),
        pytest.param([True, False], [True, False], "b", id="bool"),
        pytest.param(["b", "a"], ["b", "a"], "O", id="text"),
        pytest.param({"b", "a"}, ["a", "b"], "O", id="set is sorted"),
        pytest.param([1, "a"], ["1", "a"], "O", id="mixed becomes text"),
    ],
)
def test_to_uns_sequences(value, stored, kind):
    out = _keys.to_uns(value)
    assert isinstance(out, np.ndarray)
    assert out.dtype.kind == kind
    assert out.tolist() == stored


def test_to_uns_frame_gets_a_plain_index_and_is_a_copy():
    frame = pd.DataFrame({"sample": [1.0, 2.0]}, index=pd.CategoricalIndex(["a", "b"], name="sample"))
    out = _keys.to_uns(frame)
    assert out.index.tolist() == ["a", "b"]
    assert out.index.name is None  # a name that is also a column cannot be written
    out.iloc[0, 0] = 9.0
    assert frame.iloc[0, 0] == 1.0


def test_to_uns_keeps_an_index_name_that_is_free():
    frame = pd.DataFrame({"age": [1.0]}, index=pd.Index(["a"], name="sample"))
    assert _keys.to_uns(frame).index.name == "sample"


def test_to_uns_refuses_what_cannot_be_stored():
    with pytest.raises(TypeError, match="a value of type function cannot be stored in adata.uns; pass plain values"):
        _keys.to_uns({"f": lambda: None})


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_stored_values_survive(tmp_path, store):
    adata = ad.AnnData(np.ones((2, 1), dtype=np.float32))
    adata.uns["k"] = _keys.to_uns(
        {"n": None, "widths": (300, 150), "names": ("CD4/CD8", "", "a b"), "rng": np.random.default_rng(1), "x": 0.5}
    )
    adata.uns["t"] = _keys.to_uns(pd.DataFrame({"age": [1.0, np.nan]}, index=pd.Index([1, 2], name="sample")))
    path = tmp_path / f"a.{store}"
    getattr(adata, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    assert "n" not in back.uns["k"]
    assert back.uns["k"]["widths"].tolist() == [300, 150]
    assert list(back.uns["k"]["names"]) == ["CD4/CD8", "", "a b"]
    assert back.uns["t"].index.tolist() == ["1", "2"]
    np.testing.assert_array_equal(back.uns["t"]["age"], [1.0, np.nan])
