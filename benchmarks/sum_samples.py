"""Seconds and memory of agevi.pp.sum_samples over a file, by the number of cells; a clock on the sums.

Run: python benchmarks/sum_samples.py [N_CELLS ...]
Counts are drawn once for 10,000 cells and repeated, in random order of samples, so that the file is made quickly.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_GENES, N_SUBJECTS, N_TYPES, BLOCK, DENSITY = 2000, 200, 6, 10_000, 0.1


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


def measured(path: Path) -> tuple[float, float, tuple[int, int]]:
    """Seconds, highest memory above that of the imports in MB, and the shape of the sums, in a process of its own."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        import agevi

        agevi.settings.verbosity = 0
        sums = agevi.pp.sum_samples
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        out = sums(path, by=["donor", "type"])
        spent = time.process_time() - started
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, f"{spent} {more} {out.n_obs} {out.n_vars}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    seconds, memory, n_obs, n_vars = os.read(reader, 200).decode().split()
    return float(seconds), float(memory), (int(n_obs), int(n_vars))


def main() -> None:
    """Print a line for every number of cells."""
    for n_cells in [int(n) for n in sys.argv[1:]] or [100_000, 300_000]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cells.h5ad"
            write(path, n_cells)
            seconds, memory, shape = measured(path)
            size = path.stat().st_size / 1e6
        print(
            f"{n_cells:,} x {N_GENES:,}, {size:,.0f} MB: {seconds:.1f} CPU s, {memory:,.0f} MB, sums {shape}",
            flush=True,
        )


if __name__ == "__main__":
    main()
