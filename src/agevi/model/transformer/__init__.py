"""Transformer clock for samples of several tissues and modalities."""

from __future__ import annotations

from agevi.model.transformer._model import TransformerClock

__all__ = ["TransformerClock"]
