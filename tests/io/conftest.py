"""A bundle that tests of reading tamper with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agevi.io import _bundle


@pytest.fixture
def clock(tmp_path) -> Path:
    meta = {"genes": ["CD3E", "LEF1"], "epochs": 12}
    _bundle.write_bundle(tmp_path / "clock", meta, {"w": torch.ones(2, 3), "flag": torch.tensor([True])}, "# A clock\n")
    return tmp_path / "clock"
