"""Milliseconds of the first layer of a network on sparse cells, by a product that skips zeros and by a dense one.

usage: python benchmarks/sparse_layer.py [--rounds 9] [--cells 128 1024] [--genes 2000 18000]

One row per size and density: forward, and the gradient of the weights, CPU time on one thread, medians. The densities at
which dense products become faster are ``agevi.nn.products._MAX_DENSITY``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from agevi.nn import products, rows

WIDTH = 300
DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Median CPU time of a call."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken)


def one_size(n_cells: int, n_genes: int, density: float, dtype: torch.dtype, rounds: int) -> tuple[float, ...]:
    """Forward and both directions, skipping zeros and not."""
    x = torch.rand(n_cells, n_genes)
    cells = rows.as_csr(torch.where(x < density, x + 0.1, 0))
    weight = products.store_by_input(torch.nn.Linear(n_genes, WIDTH)).weight

    def forward() -> torch.Tensor:
        with products.factors_in(dtype):
            return products.linear(rows.with_values(cells, cells.values()), weight)

    def both() -> None:
        weight.grad = None
        forward().sum().backward()

    found = []
    for highest in (1.0, 0.0):  # always, and never
        products._MAX_DENSITY[dtype] = (highest, highest)
        found += [milliseconds(call, rounds) for call in (forward, both)]
    return tuple(found)


def main() -> None:
    """Print one row per size and density."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cells", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--genes", type=int, nargs="+", default=[2000, 18000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    types = [torch.float32] + [torch.bfloat16] * products._has_bfloat16(torch.device("cpu"))
    print(
        "type cells genes density sparse dense sparse+gradient dense+gradient", torch.backends.cpu.get_cpu_capability()
    )
    for dtype in types:
        for n_genes in arguments.genes:
            for n_cells in arguments.cells:
                for density in DENSITIES:
                    sparse, both, dense, dense_both = one_size(n_cells, n_genes, density, dtype, arguments.rounds)
                    print(
                        str(dtype)[6:],
                        n_cells,
                        n_genes,
                        density,
                        *(f"{t:.1f}" for t in (sparse, dense, both, dense_both)),
                    )


if __name__ == "__main__":
    main()
