"""Attributions against a cohort whose age genes are known, beside what needs no clock."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

import agevi
from agevi.model import MLPClock, PLSClock, PoissonVAE
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}


@pytest.fixture(scope="module")
def truth():
    """A cohort, its planted genes, the large ones among them, and the precision of two rankings without a clock."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=150, n_cells=30, n_genes=600, n_age_genes=40, effect_range=(0.03, 0.15), batch_age_correlation=0.5,
        case_fraction=0.0, n_cell_types=1, rng=0,
    )  # fmt: skip
    agevi.pp.split_subjects(adata, **SETUP, rng=0)
    effect, planted = adata.var["effect"].to_numpy(), (adata.var["kind"] != "none").to_numpy()
    large = planted & (np.abs(effect) > np.median(np.abs(effect[planted])))
    train = adata[adata.obs["agevi_split"] == "train"]
    sums = sc.get.aggregate(train, by="donor", func="sum").to_df("sum")
    values = np.log1p(sums.div(sums.sum(axis=1), axis=0) * 1e4).to_numpy()
    age = train.obs.groupby("donor", observed=True)["age"].first()[sums.index].to_numpy()
    rho = np.nan_to_num([abs(spearmanr(column, age)[0]) for column in values.T])
    ridge = np.abs(RidgeCV(np.logspace(0, 5, 15)).fit(StandardScaler().fit_transform(values), age).coef_)
    return adata, planted, large, average_precision_score(planted, rho), average_precision_score(planted, ridge)


def attribution(adata, cls, **init):
    """Mean absolute and signed attributions of a clock with its defaults."""
    adata = adata.copy()
    cls.setup_anndata(adata, **SETUP)
    model = cls(adata, **init)
    model.train(**QUIET)
    agevi.tl.attribute_genes(adata, model, n_boot=1)
    return adata.varm["agevi_attribution"][:, 0], adata.varm["agevi_attribution_signed"][:, 0]


@pytest.mark.slow
def test_a_linear_clock_ranks_like_ridge_coefficients(truth):
    adata, planted, large, _, ridge = truth
    absolute, signed = attribution(adata, PLSClock, weights="zscore")
    assert average_precision_score(planted, absolute) > ridge - 0.05
    assert (np.sign(signed) == np.sign(adata.var["effect"]))[large].mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("cls", [MLPClock, PoissonVAE], ids=lambda cls: cls.__name__)
def test_a_network_ranks_age_genes_and_knows_their_signs(truth, cls):
    adata, planted, large, spearman, _ = truth
    absolute, signed = attribution(adata, cls)
    assert average_precision_score(planted, absolute) > 0.65 * spearman
    assert (np.sign(signed) == np.sign(adata.var["effect"]))[large].mean() >= 0.95


@pytest.mark.slow
def test_shuffled_ages_leave_chance(truth):
    adata, planted, *_ = truth
    adata = adata.copy()
    ages = adata.obs.groupby("donor", observed=True)["age"].first()
    shuffled = pd.Series(np.random.default_rng(0).permutation(ages), index=ages.index)
    adata.obs["age"] = adata.obs["donor"].map(shuffled).astype(float)
    absolute, _ = attribution(adata, PLSClock, weights="zscore")
    assert average_precision_score(planted, absolute) < 0.2
