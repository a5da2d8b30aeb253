"""What the matrix products that a network needs would take if nothing else were computed, for ``speed.py``."""

from __future__ import annotations

from collections import Counter

import torch
from speed_race import CLOCKS, LATENT, WIDTH, Times, timed

Shape = tuple[int, int, int]
"""Rows, terms of each sum, and columns of a product."""


def layers(n_genes: int) -> list[tuple[int, int]]:
    """Inputs and outputs of every linear layer: encoder, mean and variance, decoder, age head."""
    encoder = [(n_genes, WIDTH), (WIDTH, WIDTH)]
    decoder = [(LATENT, WIDTH), (WIDTH, WIDTH), (WIDTH, n_genes)]
    return [*encoder, (WIDTH, LATENT), (WIDTH, LATENT), *decoder, (LATENT, 1)]


def forward(n_genes: int, n: int) -> Counter[Shape]:
    """Products of a pass over ``n`` cells, and how often each is needed."""
    return Counter((n, a, b) for a, b in layers(n_genes))


def step(n_genes: int, n: int) -> Counter[Shape]:
    """Those of a training step: forward, gradient of the weights, and of the inputs of all layers but the first."""
    of_weights = Counter((b, n, a) for a, b in layers(n_genes))
    of_inputs = Counter((n, b, a) for a, b in layers(n_genes)[1:])
    return forward(n_genes, n) + of_weights + of_inputs


def seconds(shape: Shape, dtype: torch.dtype, device: str, repeats: int = 5) -> Times:
    """Least seconds of a product, by the faster of three layouts of its factors."""
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner, device=device).to(dtype), torch.randn(inner, columns, device=device).to(dtype)
    layouts = [(a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)]
    n = min(200, max(1, int((2e8 if device == "cpu" else 1e11) / (rows * inner * columns))))  # some milliseconds
    found: list[Times] = []
    for x, y in layouts:
        x @ y
        for _ in range(repeats):
            with timed() as taken:
                for _ in range(n):
                    x @ y
                if device != "cpu":
                    torch.cuda.synchronize()
            found.append(taken)
    return {clock: min(t[clock] for t in found) / n for clock in CLOCKS}


def bound(
    n_genes: int, batch_size: int, precision: str, n_train: int, n_val: int, device: str = "cpu"
) -> dict[str, float]:
    """Microseconds a cell of an epoch with its validation, which is in float32, by clock."""
    dtype, known = getattr(torch, precision), {}
    out = dict.fromkeys(CLOCKS, 0.0)
    for n, products, kind in ((n_train, step, dtype), (n_val, forward, torch.float32)):
        size = min(batch_size, n)
        for shape, times in products(n_genes, size).items() if n else ():
            if (shape, kind) not in known:
                known[shape, kind] = seconds(shape, kind, device)
            for clock in CLOCKS:
                out[clock] += 1e6 * times * known[shape, kind][clock] * n / size / (n_train + n_val)
    return out
