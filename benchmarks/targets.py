"""Trends of predicted ages in childhood, targets that simulated diseases share, and targets of two real clocks.

Part `trend`: Horvath's published clock on blood methylation of the controls below 20 years (nothing is trained), and the same with
ages shuffled between children. Part `shared`: three simulated cohorts of the same size whose ten strongest age genes have the same
names and whose other genes are named by chance, one clock each, repeated. Part `real`: clocks of prefrontal cortex and of CD4 T cells,
their drug targets, and their errors when only drug targets train them (five folds of whole donors, seed 0).

usage: python benchmarks/targets.py [--data FOLDER] [--part trend shared real] [--figures FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import os
import pathlib
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import kstest

import agevi
from agevi.tl.sets._target_lists import read_druggable

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
N_GENES, N_PLANTED = 300, 10
NAMES = [f"gene{i:03d}" for i in range(N_GENES)]
PLANTED = set(NAMES[:N_PLANTED])
DISEASES = ("first", "second", "third")
PARTS = ("trend", "shared", "real")
CLOCKS = {"cortex": "bulk_ba11_brain_146/bulk_ba11_brain_146.h5ad", "CD4 T": "pb_tcells_cd4/cd4t_donors.h5ad"}
LISTS = {"DrugCentral": "approved_drug_target_genes_drugcentral.txt", "DGIdb": "dgidb_interactions_2021ish.csv.gz"}


def children(folder: pathlib.Path) -> ad.AnnData:
    """Controls below 20 years with the ages of Horvath's clock, one sample a child."""
    adata = ad.read_h5ad(folder / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    control = adata.obs["group"].astype(str).str.lower().str.contains("control")
    adata = adata[(control & (adata.obs["age"] < 20)).to_numpy()].copy()
    clock = agevi.model.LinearClock.from_coefficients(folder / "clocks" / "dnam_Horvath2013.csv", None, "horvath")
    agevi.tl.predict_age(adata, clock)
    agevi.tl.aggregate_subjects(adata)
    return adata


def trend(folder: pathlib.Path, figures: pathlib.Path | None, n_shuffles: int = 1000) -> None:
    """The trend with age, by data set, and the p values of shuffled ages."""
    adata = children(folder)
    agevi.tl.trend_test(adata, order_key="age", groupby="dataset", n_permutations=9999)
    print(agevi.get.trend_df(adata).round(4).to_string(index=False))
    if figures is not None:
        agevi.pl.trend(adata).figure.savefig(figures / "trend.png", dpi=110)
    rng = np.random.default_rng(0)
    p = []
    for _ in range(n_shuffles):
        adata.obs["shuffled"] = rng.permutation(adata.obs["age"])
        agevi.tl.trend_test(adata, order_key="shuffled", n_permutations=999, n_boot=1, rng=rng)
        p.append(agevi.get.trend_df(adata)["p"].item())
    for n in (200, n_shuffles):
        some = np.asarray(p[:n])
        below, ks = (some < 0.05).mean(), kstest(some, "uniform").pvalue
        print(f"{n} shuffles: {below:.3f} below 0.05, Kolmogorov-Smirnov p {ks:.2f}")


def disease(seed: int, model: str) -> ad.AnnData:
    """A clock of one simulated cohort, attributed to genes."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=60,
        n_cells=20,
        n_genes=N_GENES,
        n_age_genes=30,
        effect_range=(0.1, 0.5),
        composition_shift=0,
        rng=seed,
    )
    strength = (adata.var["effect"].abs() * np.sqrt(adata.var["baseline_mean"])).to_numpy(copy=True)
    strength[(adata.var["kind"] == "cell_type").to_numpy()] = 0
    order = np.argsort(-strength)
    names = np.empty(N_GENES, dtype=object)
    names[order[:N_PLANTED]] = NAMES[:N_PLANTED]
    names[order[N_PLANTED:]] = np.random.default_rng(seed).permutation(NAMES[N_PLANTED:])
    adata.var_names = names
    cls = getattr(agevi.model, model)
    cls.setup_anndata(adata, age_key="age", subject_key="donor")
    clock = cls(adata)
    clock.train(train_roles=("train", "validation", "test"))
    agevi.tl.attribute_genes(adata, clock)
    return adata


def shared(figures: pathlib.Path | None, n_runs: int = 10) -> None:
    """How many planted genes are found, and how many others."""
    rows = []
    for model in ("PLSClock", "ElasticNetClock"):
        for run in range(n_runs):
            tables = {name: disease(3 * run + i, model) for i, name in enumerate(DISEASES)}
            targets = agevi.tl.rank_targets(tables, n_top=60)
            found = targets.shared
            row = {"model": model, "pairs with p < 0.05": (targets.overlap["p"][:3] < 0.05).mean()}
            for n in (2, 3):
                genes = set(found["gene"][found["n_diseases"] >= n])
                row[f"planted in {n}"], row[f"others in {n}"] = len(genes & PLANTED), len(genes - PLANTED)
            rows.append(row)
            if figures is not None and run == 0 and model == "PLSClock":
                agevi.pl.targets(targets, n_genes=20).figure.savefig(figures / "targets.png", dpi=110)
    print(pd.DataFrame(rows).groupby("model").mean().round(2).to_string())


def real(folder: pathlib.Path) -> None:
    """Targets of both clocks, ageing genes among them, and errors of clocks of targets alone."""
    setup, recipe = {"age_key": "age", "subject_key": "donor"}, {"weights": "zscore"}
    tables = {}
    for name, path in CLOCKS.items():
        adata = tables[name] = ad.read_h5ad(folder / path)
        agevi.model.PLSClock.setup_anndata(adata, **setup, normalize="none")
        clock = agevi.model.PLSClock(adata, **recipe)
        clock.train(train_roles=("train", "validation", "test"))
        agevi.tl.attribute_genes(adata, clock)
    errors = []
    for source, file in LISTS.items():
        druggable, sets = folder / "reference" / file, folder / "reference" / "ageing_gene_sets.gmt"
        targets = agevi.tl.rank_targets(tables, druggable=druggable, sets=sets, n_top=30)
        print(source, targets.params["n_genes"], "\n", targets.overlap.to_string(index=False))
        print(targets.enrichment.groupby("group").agg({"term": "size", "p": "min", "padj": "min"}))
        names = read_druggable(druggable)
        for name, features in itertools.product(tables, (None, names)):
            given = {"normalize": "none"} | ({} if features is None else {"features": features})
            agevi.tl.cross_validate(
                tables[name], agevi.model.PLSClock, **setup, setup_kwargs=given, model_kwargs=recipe, rng=0
            )
            agevi.tl.aggregate_subjects(tables[name])
            row = agevi.get.metrics_df(tables[name]).iloc[0]
            genes = "all" if features is None else f"{source} ({targets.params['n_genes'][name]})"
            errors.append({"clock": name, "genes": genes} | row[["mae", "mae_low", "mae_high", "mae_median"]].to_dict())
    print(pd.DataFrame(errors).drop_duplicates(["clock", "genes"]).round(2).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--figures", type=pathlib.Path, help="folder for the figures of the user guide")
    arguments = parser.parse_args()
    start = time.perf_counter()
    if "trend" in arguments.part:
        trend(arguments.data, arguments.figures)
    if "shared" in arguments.part:
        shared(arguments.figures)
    if "real" in arguments.part:
        real(arguments.data)
    print(f"{time.perf_counter() - start:.0f} s")
