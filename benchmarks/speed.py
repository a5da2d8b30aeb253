"""Time of ``PoissonVAE`` beside scvi-tools' ``SCVI`` at the same work, a version before, and what the hardware allows.

usage: python benchmarks/speed.py [--genes 2000 18000] [--batches 128 1024] [--rounds 5] [--threads 1 2] [--before REF] [--predict]

Both train on the same simulated CSR matrix (15 % non-zero), with widths 300 and 300, 100 latent dimensions, the same training
and validation cells, batch size, and learning rate, Poisson likelihood, in alternating rounds of one process. With ``--before REF``
the version of agevi at that commit takes its turns in a process of its own. Each size is a line of JSON: median microseconds a
cell of an epoch with its validation, of the CPU and on the wall; the medians of the ratios of each round; and the bound, which is
what the dense matrix products of all layers would take as torch computes them (forward, gradients of weights and of inputs; for
validation the encoder of all cells and the decoder of 1,024), with the percentage of it that was reached. A table follows. Bfloat16 is measured where the
hardware multiplies in it. ``--predict`` compares ``predict_age`` with ``get_latent_representation`` on 100,000 x 2,000.
Time of the CPU on one thread depends least on other work on the machine. Set OMP_WAIT_POLICY=PASSIVE for that of two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from linear_scale import Peak, resident
from speed_before import Before, checked_out
from speed_bound import bound
from speed_race import CLOCKS, EPOCHS, Race, Times, in_turns, medians, precisions, ratios, silence, simulate, timed

SEED = 0


def train(race: Race, before: Before | None, batch_size: int, threads: int, rounds: int, epochs: int) -> dict[str, Any]:
    """One size on a number of threads."""
    runs: dict[str, Callable[[], Times]] = {"scvi": lambda: race.theirs(batch_size, epochs)[0]}
    for precision in precisions():
        runs[precision] = lambda p=precision: race.ours(batch_size, p, epochs)[0]  # type: ignore[misc]
        if before is not None:
            runs[f"{precision}, before"] = lambda p=precision: before.ours(threads, batch_size, p, epochs)  # type: ignore[misc]
    torch.set_num_threads(threads)
    taken: dict[str, list[Times]] = {name: [] for name in runs}
    memory = dict.fromkeys(("scvi", *precisions()), 0.0)
    for name in in_turns(runs, rounds):
        start, peak = resident(), Peak()
        with peak.watch():
            taken[name].append(runs[name]())
        if name in memory:
            memory[name] = max(memory[name], peak.highest - start)
    n_cells = race.n_train + race.n_val
    found = medians(taken, n_cells * epochs)
    bounds = {p: bound(race.adata.n_vars, batch_size, p, race.n_train, race.n_val) for p in precisions()}
    return {
        "genes": race.adata.n_vars,
        "cells": int(n_cells),
        "batch": batch_size,
        "threads": threads,
        "us_per_cell": {clock: {name: round(us, 1) for name, us in of.items()} for clock, of in found.items()},
        "bound_us": {p: {clock: round(us, 1) for clock, us in of.items()} for p, of in bounds.items()},
        "percent_of_bound": {
            p: {clock: round(100 * bounds[p][clock] / found[clock][p]) for clock in CLOCKS} for p in precisions()
        },
        "over_scvi": {p: ratios(taken, "scvi", p) for p in precisions()},
        "over_before": {p: ratios(taken, f"{p}, before", p) for p in precisions() if before is not None},
        "beyond_gb": {name: round(gb, 2) for name, gb in memory.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """All sizes in Markdown: time of the CPU, and on the wall."""
    head = ("genes", "batch", "threads", "clock", "precision", "scvi-tools, us a cell", "before", "agevi")
    head += ("over scvi-tools", "over before", "bound, us", "% of bound")
    lines = ["| " + " | ".join(head) + " |", "| ---: " * 3 + "| --- | --- " + "| ---: " * (len(head) - 5) + "|"]
    for row in rows:
        for clock in CLOCKS:
            for p, bounds in row["bound_us"].items():
                us, before = row["us_per_cell"][clock], row["over_before"].get(p, {}).get(clock, "")
                cells = [f"{row['genes']:,}", f"{row['batch']:,}", row["threads"], clock, p, us["scvi"]]
                cells += [us.get(f"{p}, before", ""), us[p], row["over_scvi"][p][clock], before, bounds[clock]]
                lines.append("| " + " | ".join(map(str, [*cells, row["percent_of_bound"][p][clock]])) + " |")
    return "\n".join(lines)


def predict(race: Race, rounds: int) -> dict[str, Any]:
    """``predict_age`` beside ``get_latent_representation`` at its best batch size."""
    clock, theirs = race.ours(1024, "float32", 1)[1], race.theirs(1024, 1)[1]

    def seconds(call: Callable[[], Any]) -> Times:
        with timed() as out:
            call()
        return out

    sizes = (128, 512, 2048, 8192)
    best = min(sizes, key=lambda b: seconds(lambda: theirs.get_latent_representation(batch_size=b))["cpu"])
    calls = {"scvi": lambda: theirs.get_latent_representation(batch_size=best)}
    calls |= {p: lambda p=p: clock.predict_age(precision=p) for p in precisions()}  # type: ignore[misc]
    taken: dict[str, list[Times]] = {name: [] for name in calls}
    for name in in_turns(calls, rounds):
        taken[name].append(seconds(calls[name]))
    found = medians(taken, race.adata.n_obs)
    return {
        "predict": list(race.adata.shape),
        "scvi_batch": best,
        "us_per_cell": {clock: {name: round(us, 1) for name, us in of.items()} for clock, of in found.items()},
        "over_scvi": {p: ratios(taken, "scvi", p) for p in precisions()},
    }


def measure(arguments: argparse.Namespace, place: Path | None) -> list[dict[str, Any]]:
    """All sizes, printed as they are done."""
    rows = []
    for n_genes in arguments.genes:
        n_cells = arguments.cells or (20_000 if n_genes <= 5000 else 6_000)
        race = Race(simulate(n_cells, n_genes, np.random.default_rng(SEED)))
        before = None if place is None else Before(place, n_cells, n_genes, SEED)
        with contextlib.nullcontext() if before is None else contextlib.closing(before):
            for batch_size in arguments.batches:
                train(race, before, batch_size, arguments.threads[0], 1, 1)  # what happens but once
                for threads in arguments.threads:
                    rows.append(train(race, before, batch_size, threads, arguments.rounds, arguments.epochs))
                    print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="*", default=[2000, 18000])
    parser.add_argument("--batches", type=int, nargs="*", default=[128, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--cells", type=int, help="default: 20,000 of 2,000 genes, 6,000 of 18,000")
    parser.add_argument("--before", metavar="REF", help="a commit, branch or tag of the repository")
    parser.add_argument("--predict", action="store_true")
    arguments = parser.parse_args()
    silence()
    if len(precisions()) == 1:
        print("This CPU does not multiply in bfloat16, so that float32 alone is measured.", file=sys.stderr)
    if arguments.predict:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            race = Race(simulate(arguments.cells or 100_000, 2000, np.random.default_rng(SEED)))
            print(json.dumps({"threads": threads, **predict(race, arguments.rounds)}), flush=True)
        return
    with contextlib.nullcontext() if arguments.before is None else checked_out(arguments.before) as place:
        rows = measure(arguments, place)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
