"""The figure of a transfer shows the numbers of its table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi

ROWS = ["frozen transfer", "fine-tuned", "from scratch", "logistic regression", "age + sex"]


@pytest.fixture
def compared(cohort):
    """A table as tl.compare_transfer writes it."""
    names = ["auroc", "auprc", "f1", "mcc", "balanced_accuracy", "brier"]
    rng = np.random.default_rng(0)
    values = {name: rng.uniform(0.3, 0.7, 5) for name in names}
    table = pd.DataFrame({"n_subjects": 40, "n_cases": 10} | values, index=ROWS)
    for name in names:
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.1, table[name] + 0.2
    table["difference_low"], table["difference_high"] = [0.1, -0.1, 0, -0.3, -0.1], [0.2, 0.2, 0, -0.1, 0.1]
    cohort.uns["agevi_transfer"] = table
    cohort.uns["agevi_transfer_params"] = {"control": "well", "case": "ill", "reference": "from scratch"}
    return cohort


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "label", "guess"),
    [
        pytest.param("auroc", "AUROC", 0.5, id="auroc"),
        pytest.param("auprc", "Average precision", 0.25, id="auprc"),
        pytest.param("f1", "F1", 1 / 3, id="f1"),  # a coin has precision 1/4 and recall 1/2
        pytest.param("balanced_accuracy", "Balanced accuracy", 0.5, id="balanced_accuracy"),
        pytest.param("mcc", "Matthews' correlation", 0.0, id="mcc"),
        pytest.param("brier", "Brier score (0 is best)", 0.25, id="brier"),
    ],
)
def test_transfer(compared, metric, label, guess):
    axes = agevi.pl.transfer(compared, metric=metric)
    table = compared.uns["agevi_transfer"]
    assert axes.get_xlabel() == label
    assert [t.get_text() for t in axes.get_yticklabels()] == ROWS
    assert axes.get_title() == "10 ill, 30 well"
    drawn = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        for x, y, segment in zip(*line.get_data(), bars.get_segments(), strict=True):
            drawn[ROWS[int(y)]] = (x, *segment[:, 0], line.get_markerfacecolor() != "white", line.get_marker())
    for name, row in table.iterrows():
        x, low, high, filled, marker = drawn[name]
        assert (x, low, high) == pytest.approx(tuple(row[[metric, f"{metric}_low", f"{metric}_high"]]))
        assert filled == (name in ("frozen transfer", "logistic regression"))
        assert marker == ("D" if name == "from scratch" else "o")
    assert any(np.allclose(line.get_xdata(), guess) for line in axes.lines if line.get_linestyle() == "--")
    plt.close(axes.figure)


def test_it_takes_axes_and_refuses_unknown_metrics(compared):
    figure, axes = plt.subplots()
    assert agevi.pl.transfer(compared, ax=axes) is axes
    plt.close(figure)
    with pytest.raises(ValueError, match="metric='auc' is not known; choose one of 'auroc'"):
        agevi.pl.transfer(compared, metric="auc")
