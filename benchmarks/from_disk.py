"""Training and prediction of PoissonVAE from an h5ad file on disk against the same in memory: cells per second, memory.

Run: python benchmarks/from_disk.py [N_CELLS ...] [--order sorted|scattered] [--compression lzf|gzip|none]
Seed 0. A cell draws its counts from two programs of genes, the second more often the older its subject is; beyond
300,000 cells those of the first are repeated. Each
measurement has a process of its own, whose resident memory is watched by this one; ages that a clock from disk
predicts in memory are compared bit for bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_GENES, N_SUBJECTS, BLOCK, DRAWN, COUNTS, CHUNK = 3000, 500, 10_000, 30, 280, 1 << 17


def write(path: Path, n_cells: int, order: str, compression: str | None) -> float:
    """An h5ad of ``n_cells`` cells, made block by block; its share of counts that are not zero."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(N_SUBJECTS), -(-n_cells // N_SUBJECTS))[:n_cells]
    if order == "scattered":
        subject = rng.permutation(subject)
    age = rng.uniform(20, 90, N_SUBJECTS)
    programs = [np.cumsum(p / p.sum()) for p in rng.lognormal(0, 1.5, (2, N_GENES))]
    obs = pd.DataFrame({"donor": pd.Categorical(np.char.add("d", subject.astype(str))), "age": age[subject]})
    obs.index = "c" + obs.index.astype(str)
    ad.AnnData(sp.csr_matrix((n_cells, N_GENES), dtype=np.float32), obs=obs).write_h5ad(path)
    drawn: list[sp.csr_matrix] = []
    with h5py.File(path, "a") as file:
        group, ends = file["X"], [np.zeros(1, dtype=np.int64)]
        for name, dtype in (("data", np.float32), ("indices", np.int32)):
            del group[name]
            group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK,), compression=compression)
        for start in range(0, n_cells, BLOCK):
            own = subject[start : start + BLOCK]
            if len(drawn) == DRAWN:
                _append(group, ends, drawn[start // BLOCK % DRAWN][: len(own)])
                continue
            library = rng.poisson(COUNTS * rng.lognormal(0, 0.4, len(own)))
            row = np.repeat(np.arange(len(own)), library)
            old = rng.random(len(row)) < np.repeat((age[own] - 20) / 350, library)
            at = rng.random(len(row))
            gene = np.where(old, np.searchsorted(programs[1], at), np.searchsorted(programs[0], at))
            x = sp.csr_matrix((np.ones(len(row), np.float32), (row, gene)), (len(own), N_GENES))
            drawn.append(x)
            _append(group, ends, x)
        del group["indptr"]
        pointers = np.concatenate(ends)  # of 32 bits where they suffice: scipy is slow where they differ from indices
        group["indptr"] = pointers.astype(np.int32 if pointers[-1] < 2**31 else np.int64)
    return int(ends[-1][-1]) / n_cells / N_GENES


def _append(group: h5py.Group, ends: list[np.ndarray], x: sp.csr_matrix) -> None:
    """Put rows behind those that are there."""
    n = int(ends[-1][-1])
    for name, values in (("data", x.data), ("indices", x.indices)):
        group[name].resize((n + x.nnz,))
        group[name][n:] = values
    ends.append(n + x.indptr[1:].astype(np.int64))


def clocks() -> tuple[float, float]:
    """Seconds, and CPU seconds of all threads of this process."""
    return time.perf_counter(), time.process_time()


def child(mode: str, folder: Path) -> None:
    """One measurement: prints a line of JSON after every part."""
    import agevi
    from agevi._compat.scvi import Callback

    agevi.settings.verbosity = 0
    began = np.array(clocks())

    def done(part: str, **figures: Any) -> None:
        nonlocal began
        seconds, cpu = np.array(clocks()) - began
        print(json.dumps({"part": part, "seconds": seconds, "cpu_seconds": cpu, **figures}), flush=True)
        began = np.array(clocks())

    class Clock(Callback):
        """Seconds of the training steps of each epoch, without validation."""

        def on_train_epoch_start(self, *_: Any) -> None:
            self.began = np.array(clocks())

        def on_train_batch_end(self, *_: Any) -> None:
            self.seconds, self.cpu = np.array(clocks()) - self.began

    done("imports")
    adata = ad.read_h5ad(folder / "x.h5ad", backed="r" if mode == "disk" else None)
    done("open")
    cls = agevi.model.PoissonVAE
    cls.setup_anndata(adata, age_key="age", subject_key="donor")
    done("setup_anndata")
    model, clock = cls(adata, train_unit="cell"), Clock()
    model.train(1, callbacks=[clock], enable_progress_bar=False, accelerator="cpu")
    n_train = int(adata.obs["donor"].astype(str).map(model.split_).eq("train").sum())
    mae = float(model.history_["age_mae_validation"].iloc[-1, 0])
    done("train", epoch_per_second=n_train / clock.seconds, epoch_per_cpu_second=n_train / clock.cpu, mae=mae)
    ages = model.predict_age(adata)
    done("predict")
    if mode == "disk":
        np.save(folder / "ages.npy", ages)
        model.save(folder / "clock", overwrite=True)
    elif (folder / "clock").exists():
        same = np.array_equal(agevi.io.load_clock(folder / "clock").predict_age(adata), np.load(folder / "ages.npy"))
        done("compare", equal=bool(same))


def watched(mode: str, folder: Path) -> list[dict[str, Any]]:
    """What a child says, with its highest resident memory in each part, in MB."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", mode, "--folder", str(folder)], stdout=subprocess.PIPE, text=True
    )
    peak, found = 0, []

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            if "VmRSS:" in status:
                peak = max(peak, int(status.split("VmRSS:")[1].split()[0]) // 1024)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for line in process.stdout or ():
        if line.startswith("{"):
            found.append(json.loads(line) | {"peak_mb": peak})
            peak = 0
    watcher.join()
    if process.returncode:
        raise SystemExit(f"the child for {mode} ended with {process.returncode}")
    return found


def main() -> None:
    """Print a line for every part of every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n_cells", type=int, nargs="*", default=[100_000, 300_000])
    parser.add_argument("--order", default="sorted", choices=["sorted", "scattered"])
    parser.add_argument("--compression", default="lzf")
    parser.add_argument("--modes", nargs="+", default=["disk", "memory"])
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.folder)
        return
    for n_cells in given.n_cells:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.h5ad"
            compression = None if given.compression == "none" else given.compression
            filled = write(path, n_cells, given.order, compression)
            size = path.stat().st_size / 1e6
            print(f"{n_cells:,} x {N_GENES:,}, {filled:.1%} not zero, {given.order}, {size:,.0f} MB", flush=True)
            for mode in given.modes:
                for part in watched(mode, Path(folder)):
                    figures = {k: round(v, 3) if isinstance(v, float) else v for k, v in part.items() if k != "part"}
                    print(f"  {mode} {part['part']}: {figures}", flush=True)


if __name__ == "__main__":
    main()
