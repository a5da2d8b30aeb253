"""How the cost of an epoch grows with cells and genes, for ``PoissonVAE`` and for scvi-tools' ``SCVI`` at the same work.

usage: python benchmarks/growth.py [--cells 5000 20000 50000 200000] [--genes 1000 2000 5000 10000 18000] [--cpu-time]
    [--figure FILE]

The networks and the simulated matrix of ``speed.py``, with a batch of 1,024. One epoch of training with its validation, all
that happens before the first step included; cells grow at 2,000 genes, genes at 5,000 cells. The lowest of ``--rounds`` alternating
rounds is printed, one line of JSON per size, and drawn into ``--figure``.
"""

from __future__ import annotations

import argparse
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
from speed_race import Race, precisions, silence, simulate

BATCH, FEW_CELLS, FEW_GENES = 1024, 5_000, 2_000


def seconds_of_an_epoch(race: Race, rounds: int, clock: str) -> dict[str, float]:
    """Lowest seconds by name."""
    taken: dict[str, list[float]] = {name: [] for name in ("scvi", *precisions())}
    for _ in range(rounds):
        for name, values in taken.items():
            times = race.theirs(BATCH, 1)[0] if name == "scvi" else race.ours(BATCH, name, 1)[0]
            values.append(times[clock])
    return {name: round(min(values), 2) for name, values in taken.items()}


def draw(rows: dict[str, list[dict[str, float]]], file: str) -> None:
    """Seconds of an epoch by cells and by genes, both on logarithmic scales."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True, sharey=True)
    for ax, (by, table) in zip(axes, rows.items(), strict=True):
        for name, label in (("scvi", "scvi-tools"), *((p, f"agevi, {p}") for p in precisions())):
            ax.loglog([row[by] for row in table], [row[name] for row in table], "o-", label=label)
        ax.set_xlabel(f"{by}, at {f'{FEW_GENES:,} genes' if by == 'cells' else f'{FEW_CELLS:,} cells'}")
    axes[0].set_ylabel("seconds of an epoch")
    axes[0].legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[5_000, 20_000, 50_000, 200_000])
    parser.add_argument("--genes", type=int, nargs="*", default=[1_000, 2_000, 5_000, 10_000, 18_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--figure")
    arguments = parser.parse_args()
    silence()
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = "cpu" if arguments.cpu_time else "wall"
    rng = np.random.default_rng(0)
    sizes = {
        "cells": [(n, FEW_GENES) for n in arguments.cells],
        "genes": [(FEW_CELLS, n) for n in arguments.genes],
    }
    rows: dict[str, list[dict[str, float]]] = {by: [] for by in sizes}
    for by, shapes in sizes.items():
        for n_cells, n_genes in shapes:
            race = Race(simulate(n_cells, n_genes, rng))
            row = {"cells": n_cells, "genes": n_genes, **seconds_of_an_epoch(race, arguments.rounds, clock)}
            rows[by].append(row)
            print(json.dumps(row), flush=True)
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
