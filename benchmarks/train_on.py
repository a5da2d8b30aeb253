"""How much of a planted acceleration stays in the out-of-fold gaps, by who may train.

Each cohort has 200 subjects with 20 cells of 300 genes; 40 % are cases whose cells are ten years older than their age. A
clock is cross-validated (5 folds of subjects), once trained on controls alone and once on everybody; the gap of a subject
is predicted minus actual age. The pseudobulk ridge is that of ``tl.compare_models``.

usage: python benchmarks/train_on.py [--seeds 0 1 2 3 4 5 6 7 8 9]

Prints the mean gap of cases, of controls, and the distance between the two: mean over cohorts (standard deviation).
"""

from __future__ import annotations

import argparse

import pandas as pd
from anndata import AnnData

import agevi

KEYS = {"age_key": "age", "subject_key": "donor"}
TRAINED_ON = {"controls": "condition == 'control'", "everybody": None}
RIDGE = "pseudobulk ridge"


def predictions(adata: AnnData, model: str, query: str | None, seed: int) -> pd.DataFrame:
    """Actual age and out-of-fold prediction of every subject."""
    if model == RIDGE:
        agevi.tl.compare_models(adata, [], **KEYS, train_on=query, n_null_linear=0, rng=seed)
        table = adata.uns["agevi_leaderboard_predictions"]
        return table[table["model"] == RIDGE].set_index("subject")[["age", "predicted"]]
    agevi.tl.cross_validate(adata, getattr(agevi.model, model), **KEYS, train_on=query, rng=seed)
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata).set_index("subject")[["age", "predicted"]]


def gaps(adata: AnnData, model: str, query: str | None, seed: int) -> dict[str, float]:
    """Mean gap of cases and of controls, years."""
    table = predictions(adata, model, query, seed)
    condition = adata.obs.groupby(adata.obs["donor"].astype(str))["condition"].first().astype(str)
    mean = (table["predicted"] - table["age"]).groupby(condition).mean()
    return {"cases": mean["case"], "controls": mean["control"], "distance": mean["case"] - mean["control"]}


def main() -> None:
    """Simulate the cohorts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        adata = agevi.datasets.simulate_cohort(200, 20, 300, acceleration=10, case_fraction=0.4, rng=seed)
        rows += [
            {"model": model, "trained on": who, **gaps(adata, model, query, seed)}
            for model in (RIDGE, "PLSClock")
            for who, query in TRAINED_ON.items()
        ]
    grouped = pd.DataFrame(rows).groupby(["model", "trained on"], sort=False)
    mean, sd = grouped.mean(), grouped.std()
    print("| model | trained on | mean gap of cases | mean gap of controls | distance |")
    print("| --- | --- | --- | --- | --- |")
    for model, who in mean.index:
        cells = [f"{mean.loc[(model, who), c]:.1f} ({sd.loc[(model, who), c]:.1f})" for c in mean.columns]
        print(f"| {model} | {who} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
