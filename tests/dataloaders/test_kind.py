from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp

import agevi
from agevi.dataloaders._kind import ValueKind

KEYS = {"age_key": "age", "subject_key": "donor", "normalize": "none"}
RNG = np.random.default_rng(0)
COUNTS = RNG.negative_binomial(0.5, 0.02, (40, 120)).astype(np.float32)
LOGS = np.log1p(1e4 * COUNTS / COUNTS.sum(axis=1, keepdims=True))
BETAS = RNG.beta(2, 2, (40, 30))
M_VALUES = np.log2(BETAS / (1 - BETAS))
PERCENT = 100 * RNG.dirichlet(np.ones(10), 40)
SCORES = RNG.normal(size=(40, 30))


@pytest.mark.parametrize(
    ("training", "new", "said"),
    [
        pytest.param(LOGS, COUNTS, "whole numbers up to", id="counts for logarithms"),
        pytest.param(LOGS, sp.csr_matrix(COUNTS), "whole numbers up to", id="sparse counts"),
        pytest.param(LOGS, COUNTS[:5, :60].clip(0, 3), "whole numbers up to 3", id="few small counts"),
        pytest.param(LOGS, np.expm1(LOGS), "holds values from 0 to", id="no logarithm taken"),
        pytest.param(LOGS, np.expm1(LOGS[:1]), "holds values from 0 to", id="one sample without logarithm"),
        pytest.param(LOGS, np.log1p(100 * np.expm1(LOGS)), "another scale", id="counts per million"),
        pytest.param(LOGS, LOGS - LOGS.mean(axis=0), "below 0 as above", id="centred logarithms"),
        pytest.param(LOGS - LOGS.mean(axis=0), LOGS, "none of them below 0", id="logarithms for centred ones"),
        pytest.param(SCORES, COUNTS[:, :30], "whole numbers up to", id="counts for z-scores"),
        pytest.param(COUNTS, LOGS, "fractions up to", id="logarithms for a clock of counts as they are"),
        pytest.param(BETAS, M_VALUES, "below 0 as above", id="M values for betas"),
        pytest.param(BETAS, 100 * BETAS, "holds values from", id="per cent for betas"),
        pytest.param(PERCENT, PERCENT / 100, "holds values from", id="shares for per cent"),
    ],
)
def test_values_of_another_kind_are_told(training, new, said):
    assert said in ValueKind.of(training).differs(new)


@pytest.mark.parametrize(
    ("training", "new"),
    [
        pytest.param(LOGS, LOGS[:3] * 1.3, id="somewhat larger logarithms"),
        pytest.param(LOGS, np.where(RNG.random(LOGS.shape) < 1e-3, 40, LOGS), id="outliers"),
        pytest.param(LOGS, np.zeros_like(LOGS), id="zeros"),
        pytest.param(LOGS, np.maximum(LOGS, 0) - 0.1, id="logarithms after a batch correction"),
        pytest.param(LOGS, COUNTS[:1, :90], id="too few values to tell"),
        pytest.param(PERCENT, np.rint(PERCENT), id="rounded percentages"),
        pytest.param(COUNTS, COUNTS * 50, id="deeper counts"),
        pytest.param(COUNTS, COUNTS + RNG.random(COUNTS.shape), id="means of counts"),
        pytest.param(BETAS, (BETAS > 0.5).astype(float), id="calls of single molecules"),
        pytest.param(SCORES, 3 * SCORES - 1, id="a shifted representation"),
        pytest.param(SCORES, np.sign(SCORES), id="signs"),
    ],
)
def test_values_that_may_be_of_the_kind_are_taken(training, new):
    assert ValueKind.of(training).differs(new) == ""


def test_too_few_training_values_tell_nothing():
    assert ValueKind.of(LOGS[:2, :40] * 0 + 1) is None


@pytest.fixture(scope="module")
def counts():
    return agevi.datasets.simulate_cohort(n_subjects=30, n_cells=12, n_genes=120, rng=3)


@pytest.fixture(scope="module")
def logs(counts):
    adata = counts.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


@pytest.fixture(scope="module")
def clock(logs):
    agevi.model.PLSClock.setup_anndata(logs, **KEYS)
    model = agevi.model.PLSClock(logs)
    model.train()
    return model


