"""From clocks to classifiers of cases and controls."""

from __future__ import annotations

from agevi.model.transfer._model import CaseControlClassifier

__all__ = ["CaseControlClassifier"]
