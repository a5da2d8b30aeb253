"""Subjects to training, validation and test cells, in batches without a stray remainder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch.utils.data import DataLoader, Sampler

from agevi import _checks, _keys
from agevi._compat import AnnDataManager


class EvenBatchSampler(Sampler[list[int]]):
    """Batches of nearly equal size, none above ``batch_size``, reshuffled in every pass.

    1,025 cells at a batch size of 1,024 make batches of 513 and 512, not one of a single cell, which BatchNorm
    could not take.
    """

    def __init__(self, n: int, batch_size: int, *, shuffle: bool) -> None:
        self.n, self.shuffle = n, shuffle
        self.n_batches = -(-n // batch_size)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.n) if self.shuffle else torch.arange(self.n)
        for batch in torch.tensor_split(order, self.n_batches):
            yield batch.tolist()


class SubjectSplitter(pl.LightningDataModule):
    """Loaders of the training and the validation cells.

    Parameters
    ----------
    adata_manager
        Manager of the registered AnnData.
    roles
        Role of every cell, (n_cells,), of :data:`agevi._keys.SPLIT_ROLES`.
    batch_size
        Largest number of cells in a step.
    """

    def __init__(self, adata_manager: AnnDataManager, roles: np.ndarray, *, batch_size: int, **loader_kwargs: Any):
        super().__init__()
        self.adata_manager, self.batch_size, self.loader_kwargs = adata_manager, batch_size, loader_kwargs
        self.train_idx, self.val_idx, self.test_idx = (np.flatnonzero(roles == r) for r in _keys.SPLIT_ROLES)
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def _loader(self, indices: np.ndarray, *, shuffle: bool) -> DataLoader[Any]:
        """One fancy index into the matrix per batch, as scvi-tools' own loader does."""
        cells = self.adata_manager.create_torch_dataset(indices=indices)
        sampler = EvenBatchSampler(len(indices), self.batch_size, shuffle=shuffle)
        return DataLoader(cells, sampler=sampler, batch_size=None, **self.loader_kwargs)

    def train_dataloader(self) -> DataLoader[Any]:
        """Training cells, shuffled."""
        return self._loader(self.train_idx, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation cells in order; nothing when no subject validates."""
        return self._loader(self.val_idx, shuffle=False) if self.n_val else []


def roles_from_column(adata: AnnData, split_key: str, subject: pd.Series) -> pd.Series:
    """Role of every subject from a split column, indexed by subject."""
    column = _checks.labels(adata, split_key, "split_key")
    unknown = sorted(set(column) - set(_keys.SPLIT_ROLES))
    if unknown:
        raise ValueError(
            f"adata.obs[{split_key!r}] holds {_checks.listed(unknown)}; the roles of a split are 'train', 'validation' "
            "and 'test'. Make it with agevi.pp.split_subjects."
        )
    pairs = pd.DataFrame({"subject": subject.to_numpy(), "role": column.to_numpy()}).drop_duplicates()
    twice = pairs.loc[pairs["subject"].duplicated(), "subject"]
    if len(twice):
        found = pairs.loc[pairs["subject"] == twice.iloc[0], "role"]
        raise ValueError(
            f"subject {twice.iloc[0]!r} is in {' and '.join(map(repr, found))} of adata.obs[{split_key!r}]; a subject "
            "is held out as a whole. Make the split with agevi.pp.split_subjects."
        )
    return pairs.set_index("subject")["role"].sort_index()
