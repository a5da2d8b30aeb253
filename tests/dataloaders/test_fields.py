from __future__ import annotations

import numpy as np

from agevi._compat.scvi import AnnDataManager
from agevi.dataloaders._fields import AGE, SAMPLE, SUBJECT, AgeField, UnitField


def manager_of(adata):
    fields = [AgeField("age", min_age=-1.0), UnitField(SUBJECT, "donor"), UnitField(SAMPLE, "donor")]
    manager = AnnDataManager(fields=fields, setup_method_args={})
    manager.register_fields(adata)
    return manager


def test_ages_and_units_are_registered_and_the_columns_left_alone(cohort):
    cohort.obs.loc[cohort.obs["donor"] == cohort.obs["donor"].iloc[0], "age"] = np.nan
    before = cohort.obs[["age", "donor"]].copy()
    manager = manager_of(cohort)
    np.testing.assert_array_equal(manager.get_from_registry(AGE).ravel(), before["age"])
    names, codes = np.unique(before["donor"].astype(str), return_inverse=True)
    np.testing.assert_array_equal(manager.get_from_registry(SUBJECT).ravel(), codes)
    np.testing.assert_array_equal(manager.get_state_registry(SUBJECT)["names"], names)
    assert manager.summary_stats[f"n_{SUBJECT}"] == len(names)
    assert cohort.obs[["age", "donor"]].equals(before)


def test_new_data_need_no_ages_and_may_have_any_subjects(cohort):
    manager = manager_of(cohort)
    new = cohort[:50].copy()
    del new.obs["age"]
    new.obs["donor"] = "never seen"
    transferred = manager.transfer_fields(new)
    assert np.isnan(transferred.get_from_registry(AGE)).all()
    assert (transferred.get_from_registry(SUBJECT) == 0).all()
    bare = cohort[:50].copy()
    del bare.obs["donor"]
    assert (manager.transfer_fields(bare).get_from_registry(SUBJECT) == 0).all()
