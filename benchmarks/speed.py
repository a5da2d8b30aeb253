"""Cells per second of ``PoissonVAE`` and of scvi-tools' ``SCVI`` at the same work, in one process.

usage: python benchmarks/speed.py [--genes 2000 18000] [--batches 128 1024 4096] [--rounds 5] [--threads 2] [--predict]

Both train on the same simulated CSR matrix (15 % non-zero), with widths 300 and 300, 100 latent dimensions, the same training
and validation cells and the same batch size, Poisson likelihood, in alternating rounds; medians are printed, one line of JSON
per size. ``matmul_bound`` is what the matrix products of a step with all genes alone would allow.
``--predict`` compares ``predict_age`` with ``get_latent_representation`` on 100,000 x 2,000. ``--cpu-time`` counts the time of
the CPU on one thread, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from linear_scale import Peak, resident
from scvi.model import SCVI

from agevi.model import PoissonVAE

WIDTH, LATENT, DENSITY, EPOCHS = 300, 100, 0.15, 2
PRECISIONS = ("float32", "bfloat16")


def simulate(n_cells: int, n_genes: int, rng: np.random.Generator) -> ad.AnnData:
    """Counts without structure: only time and memory matter here."""
    per_cell = int(n_genes * DENSITY)
    parts = []
    for start in range(0, n_cells, 500):
        keys = rng.random((min(500, n_cells - start), n_genes), dtype=np.float32)
        parts.append(np.sort(np.argpartition(keys, per_cell, axis=1)[:, :per_cell], axis=1).astype(np.int32))
    counts = rng.geometric(0.4, n_cells * per_cell).astype(np.float32)
    indptr = np.arange(0, n_cells * per_cell + 1, per_cell)
    adata = ad.AnnData(sp.csr_matrix((counts, np.concatenate(parts).ravel(), indptr), (n_cells, n_genes)))
    donor = rng.integers(0, 40, n_cells)
    adata.obs["donor"], adata.obs["age"] = donor.astype(str), rng.uniform(20, 90, 40)[donor]
    adata.obs["agevi_split"] = np.where(donor < 34, "train", "validation")
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor")
    return adata


class Race:
    """Both models on the same cells; the clock is wall time, or the time of the CPU."""

    def __init__(self, adata: ad.AnnData, clock: Callable[[], float], accelerator: str) -> None:
        self.adata, self.other = adata, ad.AnnData(adata.X, obs=adata.obs[["agevi_split"]].copy())
        SCVI.setup_anndata(self.other)
        self.clock, self.accelerator = clock, accelerator

    def ours(self, batch_size: int, precision: str, epochs: int = EPOCHS) -> tuple[float, Any]:
        """Seconds of a training, and the clock."""
        model = PoissonVAE(self.adata, n_hidden=[WIDTH, WIDTH], n_latent=LATENT, train_unit="cell")
        start = self.clock()
        model.train(
            epochs, batch_size=batch_size, precision=precision, early_stopping=False, enable_progress_bar=False,
            accelerator=self.accelerator,
        )  # fmt: skip
        return self.clock() - start, model

    def theirs(self, batch_size: int, epochs: int = EPOCHS) -> tuple[float, Any]:
        """The same of ``SCVI``."""
        roles = [np.flatnonzero(self.other.obs["agevi_split"] == r) for r in ("train", "validation")]
        model = SCVI(self.other, n_hidden=WIDTH, n_layers=2, n_latent=LATENT, gene_likelihood="poisson")
        start = self.clock()
        model.train(
            epochs, batch_size=batch_size, check_val_every_n_epoch=1, enable_progress_bar=False,
            datasplitter_kwargs={"external_indexing": [*roles, np.array([], dtype=int)]}, accelerator=self.accelerator,
        )  # fmt: skip
        return self.clock() - start, model

    def train(self, batch_size: int, rounds: int) -> dict[str, Any]:
        """Medians over alternating rounds; cells of an epoch are those of both roles."""
        seconds: dict[str, list[float]] = {name: [] for name in ("scvi", *PRECISIONS)}
        memory = dict.fromkeys(seconds, 0.0)
        self.theirs(batch_size, 1)
        for _ in range(rounds):
            for name in seconds:
                before, peak = resident(), Peak()
                with peak.watch():
                    taken, model = self.theirs(batch_size) if name == "scvi" else self.ours(batch_size, name)
                seconds[name].append(taken)
                memory[name] = max(memory[name], peak.highest - before)
        n = self.adata.n_obs * EPOCHS
        return {
            "genes": self.adata.n_vars,
            "batch": batch_size,
            **medians(n, seconds),
            "beyond_gb": {name: round(gb, 2) for name, gb in memory.items()},
        }

    def predict(self, rounds: int) -> dict[str, Any]:
        """``predict_age`` beside ``get_latent_representation`` at its best batch size."""
        clock, theirs = self.ours(1024, "float32", 1)[1], self.theirs(1024, 1)[1]

        def timed(call: Callable[[], Any]) -> float:
            start = self.clock()
            call()
            return self.clock() - start

        sizes = (128, 512, 2048, 8192)
        best = min(sizes, key=lambda b: timed(lambda: theirs.get_latent_representation(batch_size=b)))
        calls = {"scvi": lambda: theirs.get_latent_representation(batch_size=best)}
        calls |= {p: lambda p=p: clock.predict_age(precision=p) for p in PRECISIONS}  # type: ignore[misc]
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                taken[name].append(timed(call))
        n = self.adata.n_obs
        return {
            "predict": list(self.adata.shape),
            "scvi_batch": best,
            **medians(n, taken),
        }


def medians(n: int, seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Cells per second, and over those of scvi-tools in the same round."""
    ratios = {p: [a / b for a, b in zip(seconds["scvi"], seconds[p], strict=True)] for p in PRECISIONS}
    return {
        "cells_per_s": {name: round(n / statistics.median(s)) for name, s in seconds.items()},
        "ratio": {p: round(statistics.median(values), 2) for p, values in ratios.items()},
    }


def matmul_bound(n_genes: int, batch_size: int, dtype: torch.dtype, clock: Callable[[], float]) -> int:
    """Training cells per second if a step were its five products with all genes."""
    x, hidden = torch.randn(batch_size, n_genes).to(dtype), torch.randn(batch_size, WIDTH).to(dtype)
    weight = torch.randn(WIDTH, n_genes).to(dtype)
    products = (lambda: x @ weight.t(), lambda: hidden @ weight, lambda: hidden.t() @ x)
    seconds = []
    for _ in range(5):
        start = clock()
        for k in (0, 1, 2, 0, 2):
            products[k]()
        seconds.append(clock() - start)
    return round(batch_size / min(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="*", default=[2000, 18000])
    parser.add_argument("--batches", type=int, nargs="*", default=[128, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--cells", type=int, help="default: 20,000 of 2,000 genes, 6,000 of 18,000")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--predict", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    rng = np.random.default_rng(0)
    if arguments.predict:
        race = Race(simulate(arguments.cells or 100_000, 2000, rng), clock, arguments.accelerator)
        print(json.dumps(race.predict(arguments.rounds)), flush=True)
        return
    for n_genes in arguments.genes:
        n_cells = arguments.cells or (20_000 if n_genes <= 5000 else 6_000)
        race = Race(simulate(n_cells, n_genes, rng), clock, arguments.accelerator)
        for batch_size in arguments.batches:
            row = race.train(batch_size, arguments.rounds)
            if arguments.accelerator == "cpu":
                row["matmul_bound"] = {
                    p: matmul_bound(n_genes, batch_size, getattr(torch, p), clock) for p in PRECISIONS
                }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
