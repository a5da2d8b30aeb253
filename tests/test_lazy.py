"""Importing agevi is cheap: what touches no model loads neither scvi-tools nor what that loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agevi

LIGHT = """
import sys
import agevi
agevi.settings.n_threads = None
loaded = {"pandas", "torch", "lightning", "scvi"} & set(sys.modules)
assert not loaded, f"import agevi loads {loaded}"

from agevi import datasets, get, io, metrics, pl, pp, tl
adata = datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=10)
pp.split_subjects(adata, subject_key="donor", age_key="age")
adata.obs["agevi_predicted"] = adata.obs["age"] + 1.0
tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
pl.predicted_vs_actual(adata)
metrics.mae(*get.subjects_df(adata)[["age", "predicted"]].to_numpy().T)
tools = tl.age_acceleration, tl.calibrate, tl.enrich, tl.rank_targets, tl.trend_test
loaded = {"torch", "lightning", "scvi"} & set(sys.modules)
assert not loaded, f"tables load {loaded}"
"""
PREPARATIONS = """
import sys
import agevi
agevi.clocks.list()
for name in agevi.pp.__all__:
    getattr(agevi.pp, name)
loaded = {"lightning", "scvi"} & set(sys.modules)
assert not loaded, f"preparations load {loaded}"
"""
FIRST = """
import sys
from importlib import import_module
for name in {names}:
    for known in [known for known in sys.modules if known.split(".")[0] == "agevi"]:
        del sys.modules[known]
    import_module(name)
"""
THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from threading import Barrier
import agevi
sys.setswitchinterval(1e-6)
names = ["model.PLSClock", "tl.predict_age", "model.PoissonVAE", "io.load_clock", "tl.cross_validate", "clocks.list"]
start = Barrier(len(names))
def first_use(name):
    start.wait()
    return attrgetter(name)(agevi)
with ThreadPoolExecutor(len(names)) as pool:
    assert all(map(callable, pool.map(first_use, names)))
"""


def run(code: str) -> None:
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


def test_what_reads_tables_loads_no_torch():
    run(LIGHT)


@pytest.mark.slow
def test_preparations_load_no_scvi():
    run(PREPARATIONS)


@pytest.mark.slow
def test_any_package_may_be_imported_first():
    packages = [f"agevi.{name}" for name in agevi.__all__ if name not in ("report", "settings")]
    run(FIRST.format(names=[*packages, "agevi.io._golden", "agevi.model.base._save", "agevi.dataloaders._query"]))


@pytest.mark.slow
def test_threads_may_use_names_first_at_the_same_time():
    run(THREADS)


@pytest.mark.parametrize("module", [agevi, agevi.io, agevi.pp, agevi.tl], ids=lambda m: m.__name__)
def test_names_are_found_when_they_are_used(module):
    found = {}
    exec(f"from {module.__name__} import *", found)
    assert set(found) - {"__builtins__"} == set(module.__all__) == set(dir(module))
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'predict_agee'"):
        module.predict_agee  # noqa: B018
