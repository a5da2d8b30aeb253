"""Samples whose cells differ in the covariates that a clock reads."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import agevi
from agevi.dataloaders._sums import most_common
from agevi.model import DenoisingVAE, GaussianVAE, PoissonVAE
from tests.conftest import QUIET

KEYS = {"age_key": "age", "subject_key": "donor"}
READ = {"batch_key": "run", "categorical_covariate_keys": ["lane"], "continuous_covariate_keys": ["depth"]}


@pytest.fixture
def varying(cohort):
    rng = np.random.default_rng(0)
    cohort.obs["run"] = rng.choice(["a", "b", "c"], cohort.n_obs, p=[0.5, 0.3, 0.2])
    cohort.obs["lane"] = rng.choice([1, 2], cohort.n_obs)
    cohort.obs["depth"] = rng.normal(size=cohort.n_obs)
    return cohort


def train(cls, adata):
    cls.setup_anndata(adata, **KEYS, **READ)
    model = cls(adata, n_hidden=[16], n_latent=4, encode_covariates=True)
    model.train(max_epochs=2, **QUIET)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("cls", [PoissonVAE, GaussianVAE, DenoisingVAE], ids=lambda c: c.__name__)
def test_the_order_of_rows_does_not_matter(cls, varying, tmp_path):
    model, order = train(cls, varying), np.random.default_rng(1).permutation(varying.n_obs)
    ages = model.predict_age(varying, level="sample")
    shuffled = varying[order].copy()
    np.testing.assert_allclose(model.predict_age(shuffled, level="sample"), ages[order], rtol=1e-5)
    varying.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_allclose(model.predict_age(backed, level="sample"), ages, rtol=1e-5)
    backed.file.close()
    for adata in (varying, shuffled):
        agevi.tl.attribute_genes(adata, model)
    one, two = (agevi.get.attribution_df(a).set_index("gene")["attribution"] for a in (varying, shuffled))
    np.testing.assert_allclose(two[one.index], one, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_sample_has_its_most_common_category_and_its_mean(varying):
    """By the age of a sample in whose cells every covariate is that already."""
    model = train(PoissonVAE, varying)
    ages = model.predict_age(varying, level="sample")
    obs = varying.obs
    for key in ("run", "lane"):
        obs[key] = obs.groupby("donor", observed=True)[key].transform(lambda v: v.value_counts().sort_index().idxmax())
    obs["depth"] = obs.groupby("donor", observed=True)["depth"].transform("mean")
    np.testing.assert_allclose(model.predict_age(varying, level="sample"), ages, rtol=1e-5)
    obs["run"] = "c"
    assert np.abs(model.predict_age(varying, level="sample") - ages).max() > 1e-4


def test_missing_values_are_refused(varying):
    model = train(PoissonVAE, varying)
    varying.obs.loc[varying.obs_names[7], "depth"] = np.nan
    with pytest.raises(ValueError, match=r"adata.obs\['depth'\] is missing"):
        model.predict_age(varying, level="sample")


def test_most_common():
    values, codes = np.array([2, 0, 0, 1, 1, 3, 3, 3]), np.array([0, 0, 0, 1, 1, 1, 1, 2])
    assert most_common(values, codes, 3).tolist() == [0, 1, 3]
    assert most_common(values[::-1], codes[::-1], 3).tolist() == [0, 1, 3]
