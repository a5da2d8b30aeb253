"""The study of the neuron-clock paper, design by design."""

from __future__ import annotations