def test_raw_counts_are_refused_with_the_normalisation_of_training(clock, counts, tmp_path):
    clock.save(tmp_path / "clock")
    for model in (clock, agevi.io.load_clock(tmp_path / "clock")):
        with pytest.raises(
            ValueError, match=r"^adata\.X holds whole numbers up to .* as raw counts are; this PLSClock"
        ) as e:
            model.predict_age(counts)
        assert "logarithms of counts per 10,000" in str(e.value) and "target_sum=10000), then sc.pp.log1p" in str(
            e.value
        )
    with pytest.raises(ValueError, match="whole numbers"):
        agevi.tl.predict_age(counts, clock)
    assert "agevi_predicted" not in counts.obs


def test_a_layer_that_holds_such_values_is_named(clock, counts, logs):
    adata = counts.copy()
    adata.layers["lognorm"] = logs.X
    with pytest.raises(ValueError, match=r"adata\.layers\['lognorm'\] may hold them: adata\.X = adata\.layers"):
        clock.predict_age(adata)


def test_values_of_training_are_read_whatever_rows_are_taken(clock, logs):
    all_ages = clock.predict_age(logs)
    np.testing.assert_allclose(clock.predict_age(logs[:1].copy()), all_ages[:1], rtol=1e-5)


def test_a_clock_of_a_contrast_names_types_and_scale(counts):
    which = {"target": "type0", "reference": "type1", "subject_key": "donor", "min_counts": 1}
    contrast = agevi.pp.contrast_types(counts, "cell_type", **which)
    agevi.model.PLSClock.setup_anndata(contrast, **KEYS)
    model = agevi.model.PLSClock(contrast)
    model.train()
    with pytest.raises(ValueError, match="reads contrasts of 'type0' against 'type1'") as e:
        model.predict_age(counts)
    assert "agevi.pp.contrast_types(adata, ..., target=['type0'], reference=['type1']" in str(e.value)
    other = agevi.pp.contrast_types(counts, "cell_type", **which, scale=1e4)
    with pytest.raises(ValueError, match="contrast with scale=10000, and that of training had 1e"):
        model.predict_age(other)
    assert len(model.predict_age(contrast)) == contrast.n_obs


def test_tables_of_obsm_are_told_too(counts):
    adata = counts[:, :0].copy()
    adata.obsm["X_some"] = np.random.default_rng(1).normal(size=(adata.n_obs, 5)).astype(np.float32)
    keys = {"age_key": "age", "subject_key": "donor", "obsm_key": "X_some"}
    agevi.model.PLSClock.setup_anndata(adata, **keys)
    model = agevi.model.PLSClock(adata)
    model.train()
    adata.obsm["X_some"] = np.abs(adata.obsm["X_some"])
    with pytest.raises(ValueError, match=r"^adata\.obsm\['X_some'\] holds values from .* none of them below 0"):
        model.predict_age(adata)


def test_published_clocks_of_logarithms_refuse_counts_and_another_scale():
    rng = np.random.default_rng(2)
    genes = [f"G{i}" for i in range(150)]
    x = rng.poisson(rng.gamma(1, 50, 150), (8, 150)).astype(np.float32)
    logs = np.log1p(1e6 * x / x.sum(axis=1, keepdims=True))
    table = pd.DataFrame({"gene": genes, "coef": rng.normal(size=150), "mean": logs.mean(axis=0), "scale": 1.5})
    clock = agevi.model.LinearClock.from_coefficients(table, 40.0, values="log")
    data = {name: ad.AnnData(v, var=pd.DataFrame(index=genes)) for name, v in {"counts": x, "logs": logs}.items()}
    assert len(clock.predict_age(data["logs"])) == 8
    with pytest.raises(
        ValueError, match="this LinearClock reads logarithms of normalised counts. Normalise raw counts as"
    ):
        clock.predict_age(data["counts"])
    data["logs"].X = np.log1p(np.expm1(logs) / 100)
    with pytest.raises(ValueError, match="logarithms of counts on another scale"):
        clock.predict_age(data["logs"])


@pytest.mark.parametrize(
    ("key", "value"), [("low", 99.0), ("whole", 1), ("negative", 2.0), ("total", -1.0), ("contrast", {"target": 3})]
)
def test_a_bundle_cannot_hold_a_kind_that_is_none(key, value):
    plain = ValueKind.of(LOGS).as_plain()
    assert ValueKind.of_bundle(plain) == ValueKind.of(LOGS)
    with pytest.raises(ValueError, match="values"):
        ValueKind.of_bundle(plain | {key: value})
