"""What all clocks share: registration, training, prediction, saving."""

from __future__ import annotations
