"""Every public function that takes an AnnData: from disk it gives what it gives in memory, or says what to do."""

from __future__ import annotations

import hashlib
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import pp, tl
from agevi.dataloaders import _query
from agevi.model import MLPClock, NMFClock, PLSClock
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
FIT = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
CELLS = {"train_unit": "cell", "n_hidden": [8]}
slow = pytest.mark.slow

SAME = {
    "predict_age": lambda a, m: tl.predict_age(a, m["cells"]),
    "predict_age of sums": lambda a, m: tl.predict_age(a, m["sums"]),
    "predict_age, copy": lambda a, m: tl.predict_age(a, m["cells"], copy=True).X,
    "aggregate_subjects": lambda a, m: (tl.predict_age(a, m["cells"]), tl.aggregate_subjects(a)),
    "attribute_genes of cells": lambda a, m: tl.attribute_genes(a, m["cells"], n_boot=2, n_cells_per_subject=5),
    "attribute_genes of sums": lambda a, m: tl.attribute_genes(a, m["sums"], n_boot=2),
    "perturb_genes": lambda a, m: tl.perturb_genes(a, m["cells"], list(a.var_names[:2]), n_boot=2),
    "age_programs": lambda a, m: tl.age_programs(a, m["programs"], n_cells_per_subject=5),
    "cell_age_signal": lambda a, m: tl.cell_age_signal(a, m["sums"]),
    "check_transport": lambda a, m: tl.check_transport(a, m["with cohorts"], by="batch"),
    "evaluate_by": lambda a, m: (tl.predict_age(a, m["sums"]), tl.aggregate_subjects(a), tl.evaluate_by(a, "sex")),
    "age_correlation": lambda a, m: tl.age_correlation(a, **SETUP, use_rep="module_activity", n_permutations=9),
    "contrast_types": lambda a, m: (
        pp.contrast_types(a, "cell_type", target="type0", reference="type1", subject_key="donor", min_counts=5).X
    ),  # fmt: skip
    "cross_validate, linear": lambda a, m: tl.cross_validate(a, PLSClock, **SETUP, n_folds=3),
    "compare_models": lambda a, m: tl.compare_models(
        a, {"pls": PLSClock}, **SETUP, n_folds=2, n_null_network=0, n_null_linear=0
    ),  # fmt: skip
    "learning_curve": lambda a, m: tl.learning_curve(
        a, PLSClock, **SETUP, n_folds=2, n_repeats=1, n_subjects=[8], n_cells=[5]
    ),  # fmt: skip
    "align_genes": lambda a, m: pp.align_genes(a, list(a.var_names[::-1])).X,
    "sum_samples": lambda a, m: pp.sum_samples(a, ["donor", "cell_type"]).X,
    "split_subjects": lambda a, m: pp.split_subjects(a, subject_key="donor", age_key="age", key_added="s"),
    "audit_leakage": lambda a, m: pp.audit_leakage(a, subject_key="donor", age_key="age"),
    "from_obsm": lambda a, m: pp.from_obsm(a, "module_activity").X,
    "parse_age": lambda a, m: pp.parse_age(a, "age", key_added="parsed"),
}
REFUSED = {
    "pp.centre_genes": lambda a, m: pp.centre_genes(a, "batch", subject_key="donor"),
    "pp.pseudocells": lambda a, m: pp.pseudocells(a, subject_key="donor"),
    "pp.aggregate_probes": lambda a, m: pp.aggregate_probes(a, {}),
    "pp.concat_modalities": lambda a, m: pp.concat_modalities({"rna": a, "more": a}),
    "BulkNormalizer": lambda a, m: pp.normalize_bulk(a),
    "pp.beta_to_m": lambda a, m: pp.beta_to_m(a),
    "pp.m_to_beta": lambda a, m: pp.m_to_beta(a),
    "tl.study": lambda a, m: tl.study(a, **SETUP, quick=True),
    "tl.tune": lambda a, m: tl.tune(a, PLSClock, **SETUP, n_trials=1),
    "tl.neuron_clock_study": lambda a, m: tl.neuron_clock_study(a, age_key="age", subject_key="donor"),
    "tl.compare_transfer": lambda a, m: tl.compare_transfer(
        a, m["cells"], condition_key="condition", control="control"
    ),
    "train_unit='pseudocell'": lambda a, m: tl.cross_validate(a, MLPClock, **SETUP, n_folds=2),
}
NO_VALUES = {
    "age_acceleration", "normative_scores", "calibrate", "recalibrate", "subject_posterior", "explain_age", "enrich",
    "rank_targets", "trend_test", "TargetRanking", "StudyResult", "normalize_bulk",
}  # fmt: skip
"""Read tables of predictions, or nothing of an AnnData; normalize_bulk is a BulkNormalizer that is used once."""


