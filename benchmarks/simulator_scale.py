"""Time and memory of ``simulate_cohort`` at the size of a published cohort: 69 subjects, 189,432 cells, 17,658 genes.

usage: python benchmarks/simulator_scale.py [--fraction 1.0] [--n-jobs N]

Prints one line of JSON: seconds, density, size of the CSR matrix and peak resident memory of the process, both in GB. The library
size is set so that about a quarter of the entries are not zero. ``--fraction`` simulates that share of the cells.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
from anndata import AnnData

from agevi.datasets import simulate_cohort

N_SUBJECTS, N_CELLS, N_GENES = 69, 189_432, 17_658
LIBRARY_SIZE = 7_400


def cohort(fraction: float, n_jobs: int | None = None) -> AnnData:
    """The cohort, or a share of its cells."""
    total = round(N_CELLS * fraction)
    n_cells = np.full(N_SUBJECTS, total // N_SUBJECTS)
    n_cells[: total % N_SUBJECTS] += 1
    return simulate_cohort(
        N_SUBJECTS, n_cells.tolist(), N_GENES, n_age_genes=500, library_size=LIBRARY_SIZE, n_jobs=n_jobs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--n-jobs", type=int, default=None)
    arguments = parser.parse_args()

    start = time.perf_counter()
    adata = cohort(arguments.fraction, arguments.n_jobs)
    seconds = time.perf_counter() - start
    x = adata.X
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB on Linux
    result = {
        "shape": list(adata.shape),
        "seconds": round(seconds, 1),
        "density": round(x.nnz / np.prod(adata.shape, dtype=float), 4),
        "matrix_gb": round((x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) / 1e9, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 2),
        "counts_per_cell": round(float(x.data.sum(dtype=np.float64)) / adata.n_obs),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
