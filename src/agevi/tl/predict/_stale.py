"""What was made from earlier predictions, which goes when others are written under the same key."""

from __future__ import annotations

import logging

from anndata import AnnData

from agevi import _checks, _keys

logger = logging.getLogger(__name__)

TABLES = (
    "subjects", "by_group", "metrics", "recalibration", "calibration", "posterior", "acceleration", "normative", "trend"
)  # fmt: skip
"""Nouns of the tables in ``uns`` that are made from predictions; a new tool that reads these adds its own here."""


def forget(adata: AnnData, keys: _keys.Keys) -> None:
    """Remove what goes with earlier predictions, in one line of the log, once the new ones are in ``obs``.

    These are the tables made from them, and the columns and latent space that not every clock writes.
    """
    for name in (keys.predicted_sample, keys.cell_deviation, keys.fold):
        if name in adata.obs:
            del adata.obs[name]
    adata.obsm.pop(keys.latent, None)
    tables = [keys.table(noun) for noun in TABLES if adata.uns.pop(keys.table(noun), None) is not None]
    for noun in TABLES:
        adata.uns.pop(keys.table_params(noun), None)
    if tables:
        logger.info(
            "Tables made from the earlier predictions under key_added=%r are removed from adata.uns: %s.",
            keys.key_added, _checks.listed(tables, len(tables)),
        )  # fmt: skip
