"""The script that measures training on a GPU, on the CPU with tiny sizes: that it works to its end."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

_FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(_FOLDER)
    module = importlib.import_module("gpu")
    monkeypatch.setattr(module, "silence", lambda: None)  # would hold for all tests
    monkeypatch.setattr(module, "TINY", dataclasses.replace(module.TINY, batches=(64,)))
    yield module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or ".").parent == _FOLDER:
            del sys.modules[name]


def test_all_parts_run_without_a_gpu(script, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    script.main(["--rounds", "1"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert "no GPU" in first
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row.get("part", "end") for row in rows] == ["step", *["waits"] * 3, "speed", "study", "end"]
    assert rows[0]["largest_difference"] == 0  # one device, the same step
    assert rows[0]["passed"]


def test_a_wrong_step_does_not_pass(script, monkeypatch):
    right = {"logits.weight": torch.tensor([1.0, 0.0]), "logits.bias": torch.tensor([1e-9])}
    for factor, passed in ((1 + 1e-5, True), (1 + 1e-3, False)):
        of = {"cpu": right, "gpu": {name: values * factor for name, values in right.items()}}
        monkeypatch.setattr(script, "first_step", lambda adata, accelerator, of=of: of[accelerator])
        assert script.step(None, "gpu")["passed"] == passed
