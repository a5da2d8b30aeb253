"""Which clock predictions are of: short digests of how it is made and of its weights, which can be compared."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

KEYS = ("class", "genes", "setup", "init")
"""What clocks of one recipe share; ``weights`` besides are those of one clock alone."""
SAID = {
    "class": "class",
    "genes": "genes",
    "setup": "arguments of setup_anndata",
    "init": "arguments of its constructor",
}
_NAMES = ("age_key", "subject_key", "features")  # of columns, which say nothing about the clock, and of its genes
_LENGTH = 16


def of_parts(cls: Any, setup: Mapping[str, Any], init: Mapping[str, Any], genes: Iterable[Any]) -> dict[str, str]:
    """Digests of a clock by how it is made."""
    return {
        "class": cls.__name__,
        "genes": _digest(sorted({str(gene) for gene in genes})),
        "setup": _digest({k: v for k, v in setup.items() if k not in _NAMES and v is not None}),
        "init": _digest({k: v for k, v in init.items() if k != "rng"}),
    }


def of_recipe(cls: Any, setup: Mapping[str, Any], init: Mapping[str, Any], genes: Iterable[Any]) -> dict[str, str]:
    """Digests of the clocks that a class, its arguments (``init`` without defaults) and the genes of the data make."""
    parameters = inspect.signature(cls).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    if setup.get("features") is not None:
        genes = {str(name) for name in setup["features"]} & {str(gene) for gene in genes}
    return of_parts(cls, setup, cls._init_as_stored(defaults | dict(init)), genes)


def of_members(name: str, members: Sequence[Mapping[str, str]], scale: str) -> dict[str, str]:
    """Digests of clocks that are averaged, whatever their order."""
    own = {key: _digest(sorted([m["class"], m[key]] for m in members)) for key in KEYS[1:]}
    return {"class": name, **own, "init": _digest([own["init"], scale])}


def of_model(model: Any) -> dict[str, str]:
    """Digests of a clock that was made, and of its weights."""
    if clocks := getattr(model, "clocks", None):
        own = of_members(type(model).__name__, [of_model(clock) for clock in clocks], model.scale)
        return own | {"weights": _digest([model.weights_.tolist(), weights_of(model.module)])}
    return of_parts(type(model), model.setup_args, model.init_args, model.genes) | {"weights": weights_of(model.module)}


def weights_of(module: torch.nn.Module) -> str:
    """Digest of all tensors of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {values.dtype} {tuple(tensor.shape)};".encode())
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:_LENGTH]


def difference(stored: Mapping[str, Any], model: Any) -> str:
    """In what a clock differs from the one that made predictions, for a message; empty where it does not."""
    own = of_model(model)
    differ = [SAID[key] for key in KEYS if str(stored.get(key, "")) != own[key]]
    if differ or stored.get("groupby"):
        return " and ".join(differ) or f"being one for all cells, not one per type in adata.obs[{stored['groupby']!r}]"
    return "weights" if stored.get("weights") and stored["weights"] != own["weights"] else ""


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _plain(value: Any) -> Any:
    """Arguments in a form that is equal for equal ones, whether they were given, or read from a bundle."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if value is None or isinstance(value, bool | str) else str(value)
