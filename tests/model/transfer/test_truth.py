"""Planted disease genes, half of them genes of age: which half each classifier finds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import agevi
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}


@pytest.mark.slow
def test_a_frozen_clock_finds_what_it_knows_and_a_trained_one_finds_both():
    adata = agevi.datasets.simulate_cohort(
        n_subjects=300, n_cells=15, n_genes=200, n_age_genes=40, n_cell_types=1, case_fraction=0.35, rng=0
    )
    rng, table = np.random.default_rng(0), adata.var
    aged = (table["kind"] != "none").to_numpy()
    bright = (table["baseline_mean"] > table["baseline_mean"].median()).to_numpy()
    shared, own = (rng.choice(np.flatnonzero(m), 15, replace=False) for m in (aged, ~aged & bright))
    case, x = (adata.obs["condition"] == "case").to_numpy(), adata.X.toarray().astype(int)
    for gene in (*shared, *own):  # a third of the counts is lost in cases, or in controls
        sign = np.sign(table["effect"].iloc[gene]) or rng.choice([-1, 1])
        rows = ~case if sign > 0 else case
        x[rows, gene] = rng.binomial(x[rows, gene], 0.67)
    adata.X = x.astype(np.float32)
    healthy = adata[~case & (adata.obs["donor"].astype(str) < "d180").to_numpy()].copy()
    cohort = adata[case | (adata.obs["donor"].astype(str) >= "d180").to_numpy()].copy()
    agevi.model.MLPClock.setup_anndata(healthy, **SETUP)
    clock = agevi.model.MLPClock(healthy)
    clock.train(**QUIET)

    def precision(freeze):
        model = agevi.model.CaseControlClassifier.from_clock(
            clock, cohort, condition_key="condition", control="control", freeze=freeze
        )
        model.train(train_roles=("train", "validation", "test"))
        agevi.tl.attribute_genes(cohort, model, n_boot=10, n_samples=80)
        values = cohort.varm["agevi_attribution"][:, 0]
        out = []
        for wanted, other in ((shared, own), (own, shared)):
            used = ~np.isin(np.arange(200), other)
            out.append(average_precision_score(np.isin(np.arange(200), wanted)[used], values[used]))
        return out

    of_shared, of_own = precision("all_but_last")
    assert of_shared > 0.25 > 2 * 15 / 185
    assert of_shared > 1.5 * of_own
    assert min(precision("none")) > 0.8
