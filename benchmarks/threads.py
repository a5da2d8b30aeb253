"""Seconds of a training with given numbers of threads and with the chosen one, beside processes that keep cores busy.

usage: python benchmarks/threads.py [--busy 0 2 4] [--genes 2000] [--batch 512] [--epochs 10] [--rounds 3]

The numbers of threads take turns, so that other load on the machine falls on all of them. Each row is the median over
rounds. Run it with and without OMP_WAIT_POLICY=PASSIVE in the environment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

import numpy as np
import torch

import agevi


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def seconds(model: agevi.model.PoissonVAE, n_threads: int | None, epochs: int, batch: int | None) -> float:
    """Time of a training."""
    agevi.settings.n_threads = n_threads
    start = time.perf_counter()
    model.train(max_epochs=epochs, batch_size=batch, accelerator="cpu", precision="float32", enable_progress_bar=False)
    return time.perf_counter() - start


def main() -> None:
    """Print one row for each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-unit", default="pseudocell")
    arguments = parser.parse_args()
    adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=50, n_genes=arguments.genes)
    adata.obs["agevi_split"] = "train"
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    model = agevi.model.PoissonVAE(adata, train_unit=arguments.train_unit)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OMP_WAIT_POLICY {policy}", flush=True)
    seconds(model, 1, 1, arguments.batch)
    for busy in arguments.busy:
        others = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(busy)]
        for other in others:
            other.start()
        choices = {"1 thread": 1, f"{torch.get_num_threads()} threads": torch.get_num_threads(), "chosen": None}
        found: dict[str, list[float]] = {name: [] for name in choices}
        for _ in range(arguments.rounds):
            for name, n_threads in choices.items():
                found[name].append(seconds(model, n_threads, arguments.epochs, arguments.batch))
        shown = ", ".join(f"{name} {np.median(times):.1f} s" for name, times in found.items())
        print(f"{busy} busy processes: {shown}", flush=True)
        for other in others:
            other.kill()
            other.join()


if __name__ == "__main__":
    main()
