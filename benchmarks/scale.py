"""Time and memory of ``PoissonVAE`` at the size of a published cohort: 69 subjects, 189,432 cells, 17,658 genes.

usage: python benchmarks/scale.py [--fraction 1.0] [--batch-size 1024] [--precision auto]

Simulates the cohort as ``simulator_scale.py`` does, trains for one epoch with widths 300 and 150 and 100 latent dimensions, and
predicts all cells. Prints one line of JSON: seconds of the steps, size of the CSR matrix, the peak of the resident memory and
what of it is beyond what was resident before training, in GB.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from linear_scale import Peak, resident
from simulator_scale import cohort

import agevi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--n-threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.n_threads)

    start = time.perf_counter()
    adata = cohort(arguments.fraction, arguments.n_threads)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=10, validation_size=9, rng=0)
    simulated, before, peak = time.perf_counter() - start, resident(), Peak()
    seconds = {}
    with peak.watch():
        start, cpu = time.perf_counter(), time.process_time()
        agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
        model = agevi.model.PoissonVAE(adata, n_hidden=[300, 150], n_latent=100, train_unit="cell")
        seconds["setup"], start = time.perf_counter() - start, time.perf_counter()
        model.train(
            1,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            accelerator="cpu",
            enable_progress_bar=False,
        )
        seconds["epoch"], start = time.perf_counter() - start, time.perf_counter()
        model.predict_age()
        seconds["prediction"], cpu = time.perf_counter() - start, time.process_time() - cpu
    x = adata.X
    result = {
        "shape": list(adata.shape),
        "density": round(x.nnz / np.prod(adata.shape, dtype=float), 4),
        "matrix_gb": round((x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) / 1e9, 2),
        "peak_gb": round(peak.highest, 2),
        "beyond_gb": round(peak.highest - before, 2),
        "seconds_simulation": round(simulated),
        **{f"seconds_{name}": round(value) for name, value in seconds.items()},
        "cpu_seconds": round(cpu),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
