"""Seconds of a training with given numbers of threads and with the chosen one, beside processes that keep cores busy.

usage: python benchmarks/threads.py [--busy 0 2 4] [--genes 2000] [--cells 50] [--batch 512] [--epochs 10] [--rounds 3]

Numbers of threads and of busy processes take turns within each round, so that other load on the machine falls on all of
them. Times are medians over rounds; the ratio is that to the first of ``--busy``, 0 by default, within the same round.
Leave OMP_NUM_THREADS unset, and run it with and without OMP_WAIT_POLICY=PASSIVE in the environment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import time

import numpy as np
import torch

import agevi
from agevi import _threads


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def seconds(
    model: agevi.model.PoissonVAE, n_threads: int | None, epochs: int, batch: int | None
) -> tuple[float, float, int]:
    """Time of a training on the clock and of the CPU, and the number of threads."""
    agevi.settings.n_threads = n_threads
    _threads._seen = (-_threads._HOLDS, 0.0)
    seen: list[int] = []
    hook = model.module.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    wall, cpu = time.perf_counter(), time.process_time()
    model.train(max_epochs=epochs, batch_size=batch, accelerator="cpu", precision="float32", enable_progress_bar=False)
    hook.remove()
    return time.perf_counter() - wall, time.process_time() - cpu, max(seen, default=0)


def main() -> None:
    """Print one row for each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=50, help="of each of 40 donors")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-unit", default="pseudocell")
    parser.add_argument("--chosen", action="store_true", help="measure the chosen number of threads alone")
    arguments = parser.parse_args()
    adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=arguments.cells, n_genes=arguments.genes)
    adata.obs["agevi_split"] = "train"
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    model = agevi.model.PoissonVAE(adata, train_unit=arguments.train_unit)
    policy = os.environ.get("OMP_WAIT_POLICY", "not set")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OMP_WAIT_POLICY {policy}", flush=True)
    seconds(model, 1, 1, arguments.batch)
    choices: dict[str, int | None] = {
        "1 thread": 1,
        f"{torch.get_num_threads()} threads": torch.get_num_threads(),
        "chosen": None,
    }
    if arguments.chosen:
        choices = {"chosen": None}
    found: dict[tuple[int, str], list[tuple[float, float, int]]] = {}
    others = [
        multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(max(arguments.busy))
    ]
    for other in others:
        other.start()
        os.kill(other.pid, signal.SIGSTOP)
    for _ in range(arguments.rounds):
        for busy in arguments.busy:
            for other in others[:busy]:
                os.kill(other.pid, signal.SIGCONT)
            for name, n_threads in choices.items():
                one = seconds(model, n_threads, arguments.epochs, arguments.batch)
                found.setdefault((busy, name), []).append(one)
            for other in others[:busy]:
                os.kill(other.pid, signal.SIGSTOP)
    for other in others:
        other.kill()
        other.join()
    for (busy, name), rows in found.items():
        wall, cpu, n = np.array(rows).T
        quiet = np.array(found[arguments.busy[0], name])[:, 0]
        print(
            f"{busy} busy processes, {name} ({'/'.join(map(str, sorted(set(n.astype(int)))))}): {np.median(wall):.1f} s, "
            f"CPU {np.median(cpu):.1f} s, ratio {np.median(wall / quiet):.2f} ({(wall / quiet).min():.2f} to "
            f"{(wall / quiet).max():.2f})"
        )


if __name__ == "__main__":
    main()
