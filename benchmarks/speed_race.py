"""Trainings of ``PoissonVAE`` and of scvi-tools' ``SCVI`` at the same work, timed, for ``speed.py``, ``growth.py`` and ``gpu.py``.

usage: python benchmarks/speed_race.py CELLS GENES SEED

As a program it makes the data and then times ``PoissonVAE`` for each line of JSON on its input, with the agevi on its path, which
may be another version than the one that asks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from scvi.model import SCVI

import agevi
from agevi.model import PoissonVAE
from agevi.nn.products import _has_bfloat16

WIDTH, LATENT, DENSITY, EPOCHS = 300, 100, 0.15, 2
CLOCKS = ("cpu", "wall")
LR = 1e-4
"""Of both: at 1e-3 SCVI overflows now and then in validation with 18,000 genes and batches of 128 (one seed in three within three
epochs, none at 1e-4). The work of a step is the same."""

Times = dict[str, float]
"""Seconds by clock: of the CPU, all threads together, and on the wall."""


def precisions(device: str = "cpu") -> tuple[str, ...]:
    """Precisions in which the hardware multiplies."""
    return ("float32", "bfloat16") if _has_bfloat16(torch.device(device)) else ("float32",)


def silence() -> None:
    """Let nothing but figures be printed."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning", "scvi"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.propagate = False


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


@contextlib.contextmanager
def timed() -> Iterator[Times]:
    """Seconds of the block."""
    out: Times = {}
    cpu, wall = time.process_time(), time.perf_counter()
    yield out
    out |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


class Race:
    """Both models on the same cells."""

    def __init__(self, adata: ad.AnnData, accelerator: str = "cpu") -> None:
        self.adata, self.accelerator = adata, accelerator
        self.n_train, self.n_val = ((adata.obs["agevi_split"] == r).sum() for r in ("train", "validation"))
        self._theirs: ad.AnnData | None = None

    def ours(self, batch_size: int, precision: str, epochs: int = EPOCHS) -> tuple[Times, Any]:
        """Seconds of a training, and the clock."""
        model = PoissonVAE(self.adata, n_hidden=[WIDTH, WIDTH], n_latent=LATENT, train_unit="cell")
        with timed() as seconds:
            model.train(
                epochs, batch_size=batch_size, precision=precision, early_stopping=False, enable_progress_bar=False,
                accelerator=self.accelerator, plan_kwargs={"lr": LR},
            )  # fmt: skip
        return seconds, model

    def theirs(self, batch_size: int, epochs: int = EPOCHS) -> tuple[Times, Any]:
        """The same of ``SCVI``."""
        if self._theirs is None:
            self._theirs = ad.AnnData(self.adata.X, obs=self.adata.obs[["agevi_split"]].copy())
            SCVI.setup_anndata(self._theirs)
        roles = [np.flatnonzero(self._theirs.obs["agevi_split"] == r) for r in ("train", "validation")]
        model = SCVI(self._theirs, n_hidden=WIDTH, n_layers=2, n_latent=LATENT, gene_likelihood="poisson")
        with timed() as seconds:
            model.train(
                epochs, batch_size=batch_size, check_val_every_n_epoch=1, enable_progress_bar=False,
                datasplitter_kwargs={"external_indexing": [*roles, np.array([], dtype=int)]},
                accelerator=self.accelerator, plan_kwargs={"lr": LR},
            )  # fmt: skip
        return seconds, model


def in_turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Names in every round, in the opposite order in every other one."""
    names = list(names)
    for i in range(rounds):
        yield from names if i % 2 == 0 else reversed(names)


def medians(taken: dict[str, list[Times]], n_cells: int) -> dict[str, dict[str, float]]:
    """Median microseconds a cell, by clock and name."""
    return {
        clock: {name: 1e6 * statistics.median(t[clock] for t in times) / n_cells for name, times in taken.items()}
        for clock in CLOCKS
    }


def ratios(taken: dict[str, list[Times]], of: str, to: str) -> dict[str, float]:
    """Median over rounds of the seconds of ``of`` over those of ``to`` in the same round, by clock."""
    pairs = list(zip(taken[of], taken[to], strict=True))
    return {clock: round(statistics.median(a[clock] / b[clock] for a, b in pairs), 2) for clock in CLOCKS}


def main() -> None:
    n_cells, n_genes, seed = map(int, sys.argv[1:])
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what else is printed goes to the stream of errors
        silence()
        race = Race(simulate(n_cells, n_genes, np.random.default_rng(seed)))
        print(json.dumps({"agevi": str(Path(agevi.__file__).parent)}), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            torch.set_num_threads(asked.pop("threads"))
            print(json.dumps(race.ours(**asked)[0]), file=answers, flush=True)


if __name__ == "__main__":
    main()
