"""Who may train the clock when groups are compared by tl.age_acceleration: everybody, or the reference alone.

Cohorts of 60 subjects (26 cases), 10 cells of 400 genes each, and no acceleration: 60 genes change with age by a log-rate,
every subject has deviations of its own, and in the cohorts with disease genes 5 % of the genes change in cases whatever the age. In the
cohorts with older cases, the chance to be a case rises with age. Ages are predicted in 5 folds of subjects.

``sums``: partial least squares with 5 components on log sums of subjects, in this file, which is fast enough for many cohorts.
``clock``: PLSClock and every step of agevi, from cells to the row of the table, for fewer.

usage: python benchmarks/acceleration_training.py [--sums 200] [--clock 6]

Prints how often p < .05, and mean and standard deviation of the difference.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import agevi
from agevi.tl.acceleration import _ancova

N_SUBJECTS, N_CASES, N_CELLS, N_GENES, N_AGE_GENES = 60, 26, 10, 400, 60
TRAINED_ON = {"everybody": None, "controls": "condition == 'control'"}


def cohort(seed: int, *, older: bool, disease_genes: bool) -> ad.AnnData:
    """Counts of cases and controls whose cells are as old as they are."""
    rng = np.random.default_rng(seed)
    slope = np.zeros(N_GENES)
    slope[rng.choice(N_GENES, N_AGE_GENES, replace=False)] = rng.normal(0, 0.4, N_AGE_GENES)
    of_disease = np.where(rng.random(N_GENES) < 0.05, rng.normal(0, 0.4, N_GENES), 0.0) * disease_genes
    age = rng.uniform(22, 88, N_SUBJECTS)
    odds = np.exp((age - 55) / 40 * older)
    case = np.zeros(N_SUBJECTS, dtype=bool)
    case[rng.choice(N_SUBJECTS, N_CASES, replace=False, p=odds / odds.sum())] = True
    log_rate = rng.normal(0, 1, N_GENES) + np.outer((age - 55) / 33, slope) + np.outer(case, of_disease)
    rate = np.exp(log_rate + rng.normal(0, 0.15, (N_SUBJECTS, N_GENES)))
    rate /= rate.sum(axis=1, keepdims=True)
    depth = np.exp(rng.normal(np.log(3000), 0.35, (N_SUBJECTS * N_CELLS, 1)))
    counts = rng.poisson(np.repeat(rate, N_CELLS, axis=0) * depth).astype(np.float32)
    donor = np.repeat([f"d{i:02d}" for i in range(N_SUBJECTS)], N_CELLS)
    obs = pd.DataFrame({"donor": donor, "age": np.repeat(age, N_CELLS)}, index=[f"c{i}" for i in range(len(donor))])
    obs["condition"] = np.repeat(np.where(case, "case", "control"), N_CELLS)
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))


def compared(adata: ad.AnnData, train_on: str | None) -> pd.Series:
    """Row of the comparison, with the clock trained on some or on all."""
    agevi.tl.cross_validate(
        adata, agevi.model.PLSClock, age_key="age", subject_key="donor", train_on=train_on, n_folds=5, rng=0
    )
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.age_acceleration(adata, groupby="condition", reference="control", n_permutations=0)
    return agevi.get.acceleration_df(adata).iloc[0]


def pls(x: np.ndarray, y: np.ndarray, n_components: int = 5) -> tuple[np.ndarray, float]:
    """Coefficients and intercept of partial least squares (Wold, 1975)."""
    centre, mean = x.mean(axis=0), y.mean()
    left, rest = x - centre, y - mean
    weights, loadings, inner = [], [], []
    for _ in range(n_components):
        weight = left.T @ rest
        weight /= np.linalg.norm(weight)
        score = left @ weight
        size = score @ score
        loading, share = left.T @ score / size, rest @ score / size
        left, rest = left - np.outer(score, loading), rest - share * score
        weights.append(weight), loadings.append(loading), inner.append(share)
    w, p = np.stack(weights, axis=1), np.stack(loadings, axis=1)
    coefficients = w @ np.linalg.solve(p.T @ w, np.array(inner))
    return coefficients, float(mean - centre @ coefficients)


def compared_sums(adata: ad.AnnData, train_on: str | None) -> pd.Series:
    """The same comparison with a clock of sums, its predictions which are compared with age as a cubic, as agevi does here."""
    x = np.asarray(adata.X.todense()).reshape(N_SUBJECTS, -1, N_GENES).sum(axis=1)
    x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    subjects = adata.obs.iloc[::N_CELLS]
    age = subjects["age"].to_numpy()
    may_train = np.ones(N_SUBJECTS, dtype=bool) if train_on is None else subjects.eval(train_on).to_numpy()
    fold, predicted = np.random.default_rng(0).permutation(N_SUBJECTS) % 5, np.empty(N_SUBJECTS)
    for k in range(5):
        b, intercept = pls(x[(fold != k) & may_train], age[(fold != k) & may_train])
        predicted[fold == k] = x[fold == k] @ b + intercept
    case = (subjects["condition"] == "case").to_numpy()
    design = np.column_stack([np.ones(N_SUBJECTS), case, *(((age - 55) / 20) ** k for k in (1, 2, 3))])
    fitted = _ancova.fit(design, predicted, None)
    difference, se = fitted.contrast(np.eye(5)[1])
    slope = np.polyfit(age - np.where(case, age[case].mean(), age[~case].mean()), predicted, 1)[0]
    return pd.Series(
        {
            "difference": difference,
            "p": float(_ancova.two_sided(difference / se, fitted.df)),
            "slope": slope,
            "flags": "",
        }
    )


def table_of(name: str, compare: Callable[[ad.AnnData, str | None], pd.Series], n: int) -> None:
    """Print the rows of one way to predict."""
    for older, disease_genes in itertools.product((True, False), repeat=2):
        rows: dict[str, list[pd.Series]] = {who: [] for who in TRAINED_ON}
        for seed in range(n):
            adata = cohort(seed, older=older, disease_genes=disease_genes)
            for who, query in TRAINED_ON.items():
                rows[who].append(compare(adata, query))
        for who, found in rows.items():
            table = pd.DataFrame(found)
            mean, sd = table["difference"].mean(), table["difference"].std()
            print(
                f"| {name} | {'older' if older else 'same age'} | {'yes' if disease_genes else 'no'} | {who} | {n} "
                f"| {100 * (table['p'] < 0.05).mean():.0f} % | {mean:.2f} ({sd / n**0.5:.2f}) | {sd:.2f} "
                f"| {table['slope'].mean():.2f} |",
                flush=True,
            )


def main() -> None:
    """Simulate the cohorts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sums", type=int, default=200)
    parser.add_argument("--clock", type=int, default=6)
    args = parser.parse_args()
    agevi.settings.verbosity = 0
    print("| clock | cases | disease genes | trained on | cohorts | p < .05 | mean difference (se) | sd | slope |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    start = time.process_time()
    for name, compare, n in (("sums", compared_sums, args.sums), ("PLSClock", compared, args.clock)):
        if n:
            table_of(name, compare, n)
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
