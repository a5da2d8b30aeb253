"""The search for hyperparameters inside the training subjects."""

from __future__ import annotations
