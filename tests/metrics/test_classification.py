"""Metrics of two classes against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from agevi import metrics
from agevi.metrics import _bootstrap

REFERENCES = {
    "auroc": reference.roc_auc_score,
    "auprc": reference.average_precision_score,
    "f1": lambda y, p: reference.f1_score(y, p >= 0.5, zero_division=0),
    "mcc": lambda y, p: reference.matthews_corrcoef(y, p >= 0.5),
    "balanced_accuracy": lambda y, p: reference.balanced_accuracy_score(y, p >= 0.5),
    "brier": reference.brier_score_loss,
}


def drawn(n, decimals, rng):
    rng = np.random.default_rng(rng)
    case = rng.random(n) < 0.4
    case[:2] = [True, False]
    return case.astype(int), np.clip(0.3 * case + 0.7 * rng.random(n), 0, 1).round(decimals)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("decimals", [pytest.param(12, id="no ties"), pytest.param(1, id="ties"), pytest.param(0, id="two values")])  # fmt: skip
def test_equals_scikit_learn(name, decimals):
    for n in (4, 31, 400):
        case, probability = drawn(n, decimals, n)
        assert getattr(metrics, name)(case, probability) == pytest.approx(
            REFERENCES[name](case, probability), abs=1e-12
        )


@pytest.mark.parametrize("name", REFERENCES)
def test_all_called_alike_equals_scikit_learn(name):
    case = np.array([0, 1, 1, 0, 1])
    for value in (0.0, 0.5, 1.0):
        probability = np.full(5, value)
        assert getattr(metrics, name)(case, probability) == pytest.approx(REFERENCES[name](case, probability))


@pytest.mark.parametrize("name", REFERENCES)
def test_kernels_work_along_the_last_axis(name):
    rows = [drawn(20, 1, i) for i in range(6)]
    case, probability = (np.stack(part).astype(float).reshape(2, 3, 20) for part in zip(*rows, strict=True))
    found = getattr(metrics, name).kernel(case, probability)
    expected = np.reshape([getattr(metrics, name)(*row) for row in rows], (2, 3))
    np.testing.assert_allclose(found, expected)


def test_one_class_is_no_number_in_a_draw():
    for name in set(REFERENCES) - {"brier"}:
        assert np.isnan(getattr(metrics, name).kernel(np.zeros((2, 3)), np.full((2, 3), 0.4))).all()


def test_all_at_once_with_intervals():
    case, probability = drawn(60, 3, 0)
    found = metrics.classification_metrics(case, probability, n_boot=300)
    assert (found["n"], found["n_cases"]) == (60, case.sum())
    for name, of in REFERENCES.items():
        assert found[name] == pytest.approx(of(case, probability))
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert set(metrics.classification_metrics(case, probability, n_boot=0)) == {"n", "n_cases", *REFERENCES}


@pytest.mark.slow  # 100 bootstraps
def test_the_interval_covers_the_truth():
    """Over 100 cohorts, of cases and controls with a true AUROC of 0.76 (two normals 1 sd apart)."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        case = np.repeat([0, 1], 40)
        score = rng.normal(case, 1)
        found = metrics.classification_metrics(case, 1 / (1 + np.exp(-score)), n_boot=200, rng=rng)
        inside += found["auroc_low"] < 0.7602 < found["auroc_high"]
    assert 89 <= inside <= 99


def test_subjects_are_drawn_whole():
    case, probability = drawn(30, 3, 1)
    twice = np.repeat(np.arange(30), 4)
    whole = metrics.classification_metrics(case[twice], probability[twice], groups=twice, n_boot=400)
    rows = metrics.classification_metrics(case[twice], probability[twice], n_boot=400)
    single = metrics.classification_metrics(case, probability, n_boot=400)
    width = {k: f["auroc_high"] - f["auroc_low"] for k, f in (("whole", whole), ("rows", rows), ("single", single))}
    assert width["whole"] == pytest.approx(width["single"], rel=0.15)
    assert width["rows"] < 0.7 * width["whole"]


@pytest.mark.parametrize(
    ("case", "probability", "words"),
    [
        pytest.param([0, 1], [0.5], "case has shape (2,) and probability has (1,);", id="lengths"),
        pytest.param([0, 2], [0.5, 0.5], "case holds 2 (row 1); pass 1 for cases and 0 for controls.", id="codes"),
        pytest.param([1, 1], [0.5, 0.5], "case holds cases only; a metric needs at least one case and one control.", id="one class"),
        pytest.param([], [], "case holds no rows; a metric needs at least one case and one control.", id="nobody"),
        pytest.param([0, 1], [0.5, 1.5], "probability is 1.5 in row 1; pass numbers between 0 and 1", id="no probability"),
        pytest.param([0, 1], [np.nan, 0.5], "probability is nan in row 0; pass numbers between 0 and 1", id="missing"),
    ],
)  # fmt: skip
def test_bad_input(case, probability, words):
    for name in REFERENCES:
        with pytest.raises(ValueError) as raised:
            getattr(metrics, name)(case, probability)
        assert words in str(raised.value)


def test_bad_draws():
    for arguments, words in (
        ({"n_boot": -1}, "n_boot=-1 is not a number of draws"),
        ({"level": 95}, "level=95 is not a coverage"),
        ({"groups": ["a"]}, "groups has shape (1,) and case has (2,); pass one subject per row."),
    ):
        with pytest.raises(ValueError) as raised:
            metrics.classification_metrics([0, 1], [0.1, 0.9], **arguments)
        assert words in str(raised.value)


def test_draws_of_subjects_are_uniform():
    rows = np.concatenate(list(_bootstrap.subject_draws(3, ["a", "b", "b"], 4000, 0)))
    share = np.bincount(rows) / 4000
    np.testing.assert_allclose(share, 1, atol=0.06)


def test_draws_of_one_class_are_left_out(monkeypatch):
    """Whatever their metrics would be."""
    case, probability = np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9])
    mixed = [np.array([0, 1, 2]), np.array([0, 0, 1])]
    draws = [np.array([1, 2, 2]), np.array([0, 0, 0]), *mixed]
    monkeypatch.setattr(_bootstrap, "subject_draws", lambda *_: iter(draws))
    found = metrics.classification_metrics(case, probability, n_boot=4, level=0.9999)
    for name in ("auprc", "f1", "brier"):
        values = [getattr(metrics, name)(case[rows], probability[rows]) for rows in mixed]
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx((min(values), max(values)), abs=1e-3)
