"""Views of AnnData: registering one would turn it into a copy, so a stand-in is registered instead."""

from __future__ import annotations

import weakref

from anndata import AnnData

_STAND_INS: dict[int, tuple[weakref.ref[AnnData], AnnData]] = {}


def stand_in_for(view: AnnData) -> AnnData:
    """A new copy of ``view`` that :func:`registered` finds for as long as the view lives."""
    key = id(view)
    copy = view.copy()
    _STAND_INS[key] = (weakref.ref(view, lambda _: _STAND_INS.pop(key, None)), copy)
    return copy


def registered(adata: AnnData) -> AnnData:
    """What ``setup_anndata`` registered for ``adata``: itself, or the copy that stands in for a view."""
    ref, copy = _STAND_INS.get(id(adata), (None, None))
    return copy if adata.is_view and copy is not None and ref is not None and ref() is adata else adata
