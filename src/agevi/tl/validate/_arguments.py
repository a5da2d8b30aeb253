"""Arguments of clocks as the tools take them: what documentation and messages call them, and the layer beside them."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from agevi._docs import ARGUMENTS, shared
from agevi.tl.validate._recipe import Recipe

T = TypeVar("T")

ENTRIES = ARGUMENTS | {
    "keys": """
        age_key, subject_key, sample_key
            Columns of ``adata.obs`` with the age, the person or animal, and the visit or biopsy (default: the subject).
    """,
    "layer": """
        layer
            Layer with the values, in place of ``adata.X``; the same as in ``setup_kwargs``.
    """,
    "obsm_key": """
        obsm_key
            Table of ``adata.obsm`` with the values, such as ``"X_scVI"``; the same as in ``setup_kwargs``.
    """,
    "folds_as_in_cross_validate": """
        n_folds, fold_key, stratify_by, train_on
            As in :func:`agevi.tl.cross_validate`. Only samples that may train are judged.
    """,
    "checkpoint_dir": """
        checkpoint_dir
            Directory that keeps every finished fit, so that the same call resumes after it was killed.
    """,
}
"""What arguments mean that several of the tools take."""
CALLS = ("setup_kwargs", "model_kwargs", "train_kwargs")
"""Arguments of the tools that hold those of ``setup_anndata``, of the constructor and of ``train``."""
_METHODS = {"setup_kwargs": "setup_anndata", "train_kwargs": "train"}
_DIRECT = {"self", "adata", "age_key", "subject_key", "sample_key", "layer", "obsm_key", "rng"}
_VALUE = r"('[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|[^\s,;:()]+?)(?=[,;:)]|\.?(?:\s|$))"


def described(tool: T) -> T:
    """Put :data:`ENTRIES` into the docstring of a tool."""
    return shared(tool, ENTRIES)


def with_matrix(setup_kwargs: Any, layer: str | None, obsm_key: str | None) -> Any:
    """Arguments of the set-up, with several classes some by class, with the matrix that was named beside them."""
    given = {k: v for k, v in (("layer", layer), ("obsm_key", obsm_key)) if v is not None}
    if not given or not isinstance(setup_kwargs, Mapping | None):
        return setup_kwargs
    kwargs = dict(setup_kwargs or {})
    for part in (kwargs, *(value for value in kwargs.values() if isinstance(value, Mapping))):
        for name, value in given.items():
            if part.get(name, value) != value:
                raise ValueError(
                    f"{name}={value!r}, but setup_kwargs holds {name!r}: {part[name]!r}; name the "
                    f"{'layer' if name == 'layer' else 'table'} in one of them."
                )
    return kwargs | given


@contextlib.contextmanager
def as_called(recipe: Recipe, calls: Sequence[str] = CALLS) -> Iterator[None]:
    """Errors of ``calls`` inside the block name arguments as the tools take them: ``setup_kwargs={'min_age': -1}``."""
    try:
        yield
    except Exception as error:
        if error.args and isinstance(error.args[0], str):
            error.args = (_renamed(error.args[0], recipe, calls), *error.args[1:])
        raise


def as_model_kwargs(message: str, recipe: Recipe) -> str:
    """A message of a clock with the arguments of its constructor as the tools take them."""
    return _renamed(message, recipe, ("model_kwargs",))


def _renamed(message: str, recipe: Recipe, calls: Sequence[str]) -> str:
    """A message with the arguments of a clock's methods inside those of a tool."""
    call_of: dict[str, str] = {}
    for part in recipe.parts:
        cls = part.model_cls
        for call in calls:
            function = cls if call == "model_kwargs" else getattr(cls, _METHODS[call])
            call_of = dict.fromkeys(inspect.signature(function).parameters.keys() - _DIRECT, call) | call_of
    pattern = rf"(?<![\w.'\"])({'|'.join(map(re.escape, sorted(call_of)))})={_VALUE}"
    return re.sub(pattern, lambda found: f"{call_of[found[1]]}={{{found[1]!r}: {found[2]}}}", message)
