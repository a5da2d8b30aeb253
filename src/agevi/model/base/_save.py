"""A clock to and from a bundle: what is stored, and how a model is made from it without its data."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi._compat import version
from agevi._compat.scvi import REGISTRY_KEYS, parse_device
from agevi._source import mark
from agevi.dataloaders._fields import CATEGORY
from agevi.io import _bundle
from agevi.model.base._names_of_genes import var_of
from agevi.model.base._reference import PREFIX

KNOWN: dict[str, Any] = {}
"""Classes that a bundle may make, by name: those of ``agevi.model.MODELS``, which fills it, and no others."""


def categories(registry: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the known categories of the batch and of each categorical covariate, by column."""
    fields = registry["field_registries"]
    setup = registry["setup_args"]
    out: dict[str, list[str]] = {}
    if setup["batch_key"] and REGISTRY_KEYS.BATCH_KEY in fields:
        state = fields[REGISTRY_KEYS.BATCH_KEY]["state_registry"]
        out[setup["batch_key"]] = [_names.name(v) for v in state["categorical_mapping"]]
    own = [field["state_registry"] for key, field in fields.items() if key.startswith(CATEGORY)]
    out.update({state["original_key"]: [_names.name(v) for v in state["categories"]] for state in own})
    if setup["categorical_covariate_keys"] and not own:
        mappings = fields[REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]["mappings"]
        out.update({key: [_names.name(v) for v in mappings[key]] for key in setup["categorical_covariate_keys"]})
    return out


def meta_of(model: Any) -> dict[str, Any]:
    """Everything about a trained clock except its weights, as plain values."""
    return {
        "class": type(model).__name__,
        "init": model.init_args,
        "setup": dict(model.setup_args),
        "genes": [str(g) for g in model.genes],
        "categories": categories(model.registry_),
        "age": dict(model.age_summary_),
        "split": dict(model.split_),
        "best_epoch": model.best_epoch_,
        "history": {k: [float(v) for v in frame.iloc[:, 0]] for k, frame in (model.history_ or {}).items()},
        "versions": versions(),
        **model._names_as_plain(),
    }


def versions() -> dict[str, str]:
    """Versions of what a clock is computed with."""
    packages = ("agevi", "scvi-tools", "torch", "anndata", "numpy")
    return {p: version(p) for p in packages} | {"python": platform.python_version()}


def save(model: Any, path: str | Path, *, overwrite: bool) -> None:
    """Write a trained clock."""
    meta = full_meta(model)
    _bundle.write_bundle(path, meta, model.stored_tensors(), model._card(meta), overwrite=overwrite)


def full_meta(model: Any) -> dict[str, Any]:
    """Everything about a trained clock except its weights, with the numbers that say how good it is."""
    return {**model._meta(), **model._numbers()}


def remade(cls: Any, bundle: _bundle.Bundle) -> Any:
    """A trained clock on the CPU, without data, with its numbers."""
    model = cls._restore(bundle)
    model._take_numbers(bundle.meta)
    model._take_reference(bundle.meta, bundle.tensors)
    if odd := sorted(bundle.tensors.keys() - model.stored_tensors().keys()):
        raise _bundle.BundleError(f"{bundle.path} has the tensor {odd[0]!r}, which is of no clock; it was edited.")
    return model


def copy_of(model: Any) -> Any:
    """The same trained clock without its data."""
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.stored_tensors().items()}
    copy = remade(type(model), _bundle.Bundle(copy_values(full_meta(model)), tensors, "", Path()))
    copy.to_device(model.device)
    return copy


def copy_values(values: Any) -> Any:
    """Dicts and lists as new ones."""
    if isinstance(values, dict):
        return {key: copy_values(value) for key, value in values.items()}
    return [copy_values(value) for value in values] if isinstance(values, list) else values


