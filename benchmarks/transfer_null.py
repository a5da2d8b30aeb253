"""Whether `tl.compare_transfer` finds a condition where labels mean nothing: AUROC of every row, 0.5 expected.

Simulated people of one population, 5 cells each. An MLPClock learns the ages of the first 300; the others make cohorts, in each of
which half of the people, drawn at random, are called cases. Means over cohorts with their standard errors. And the same folds with
nothing but an age, in many more cohorts of several sizes; and that in one split of `pp.split_subjects(stratify_by=condition)`.

usage: python benchmarks/transfer_null.py [--cohorts N] [--subjects N] [--repeats N] [--epochs N] [--draws N] [--splits N]
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import pandas as pd
import torch

import agevi
from agevi.dataloaders._assign import assign_roles, role_counts
from agevi.tl.disease._folds import draw_folds
from agevi.tl.disease._linear_models import Samples
from agevi.tl.disease._table import auroc_within

SETUP = {"age_key": "age", "subject_key": "donor"}
N_CLOCK = 300  # people who train the clock
SHOWN = ("auroc", "balanced_accuracy", "difference")


def of_age(n: int, share: float, n_draws: int, rng: np.random.Generator) -> str:
    """AUROC within folds of the age, in the direction that it has among the training people."""
    name = pd.Index([f"p{i:03d}" for i in range(n)])
    areas = []
    for _ in range(n_draws):
        age, case = (
            rng.uniform(20, 90, n),
            pd.Series(rng.permutation(np.arange(n) < share * n).astype(float), index=name),
        )
        samples = Samples(None, name.to_series(), np.arange(n), case.to_numpy(), name.to_numpy(), case)
        probability, fold_of = np.zeros(n), np.zeros(n)
        for fold in draw_folds(samples, 0, 5, 0.2, rng):
            train, new = ~fold.held_out, fold.held_out
            of_case, of_control = (age[train & (samples.case == label)].mean() for label in (1, 0))
            probability[new], fold_of[new] = np.sign(of_case - of_control) * age[new], fold.number
        areas.append(auroc_within(samples.case, probability, fold_of, np.ones((1, n)))[0])
    return f"{np.mean(areas):.4f} +- {np.std(areas) / np.sqrt(n_draws):.4f}"


def of_split(n: int, test_size: float, n_draws: int, rng: np.random.Generator) -> str:
    """The same among the test people of one split, which is balanced over age, and over the condition or not."""
    said = []
    for stratified in (True, False):
        areas = []
        for _ in range(n_draws):
            age, case = rng.uniform(20, 90, n), rng.permutation(np.arange(n) < n // 2)
            n_test, n_validation = role_counts(n, test_size, 0.15)
            test = assign_roles(age, case if stratified else None, n_test, n_validation, rng) == "test"
            if case[test].all() or not case[test].any():
                continue
            sign = np.sign(age[~test & case].mean() - age[~test & ~case].mean())
            areas.append(agevi.metrics.auroc(case[test], 0.5 + sign * age[test] / 200))
        said.append(f"{np.mean(areas):.4f} +- {np.std(areas) / np.sqrt(len(areas)):.4f}")
    return f"{said[0]} with stratify_by=condition, {said[1]} without"


def ages_alone(n_draws: int, n_splits: int, rng: np.random.Generator) -> None:
    """Print what an age gives, in folds and in one split."""
    for n, share in ((30, 0.5), (60, 0.5), (60, 0.3), (200, 0.5)) if n_draws else ():
        print(f"age alone, {n} people, {share:.0%} cases: {of_age(n, share, n_draws, rng)}", flush=True)
    for n, size in ((30, 0.15), (60, 0.15), (60, 0.3), (200, 0.15)) if n_splits else ():
        print(f"age alone in one split, {n} people, test_size={size}: {of_split(n, size, n_splits, rng)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=60)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "agevi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    start, rng = time.perf_counter(), np.random.default_rng(arguments.seed)
    ages_alone(arguments.draws, arguments.splits, rng)
    if arguments.cohorts == 0:
        return
    people = agevi.datasets.simulate_cohort(
        n_subjects=N_CLOCK + arguments.cohorts * arguments.subjects,
        n_cells=5,
        n_genes=50,
        n_age_genes=25,
        effect_range=(0.2, 0.4),
        rng=arguments.seed,
    )
    number = np.unique(people.obs["donor"], return_inverse=True)[1]
    others = people[number < N_CLOCK].copy()
    others.obs["agevi_split"] = "train"
    agevi.model.MLPClock.setup_anndata(others, **SETUP)
    clock = agevi.model.MLPClock(others, n_hidden=[16, 16])
    clock.train(max_epochs=30, enable_progress_bar=False)
    found = []
    for i in range(arguments.cohorts):
        of_cohort = number - N_CLOCK - i * arguments.subjects
        used = (of_cohort >= 0) & (of_cohort < arguments.subjects)
        cohort = people[used].copy()
        case = rng.permutation(np.arange(arguments.subjects) < arguments.subjects // 2)
        cohort.obs["label"] = np.where(case[of_cohort[used]], "case", "control")
        if i == 0:
            error = np.abs(clock.predict_age(cohort, level="sample") - cohort.obs["age"]).mean()
            print(
                f"clock: error {error:.1f} years on the first cohort, standard deviation {cohort.obs['age'].std():.1f}"
            )
        agevi.tl.compare_transfer(
            cohort,
            clock,
            condition_key="label",
            control="control",
            sex_key="sex",
            n_repeats=arguments.repeats,
            n_boot=1,
            train_kwargs={"max_epochs": arguments.epochs, "lr": 1e-2},
            rng=i,
        )
        found.append(agevi.get.transfer_df(cohort).set_index("model")[list(SHOWN)])
    values = np.stack(found)  # cohorts x rows x metrics
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(arguments.cohorts)
    table = pd.DataFrame(index=found[0].index)
    for k, name in enumerate(SHOWN):
        table[name], table[f"{name}_se"] = mean[:, k], error[:, k]
    print(
        f"{arguments.cohorts} cohorts of {arguments.subjects}, 5 folds, {arguments.repeats} repeat, {arguments.epochs} epochs"
    )
    print(table.round(3).to_string())
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
