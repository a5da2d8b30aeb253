"""agevi.pp.sum_samples and agevi.io.write_store, killed at random moments and called again until they are done.

Run: python benchmarks/kills.py [N_KILLS]
Each call has a process of its own, which gets SIGKILL after a random part of the time that an unbroken call takes. What
comes out must equal what an unbroken call gives, byte for byte of the arrays, and nothing else may be left.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import agevi
from agevi.io import _kept, _matrix_file, _store_parts

SEED, N_CELLS, N_GENES = 0, 60_000, 400
_matrix_file._VALUES, _store_parts._VALUES = 1 << 15, 1 << 17  # many blocks and parts of a small file
_kept.PAUSE = _kept.SHARE = 0.0  # a state at every block


def cells(folder: Path) -> list[Path]:
    """Two files of cells in random order of 40 samples."""
    rng = np.random.default_rng(SEED)
    paths = []
    for i in range(2):
        x = sp.random(N_CELLS // 2, N_GENES, 0.05, format="csr", dtype=np.float32, rng=rng)
        x.data = rng.geometric(0.5, x.nnz).astype(np.float32)
        obs = pd.DataFrame({"sample": [f"s{k}" for k in rng.integers(40, size=x.shape[0])]})
        obs.index = [f"c{i}-{k}" for k in range(len(obs))]
        paths.append(folder / f"cells{i}.h5ad")
        ad.AnnData(x, obs=obs).write_h5ad(paths[-1])
    return paths


def arrays(path: Path) -> dict[str, Any]:
    """All arrays of an AnnData as bytes."""
    found = ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)
    out = {"obs": found.obs.to_csv().encode(), "var": found.var.to_csv().encode()}
    for name, x in [("X", found.X), *found.layers.items()]:
        for part in ("data", "indices", "indptr"):
            out[f"{name}/{part}"] = (getattr(x, part).dtype.str, getattr(x, part).tobytes())
    return out


def run(call: Callable[[Path], Any], out: Path, kill_after: float | None) -> bool:
    """Whether a call in a process of its own came to its end."""
    process = multiprocessing.get_context("fork").Process(target=call, args=(out,))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        os.kill(process.pid or 0, 9)
    process.join()
    return process.exitcode == 0


def killed(name: str, call: Callable[[Path], Any], folder: Path, ending: str, n_kills: int) -> None:
    """Kill one function at ``n_kills`` moments in all, and compare each result."""
    rng, whole = np.random.default_rng(SEED), folder / f"whole{ending}"
    began = time.perf_counter()
    if not run(call, whole, None):
        raise RuntimeError(f"{name} failed")
    seconds, expected = time.perf_counter() - began, arrays(whole)
    n, n_results, moments = 0, 0, []
    while n < n_kills:
        out = folder / f"out{n_results}{ending}"
        while not out.exists():
            after = float(rng.uniform(0.05, 0.9) * seconds) if n < n_kills else None
            if not run(call, out, after):
                n += 1
                moments.append(round((after or 0) / seconds, 2))
        if arrays(out) != expected:
            raise RuntimeError(f"{name}: result {n_results} differs from that of an unbroken call")
        n_results += 1
    left = sorted(p.name for p in folder.iterdir() if p.name.startswith(".") or p.name.endswith(".parts"))
    print(f"{name}: {n} kills, {n_results} results equal ({seconds:.1f} s unbroken), left over: {left}")
    print(f"  at these parts of an unbroken call: {moments}", flush=True)


def main() -> None:
    """Kill each function."""
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    agevi.settings.verbosity = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = cells(folder)
        for ending in (".h5ad", ".zarr"):
            killed(
                f"sum_samples, {ending}",
                lambda out: agevi.pp.sum_samples(
                    paths[0], "sample", out=out, checkpoint_dir=out.with_suffix(out.suffix + ".sums")
                ),
                folder,
                ending,
                n_kills,
            )
            for made in [*folder.glob("whole*"), *folder.glob("out*")]:
                os.system(f"rm -r '{made}'")
            killed(
                f"write_store, {ending}",
                lambda out: agevi.io.write_store(paths, out, "sample"),
                folder,
                ending,
                n_kills,
            )
            for made in [*folder.glob("whole*"), *folder.glob("out*")]:
                os.system(f"rm -r '{made}'")


if __name__ == "__main__":
    main()
