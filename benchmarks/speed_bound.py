"""What the matrix products that a network needs would take if nothing else were computed, for ``speed.py``."""

from __future__ import annotations

from collections import Counter

import torch
from speed_race import CLOCKS, LATENT, WIDTH, Times, timed

Shape = tuple[int, int, int]
"""Rows, terms of each sum, and columns of a product."""


DECODED = 1024
"""Validation cells that agevi reconstructs in an epoch, about; it encodes all. SCVI does both with all."""


def encoder(n_genes: int) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear layers up to the posterior, mean and variance, and of the age head."""
    return [(n_genes, WIDTH), (WIDTH, WIDTH), (WIDTH, LATENT), (WIDTH, LATENT), (LATENT, 1)]


def decoder(n_genes: int) -> list[tuple[int, int]]:
    """Those from the latent space to the genes."""
    return [(LATENT, WIDTH), (WIDTH, WIDTH), (WIDTH, n_genes)]


def forward(layers: list[tuple[int, int]], n: int) -> Counter[Shape]:
    """Products of a pass over ``n`` cells, and how often each is needed."""
    return Counter((n, a, b) for a, b in layers)


def step(n_genes: int, n: int) -> Counter[Shape]:
    """Those of a training step: forward, gradient of the weights, and of the inputs of all layers but the first."""
    layers = [*encoder(n_genes), *decoder(n_genes)]
    of_weights = Counter((b, n, a) for a, b in layers)
    of_inputs = Counter((n, b, a) for a, b in layers[1:])
    return forward(layers, n) + of_weights + of_inputs


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
    for n, kind, needed in (
        (n_train, dtype, lambda size: step(n_genes, size)),
        (n_val, torch.float32, lambda size: forward(encoder(n_genes), size)),
        (min(n_val, DECODED), torch.float32, lambda size: forward(decoder(n_genes), size)),
    ):
        size = min(batch_size, n)
        for shape, times in needed(size).items() if n else ():
            if (shape, kind) not in known:
                known[shape, kind] = seconds(shape, kind, device)
            for clock in CLOCKS:
                out[clock] += 1e6 * times * known[shape, kind][clock] * n / size / (n_train + n_val)
    return out
