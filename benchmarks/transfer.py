"""Whether what a clock has learnt from ages helps to tell cases from controls, on three real data sets and a simulated one.

``parkinson``: blood methylation at the 353 CpGs of Horvath; an MLPClock trained on the ages of 667 controls of other studies, and 334
cases and 235 controls of GSE111629. ``islets``: bulk RNA-seq of 77 donors, normal against impaired glucose tolerance or diabetes by
HbA1c, 2,000 genes of highest variance among log counts; there is no other set of islets, so the clock (MLPClock) is trained on the
ages of the same donors, and knows those that are held out from the classifiers. ``islets_apart``: the same, with a clock for every
fold that has seen its training donors alone. ``covid``: T and NK cells of 15 donors, mild against
severe, the clock (PoissonVAE) trained on the ages of other people's CD4 T cells at the 215 genes that both sets have.
``covid_own``: the same at all 500 genes, with a clock of the ages of the same 15 people. ``simulated``: which
planted genes attributions of each classifier find.

usage: python benchmarks/transfer.py [--part parkinson islets islets_apart covid covid_own simulated] [--data FOLDER] [--figures FOLDER] [--repeats N]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import torch
from sklearn.metrics import average_precision_score

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PARTS = ("parkinson", "islets", "islets_apart", "covid", "covid_own", "simulated")
SHOWN = ["model", "auroc", "auroc_low", "auroc_high", "auroc_sd", "difference", "difference_low", "difference_high"]
SHOWN += ["auprc", "f1", "mcc", "balanced_accuracy", "brier"]
SETUP = {"age_key": "age", "subject_key": "donor"}
FREEZE = {
    "frozen transfer": {"freeze": "all_but_last"},
    "encoder frozen": {"freeze": "encoder"},
    "fine-tuned": {"freeze": "none"},
    "from scratch": {"freeze": "none", "from_scratch": True},
}


def whole(adata: ad.AnnData) -> None:
    """All subjects train the clock."""
    adata.obs["agevi_split"] = "train"


def parkinson(data: pathlib.Path) -> tuple[ad.AnnData, object, str]:
    """Cases and controls, a clock of others, and the name of the controls."""
    adata = ad.read_h5ad(data / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    adata.obs["condition"] = adata.obs["disease"].astype(str)
    study = (adata.obs["dataset"] == "GSE111629").to_numpy()
    others = adata[~study & (adata.obs["group"] == "control").to_numpy()].copy()
    whole(others)
    agevi.model.MLPClock.setup_anndata(others, **SETUP, normalize="none")
    clock = agevi.model.MLPClock(others)
    clock.train(enable_progress_bar=False)
    cohort = adata[study & adata.obs["disease"].isin(["Parkinson", "Control"]).to_numpy()].copy()
    controls = cohort[cohort.obs["condition"] == "Control"]
    error = np.abs(clock.predict_age(controls, level="sample") - controls.obs["age"])
    print(
        f"clock: {others.n_obs} controls of other studies; error on the {controls.n_obs} controls here {error.mean():.2f} years"
    )
    return cohort, clock, "Control"


def islets(data: pathlib.Path) -> tuple[ad.AnnData, object, str]:
    """The same for islets."""
    adata = ad.read_h5ad(data / "bulk_fadista_islets_77" / "bulk_fadista_islets_77.h5ad")
    adata.obs["condition"] = np.where(adata.obs["hba1c_class"] == "Normal", "normal", "raised HbA1c")
    values = adata.copy()
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    x = values.X.toarray() if hasattr(values.X, "toarray") else values.X
    adata = adata[:, np.argsort(-x.var(axis=0))[:2000]].copy()
    adata.var_names_make_unique()
    whole(adata)
    agevi.model.MLPClock.setup_anndata(adata, **SETUP)
    clock = agevi.model.MLPClock(adata)
    clock.train(enable_progress_bar=False)
    return adata, clock, "normal"


def covid(data: pathlib.Path) -> tuple[ad.AnnData, object, str]:
    """The same for T and NK cells."""
    adata = ad.read_h5ad(data / "sc_covid_mild_severe_15donors" / "sc_covid_mild_severe_15donors.h5ad")
    cells = agevi.datasets.tcells()
    shared = adata.var_names.intersection(cells.var_names)
    cells, adata = cells[:, shared].copy(), adata[:, shared].copy()
    agevi.pp.split_subjects(cells, **SETUP, rng=0)
    agevi.model.PoissonVAE.setup_anndata(cells, **SETUP)
    clock = agevi.model.PoissonVAE(cells)
    clock.train(train_roles=("train", "validation"), enable_progress_bar=False)
    test = (cells.obs["agevi_split"] == "test").to_numpy()
    error = np.abs(clock.predict_age(level="sample") - cells.obs["age"])[test].mean()
    guess = np.abs(cells.obs["age"][test] - cells.obs["age"][~test].median()).mean()
    print(f"clock: {len(shared)} shared genes; error on held-out people {error:.2f} years, median age {guess:.2f}")
    return adata, clock, "mild"


def covid_own(data: pathlib.Path) -> tuple[ad.AnnData, object, str]:
    """The same at all 500 genes, with a clock of the same 15 people."""
    adata = ad.read_h5ad(data / "sc_covid_mild_severe_15donors" / "sc_covid_mild_severe_15donors.h5ad")
    whole(adata)
    agevi.model.PoissonVAE.setup_anndata(adata, **SETUP)
    clock = agevi.model.PoissonVAE(adata)
    clock.train(enable_progress_bar=False)
    return adata, clock, "mild"


def compare(part: str, data: pathlib.Path, figures: pathlib.Path | None, seed: int, repeats: int) -> None:
    """All rows on one data set."""
    start = time.perf_counter()
    makers = {"parkinson": parkinson, "islets": islets, "covid": covid, "covid_own": covid_own}
    adata, clock, control = makers[part.removesuffix("_apart")](data)
    agevi.tl.compare_transfer(
        adata,
        clock,
        condition_key="condition",
        control=control,
        sex_key="sex",
        n_folds=5,
        n_repeats=repeats,
        refit_clock=part.endswith("_apart"),
        rng=seed,
    )
    table = agevi.get.transfer_df(adata)
    n, n_cases = table.loc[0, ["n_subjects", "n_cases"]]
    known = adata.uns["agevi_transfer_params"]["n_known"]
    print(f"\n{part}: {n_cases} cases, {n - n_cases} controls; {known} of them trained the clock; seed {seed}")
    print(table[SHOWN].round(3).to_string(index=False))
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if figures is not None:
        axes = agevi.pl.transfer(adata)
        axes.figure.savefig(figures / f"transfer_{part}.png", dpi=110)


def simulated(seed: int) -> pd.DataFrame:
    """Average precision of attributions for planted genes."""
    healthy, cohort, genes = planted(seed)
    agevi.model.MLPClock.setup_anndata(healthy, **SETUP)
    clock = agevi.model.MLPClock(healthy, rng=seed)
    clock.train(enable_progress_bar=False)
    agevi.tl.attribute_genes(healthy, clock, n_boot=20)
    agevi.pp.split_subjects(cohort, **SETUP, stratify_by=["condition"], rng=seed)
    rows = [found("the clock itself", healthy.varm["agevi_attribution"][:, 0], genes) | {"auroc": np.nan}]
    test = (cohort.obs["agevi_split"] == "test").to_numpy()
    first = np.flatnonzero(test)[np.unique(cohort.obs["donor"][test], return_index=True)[1]]
    case = (cohort.obs["condition"] == "case").to_numpy()[first]
    for name, arguments in FREEZE.items():
        model = agevi.model.CaseControlClassifier.from_clock(
            clock, cohort, condition_key="condition", control="control", rng=seed, **arguments
        )
        model.train(train_roles=("train", "validation"))
        agevi.tl.attribute_genes(cohort, model, n_boot=20)
        values = cohort.varm["agevi_attribution"][:, 0]
        rows.append(found(name, values, genes) | {"auroc": agevi.metrics.auroc(case, model.predict_proba()[first])})
    return pd.DataFrame(rows)


def planted(seed: int) -> tuple[ad.AnnData, ad.AnnData, pd.DataFrame]:
    """Healthy people of all ages, a cohort of cases and controls, and which of 500 genes change with age and disease.

    100 genes change with age. In cases 60 genes are shifted by a log fold change of 0.3: 30 of those of age, in the direction in
    which age moves them, and 30 others in a random one.
    """
    options = {"n_cells": 30, "n_genes": 500, "n_age_genes": 100, "n_cell_types": 1, "rng": seed}
    both = agevi.datasets.simulate_cohort(n_subjects=500, case_fraction=0.3, **options)
    rng, table = np.random.default_rng(seed + 1000), both.var
    aged = table["kind"].astype(str).to_numpy() != "none"
    bright = (table["baseline_mean"] > table["baseline_mean"].median()).to_numpy()
    shared = rng.choice(np.flatnonzero(aged), 30, replace=False)
    own = rng.choice(np.flatnonzero(~aged & bright), 30, replace=False)
    sign = np.r_[np.sign(table["effect"].to_numpy()[shared]), rng.choice([-1, 1], 30)]
    thinned_in_cases = thin(both, np.r_[shared, own], sign, rng)
    donors = both.obs["donor"].unique()
    healthy = both.obs["donor"].isin(donors[:300]) & (both.obs["condition"] == "control")
    genes = pd.DataFrame({"age": aged, "shared": False, "own": False})
    genes.loc[shared, "shared"], genes.loc[own, "own"] = True, True
    cohort = thinned_in_cases[
        (both.obs["donor"].isin(donors[300:]) | (both.obs["condition"] == "case")).to_numpy()
    ].copy()
    return both[healthy.to_numpy()].copy(), cohort, genes


def thin(
    adata: ad.AnnData, chosen: np.ndarray, sign: np.ndarray, rng: np.random.Generator, size: float = 0.3
) -> ad.AnnData:
    """Counts with the ``chosen`` genes shifted between cases and controls, by binomial thinning of the other group."""
    out = adata.copy()
    x = out.X.toarray().astype(np.int64)
    case = (out.obs["condition"] == "case").to_numpy()
    keep = np.exp(-size)
    for gene, direction in zip(chosen, sign, strict=True):
        rows = ~case if direction > 0 else case
        x[rows, gene] = rng.binomial(x[rows, gene], keep)
    out.X = x.astype(np.float32)
    return out


def found(name: str, values: np.ndarray, genes: pd.DataFrame) -> dict[str, object]:
    """Average precision of a ranking for each kind of planted gene, the other disease genes left out."""
    values, row = np.nan_to_num(values), {"model": name}
    for kind, other in (("shared", "own"), ("own", "shared")):
        used = ~genes[other].to_numpy()
        row[f"AP {kind}"] = average_precision_score(genes[kind][used], values[used])
    disease = (genes["shared"] | genes["own"]).to_numpy()
    row["AP both"] = average_precision_score(disease, values)
    row["AP age"] = average_precision_score(genes["age"], values)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--figures", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    print(f"agevi {agevi.__version__}, torch {torch.__version__}, one thread")
    for part in arguments.part:
        if part == "simulated":
            tables = [simulated(seed) for seed in range(3)]
            means = pd.concat(tables).groupby("model", sort=False).mean()
            print("\nsimulated: 60 disease genes of 500, 30 of them of 100 age genes; mean of seeds 0 to 2")
            print(means.round(2).to_string())
            print(f"a guess: {30 / 470:.2f}, {30 / 470:.2f}, {60 / 500:.2f}, {100 / 500:.2f}")
        else:
            compare(part, arguments.data, arguments.figures, arguments.seed, arguments.repeats)


if __name__ == "__main__":
    main()
