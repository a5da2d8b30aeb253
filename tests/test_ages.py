"""Scales of ages for arrays, against those of the heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agevi._ages import AgeTransform
from agevi.nn.heads import TargetScale

AGES = np.array([-0.7, 0.0, 3.5, 19.99, 20.0, 45.0, 91.0])


@pytest.mark.parametrize("name", ["none", "log", "horvath"])
@pytest.mark.parametrize("year", [1.0, 12.0])
def test_the_scale_is_that_of_the_clock(name, year):
    scale, head = AgeTransform(name, -1.0 * year, year), TargetScale(name, -1.0 * year, year=year, bounded=False)
    ages = AGES * year
    np.testing.assert_allclose(scale.forward(ages), head.to_scale(torch.from_numpy(ages)).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale.back(scale.forward(ages)), ages, atol=1e-9)


@pytest.mark.parametrize("name", ["none", "log", "horvath"])
def test_ages_that_are_not_believed_stay_finite(name):
    scale = AgeTransform(name)
    assert np.isfinite(scale.forward(np.array([-50.0, -1.0]))).all()
    assert scale.back(np.array([-60.0])) >= -1


def test_a_record_without_a_scale_is_in_years():
    assert AgeTransform.of({}) == AgeTransform("none", -1.0, 1.0)
    assert AgeTransform.of({"age_transform": "horvath", "min_age": -3, "age_unit": "months"}) == AgeTransform(
        "horvath", -3.0, 12.0
    )
