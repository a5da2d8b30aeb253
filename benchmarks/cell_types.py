"""``CellTypeClock`` beside ten lines of scikit-learn, at the size of a common cohort, and on two cohorts of COVID-19 blood.

usage: python benchmarks/cell_types.py [--what sklearn scale cohorts] [--data FOLDER] [--join inner outer] [--cells 30]
       [--combine precision mean]

``sklearn``: all donors of ``agevi.datasets.tcells(cell_types=("CD4 T", "CD8 T"))``, 30 semi-synthetic cells of each type, five folds
of whole donors, the same for all. Beside the clocks stand ridge regression (``RidgeCV``) and partial least squares (ten
components, nothing chosen) on log1p(CPM) of the summed cells of each type, and the mean over types of each. Prints the
error of held-out donors, and its difference to the mean over types of ridge regression.

``scale``: 100 donors x 10 types x 200 cells x 2,000 genes of random counts, cross-validated with ``PLSClock`` in each type.
Prints one line of JSON: seconds of the CPU (one thread with OMP_NUM_THREADS=1), and the peak of the resident memory beyond
what was resident before, in GB.

``cohorts``: the pseudobulk tables of Schulte-Schrepping et al. (2020), one row per sample and type, from ``--data`` (default
``$AGEVI_DATA``). Each cohort is cross-validated, and the clock of each is applied to the other after their names of types are
made the same. Prints a table of errors beside those of the median age, and what agevi logs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from held_out import shown
from linear_scale import Peak, resident
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agevi

WHAT = ["sklearn", "scale", "cohorts"]
N_DONORS, N_TYPES, N_CELLS, N_GENES, DENSITY = 100, 10, 200, 2000, 0.12
FOLDER = "pseudobulk_covid_ss_2chemistries"
KEYS = {"age_key": "age", "subject_key": "donor", "sample_key": "sampleID"}
COHORTS = {"10x": "ss_cohort1_pseudobulk.h5ad", "Rhapsody": "ss_cohort2_pseudobulk.h5ad"}


def counts(rng: np.random.Generator) -> ad.AnnData:
    """Cells without structure: only time and memory matter here."""
    n = N_TYPES * N_CELLS
    blocks = []
    for _ in range(N_DONORS):
        block = sp.random(n, N_GENES, DENSITY, format="csr", rng=rng, dtype=np.float32)
        block.data = np.ceil(4 * block.data)
        blocks.append(block)
    obs = pd.DataFrame(
        {
            "donor": np.repeat([f"donor{i}" for i in range(N_DONORS)], n),
            "age": np.repeat(rng.uniform(20, 90, N_DONORS), n),
            "cell_type": np.tile(np.repeat([f"type{i}" for i in range(N_TYPES)], N_CELLS), N_DONORS),
        },
        index=[f"cell{i}" for i in range(N_DONORS * n)],
    )
    return ad.AnnData(sp.vstack(blocks, format="csr"), obs=obs)


def scale() -> None:
    """Time and memory of a cross-validation."""
    adata = counts(np.random.default_rng(0))
    before, peak, start, wall = resident(), Peak(), time.process_time(), time.perf_counter()
    with peak.watch():
        agevi.tl.cross_validate(
            adata,
            agevi.model.CellTypeClock,
            age_key="age",
            subject_key="donor",
            setup_kwargs={"cell_type_key": "cell_type"},
        )
    x = adata.X
    result = {
        "shape": list(adata.shape),
        "matrix_gb": round((x.data.nbytes + x.indices.nbytes + x.indptr.nbytes) / 1e9, 2),
        "cpu_seconds": round(time.process_time() - start),
        "seconds": round(time.perf_counter() - wall),
        "beyond_gb": round(peak.highest - before, 2),
    }
    print(json.dumps(result), flush=True)


def cohort(folder: Path, name: str) -> ad.AnnData:
    """One cohort; ``type`` names what both call the same, without numbers of clusters."""
    adata = ad.read_h5ad(folder / FOLDER / COHORTS[name])
    words = adata.obs["cell_type"].astype(str).str.replace(r"^\d+_|_\d+$", "", regex=True)
    same = {"mDCs": "mDC", "Megakaryocyte": "Megakaryocytes"}
    adata.obs["type"] = words.replace(same).to_numpy(dtype=str)
    return adata


def cohorts(folder: Path, rules: list[str]) -> pd.DataFrame:
    """Errors within each cohort and from each to the other; each is also printed when it is known."""
    data = {name: cohort(folder, name) for name in COHORTS}
    clock = agevi.model.CellTypeClock
    rows = []
    for rule in rules:
        for name, other in [("10x", "Rhapsody"), ("Rhapsody", "10x")]:
            own, new = data[name], data[other].copy()
            print(f"\n{name}, {rule}, within and to {other}", flush=True)
            init = {"min_cells": 1, "combine": rule}
            agevi.tl.cross_validate(own, clock, **KEYS, setup_kwargs={"cell_type_key": "type"}, model_kwargs=init)
            agevi.tl.aggregate_subjects(own)
            rows.append(row(own, rule, name, name))
            clock.setup_anndata(own, **KEYS, cell_type_key="type")
            model = clock(own, **init)
            own.obs["everybody"] = "train"
            model.train(split_key="everybody")
            agevi.tl.predict_age(new, model, min_gene_coverage=0.5, overwrite=True)
            agevi.tl.aggregate_subjects(new)
            rows.append(row(new, rule, name, other))
            print(pd.DataFrame(rows[-2:]).round(1).to_markdown(index=False), flush=True)
    return pd.DataFrame(rows)


def row(adata: ad.AnnData, rule: str, trained: str, read: str) -> dict[str, object]:
    """Error of held-out samples beside that of the median age."""
    found = agevi.get.metrics_df(adata).iloc[0]
    return {"combine": rule, "trained on": trained, "read": read} | found[
        ["n", "n_subjects", "mae", "mae_low", "mae_high", "mae_median"]
    ].to_dict()


def by_hand(adata: ad.AnnData, fold: pd.Series, age: pd.Series) -> dict[str, pd.DataFrame]:
    """Ages of held-out donors by type from scikit-learn, one table per method, donors x types."""
    methods = {
        "RidgeCV": lambda: make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 19))),
        "PLSRegression": lambda: make_pipeline(StandardScaler(), PLSRegression(10, scale=False)),
    }
    out = {name: pd.DataFrame(index=age.index) for name in methods}
    for kind in adata.obs["cell_type"].unique():
        cells = adata[(adata.obs["cell_type"] == kind).to_numpy()]
        donors, code = np.unique(cells.obs["donor"].astype(str), return_inverse=True)
        sums = (sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code))))) @ cells.X).toarray()
        x = np.log1p(sums / sums.sum(axis=1, keepdims=True) * 1e6)
        f, y = fold[donors].to_numpy(), age[donors].to_numpy()
        for name, make in methods.items():
            for held in np.unique(f):
                fitted = make().fit(x[f != held], y[f != held])
                out[name].loc[donors[f == held], kind] = fitted.predict(x[f == held]).ravel()
    return out


def beside_sklearn(join: str, n_cells: int) -> pd.DataFrame:
    """Errors of clocks and of scikit-learn in the same folds."""
    adata = agevi.datasets.tcells(722, n_cells, cell_types=("CD4 T", "CD8 T"), join=join)
    keys = {"age_key": "age", "subject_key": "donor", "stratify_by": "dataset"}
    typed = {"cell_type_key": "cell_type"}
    agevi.tl.cross_validate(adata, agevi.model.CellTypeClock, **keys, setup_kwargs=typed, key_added="types")
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **keys, key_added="all")
    first = adata.obs.drop_duplicates("donor").set_index("donor")
    first.index = first.index.astype(str)
    if not (first["types_fold"].astype(str) == first["all_fold"].astype(str)).all():
        raise RuntimeError("the clocks were not held out in the same folds.")
    age, fold = first["age"].astype(float), first["all_fold"].astype(str)
    members = adata.uns["types_by_group"].pivot(index="sample", columns="group", values="predicted")
    tables = {"CellTypeClock": members.reindex(age.index)} | by_hand(adata, fold, age)
    found = {"`CellTypeClock`": first["types_predicted"], "`PLSClock` of all cells": first["all_predicted"]}
    for name, table in tables.items():
        found |= {f"{name}, mean of the types": table.mean(axis=1)} | {f"{name}, {kind}": table[kind] for kind in table}
    found["median age"] = fold.map({name: age[fold != name].median() for name in fold.unique()})
    error = pd.DataFrame(found).astype(float).sub(age, axis=0).abs().rename_axis("donor")
    reference = error["RidgeCV, mean of the types"]
    rows = [
        {
            "model": name,
            "donors": int(error[name].notna().sum()),
            "MAE": shown(error[name].dropna()),
            "minus scikit-learn": shown((error[name] - reference).dropna(), "+"),
        }
        for name in error
    ]
    return pd.DataFrame(rows)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AGEVI_DATA", "../shared/data")))
    parser.add_argument("--join", nargs="+", choices=["inner", "outer"], default=["inner"])
    parser.add_argument("--cells", type=int, default=30, help="cells of each donor and type for sklearn")
    parser.add_argument("--combine", nargs="+", choices=["precision", "mean"], default=["precision", "mean"])
    args = parser.parse_args()
    if "sklearn" in args.what:
        for join in args.join:
            print(f"\n{join}\n\n{beside_sklearn(join, args.cells).to_markdown(index=False)}", flush=True)
    if "scale" in args.what:
        scale()
    if "cohorts" in args.what:
        print(cohorts(args.data, args.combine).round(1).to_markdown(index=False), flush=True)


if __name__ == "__main__":
    main()
