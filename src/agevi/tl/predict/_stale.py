"""What was made from earlier predictions, which goes when others are written under the same key."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from anndata import AnnData

from agevi import _checks, _keys

logger = logging.getLogger(__name__)


def forget(adata: AnnData, keys: _keys.Keys) -> None:
    """Remove the slots that go with earlier predictions, in one line of the log, once the new ones are in ``obs``."""
    tables = _drop(adata, keys)
    anchored = _keys.Keys(keys.key_added + _keys.ANCHORED)
    record = adata.uns.get(anchored.uns)
    if isinstance(record, Mapping) and record.get("recalibrated_from") == keys.key_added:
        tables += _drop(adata, anchored, ("uns", "predicted", "role"))
    if tables:
        logger.info(
            "Tables made from the earlier predictions under key_added=%r are removed from adata.uns: %s.",
            keys.key_added, _checks.listed(tables, len(tables)),
        )  # fmt: skip


def _drop(adata: AnnData, keys: _keys.Keys, also: tuple[str, ...] = ()) -> list[str]:
    """Remove the slots that go with predictions, and those of the nouns ``also``; names of the tables among them."""
    tables = []
    for noun, slot in _keys.SLOTS.items():
        held, name = getattr(adata, slot.where), keys.table(noun)
        if (slot.of_predictions or noun in also) and name in held:
            del held[name]
            if slot.where == "uns" and not noun.endswith("_params"):
                tables.append(name)
    return tables
