"""Seconds and memory of sums, of a clock on them and of a sorted store, from a file, by the number of cells.

Run: python benchmarks/sum_samples.py [N_CELLS ...]
Counts are drawn once for 10,000 cells and repeated, in random order of samples, so that the file is made quickly. Memory
is the largest resident set of a process that does one thing, imports included, seen from outside every 20 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_GENES, N_SUBJECTS, N_TYPES, BLOCK, DENSITY = 3000, 500, 6, 10_000, 0.07
TASKS = {
    "import alone": "pass",
    "sums by sample": "agevi.pp.sum_samples(path, by='donor')",
    "sums by sample and type": "agevi.pp.sum_samples(path, by=['donor', 'type'])",
    "PLSClock from the file": """
adata = ad.read_h5ad(path, backed='r')
agevi.model.PLSClock.setup_anndata(adata, age_key='age', subject_key='donor')
clock = agevi.model.PLSClock(adata)
clock.train()
""",
    "PLSClock from the sums": """
sums = agevi.pp.sum_samples(path, by='donor')
agevi.model.PLSClock.setup_anndata(sums, age_key='age', subject_key='donor')
clock = agevi.model.PLSClock(sums)
clock.train()
""",
    "sorted store, h5ad": "agevi.io.write_store([path], path.replace('cells', 'store'), 'donor')",
    "sorted store, zarr": "agevi.io.write_store([path], path.replace('cells.h5ad', 'store.zarr'), 'donor')",
}


def write(path: Path, n_cells: int) -> None:
    """An h5ad of ``n_cells`` cells of ``N_SUBJECTS`` subjects."""
    rng = np.random.default_rng(0)
    donor = rng.integers(N_SUBJECTS, size=n_cells)
    age = rng.uniform(20, 90, N_SUBJECTS)
    obs = pd.DataFrame({"donor": pd.Categorical(np.char.add("d", donor.astype(str))), "age": age[donor]})
    obs["type"] = pd.Categorical(np.char.add("t", rng.integers(N_TYPES, size=n_cells).astype(str)))
    obs.index = obs.index.astype(str)
    ad.AnnData(sp.csr_matrix((n_cells, N_GENES), dtype=np.float32), obs=obs).write_h5ad(path)
    x = sp.random(BLOCK, N_GENES, DENSITY, format="csr", dtype=np.float32, random_state=0)
    x.data = rng.geometric(0.6, x.nnz).astype(np.float32)
    n = n_cells // BLOCK
    with h5py.File(path, "a") as file:
        group = file["X"]
        for name in ("data", "indices", "indptr"):
            del group[name]
        group["indptr"] = np.concatenate([[0], (np.diff(x.indptr)[None].repeat(n, 0)).ravel()]).cumsum()
        for name, values in (("data", x.data), ("indices", x.indices)):
            stored = group.create_dataset(name, (n * x.nnz,), values.dtype, chunks=(1 << 18,), compression="lzf")
            for i in range(n):
                stored[i * x.nnz : (i + 1) * x.nnz] = values


def measured(task: str, path: Path) -> tuple[float, float, float]:
    """Seconds of the processor and of the clock, and the largest resident set in MB, of a process of its own."""
    code = f"import sys\npath = sys.argv[1]\nimport agevi, anndata as ad\nagevi.settings.verbosity = 0\n{TASKS[task]}"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    statm, page, most = Path(f"/proc/{process.pid}/statm"), os.sysconf("SC_PAGE_SIZE"), 0
    while True:
        done, status, used = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        most = max(most, int(statm.read_text().split()[1]))
        time.sleep(0.02)
    if status:
        raise RuntimeError(f"{task} failed")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began, most * page / 1e6


def main() -> None:
    """Print a line for every number of cells and every task."""
    for n_cells in [int(n) for n in sys.argv[1:]] or [100_000, 300_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cells.h5ad"
            write(path, n_cells)
            size = path.stat().st_size / 1e6
            print(f"{n_cells:,} x {N_GENES:,}, {size:,.0f} MB", flush=True)
            for task in TASKS:
                spent, wall, memory = measured(task, path)
                print(f"  {task}: {spent:.1f} CPU s, {wall:.1f} s, {memory:,.0f} MB", flush=True)
                for made in Path(folder).glob("store.*"):
                    made.unlink() if made.is_file() else subprocess.run(["rm", "-r", str(made)], check=True)


if __name__ == "__main__":
    main()
