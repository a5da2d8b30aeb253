"""Do contributions of single cells to the age of their sample find the cells that age? Planted cohorts, donors held out.

Two cohorts are simulated with the same donors, genes and depths: in one all cells age, in the other none. Cells are taken from
the first at random with probability ``--fractions`` and else from the second, so that ageing cells differ from their
neighbours by nothing but age. 100 donors with 60 cells of 200 genes; clocks train on 50 of them (10 more are for validation). Of the others, those 15 years
or more from the middle age (55, where age has no effect) are scored: the AUROC of ageing cells within each donor, where signs
are turned for donors below the middle, whose ageing cells look younger than the rest; its mean over donors, and over cohorts.
``nothing planted``: no cell ages, and the labels are drawn as before. ``shuffled ages``: donors swap ages before training.
The row "true effects" scores cells by the planted effects of all genes, weighted by their noise, which nobody knows of real
cells: about the best that counts of this depth allow.

``--cell-types 3``: cells of three types, which age alike and have profiles of their own; AUROCs are within donors as before.

usage: python benchmarks/cell_signal.py [--fractions 0.1 0.3 0.5] [--seeds 0 1 2] [--effects 0.1 0.3] [--epochs 20]
           [--cell-types 1] [--no-nulls]
"""

from __future__ import annotations

import argparse
import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

import agevi

MIDDLE, AWAY = 55.0, 15.0
N_TRAIN = 60
KEYS = {"age_key": "age", "subject_key": "donor"}


def cohort(
    fraction: float, seed: int, effects: tuple[float, float], *, n_types: int = 1, planted: bool = True
) -> ad.AnnData:
    """Cells of which a fraction ages, with the column ``ageing``."""
    ageing, other = (
        agevi.datasets.simulate_cohort(
            100,
            60,
            200,
            n_cell_types=n_types,
            ageing_rates=[rate] * n_types,
            effect_range=effects,
            composition_shift=0.0,
            case_fraction=0.0,
            rng=seed,
        )
        for rate in (1.0, 0.0)
    )
    chosen = np.random.default_rng(seed).random(ageing.n_obs) < fraction
    out = other.copy()
    if planted:
        out.X = sp.csr_matrix(
            sp.diags(chosen.astype(np.float32)) @ ageing.X + sp.diags(1 - chosen.astype(np.float32)) @ other.X
        )
    out.obs["ageing"] = chosen
    return out


def true_effects(adata: ad.AnnData) -> np.ndarray:
    """Score of every cell for its distance from the middle age, by the planted effects and the variance of counts."""
    var, dispersion = adata.var, adata.uns["truth"]["dispersion"]
    of_type = adata.varm["cell_type_effect"].T[adata.obs["cell_type"].cat.codes.to_numpy()]
    mean = var["baseline_mean"].to_numpy() * np.exp(of_type) * adata.obs["size_factor"].to_numpy()[:, None]
    kind = np.where(var["kind"] == "none", 0.0, var["effect"].to_numpy())
    return ((adata.X.toarray() - mean) / (1 + dispersion * mean)) @ kind


def scores(adata: ad.AnnData, seed: int, epochs: int, *, shuffled: bool) -> dict[str, np.ndarray]:
    """What each way says of every cell; clocks train on the donors with the role train."""
    data = adata.copy()
    donors = np.random.default_rng(seed + 1000).permutation(data.obs["donor"].cat.categories)
    roles = dict.fromkeys(donors, "test") | dict.fromkeys(donors[:N_TRAIN], "train")
    roles |= dict.fromkeys(donors[N_TRAIN - 10 : N_TRAIN], "validation")
    data.obs["agevi_split"] = data.obs["donor"].astype(str).map(roles).astype("category")
    if shuffled:
        age = data.obs.groupby("donor", observed=True)["age"].first()
        age[:] = np.random.default_rng(seed).permutation(age)
        data.obs["age"] = data.obs["donor"].map(age).astype(float)
    agevi.model.PLSClock.setup_anndata(data, **KEYS)
    pls = agevi.model.PLSClock(data)
    pls.train()
    agevi.tl.cell_age_signal(data, pls)
    agevi.tl.cell_age_signal(data, pls, groupby="cell_type", key_added="typed")
    agevi.model.PoissonVAE.setup_anndata(data, **KEYS)
    vae = agevi.model.PoissonVAE(data, train_unit="cell", rng=seed)
    vae.train(max_epochs=epochs, early_stopping=False, accelerator="cpu", enable_progress_bar=False)
    found = {
        "tl.cell_age_signal of PLSClock": data.obs["agevi_cell_signal"].to_numpy(),
        "the same, centred within types": data.obs["typed_cell_signal"].to_numpy(),
        "the first, per count of the cell": data.obs["agevi_cell_signal"].to_numpy()
        / np.asarray(data.X.sum(1)).ravel(),
        "cells predicted by that PLSClock": pls.predict_age(data),
        'PoissonVAE(train_unit="cell")': vae.predict_age(data),
        "true effects": true_effects(data),
    }
    if data.obs["cell_type"].nunique() == 1:
        del found["the same, centred within types"]
    held = (data.obs["agevi_split"] == "test").to_numpy()
    return {name: np.where(held, values, np.nan) for name, values in found.items()}


def auroc(adata: ad.AnnData, score: np.ndarray) -> float:
    """Mean over held-out donors far from the middle age of the AUROC of their ageing cells."""
    table = adata.obs.assign(score=score).dropna(subset="score")
    found = []
    for _, cells in table.groupby("donor", observed=True):
        distance = cells["age"].iloc[0] - MIDDLE
        if abs(distance) >= AWAY and cells["ageing"].nunique() == 2:
            found.append(roc_auc_score(cells["ageing"], cells["score"] * np.sign(distance)))
    return float(np.mean(found))


def main() -> None:
    """Simulate, train, and print a table per design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(3)))
    parser.add_argument("--effects", nargs=2, type=float, default=[0.1, 0.3])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cell-types", type=int, default=1)
    parser.add_argument("--no-nulls", action="store_true")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    agevi.settings.verbosity = 0
    designs = {f"{fraction:.0%} of cells age": (fraction, True, False) for fraction in args.fractions}
    if not args.no_nulls:
        designs |= {"nothing planted": (0.3, False, False), "shuffled ages": (0.3, True, True)}
    columns = {}
    for name, (fraction, planted, shuffled) in designs.items():
        rows = []
        for seed in args.seeds:
            adata = cohort(fraction, seed, tuple(args.effects), n_types=args.cell_types, planted=planted)
            found = scores(adata, seed, args.epochs, shuffled=shuffled)
            rows.append({way: auroc(adata, score) for way, score in found.items()})
        table = pd.DataFrame(rows)
        columns[name] = [f"{m:.3f} ({s:.3f})" for m, s in zip(table.mean(), table.std(), strict=True)]
        print(name, dict(zip(table.columns, columns[name], strict=True)), flush=True)
    names = list(table.columns)
    print("| score of a cell | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for i, way in enumerate(names):
        print(f"| {way} | " + " | ".join(values[i] for values in columns.values()) + " |")


if __name__ == "__main__":
    main()
