"""Training on a GPU: right against the CPU, what makes the host wait, cells per second beside scvi-tools, memory.

usage: python benchmarks/gpu.py [--device cuda|cpu] [--rounds 3]

Takes a few minutes of a GPU and prints a line of JSON for each part:

- ``step``: loss and gradients of the first training step in float32, on the device against the CPU, without dropout and with a
  posterior that hardly varies, since devices draw different numbers. Largest difference over the largest value; 1e-4 is passed.
- ``waits``: lines of Python at which the host waits for the GPU in five training steps (``torch.cuda.set_sync_debug_mode``).
- ``speed``: cells per second of an epoch with its validation, ``PoissonVAE`` and ``SCVI`` at equal work (see ``speed.py``), with a
  batch of 128, where launching kernels takes the time, and of 4,096; peak memory of the GPU; the bound of the products.
- ``study``: 1,000 epochs of the neuron clock, as ``presets.NEURON_CLOCK`` has it, with 189,432 cells and 17,658 genes, projected.

Time of an epoch is that between trainings of few and of more epochs, so that what happens before the first step is left out.
Without a GPU the same code runs on the CPU with tiny sizes, which tells whether it works and nothing else.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import statistics
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from lightning.pytorch import Callback
from speed_bound import bound
from speed_race import Race, in_turns, precisions, silence, simulate

import agevi
from agevi.model import PoissonVAE, presets


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    genes: tuple[int, ...] = (2_000, 18_000)
    cells: tuple[int, ...] = (40_000, 10_000)
    batches: tuple[int, ...] = (128, 4_096)
    epochs: tuple[int, int] = (1, 3)  # few, and more
    study: tuple[int, int] = (189_432, 17_658)
    study_epochs: tuple[int, int] = (2, 22)
    drawn: int = 2_048  # cells of the study that are simulated, and repeated: only time matters


TINY = Sizes((40,), (120,), (16, 64), (1, 2), (200, 30), (1, 2), 100)
STUDY_EPOCHS = 1000


class Caught(Callback):
    """The gradients of the first step, of a network whose posterior hardly varies."""

    def on_train_start(self, trainer: Any, plan: Any) -> None:
        encoder = plan.module.encoder
        encoder.min_variance = 0.0
        with torch.no_grad():
            encoder.log_variance.weight.zero_()
            encoder.log_variance.bias.fill_(-30.0)

    def on_after_backward(self, trainer: Any, plan: Any) -> None:
        if not hasattr(self, "gradients"):
            named = plan.module.named_parameters()
            self.gradients = {name: p.grad.detach().cpu() for name, p in named if p.grad is not None}


def first_step(adata: ad.AnnData, accelerator: str) -> dict[str, torch.Tensor]:
    """Loss and gradients of all training cells in one batch."""
    model, caught = PoissonVAE(adata, n_hidden=[64, 64], n_latent=16, dropout_rate=0.0, train_unit="cell"), Caught()
    model.train(
        1, batch_size=adata.n_obs, precision="float32", accelerator=accelerator, early_stopping=False,
        enable_progress_bar=False, callbacks=[caught],
    )  # fmt: skip
    return {**caught.gradients, "loss": torch.tensor(model.history["train_loss"].to_numpy(dtype=np.float64).ravel())}


def step(adata: ad.AnnData, accelerator: str) -> dict[str, Any]:
    """The largest relative differences between the device and the CPU."""
    cpu, device = first_step(adata, "cpu"), first_step(adata, accelerator)
    # What is zero but for rounding, such as the bias before a BatchNorm, is compared with the gradients of all.
    least = 1e-3 * max(float(values.abs().max()) for name, values in cpu.items() if name != "loss")
    found = {n: float((device[n] - v).abs().max()) / max(float(v.abs().max()), least) for n, v in cpu.items()}
    worst = max(found, key=found.__getitem__)
    return {"part": "step", "largest_difference": found[worst], "of": worst, "passed": found[worst] < 1e-4}


class Waits(Callback):
    """Counts where the host waits for the GPU in the steps from ``first`` on."""

    first, n_steps = 1, 5

    def __init__(self) -> None:
        self.places: collections.Counter[str] = collections.Counter()
        self.caught: Any = None

    def on_train_batch_start(self, trainer: Any, plan: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == self.first:
            self.caught = warnings.catch_warnings()
            self.caught.__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = self._note
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Any, plan: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.first + self.n_steps - 1:
            self.on_train_end(trainer, plan)

    def on_train_end(self, trainer: Any, plan: Any) -> None:
        if self.caught is not None:
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.caught = None

    def _note(self, message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        """Count the innermost line of agevi that is being run, or else the one that is named."""
        if "synchronizing" in str(message):
            package = str(Path(agevi.__file__).parent)
            own = [f for f in traceback.extract_stack() if f.filename.startswith(package)]
            self.places[
                f"{own[-1].filename[len(package) + 1 :]}:{own[-1].lineno}" if own else f"{filename}:{lineno}"
            ] += 1


def waits(adata: ad.AnnData, accelerator: str) -> list[dict[str, Any]]:
    """Places and how often in five steps, for both units of training, and a negative binomial."""
    rows = []
    for unit, likelihood in (("cell", "poisson"), ("pseudocell", "poisson"), ("cell", "nb")):
        model, seen = PoissonVAE(adata, train_unit=unit, gene_likelihood=likelihood), Waits()
        model.train(
            1, batch_size=max(2, adata.n_obs // 12), accelerator=accelerator, early_stopping=False,
            enable_progress_bar=False, callbacks=[seen],
        )  # fmt: skip
        rows.append(
            {"part": "waits", "unit": unit, "likelihood": likelihood, "steps": seen.n_steps, "waits": dict(seen.places)}
        )
    return rows


def peak_gb(device: str) -> float:
    """Largest memory of the GPU since the last call, in GB."""
    if device == "cpu":
        return 0.0
    found = torch.cuda.max_memory_allocated() / 1e9
    gc.collect()  # trainers and what they train refer to each other
    torch.cuda.reset_peak_memory_stats()
    return round(found, 3)


def speed(race: Race, batch_size: int, sizes: Sizes, device: str, rounds: int) -> dict[str, Any]:
    """Cells per second of an epoch, medians, and of the ratios of each round."""

    def seconds(name: str, epochs: int) -> float:
        run = race.theirs(batch_size, epochs) if name == "scvi" else race.ours(batch_size, name, epochs)
        return run[0]["wall"]

    few, more = sizes.epochs
    names, memory = ("scvi", *precisions(device)), {}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        peak_gb(device)
        seconds(name, few)
        memory[name] = peak_gb(device)
    for name in in_turns(names, rounds):
        taken[name].append((seconds(name, more) - seconds(name, few)) / (more - few))
    n_cells = int(race.n_train + race.n_val)
    pairs = {p: zip(taken["scvi"], taken[p], strict=True) for p in precisions(device)}
    bounds = {
        p: bound(race.adata.n_vars, batch_size, p, race.n_train, race.n_val, device)["wall"] for p in precisions(device)
    }
    per_cell = {name: statistics.median(values) / n_cells for name, values in taken.items()}
    return {
        "part": "speed",
        "genes": race.adata.n_vars,
        "batch": batch_size,
        "cells_per_s": {name: round(1 / s) for name, s in per_cell.items()},
        "over_scvi": {p: round(statistics.median(a / b for a, b in both), 2) for p, both in pairs.items()},
        "percent_of_bound": {p: round(us / per_cell[p] / 1e4) for p, us in bounds.items()},
        "peak_gb": memory,
    }


def study(sizes: Sizes, accelerator: str, device: str) -> dict[str, Any]:
    """Hours of the published training, from few epochs of its shape."""
    n_cells, n_genes = sizes.study
    part = simulate(min(sizes.drawn, n_cells), n_genes, np.random.default_rng(0))
    repeats = -(-n_cells // part.n_obs)
    x = sp.csr_matrix(sp.vstack([part.X] * repeats, format="csr")[:n_cells])
    obs = part.obs.iloc[np.tile(np.arange(part.n_obs), repeats)[:n_cells]].reset_index(drop=True)
    adata = ad.AnnData(x, obs=obs.set_index(obs.index.astype(str)))
    preset = presets.NEURON_CLOCK
    PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", **preset["setup"])

    def seconds(epochs: int) -> float:
        model, start = PoissonVAE(adata, **preset["init"]), time.perf_counter()
        train = {**preset["train"], "max_epochs": epochs}
        model.train(accelerator=accelerator, enable_progress_bar=False, **train)
        return time.perf_counter() - start

    few, more = sizes.study_epochs
    peak_gb(device)
    start, end = seconds(few), seconds(more)
    epoch = (end - start) / (more - few)
    return {
        "part": "study",
        "shape": list(adata.shape),
        "seconds_of_an_epoch": round(epoch, 3),
        "hours_of_1000_epochs": round((start + epoch * (STUDY_EPOCHS - few)) / 3600, 3),
        "peak_gb": peak_gb(device),
    }


def tell(*rows: dict[str, Any]) -> None:
    """Print each row as a line of JSON."""
    for row in rows:
        print(json.dumps(row), flush=True)


def run(sizes: Sizes, accelerator: str, device: str, rounds: int) -> None:
    """All parts."""
    start = time.perf_counter()
    small = simulate(min(2_000, sizes.cells[0]), sizes.genes[0], np.random.default_rng(0))
    compared = step(small, accelerator)
    tell(compared, *waits(small, accelerator))
    for n_cells, n_genes in zip(sizes.cells, sizes.genes, strict=True):
        race = Race(simulate(n_cells, n_genes, np.random.default_rng(0)), accelerator)
        for batch_size in sizes.batches:
            tell(speed(race, batch_size, sizes, device, rounds))
    tell(study(sizes, accelerator, device), {"seconds": round(time.perf_counter() - start, 1)})
    if not compared["passed"]:
        sys.exit("the step on the device differs from the one on the CPU.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    silence()
    device, sizes, accelerator = arguments.device, Sizes(), "gpu"
    if device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: the same code runs on the CPU, with tiny sizes.", flush=True)
        device = "cpu"
    if device == "cpu":
        sizes, accelerator = TINY, "cpu"
    else:
        free, total = (round(n / 1e9, 1) for n in torch.cuda.mem_get_info())
        tell({"gpu": torch.cuda.get_device_name(), "gb": total, "free_gb": free, "torch": torch.__version__})
    run(sizes, accelerator, device, arguments.rounds)


if __name__ == "__main__":
    main()
