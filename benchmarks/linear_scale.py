"""Time and memory of ``ElasticNetClock`` at the size of a published cohort: 69 subjects, 189,432 cells, 17,658 genes.

usage: python benchmarks/linear_scale.py [--fraction 1.0] [--train-unit cell]

Simulates the cohort as ``simulator_scale.py`` does, trains on all cells but those of 10 test subjects, and predicts all
cells. Prints one line of JSON: seconds of the steps, size of the CSR matrix, and the peak of the resident memory while
training and predicting beyond what was resident before (in GB), and the error of the test subjects in years.
"""

from __future__ import annotations

import argparse
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator_scale import cohort

import agevi


def resident() -> float:
    """Resident memory of this process in GB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e9


class Peak:
    """The largest resident memory, looked at ten times a second."""

    def __init__(self) -> None:
        self.highest, self.stopped = resident(), threading.Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        def look() -> None:
            while not self.stopped.wait(0.1):
                self.highest = max(self.highest, resident())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--train-unit", default="cell", choices=["cell", "pseudocell", "sample"])
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    if arguments.verbose:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("agevi").setLevel(logging.DEBUG)

    start = time.perf_counter()
    adata = cohort(arguments.fraction)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=10, validation_size=9, rng=0)
    simulated, before, peak = time.perf_counter() - start, resident(), Peak()
    with peak.watch():
        start = time.perf_counter()
        agevi.model.ElasticNetClock.setup_anndata(adata, age_key="age", subject_key="donor")
        model = agevi.model.ElasticNetClock(adata, train_unit=arguments.train_unit)
        model.train(train_roles=("train", "validation"))
        trained = time.perf_counter() - start
        agevi.tl.predict_age(adata, model)
        seconds = time.perf_counter() - start
    agevi.tl.aggregate_subjects(adata)
    table = adata.uns["agevi_subjects"]
    test = table[table["role"] == "test"]
    x = adata.X
    result = {
        "shape": list(adata.shape),
        "train_unit": arguments.train_unit,
        "matrix_gb": round((x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) / 1e9, 2),
        "beyond_gb": round(peak.highest - before, 2),
        "seconds_simulation": round(simulated),
        "seconds_training": round(trained),
        "seconds_prediction": round(seconds - trained),
        "genes": int((model.coefficients() != 0).sum()),
        "l1_ratio": model.l1_ratio_,
        "pairs_tried": len(model.cv_results_),
        "test_mae": round(float((test["predicted"] - test["age"]).abs().mean()), 2),
        "median_mae": round(float((test["age"] - table["age"].median()).abs().mean()), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
