"""Multilayer perceptron clock."""

from __future__ import annotations

from agevi.model.mlp._model import MLPClock

__all__ = ["MLPClock"]
