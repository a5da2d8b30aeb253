"""One clock per type of cells, as one."""

from __future__ import annotations

from agevi.model.celltype._model import CellTypeClock

__all__ = ["CellTypeClock"]
