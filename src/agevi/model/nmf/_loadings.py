"""Loaders of cells whose loadings are known: each cell is projected once, not once per epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from agevi.dataloaders._fields import AGE, SAMPLE, SUBJECT
from agevi.dataloaders._splitter import SubjectSplitter
from agevi.model.nmf._module import LOADINGS


class _Cells(Dataset[dict[str, torch.Tensor]]):
    """Rows of several tensors at the positions of a batch."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[LOADINGS])

    def __getitem__(self, positions: np.ndarray) -> dict[str, torch.Tensor]:
        return {name: values[positions] for name, values in self.tensors.items()}


class LoadingSplitter(SubjectSplitter):
    """:class:`SubjectSplitter` of loadings, (n_cells, n_components), instead of counts; test cells are not read."""

    _near = None  # counts are not read again

    def __init__(self, *args: Any, loadings: torch.Tensor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loadings = loadings

    def _cells(self, indices: np.ndarray) -> Any:
        fields = {name: self.adata_manager.get_from_registry(name) for name in (AGE, SUBJECT, SAMPLE)}
        tensors = {name: torch.from_numpy(np.asarray(v)[indices]) for name, v in fields.items()}
        return _Cells(tensors | {LOADINGS: self.loadings[torch.from_numpy(indices)]})
