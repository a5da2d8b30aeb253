from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from agevi.model import MLPClock, NMFClock, PoissonVAE
from agevi.model.base._density import density_weights

SETUP = {"subject_key": "donor", "age_key": "age"}


def reference(age, known):
    """The rule, with scipy's estimate of the density."""
    weight = 1 / gaussian_kde(known)(age)
    mean = (1 / gaussian_kde(known)(known)).mean()
    bounded = np.clip(weight / mean, 0.2, 5.0)
    return bounded / np.clip(1 / gaussian_kde(known)(known) / mean, 0.2, 5.0).mean()


@pytest.mark.parametrize(
    "age",
    [
        pytest.param(np.random.default_rng(0).uniform(20, 90, 200), id="even"),
        pytest.param(np.random.default_rng(1).gamma(3, 10, 300).round(), id="skewed, with ties"),
        pytest.param(np.array([30.0, 31.0]), id="two"),
        pytest.param(np.r_[np.full(99, 40.0), 90.0], id="one far off"),
    ],
)
def test_equals_scipy(age):
    trains = np.ones(len(age), dtype=bool)
    weight = density_weights(age, trains)
    np.testing.assert_allclose(weight, reference(age, age))
    assert weight.mean() == pytest.approx(1)
    assert weight.max() / weight.min() <= 25 + 1e-9


def test_only_training_ages_make_the_density():
    rng = np.random.default_rng(0)
    age, trains = rng.normal(50, 12, 100), rng.random(100) < 0.6
    age[3], trains[3] = np.nan, False
    weight = density_weights(age, trains)
    expected = np.where(np.isnan(age), 1, reference(np.nan_to_num(age, nan=50), age[trains]))
    np.testing.assert_allclose(weight, expected)
    moved = np.where(trains, age, age + 30)
    np.testing.assert_array_equal(density_weights(moved, trains)[trains], weight[trains])


def test_an_age_far_from_all_has_the_largest_weight():
    age, trains = np.array([20.0, 22.0, 25.0, 1e4]), np.array([True, True, True, False])
    weight = density_weights(age, trains)
    assert np.isfinite(weight).all()
    assert weight[3] == pytest.approx(5)


@pytest.mark.parametrize("cls", [PoissonVAE, MLPClock, NMFClock])
@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_weights_of_a_clock(cohort, cls, unit):
    adata = cohort[np.random.default_rng(0).random(cohort.n_obs) < 0.6].copy()
    donor = adata.obs["donor"].astype(str).to_numpy()
    train = (adata.obs["agevi_split"] == "train").to_numpy()
    unlabelled = donor == donor[train][0]
    adata.obs.loc[unlabelled, "age"] = np.nan
    visits = np.where(np.isin(donor, np.unique(donor)[:9]), np.random.default_rng(1).integers(0, 3, len(donor)), 0)
    adata.obs["visit"] = donor + "-" + visits.astype(str)
    adata.obs.loc[visits == 2, "age"] += 4
    cls.setup_anndata(adata, **SETUP, sample_key="visit")
    model = cls(adata, train_unit=unit, subject_weight="density", **({"n_components": 3} if cls is NMFClock else {}))
    weights = model._subject_weights(train).numpy()
    assert np.isfinite(weights).all()

    table = adata.obs[train & ~unlabelled].groupby(donor[train & ~unlabelled])
    rows = table["visit"].nunique() if unit == "pseudocell" else table.size()
    names = list(model.adata_manager.get_state_registry("agevi_subject")["names"])
    total = rows * [weights[names.index(d)] for d in rows.index]
    age = adata.obs.drop_duplicates("visit").groupby("donor", observed=True)["age"].mean()[rows.index].to_numpy()
    expected = reference(age, age)
    np.testing.assert_allclose(total / total.sum(), expected / expected.sum(), rtol=1e-5)
    assert total.sum() / rows.sum() == pytest.approx(1, rel=1e-5)
