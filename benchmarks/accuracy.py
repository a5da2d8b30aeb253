"""Donor-level accuracy of every clock on the CD4 T benchmark: 755 donors, 60 semi-synthetic cells each.

All models see identical folds: the 5 fixed folds of whole donors, and each cohort held out in turn, as it is and with genes
centred per cohort (``agevi.pp.centre_genes``, which reads the cells of the held-out cohort, not its ages). Cells are independent
draws from one real profile per donor (``agevi.datasets.sample_cells``), so pseudobulk is nearly sufficient here; see the
README of the data. A run that was stopped goes on from its finished folds.

usage: python benchmarks/accuracy.py --out FOLDER [--profiles FILE] [--design folds cohorts centred] [--seeds 7] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import warnings

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PROFILES = DATA / "pb_tcells_cd4" / "cd4t_donors.h5ad"
FOLD_KEYS = {"folds": "fold", "cohorts": "dataset", "centred": "dataset"}
ENSEMBLE = [agevi.model.PLSClock, agevi.model.PoissonVAE]
COUNTED = [cls.__name__ for cls in agevi.model.MODELS if cls.trainable and cls.expects != "continuous"]

VARIANTS = {"PLSClock(weights='zscore')": (agevi.model.PLSClock, {"weights": "zscore"})}


def cells(profiles: pathlib.Path, seed: int, n_cells: int = 60) -> ad.AnnData:
    """The benchmark's cells with their fold and cohort."""
    adata = agevi.datasets.sample_cells(ad.read_h5ad(profiles), n_cells=n_cells, rng=seed)
    adata.obs["fold"] = agevi.datasets.benchmark_folds(adata.obs["donor"]).astype(str)
    return adata


def run(adata: ad.AnnData, design: str, seed: int, args: argparse.Namespace) -> pd.DataFrame:
    """The leaderboard of one design; also written as CSV, with the predictions, and drawn."""
    models = {name: VARIANTS.get(name) or getattr(agevi.model, name) for name in args.models}
    if {cls.__name__ for cls in ENSEMBLE} <= set(models):
        models["PLSClock + PoissonVAE"] = ENSEMBLE
    if design == "centred":
        agevi.pp.centre_genes(adata, FOLD_KEYS[design], subject_key="donor", rng=seed)
    agevi.tl.compare_models(
        adata,
        models,
        setup_kwargs={"layer": "centred" if design == "centred" else None},
        age_key="age",
        subject_key="donor",
        fold_key=FOLD_KEYS[design],
        n_null_linear=0,
        n_null_network=0,
        checkpoint_dir=args.out / f"{design}_{seed}",
        rng=seed,
    )
    table = agevi.get.leaderboard_df(adata)
    table.to_csv(args.out / f"{design}_{seed}.csv", index=False)
    adata.uns["agevi_leaderboard_predictions"].to_csv(args.out / f"{design}_{seed}_predictions.csv", index=False)
    agevi.pl.leaderboard(adata).figure.savefig(args.out / f"{design}_{seed}.png", dpi=110, bbox_inches="tight")
    return table


def between(row: pd.Series, name: str) -> str:
    """A figure with its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if pd.isna(low) else f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"


def by_fold(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error of every model in every fold, and the mean error where a fold is a cohort."""
    by = [predictions["model"], predictions["fold"].astype(str)]
    error = predictions["predicted"] - predictions["age"]
    mae, mean = (e.groupby(by).mean().unstack() for e in (error.abs(), error))
    signed = mean.map("{:+.1f}".format)
    return mae.map("{:.2f}".format) + ("" if mae.columns.str.isdigit().all() else " (" + signed + ")")


def markdown(table: pd.DataFrame, folds: pd.DataFrame) -> str:
    """The leaderboard as a table, with the error of every fold."""
    lines = [
        "| model | MAE | r | slope | difference to the best linear | " + " | ".join(folds.columns) + " | seconds |"
    ]
    lines.append("| --- | --- | ---: | ---: | --- |" + " ---: |" * len(folds.columns) + " ---: |")
    for _, row in table.iterrows():
        r = "" if pd.isna(row["pearson"]) else f"{row['pearson']:.3f}"
        name = row["model"] if " " in row["model"] else f"`{row['model']}`"
        each = " | ".join(folds.loc[row["model"], k] for k in folds.columns) if row["error"] == "" else ""
        lines.append(
            f"| {name} | {between(row, 'mae')} | {r} | {row['slope']:.2f} | {between(row, 'difference')} | {each} | "
            f"{row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the designs and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for tables, figures and finished folds")
    parser.add_argument("--profiles", type=pathlib.Path, default=PROFILES)
    parser.add_argument("--design", nargs="+", choices=FOLD_KEYS, default=list(FOLD_KEYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[7])
    parser.add_argument("--models", nargs="+", choices=[*COUNTED, *VARIANTS], default=COUNTED)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    plt.switch_backend("agg")
    for seed in args.seeds:
        adata = cells(args.profiles, seed)
        for design in args.design:
            table = run(adata, design, seed, args)
            print(f"\n{design}, seed {seed}\n")
            print(markdown(table, by_fold(adata.uns["agevi_leaderboard_predictions"])), flush=True)


if __name__ == "__main__":
    main()