def test_every_function_is_here():
    named = {name.split()[0].rstrip(",").removeprefix("pp.").removeprefix("tl.") for name in [*SAME, *REFUSED]}
    public = {name for room in (tl, pp) for name in room.__all__}
    assert public - named == NO_VALUES
    assert named - public == {"train_unit='pseudocell'"}


@pytest.fixture(scope="module")
def models(_cohort):
    adata = _cohort.copy()
    MLPClock.setup_anndata(adata, **SETUP)
    PLSClock.setup_anndata(adata, **SETUP)
    out: dict[str, Any] = {"cells": MLPClock(adata, **CELLS), "sums": PLSClock(adata), "with cohorts": PLSClock(adata)}
    NMFClock.setup_anndata(adata, **SETUP)
    out["programs"] = NMFClock(adata, **CELLS, n_components=3)
    for model in out.values():
        model.train(2, **QUIET)
    out["with cohorts"].set_cohorts(adata, "batch")
    return out


@pytest.fixture
def disk(cohort, tmp_path, monkeypatch):
    """The cohort in memory and on disk; the file is as it was, and open, in the end."""
    monkeypatch.setattr(_query, "_BACKED_BLOCK", 100)
    path = tmp_path / "x.h5ad"
    cohort.write_h5ad(path)
    before = hashlib.sha256(path.read_bytes()).digest()
    backed = ad.read_h5ad(path, backed="r")
    yield cohort, backed
    assert backed.isbacked
    assert backed.file.is_open
    assert hashlib.sha256(path.read_bytes()).digest() == before
    backed.file.close()


def same(one: Any, other: Any, path: str = "") -> None:
    """Both hold the same; what a process measures of itself apart."""
    if isinstance(one, pd.DataFrame):
        measured = [c for c in one if c in ("seconds", "peak_memory")]
        pd.testing.assert_frame_equal(one.drop(columns=measured), other.drop(columns=measured), rtol=1e-5, atol=1e-6)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
    elif hasattr(one, "keys"):
        assert set(one) == set(other), path
        for key in one:
            same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, tuple | list):
        for a, b in zip(one, other, strict=True):
            same(a, b, path)
    elif sp.issparse(one) or isinstance(one, np.ndarray):
        one, other = (x.toarray() if sp.issparse(x) else x for x in (one, other))
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(one, other, err_msg=path)
    else:
        assert one == other or one is other or (one != one and other != other), path


@pytest.mark.parametrize("call", [pytest.param(name, marks=() if name == "predict_age" else slow) for name in SAME])
def test_from_disk_as_in_memory(call, disk, models):
    memory, backed = disk
    same(SAME[call](memory, models), SAME[call](backed, models))
    for part in ("obs", "obsm", "varm", "uns"):
        same(getattr(memory, part), getattr(backed, part), part)


@pytest.mark.parametrize("call", [pytest.param(name, marks=() if "centre" in name else slow) for name in REFUSED])
def test_what_cannot_be_read_in_blocks_says_what_to_do(call, disk, models):
    _, backed = disk
    obs = backed.obs.copy()
    with pytest.raises(ValueError) as raised:
        REFUSED[call](backed, models)
    said = str(raised.value)
    assert call in said
    assert "adata.to_memory()" in said
    assert "\n" not in said
    pd.testing.assert_frame_equal(backed.obs, obs)


@slow
def test_folds_of_a_network(disk, monkeypatch):
    monkeypatch.setattr("agevi.dataloaders._buffered.RunSampler.order", agevi.dataloaders._cells.EvenBatchSampler.order)
    for adata in disk:
        tl.cross_validate(adata, MLPClock, **SETUP, n_folds=2, model_kwargs=CELLS, train_kwargs=FIT)
    same(*(adata.obs["agevi_predicted"] for adata in disk))
