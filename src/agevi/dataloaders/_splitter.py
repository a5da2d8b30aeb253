"""Subjects to training, validation and test cells, in batches without a stray remainder."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._compat.scvi import AnnDataManager
from agevi.dataloaders._buffered import BufferedLoader
from agevi.dataloaders._cells import VALIDATION_CELLS, CellDataset, SomeDecoded, batches
from agevi.dataloaders._device import DeviceRows, ahead, device_of, near


class SubjectSplitter(pl.LightningDataModule):
    """Loaders of the cells that train and that validate, by the role of each, (n_cells,); networks may decode them."""

    def __init__(
        self, adata_manager: AnnDataManager, roles: np.ndarray, *, batch_size: int, decodes: bool = False
    ) -> None:
        super().__init__()
        self.adata_manager, self.batch_size, self.decodes = adata_manager, batch_size, decodes
        self.train_idx, self.val_idx, self.test_idx = (np.flatnonzero(roles == r) for r in _keys.SPLIT_ROLES)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    @cached_property
    def _near(self) -> DeviceRows | None:
        """All cells that are read, on the GPU where they fit."""
        read = np.concatenate([self.train_idx, self.val_idx])
        return near(self.adata_manager, read, device_of(self.trainer))

    def _cells(self, indices: np.ndarray) -> Any:
        """What reads the cells ``indices``."""
        return CellDataset(self.adata_manager, indices) if self._near is None else self._near.part(indices)

    def _loader(self, cells: Any, batch_size: int, *, shuffle: bool) -> Any:
        make: Any = BufferedLoader if getattr(getattr(cells, "cells", cells), "on_disk", False) else batches
        loader = make(cells, batch_size=batch_size, shuffle=shuffle, shared=True)
        return ahead(loader, device_of(self.trainer)) if self._near is None else loader

    def teardown(self, stage: str) -> None:
        """Free the memory of the GPU when training ends."""
        rows = self.__dict__.pop("_near", None)
        if rows is not None:
            rows.release()

    def train_dataloader(self) -> Any:
        """Training cells, shuffled."""
        return self._loader(self._cells(self.train_idx), self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        """Validation cells in order, not all of which are decoded; nothing when no subject validates."""
        if not self.n_val:
            return []
        cells, step = self._cells(self.val_idx), -(-self.n_val // VALIDATION_CELLS)
        if self.decodes and step > 1:
            cells = SomeDecoded(cells, step)
        return self._loader(cells, max(self.batch_size, VALIDATION_CELLS), shuffle=False)


def roles_from_column(adata: AnnData, split_key: str, subject: pd.Series) -> pd.Series:
    """Role of every subject from a split column, indexed by subject."""
    advice = "Make the split with agevi.pp.split_subjects."
    unknown = sorted(set(_checks.labels(adata, split_key, "split_key")) - set(_keys.SPLIT_ROLES))
    if unknown:
        raise ValueError(
            f"adata.obs[{split_key!r}] holds {_checks.listed(unknown)}; the roles of a split are 'train', 'validation' "
            f"and 'test'. {advice}"
        )
    return _units.label_of_subject(adata, split_key, "split_key", subject, advice)
