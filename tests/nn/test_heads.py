from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from agevi.nn.heads import TargetScale, masked_age_loss

AGES = np.array([-0.4, 21.0, 40.0, 66.0, 91.0, np.nan])


@pytest.mark.parametrize(
    ("transform", "reference"),
    [
        pytest.param("none", lambda a: a, id="none"),
        pytest.param("log", lambda a: np.log(a + 1 + 1), id="log"),
        pytest.param("horvath", lambda a: horvath(a), id="horvath"),
    ],
)
def test_scale_standardises_and_inverts(transform, reference):
    scale = TargetScale(transform, min_age=-1.0)
    scale.fit(torch.from_numpy(AGES))
    t = reference(AGES)
    z = scale.to_scale(torch.from_numpy(AGES))
    np.testing.assert_allclose(z, (t - np.nanmean(t)) / np.nanstd(t), atol=1e-6)
    np.testing.assert_allclose(scale.to_target(z), AGES, atol=1e-4)


def horvath(age, year=1.0):
    """Horvath (2013), written out with its two branches."""
    a = np.asarray(age, dtype=np.float64) / year
    return np.array([np.log((v + 1) / 21) if v <= 20 else (v - 20) / 21 for v in a])


@pytest.mark.parametrize("year", [pytest.param(1.0, id="years"), pytest.param(12.0, id="months")])
def test_the_scale_of_horvath(year):
    scale = TargetScale("horvath", min_age=-year, year=year)  # not fitted, so that the scale is the transform itself
    ages = np.array([-0.99, -0.4, 0.0, 5.0, 19.999, 20.0, 20.001, 60.0, 120.0]) * year
    z = scale.to_scale(torch.from_numpy(ages))
    np.testing.assert_allclose(z, horvath(ages, year), rtol=1e-5, atol=1e-6)
    back = scale._inverse_transform(torch.from_numpy(horvath(ages, year)))
    np.testing.assert_allclose(back, ages, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scale.to_target(z), ages, atol=1e-4 * year)


def test_the_scale_of_horvath_has_gradients_everywhere():
    z = torch.tensor([-800.0, -1.0, 0.0, 1.0, 800.0], dtype=torch.float64, requires_grad=True)
    TargetScale("horvath", bounded=False).to_target(z).sum().backward()
    np.testing.assert_allclose(z.grad, 21 * np.exp(np.minimum(z.detach().numpy(), 0)), rtol=1e-6)


def test_without_bounds_ages_are_what_the_formula_gives():
    np.testing.assert_allclose(TargetScale(bounded=False).to_target(torch.tensor([-70.0, 1e6])), [-70.0, 1e6])


@pytest.mark.parametrize("transform", ["none", "log", "horvath"])
def test_ages_stay_within_reach_of_the_training_ages(transform):
    scale = TargetScale(transform, min_age=-1.0)
    scale.fit(torch.tensor([20.0, 40.0, torch.nan, 90.0]))
    far = scale.to_target(torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4]))
    np.testing.assert_allclose(far[[0, 1, 3, 4]], [-1, -1, 160, 160])  # min_age, and 90 years plus a span of 70
    reach = torch.tensor([-0.9, 0.0, 20.0, 90.0, 159.0])
    np.testing.assert_allclose(scale.to_target(scale.to_scale(reach)), reach, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        pytest.param("huber", F.huber_loss, id="huber"),
        pytest.param("mse", F.mse_loss, id="mse"),
        pytest.param("mae", F.l1_loss, id="mae"),
    ],
)
def test_masked_loss_is_the_mean_over_labelled_rows(kind, reference):
    predicted = torch.tensor([0.0, 3.0, -1.0], requires_grad=True)
    target = torch.tensor([0.5, 0.0, float("nan")])
    loss = masked_age_loss(predicted, target, kind=kind)
    assert torch.allclose(loss, reference(predicted[:2], target[:2]))
    loss.backward()
    assert predicted.grad[2] == 0
    assert torch.isfinite(predicted.grad).all()


def test_masked_loss_weights_rows():
    predicted, target = torch.zeros(3), torch.tensor([1.0, 2.0, float("nan")])
    loss = masked_age_loss(predicted, target, torch.tensor([2.0, 0.5, 9.0]), kind="mse")
    assert loss == pytest.approx((2 * 1 + 0.5 * 4) / 2)


def test_masked_loss_without_labels_is_zero_with_zero_gradient():
    predicted = torch.ones(2, requires_grad=True)
    loss = masked_age_loss(predicted, torch.full((2,), float("nan")))
    loss.backward()
    assert loss == 0
    assert (predicted.grad == 0).all()