def template(meta: dict[str, Any]) -> AnnData:
    """An AnnData without counts that registers to the categories a clock was trained with."""
    setup, known = meta["setup"], meta["categories"]
    n = max([3, *(len(v) for v in known.values())])
    genes = pd.Index(meta["genes"], dtype=object)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    for key in setup["continuous_covariate_keys"] or []:
        obs[key] = 0.0
    for groups in (meta["init"].get("pseudocell_groupby"), setup.get("cell_type_key")):
        if groups:
            obs[groups] = ""
    for key, values in known.items():
        obs[key] = pd.Categorical([values[i % len(values)] for i in range(n)], categories=values)
    x = sp.csr_matrix((n, len(genes)), dtype=np.float32)
    layer = setup["layer"]
    out = AnnData(
        X=x if layer is None else None,
        layers={} if layer is None else {layer: x},
        obs=obs,
        var=var_of(meta),
        shape=(n, len(genes)) if layer is not None else None,
    )
    return mark(out, setup)


def is_pickled(path: str | Path) -> bool:
    """Whether scvi-tools' own ``save`` wrote the directory."""
    directory = Path(path).expanduser()
    return (directory / "model.pt").is_file() and not (directory / "clock.json").exists()


def load(
    cls: Any, path: str | Path, adata: AnnData | None, *, accelerator: str = "auto", device: int | str = "auto"
) -> Any:
    """Read a bundle and build the model of class ``cls`` from it."""
    return build(cls, _bundle.read_bundle(path), adata, accelerator=accelerator, device=device)


def build(
    cls: Any, bundle: _bundle.Bundle, adata: AnnData | None, *, accelerator: str = "auto", device: int | str = "auto"
) -> Any:
    """The model in ``bundle``."""
    held = bundle.meta["class"]
    if held != cls.__name__:
        raise _bundle.BundleError(
            f"{bundle.path} holds a {held}, not a {cls.__name__}; use {held}.load or agevi.io.load_clock."
        )
    try:
        model = remade(cls, bundle)
    except _bundle.BundleError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _bundle.BundleError(
            f"{bundle.path} does not describe a {held} that this version of agevi can make ({type(error).__name__}: "
            f"{error}); it was made by another version or was edited. Save the clock again."
        ) from error
    model.to_device(parse_device(accelerator, device))
    if adata is not None:
        model._attach(adata)
    return model


def class_of(meta: dict[str, Any], path: Path) -> Any:
    """The class that made a clock."""
    name = meta.get("class")
    if name not in KNOWN:
        raise _bundle.BundleError(
            f"{path} holds a clock of class {name!r}; this version of agevi knows {', '.join(KNOWN)}. Upgrade agevi."
        )
    return KNOWN[name]


def restore(cls: Any, bundle: _bundle.Bundle) -> Any:
    """A trained clock of class ``cls`` on the CPU, without data."""
    meta = bundle.meta
    model = cls._from_template(cls._template(meta), meta["setup"], meta["init"])
    load_weights(model, bundle)
    model.history_ = history_of(meta)
    model.split_, model.best_epoch_, model.age_summary_ = split_of(meta), meta["best_epoch"], meta["age"]
    model.is_trained_ = True
    model.module.eval()
    return model


def split_of(meta: dict[str, Any]) -> dict[str, str]:
    """Role of every subject by name; where an earlier version stored two spellings, the one that trained counts."""
    out: dict[str, str] = {}
    for subject, role in meta["split"].items():
        own = _names.name(subject)
        out[own] = min(role, out.get(own, role), key=_keys.ROLES.index)
    return out


def load_weights(model: Any, bundle: _bundle.Bundle) -> None:
    """Put the tensors of a bundle into a model that has just these."""
    expected = {k: tuple(v.shape) for k, v in model.module.state_dict().items()}
    tensors = {k: v for k, v in bundle.tensors.items() if PREFIX not in k}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        raise _bundle.BundleError(
            f"{bundle.path}: {len(wrong)} tensors do not fit a {type(model).__name__} (e.g. "
            f"{_checks.listed(wrong, 3)}); the bundle was made by another version or was edited. Save the clock again."
        )
    model.module.load_state_dict(tensors)


def history_of(meta: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The history of a clock as tables."""
    return {
        name: pd.DataFrame({name: np.asarray(values, dtype=np.float64)}, index=pd.RangeIndex(len(values), name="epoch"))
        for name, values in meta["history"].items()
    }
