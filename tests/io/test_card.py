from __future__ import annotations

import pytest

from agevi.io._card import clock_card


def meta(**changes) -> dict:
    out = {
        "class": "PoissonVAE", "init": {"train_unit": "cell"}, "genes": ["A", "B"], "best_epoch": 2,
        "setup": {"normalize": "log1p_cp10k", "layer": None},
        "split": {f"d{i}": "train" for i in range(20)} | {f"v{i}": "validation" for i in range(6)},
        "age": {"unit": "years", "min": 20.0, "max": 80.0, "n_subjects": 20, "n_samples": 20, "n_cells": 400},
        "history": {"age_mae_validation": [9.0, 8.0, 8.5]},
        "versions": {"agevi": "1", "scvi-tools": "2", "torch": "3"},
    }  # fmt: skip
    return out | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "error 8.00 years over 6 validation subjects, which chose the epoch (2), so", id="cells"),
        pytest.param(
            {"init": {"train_unit": "pseudocell"}}, "error 8.00 years over 6 validation subjects, which did not shape",
            id="pseudocells",
        ),
        pytest.param(
            {"split": {"d": "train", "v": "validation"}}, "1 validation subjects chose the epoch (2), too few", id="few"
        ),
        pytest.param({"history": {}}, "no validation subjects were held out", id="nobody"),
        pytest.param({"setup": {"normalize": "none", "layer": "x"}}, "(values as they are)", id="values"),
        pytest.param({"setup": {"normalize": "none", "layer": "x"}}, "adata.layers['x']", id="layer"),
    ],
)  # fmt: skip
def test_what_a_card_says(changes, words):
    assert words in clock_card(meta(**changes))
