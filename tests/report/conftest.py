from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import agevi

KEYS = {"age_key": "age", "subject_key": "donor"}
HOSTILE = (
    "<script>alert(1)</script>",
    "=cmd()",
    '"><img src=x onerror=alert(1)>',
    "</style></title>",
    "a$b$c_{",
    "\x1b[31m",
)
"""Names that would do something if they were not text."""


def filled(adata) -> None:
    """Every slot that a report has a section for, by the calls that a user makes."""
    agevi.tl.cross_validate(
        adata, "PLSClock", **KEYS, train_on="condition == 'control'", groupby="cell_type", min_cells=3
    )
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata, level=0.8)
    agevi.tl.age_acceleration(adata, groupby="condition", reference="control", by="cell_type", n_permutations=50)
    agevi.tl.explain_age(adata, n_boot=50)
    agevi.model.PLSClock.setup_anndata(adata, **KEYS)
    clock = agevi.model.PLSClock(adata)
    clock.train()
    agevi.tl.attribute_genes(adata, clock, groupby="cell_type", n_boot=20)
    first = agevi.get.attribution_df(adata)["gene"]
    sets = {"first": first[:8].tolist(), HOSTILE[0]: first[4:14].tolist(), "last": first[-8:].tolist()}
    agevi.tl.enrich(adata, sets, n_top=15)


def simulated():
    """32 subjects in two conditions with three types of cells."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=32, n_cells=20, n_genes=40, n_cell_types=3, case_fraction=0.4, acceleration=8.0, rng=4
    )
    del adata.uns["truth"]
    return adata


@pytest.fixture(scope="session")
def study():
    """A cohort with everything; tests must not change it."""
    adata = simulated()
    filled(adata)
    adata.uns["agevi_study_audit"] = agevi.pp.audit_leakage(adata, **KEYS)
    adata.uns["agevi_study"] = pd.DataFrame(
        {
            "step": ["ages", "network"],
            "call": ["agevi.tl.cross_validate(adata, 'PLSClock')", "agevi.tl.cross_validate(adata, 'PoissonVAE')"],
            "status": ["done", "left out"],
            "reason": ["", "quick=True leaves networks out"],
            "seconds": [1.5, 0.0],
        }
    )
    return adata


@pytest.fixture(scope="session")
def hostile():
    """The same with names of donors, types, conditions and genes that must stay text; tests must not change it."""
    adata = simulated()
    donors = adata.obs["donor"].astype(str)
    names = dict(zip(sorted(set(donors)), HOSTILE, strict=False))
    adata.obs["donor"] = donors.map(lambda name: names.get(name, name)).astype("category")
    types = dict(zip(adata.obs["cell_type"].cat.categories, HOSTILE, strict=False))
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(types)
    adata.obs["condition"] = adata.obs["condition"].cat.rename_categories({"case": HOSTILE[0]})
    adata.var_names = [*HOSTILE, *adata.var_names[len(HOSTILE) :]]
    filled(adata)
    return adata


@pytest.fixture(scope="session")
def saved_clock(tmp_path_factory):
    """The folder of a clock that tells its error, and the clock."""
    adata = simulated()
    agevi.tl.cross_validate(adata, "PLSClock", **KEYS)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata, level=0.8)
    agevi.model.PLSClock.setup_anndata(adata, **KEYS)
    clock = agevi.model.PLSClock(adata)
    adata.obs["everybody"] = "train"
    clock.train(split_key="everybody")
    clock.set_calibration(adata)
    clock.set_evaluation(adata)
    path = tmp_path_factory.mktemp("clock") / "clock"
    clock.save(path)
    return path, clock


@pytest.fixture
def plain_predictions(twelve_cells):
    """Four subjects with made-up predictions and nothing else."""
    adata = twelve_cells
    adata.obs["agevi_predicted"] = np.repeat([30.0, 40.0, 50.0, 60.0], 3)
    adata.obs["agevi_role"] = "new"
    agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    return adata
