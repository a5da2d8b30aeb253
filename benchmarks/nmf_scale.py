"""Time and memory of ``NMFClock`` at the size of a published cohort: 69 subjects, 189,432 cells, 17,658 genes.

usage: python benchmarks/nmf_scale.py [--fraction 1.0] [--train-unit pseudocell]

Simulates the cohort as ``simulator_scale.py`` does, trains on all cells but those of 10 test subjects, and predicts all
cells. Prints one line of JSON: seconds of the steps (of the clock, and of all cores, which a busy machine changes less),
size of the CSR matrix, and the peak of the resident memory while training and predicting beyond what was resident before
(in GB), and the error of the test subjects in years.
"""

from __future__ import annotations

import argparse
import json
import logging
import time

import numpy as np
import torch
from linear_scale import Peak, resident
from simulator_scale import cohort

import agevi


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--train-unit", default="pseudocell", choices=["pseudocell", "cell"])
    parser.add_argument("--n-components", type=int, default=100)
    parser.add_argument("--n-threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("agevi").setLevel(logging.INFO)
    torch.set_num_threads(arguments.n_threads)

    start = time.perf_counter()
    adata = cohort(arguments.fraction, arguments.n_threads)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=10, validation_size=9, rng=0)
    simulated, before, peak = time.perf_counter() - start, resident(), Peak()
    with peak.watch():
        start, cpu = time.perf_counter(), time.process_time()
        agevi.model.NMFClock.setup_anndata(adata, age_key="age", subject_key="donor")
        model = agevi.model.NMFClock(adata, n_components=arguments.n_components, train_unit=arguments.train_unit)
        model.train(enable_progress_bar=False)
        trained = time.perf_counter() - start
        agevi.tl.predict_age(adata, model)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    agevi.tl.aggregate_subjects(adata)
    table = adata.uns["agevi_subjects"]
    test = table[table["role"] == "test"]
    x = adata.X
    result = {
        "shape": list(adata.shape),
        "train_unit": arguments.train_unit,
        "n_components": arguments.n_components,
        "density": round(x.nnz / np.prod(adata.shape, dtype=float), 4),
        "matrix_gb": round((x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) / 1e9, 2),
        "beyond_gb": round(peak.highest - before, 2),
        "seconds_simulation": round(simulated),
        "seconds_training": round(trained),
        "seconds_prediction": round(seconds - trained),
        "cpu_seconds": round(cpu),
        "epochs": int(model.best_epoch_),
        "test_mae": round(float((test["predicted"] - test["age"]).abs().mean()), 2),
        "median_mae": round(float((test["age"] - table["age"].median()).abs().mean()), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
