"""Published clocks on real data, and ages of children and foetuses on the scale of Horvath.

Each clock whose features are of the kind of a data set is looked up in it. Where the data have 80 % of the features it predicts, and
the error is printed beside the best guess that knows no features, the median age of the same samples. Nothing is trained, so there
is nothing to hold out; whether samples were among those that the publication trained on is not known here.

usage: python benchmarks/published_clocks.py [--data FOLDER] [--part clocks ages]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.stats import spearmanr

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
HORVATH = ("Horvath2013", "Horvath2018", "PedBE", "CorticalClock", "IntrinClock")
"""Clocks whose publication uses the transform of Horvath."""
NO_AGE = ("DunedinPACE", "Garagnani")
"""A pace, and a beta value."""
SCALED = ("ZhangClock", "Neu-In", "Glia-In", "Brain")
"""Clocks of standardised values: of a sample over all its sites, or of a site over the samples of a cohort."""
TISSUE = {
    "CD4 T": ("grnimmuneclock CD4T", "scImmuAging CD4T", "scage SC_CD4T"),
    "cortex neurons": tuple(
        f"brain {unit}_{kind}"
        for unit in ("SC", "Pseudobulk", "Bootstrap")
        for kind in ("neuron", "Excitatory", "Inhibitory")
    ),
}
"""Beginnings of the names of the expression clocks that fit a data set."""
COLUMNS = ["data", "clock", "coverage", "n", "MAE", "median age", "mean error", "r"]


def clocks(folder: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """Every clock of human samples that gives an age, by name."""
    read = agevi.model.LinearClock.from_coefficients
    for path in sorted([*folder.glob("dnam_*.csv"), *folder.glob("cts_dnam/*.csv")]):
        name = path.stem.removeprefix("dnam_")
        if name not in NO_AGE + SCALED:
            yield name, read(path, 0 if name == "Hannum" else None, "horvath" if name in HORVATH else None)
    for path in sorted([*folder.glob("scImmuAging/*.csv"), *folder.glob("grnimmuneclock/*_coefs.csv")]):
        yield f"{path.parent.name} {path.stem.removesuffix('_coefs')}", read(path)
    for path in (folder / "brain_ct_coefs.csv.gz", folder / "scage_polyak_coefs.csv.gz"):
        table = pd.read_csv(path)
        for name in table["model_key"].unique():
            yield f"{path.name.split('_')[0]} {name}", read(table, model=name)


def data_sets(folder: pathlib.Path) -> Iterator[tuple[str, ad.AnnData]]:
    """Values that clocks can read, one row a donor."""
    blood = ad.read_h5ad(folder / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    yield "blood, 450k", blood[blood.obs["group"].astype(str).str.lower().str.contains("control").to_numpy()].copy()
    cells = ad.read_h5ad(folder / "dnam_carpentries_37" / "dnam_carpentries_37.h5ad")
    cells.X = cells.layers["beta"]
    yield "blood cells, EPIC", cells
    yield "cortex, 450k", ad.read_h5ad(folder / "dnam_cortex_38" / "gse88890_cortex.h5ad")
    cd4 = ad.read_h5ad(folder / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    for cohort in cd4.obs["dataset"].unique():
        yield f"CD4 T, {cohort}", cd4[(cd4.obs["dataset"] == cohort).to_numpy()].copy()
    cortex = ad.read_h5ad(folder / "sc_darmanis_cortex" / "darmanis_adult.h5ad")
    cortex = cortex[(cortex.obs["cell_type"] == "neurons").to_numpy()].copy()
    sc.pp.normalize_total(cortex, target_sum=1e4)
    sc.pp.log1p(cortex)
    yield "cortex neurons", cortex


def run(folder: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors where the coverage allows, and the best coverage of the other data sets."""
    known, rows, short = list(clocks(folder / "clocks")), [], []
    for data, adata in data_sets(folder):
        fitting = next((names for start, names in TISSUE.items() if data.startswith(start)), ("",))
        for name, clock in known:
            if not name.startswith(fitting):
                continue
            share = float(np.isin(clock.genes, adata.var_names).mean())
            if share < 0.8:
                short.append({"data": data, "clock": name, "coverage": share})
                continue
            agevi.tl.predict_age(adata, clock)
            agevi.tl.aggregate_subjects(adata)
            table = agevi.get.subjects_df(adata)
            error, age = table["predicted"] - table["age"], table["age"]
            guess = float((age - age.median()).abs().mean())
            r = float(np.corrcoef(table["predicted"], age)[0, 1])
            rows.append(
                dict(
                    zip(
                        COLUMNS,
                        [data, name, share, len(table), error.abs().mean(), guess, error.mean(), r],
                        strict=True,
                    )
                )
            )
    refused = pd.DataFrame(short)
    refused = refused[refused["coverage"] > 0.3].sort_values("coverage", ascending=False)
    return pd.DataFrame(rows, columns=COLUMNS), refused


def ages(folder: pathlib.Path) -> pd.DataFrame:
    """Blood of children and cortex of foetuses on each scale of ages, five folds of whole donors, by `PLSClock`."""
    _, blood = next(data_sets(folder))
    cortex = ad.read_h5ad(folder / "sc_darmanis_cortex" / "darmanis_adult_fetal.h5ad")
    rows = []
    for name, adata, normalize in (("blood", blood, "none"), ("cortex", cortex, "log1p_cp10k")):
        for method in ("pls", "ridge"):
            for transform in ("none", "log", "horvath"):
                agevi.tl.cross_validate(
                    adata,
                    agevi.model.PLSClock,
                    subject_key="donor",
                    age_key="age",
                    setup_kwargs={"age_transform": transform, "normalize": normalize},
                    model_kwargs={"method": method},
                )
                agevi.tl.aggregate_subjects(adata)
                table = agevi.get.subjects_df(adata)
                rows.append({"data": name, "method": method, "age_transform": transform, **measured(table)})
    return pd.DataFrame(rows)


def measured(table: pd.DataFrame) -> dict[str, float]:
    """Errors over all donors and the young ones: children up to 20 years, or foetuses where there are any."""
    age, predicted = table["age"], table["predicted"]
    young, error = age < 0 if (age < 0).any() else age <= 20, (predicted - age).abs()
    return {
        "n": len(table),
        "n young": int(young.sum()),
        "MAE": error.mean(),
        "MAE young": error[young].mean(),
        "Spearman young": spearmanr(age[young], predicted[young]).statistic if age[young].nunique() > 1 else np.nan,
        "oldest young": predicted[young].max(),
        "youngest other": predicted[~young].min(),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--part", nargs="*", choices=("clocks", "ages"), default=("clocks", "ages"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.getLogger("agevi").setLevel(logging.ERROR)
    with pd.option_context(
        "display.width", 200, "display.max_rows", None, "display.max_columns", None, "display.precision", 3
    ):
        if "clocks" in args.part:
            for table in run(args.data):
                print(table.to_string(index=False), "\n")
        if "ages" in args.part:
            print(ages(args.data).to_string(index=False))


if __name__ == "__main__":
    main()
