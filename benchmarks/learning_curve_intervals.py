"""Whether the change with twice the subjects that ``tl.learning_curve`` promises comes true, on simulated subjects.

Ridge regression on features which the ages explain a little, more or less, and the same with ages that say nothing (signal 0). The
truth is the mean error of many cohorts of that size and of twice that size; the question is how often the interval holds it, and how
often a gain is promised. The true change of the last doubling stands beside it.

usage: python benchmarks/learning_curve_intervals.py [--n 30 60 120 240] [--signal 3 1.5 6 0] [--features 300]
    [--draws 200] [--seed 7]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agevi.tl.curves._curve_table import Point, Resampler, curve_table, verdict
from agevi.tl.curves._levels import SUBJECTS, Level, make_levels, subject_order

N_FOLDS, N_REPEATS = 5, 3
PENALTIES = np.geomspace(100, 1e5, 7)


@dataclass
class Cohort:
    """Ages of subjects and the products of their features."""

    age: np.ndarray  # (n,)
    kernel: np.ndarray  # (n, n)

    def predicted(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Ages by ridge regression whose penalty is chosen by leave-one-out."""
        mean = self.age[train].mean()
        y = self.age[train] - mean
        values, vectors = np.linalg.eigh(self.kernel[np.ix_(train, train)])
        inverse = 1 / (values[:, None] + PENALTIES)  # n_train x n_penalties
        dual = vectors @ (inverse * (vectors.T @ y)[:, None])
        left_out = dual / (vectors**2 @ inverse)
        best = dual[:, np.square(left_out).mean(axis=0).argmin()]
        return np.asarray(mean + self.kernel[np.ix_(test, train)] @ best)


def simulate(n: int, signal: float, n_features: int, rng: np.random.Generator) -> Cohort:
    """Subjects whose features follow the age with random weights."""
    age = rng.uniform(20, 80, n)
    weight = signal * rng.normal(size=n_features) / np.sqrt(n_features)
    x = ((age - 50) / 17.3)[:, None] * weight + rng.normal(size=(n, n_features))
    return Cohort(age, x @ x.T)


def true_error(n_train: int, signal: float, n_features: int, rng: np.random.Generator, draws: int = 150) -> float:
    """Mean absolute error of clocks of ``n_train`` subjects on 200 others."""
    errors = []
    for _ in range(draws):
        cohort = simulate(n_train + 200, signal, n_features, rng)
        train, test = np.arange(n_train), np.arange(n_train, n_train + 200)
        errors.append(np.abs(cohort.predicted(train, test) - cohort.age[test]).mean())
    return float(np.mean(errors))


def curve(cohort: Cohort, rng: np.random.Generator) -> list[Point]:
    """All levels with their repeats, as ``tl.learning_curve`` draws them."""
    n = len(cohort.age)
    fold = np.empty(n, dtype=int)
    for block in np.array_split(np.argsort(cohort.age), -(-n // N_FOLDS)):
        fold[block] = rng.permutation(N_FOLDS)[: len(block)]
    n_train = n - n // N_FOLDS
    levels = make_levels(SUBJECTS, None, n_train, n_train)
    orders = [[subject_order(pd.Series(cohort.age)[fold != k], rng) for k in range(N_FOLDS)] for _ in range(N_REPEATS)]
    return [_point(cohort, level, orders[: 1 if level.is_full else N_REPEATS], fold) for level in levels]


def _point(cohort: Cohort, level: Level, orders: list[list[np.ndarray]], fold: np.ndarray) -> Point:
    """One level."""
    predicted = np.empty((len(orders), len(fold)))
    reference = np.empty_like(predicted)
    for repeat, of_fold in enumerate(orders):
        for k, order in enumerate(of_fold):
            train, test = np.sort(order[: int(level.of(len(order)))]), np.flatnonzero(fold == k)
            predicted[repeat, test] = cohort.predicted(train, test)
            reference[repeat, test] = np.median(cohort.age[train])
    n = int(level.of(len(orders[0][0])))
    return Point(level, n, predicted, reference, n, 1)


def main() -> None:
    """Print one row for each size of a cohort."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[30, 60, 120, 240])
    parser.add_argument("--signal", type=float, nargs="+", default=[3.0, 1.5, 6.0, 0.0])
    parser.add_argument("--features", type=int, default=300)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    print(
        "| subjects | signal | last change, true | next, true | mean estimate (sd) | mean interval | holds the truth | gain promised |"
    )
    print("| ---: | ---: | ---: | ---: | --- | --- | ---: | ---: |")
    for n in args.n:
        for signal in args.signal:
            rng, rows, promised = np.random.default_rng([args.seed, n, round(10 * signal)]), [], []
            n_train = n - n // N_FOLDS
            half, all_of_them, twice = (
                true_error(k, signal, args.features, rng) for k in (n_train // 2, n_train, 2 * n_train)
            )
            truth = twice - all_of_them
            for draw in range(args.draws):
                cohort = simulate(n, signal, args.features, rng)
                points, subject = curve(cohort, rng), np.arange(n)
                resampler = Resampler.of(subject, 400, np.random.SeedSequence(draw))
                _, laws = curve_table({SUBJECTS: points}, cohort.age, subject, resampler)
                promised.append(verdict(points, laws, cohort.age, subject, "years")[1])
                rows.append(laws[SUBJECTS])
            laws = pd.DataFrame(rows)
            holds = ((laws["change_low"] <= truth) & (truth <= laws["change_high"])).mean()
            print(
                f"| {n} | {signal:g} | {all_of_them - half:+.2f} | {truth:+.2f} | {laws['change'].mean():+.2f} "
                f"({laws['change'].std():.2f}) | {laws['change_low'].mean():+.2f} to {laws['change_high'].mean():+.2f} | "
                f"{holds:.1%} | {np.mean(promised):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
