"""Whether `tl.compare_transfer` finds a condition where labels mean nothing: AUROC of every row, 0.5 expected.

Simulated people of one population, 5 cells each. An MLPClock learns the ages of the first 300; the others make cohorts, in each of
which half of the people, drawn at random, are called cases. Means over cohorts with their standard errors.

usage: python benchmarks/transfer_null.py [--cohorts N] [--subjects N] [--repeats N] [--epochs N]
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import pandas as pd
import torch

import agevi

SETUP = {"age_key": "age", "subject_key": "donor"}
N_CLOCK = 300  # people who train the clock
SHOWN = ("auroc", "balanced_accuracy", "difference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=60)
    parser.add_argument("--subjects", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "agevi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    start, rng = time.perf_counter(), np.random.default_rng(arguments.seed)
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
