"""When single cells know more than their sum: three ways in which cell types can age, the same clocks on the same folds.

Each cohort has 80 subjects with 30 cells of 150 genes. The composition differs at random between subjects of one age and
does not change with age. ``alike``: two types, the same genes change in the same direction in both. ``opposite``: they
change in opposite directions. ``one``: three types, only the rarest ages. Clocks have their default settings, but for
networks of single cells, which take 40 epochs without early stopping to save time. These epochs and the settings of the
simulator were chosen on other cohorts than the ones here (seeds 100 and 101).

usage: python benchmarks/states.py [--ageing alike opposite one] [--seeds 0 1 2 3 4] [--autoencoder] [--no-networks]

Prints, over cohorts, the mean absolute error in years (standard deviation), its mean difference to the pseudobulk ridge
of the same cohort with a 95 % interval (t distribution over cohorts), and the mean slope of predicted on actual age.
``--autoencoder`` adds PoissonVAE trained on single cells, which takes a third longer; ``--no-networks`` leaves all
networks out.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import numpy as np
import pandas as pd
import scipy.stats
from anndata import AnnData

import agevi

KEYS = {"age_key": "age", "subject_key": "donor"}
RATES = {"alike": [1, 1], "opposite": [1, -1], "one": [0, 0, 1]}
RIDGE = "pseudobulk ridge"
ON_CPU = {"accelerator": "cpu"}
OF_CELLS = {
    "model_kwargs": {"train_unit": "cell"},
    "train_kwargs": ON_CPU | {"max_epochs": 40, "early_stopping": False},
}
MODELS = {
    "PLSClock": agevi.model.PLSClock,
}
NETWORKS = {
    "MLPClock, pseudocells": (agevi.model.MLPClock, {"train_kwargs": ON_CPU}),
    "MLPClock, pseudocells by type": (
        agevi.model.MLPClock,
        {"model_kwargs": {"pseudocell_groupby": "cell_type"}, "train_kwargs": ON_CPU},
    ),
    "MLPClock, cells": (agevi.model.MLPClock, OF_CELLS),
}
AUTOENCODER = {"PoissonVAE, cells": (agevi.model.PoissonVAE, OF_CELLS)}


def cohort(ageing: str, seed: int) -> AnnData:
    """Cells of one simulated cohort."""
    rates = RATES[ageing]
    return agevi.datasets.simulate_cohort(
        80,
        30,
        150,
        n_cell_types=len(rates),
        ageing_rates=rates,
        effect_range=(0.1, 0.3),
        composition_shift=0.0,
        composition_sd=1.0,
        rng=seed,
    )


def by_type(adata: AnnData, seed: int) -> dict[str, pd.Series]:
    """Predictions of clocks per cell type: joined, and of the type that the validation subjects of a fold prefer."""
    agevi.tl.cross_validate(
        adata, agevi.model.PLSClock, **KEYS, fold_key="fold", groupby="cell_type", min_cells=3, rng=seed
    )
    table = adata.uns["agevi_by_group"]
    combined = table.groupby("sample")["combined"].first()
    best = table.loc[table.groupby("fold")["validation_mae"].idxmin()].set_index("fold")["group"]
    own = table[table["group"] == table["fold"].map(best)].set_index("sample")["predicted"]
    agevi.tl.cross_validate(
        adata,
        agevi.model.CellTypeClock,
        **KEYS,
        fold_key="fold",
        rng=seed,
        setup_kwargs={"cell_type_key": "cell_type"},
        model_kwargs={"min_cells": 3},
    )
    joined = adata.uns["agevi_by_group"].groupby("sample")
    return {
        "CellTypeClock": joined["combined"].first(),
        "CellTypeClock, mean of the types": joined["predicted"].mean(),  # what combine="mean" gives, of the same clocks
        "PLSClock per type, combined": combined,
        "PLSClock of the type with the best validation": own.reindex(combined.index).fillna(combined),
    }


def held_out(adata: AnnData, seed: int, models: dict[str, object]) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    """Age and fold of every sample, and what each clock predicts for it while it is held out."""
    agevi.tl.compare_models(adata, models, **KEYS, n_null_linear=0, n_null_network=0, rng=seed)
    table = adata.uns["agevi_leaderboard_predictions"]
    predicted = {name: rows.set_index("sample")["predicted"] for name, rows in table.groupby("model")}
    of_sample = table.drop_duplicates("sample").set_index("sample")[["age", "fold"]]
    adata.obs["fold"] = of_sample["fold"].astype(str).loc[adata.obs["donor"].astype(str)].to_numpy()
    return of_sample, predicted | by_type(adata, seed)


def run(ageing: str, seed: int, models: dict[str, object]) -> pd.DataFrame:
    """Error and slope of every clock on one cohort."""
    of_sample, predicted = held_out(cohort(ageing, seed), seed, models)
    age = of_sample["age"]
    rows = [
        {"model": name, "mae": (p[age.index] - age).abs().mean(), "slope": np.polyfit(age, p[age.index], 1)[0]}
        for name, p in predicted.items()
    ]
    table = pd.DataFrame(rows).assign(ageing=ageing, seed=seed)
    print(table.to_string(header=False, index=False), flush=True)
    return table


def markdown(table: pd.DataFrame) -> str:
    """Means over cohorts, the smallest error first."""
    mae = table.pivot(index="seed", columns="model", values="mae")
    difference, n = mae.sub(mae[RIDGE], axis=0), len(mae)
    half = difference.sem() * scipy.stats.t.ppf(0.975, n - 1)
    slope = table.groupby("model")["slope"].mean()
    lines = ["| clock | MAE | difference to the pseudobulk ridge | slope |", "| --- | --- | --- | ---: |"]
    for name in mae.mean().sort_values().index:
        mean = difference[name].mean()
        between = "" if name == RIDGE else f"{mean:+.1f} [{mean - half[name]:+.1f}, {mean + half[name]:+.1f}]"
        lines.append(f"| {name} | {mae[name].mean():.1f} ({mae[name].std():.1f}) | {between} | {slope[name]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, compare and print a table per way of ageing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ageing", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--autoencoder", action="store_true")
    parser.add_argument("--no-networks", action="store_true")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    models = MODELS | ({} if args.no_networks else NETWORKS) | (AUTOENCODER if args.autoencoder else {})
    for ageing in args.ageing:
        table = pd.concat([run(ageing, seed, models) for seed in args.seeds])
        print(f"\n{ageing}: rates {RATES[ageing]}, seeds {args.seeds}\n\n{markdown(table)}", flush=True)


if __name__ == "__main__":
    main()
