"""Fits for the ages of samples alone."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import agevi
from agevi.model.base._for_ages import for_ages_alone, is_for_ages_alone


def test_ages_of_samples_are_those_of_a_whole_fit(cohort):
    agevi.pp.split_subjects(cohort, subject_key="donor", age_key="age")
    agevi.model.PLSClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    ages, offsets, histories = [], [], []
    for inside in (contextlib.nullcontext, for_ages_alone):
        model = agevi.model.PLSClock(cohort)
        with inside():
            model.train()
        ages.append(model.predict_age(level="sample"))
        offsets.append(float(model.module.cell_offset))
        histories.append(set(model.history_))
    np.testing.assert_array_equal(*ages)
    assert offsets[0] != 0 == offsets[1]
    assert histories[0] - histories[1] == {"age_mae_train", "age_mae_validation"}


def test_fits_are_whole_again_after_an_error():
    with pytest.raises(KeyError), for_ages_alone():
        assert is_for_ages_alone()
        raise KeyError
    assert not is_for_ages_alone()
