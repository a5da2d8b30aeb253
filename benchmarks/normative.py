"""Calibration of the centiles of ``tl.normative_scores``: new samples of the reference's population, 500 references a row."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from agevi.tl.acceleration import _norms

N_REFERENCES, N_NEW = 500, 20
ERRORS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "t, 4 df": lambda rng, size: rng.standard_t(4, size=size) / np.sqrt(2),
    "gamma, shape 4": lambda rng, size: (rng.gamma(4, size=size) - 4) / 2,
}


def draw(rng: np.random.Generator, n: int, error: str, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Ages and predictions of ``n`` samples of each reference; the spread changes by ``spread`` (log) in 20 years."""
    age = rng.uniform(20, 90, (N_REFERENCES, n))
    return age, 20 + 0.6 * age + 5 * np.exp(spread * (age - 55) / 20) * ERRORS[error](rng, age.shape)


def main() -> None:
    """Print a table."""
    print("| reference | degree | errors | spread | KS | centiles 2.5 to 97.5 | below 2.5 | above 97.5 |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    for n, degree in ((10, 1), (15, 1), (20, 1), (25, 3), (50, 3), (200, 3)):
        for error in ERRORS:
            for spread in (0.0, 0.35):
                norms = _norms.fit(*draw(rng, n, error, spread), np.full(N_REFERENCES, n), degree=degree)
                centile = _norms.score(norms, *draw(rng, N_NEW, error, spread))["centile"]
                low, high = (centile < 2.5).mean(), (centile > 97.5).mean()
                ks = kstest(centile.ravel() / 100, "uniform").statistic
                print(
                    f"| {n} | {degree} | {error} | {spread} | {ks:.3f} | {1 - low - high:.3f} | {low:.3f} | {high:.3f} |"
                )


if __name__ == "__main__":
    main()
