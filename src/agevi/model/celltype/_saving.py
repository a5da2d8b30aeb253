"""A clock of cell types to and from a bundle: its members, and what joins them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from agevi._compat import Host
from agevi.io import _bundle
from agevi.io._card import cell_type_card
from agevi.model.base import _save
from agevi.model.celltype._anchor import CLOCK
from agevi.model.celltype._combine import Errors
from agevi.model.celltype._composition import NAME, Composition


class TypeSaving(Host):
    """``save`` and ``load`` for a clock per type."""

    def _meta(self) -> dict[str, Any]:
        """The members' plain values, and what joins them."""
        return _save.meta_of(self) | {
            "types": self.types_,
            "usual": self._usual,
            "columns": self._columns,
            "members": _metas(self.type_clocks),
            "against": list(self.contrast_clocks),
            "contrasts": _metas(self.contrast_clocks),
        }

    def _card(self, meta: dict[str, Any]) -> str:
        return cell_type_card(meta, {str(name): float(weight) for name, weight in self.weights_.items()})

    @classmethod
    def _restore(cls, bundle: _bundle.Bundle) -> Any:
        """A clock from its bundle, its members each from its part of the tensors."""
        meta, tensors = bundle.meta, bundle.tensors
        metas, columns, types = (_texts(meta, key, bundle.path) for key in ("members", "columns", "types"))
        table = tensors["composition"].numpy()
        composition = Composition.of_table(table)
        against = _texts(meta, "against", bundle.path) if "against" in meta else []
        of_contrasts = _texts(meta, "contrasts", bundle.path) if against else []
        whole = len(metas) > 0 and columns[len(metas) :] == ([NAME] if composition else [])
        whole &= len(set(against)) == len(against) == len(of_contrasts)
        whole &= all(own.get("class") == CLOCK for own in of_contrasts)
        anchor = meta["init"].get("anchor")
        whole &= not against or ({*against, anchor} <= set(types) and anchor not in against)
        if not whole or not set(columns[: len(metas)]) <= set(types) or not np.isfinite(table).all():
            raise _bundle.BundleError(f"{bundle.path} holds members that do not fit together; save the clock again.")
        model = cls._from_template(cls._template(meta), meta["setup"], meta["init"])
        clocks = dict(zip(columns, _members(bundle, metas, "clocks"), strict=False))
        contrasts = dict(zip(against, _members(bundle, of_contrasts, "contrasts"), strict=True))
        usual, errors = _texts(meta, "usual", bundle.path), Errors.equal(np.ones(len(columns)))
        model._take(types, usual, clocks, columns, errors, composition, contrasts)
        _save.load_weights(model, bundle)
        model.history_, model.split_ = {}, _save.split_of(meta)
        model.best_epoch_, model.age_summary_, model.is_trained_ = meta["best_epoch"], meta["age"], True
        return model


def _metas(clocks: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything about clocks except their weights and the names of their genes, which are those of the whole."""
    return [_save.full_meta(clock) | {"gene_names": None} for clock in clocks.values()]


def _members(bundle: _bundle.Bundle, metas: list[dict[str, Any]], of: str) -> list[Any]:
    """Clocks in a bundle, each from its part of the tensors."""
    out = []
    for i, own in enumerate(metas):
        prefix = f"{of}.{i}."
        part = {k.removeprefix(prefix): v for k, v in bundle.tensors.items() if k.startswith(prefix)}
        member = dataclasses.replace(bundle, meta=own, tensors=part)
        out.append(_save.remade(_save.class_of(own, bundle.path), member))
    return out


def _texts(meta: dict[str, Any], key: str, path: Any) -> list[Any]:
    """A list of a bundle."""
    if not isinstance(meta.get(key), list):
        raise _bundle.BundleError(f"{path} holds no list {key!r}; it was edited. Save the clock again.")
    return list(meta[key])
