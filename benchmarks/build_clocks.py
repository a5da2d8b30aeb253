"""Make the clocks that come with agevi: those of T cells are trained here, published ones are taken over.

usage: python benchmarks/build_clocks.py [--published FILE.npz] [--out FOLDER] [--kept FOLDER]

T cells: 722 donors of ``agevi.datasets.tcells`` (AIDA v1 and Perez et al.), 60 semi-synthetic cells per donor and type, PLSClock. Errors
are those of five folds of whole donors, and of either cohort left out; intervals are calibrated on the folds. Trained clocks are kept in
``--kept``, so that the shelf can be written again without training. Published clocks come from ``read_published_clocks.py``.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

import agevi
from agevi.datasets._tcells import _profiles
from agevi.io import _bundle, _golden
from agevi.model.base import _save

OUT = Path(__file__).resolve().parents[1] / "src/agevi/clocks/data"
KEYS = {"age_key": "age", "subject_key": "donor"}
N_DONORS, N_CELLS, SEED = 722, 60, 7
BLOOD = {"tissue": "blood", "species": "human"}
TRAINED_ON = {
    **BLOOD,
    "cohorts": "aida, perez_sle",
    "licence": "CC BY 4.0",
    "citation": "AIDA v1 (Kock et al., Cell 2025); Perez et al., Science 2022;376:eabf1970; profiles via grnimmuneclock 1.2.0 (MIT)",
    "source": "benchmarks/build_clocks.py of agevi, on agevi.datasets.tcells (722 donors, 60 semi-synthetic cells each)",
}
TYPES = {"cd4": "CD4 T", "cd8": "CD8 T"}
GRN = {
    **BLOOD,
    "cohorts": "OneK1K, ABF300",
    "licence": "MIT",
    "citation": "Nourisa et al., GRNimmuneClock 1.3.0, https://github.com/janursa/GRNimmuneClock",
    "source": "PyPI grnimmuneclock 1.3.0, models/*/model_V1.pkl; golden values by its class AgingClock",
    "input": "log1p(counts per million of all genes) of the sum of a donor's cells of the type",
}
OMNIAGE = "coefficients as in PyPI omniage 0.99.5; golden values by its class {}"
METHYLATION = {
    "horvath_2013": (
        "Horvath2013",
        "horvath",
        {
            "cells": "any",
            "tissue": "51 tissues and cell types",
            "licence": "CC BY 2.0",
            "citation": "Horvath, Genome Biology 2013;14:R115",
        },
    ),
    "phenoage_2018": (
        "PhenoAge",
        None,
        {
            "cells": "whole blood",
            "tissue": "blood",
            "licence": "CC BY 3.0",
            "citation": "Levine et al., Aging 2018;10:573-591; the age is one of mortality, not of years lived",
        },
    ),
}
MOUSE = {
    "tissue": "brain",
    "species": "mouse",
    "licence": "MIT",
    "citation": "Sun et al., Nature 2025;638:160-171",
    "source": "PyPI spatial-aging-clock 0.0.2, spatialclock/clocks; golden values by its stored scikit-learn pipeline",
    "input": "counts of a cell scaled to 250 over the clock's genes, log1p, smoothed over 20 spatial neighbours (alpha 0.8)",
}


def trained(adata: ad.AnnData, **setup: Any) -> tuple[Any, dict[str, float]]:
    """A calibrated clock of all donors, and the error on cohorts left out."""
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, setup_kwargs=setup, rng=SEED)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    left_out = {"fold_key": "dataset", "key_added": "left_out"}
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, setup_kwargs=setup, **left_out)
    agevi.tl.aggregate_subjects(adata, key_added="left_out")
    table = agevi.get.subjects_df(adata, key_added="left_out")
    agevi.model.PLSClock.setup_anndata(adata, **KEYS, **setup)
    clock = agevi.model.PLSClock(adata)
    adata.obs["everybody"] = "train"
    clock.train(split_key="everybody")
    clock.set_calibration(adata)
    clock.set_evaluation(adata)
    clock.set_cohorts(adata, "dataset", left_out="left_out")
    error = table["predicted"] - table["age"]
    print(error.groupby(table["fold"]).agg(["size", "mean", lambda values: values.abs().mean()]).round(2), flush=True)
    return clock, {"mae_other_cohorts": float(error.abs().mean())}


def of_tcells(kept: Path) -> dict[str, dict[str, Any]]:
    """The three clocks of T cells: where they are saved, and what is said of them."""
    about = {}
    cells = {
        f"tcells_{short}": agevi.datasets.tcells(N_DONORS if short == "cd4" else 720, N_CELLS, SEED, cell_types=name)
        for short, name in TYPES.items()
    }
    both = agevi.datasets.tcells(N_DONORS, N_CELLS, SEED, cell_types=tuple(TYPES.values()))
    which = {"target": "CD4 T", "reference": "CD8 T", "subject_key": "donor"}
    cells["tcells_contrast"] = agevi.pp.contrast_types(both, "cell_type", **which)
    for name, adata in cells.items():
        contrast = name == "tcells_contrast"
        clock, errors = trained(adata, **({"normalize": "none"} if contrast else {}))
        clock.save(kept / name, overwrite=True)
        told = {
            "cells": "CD4 T against CD8 T" if contrast else TYPES[name.removeprefix("tcells_")],
            "input": "agevi.pp.contrast_types(adata, target=<CD4 T>, reference=<CD8 T>, genes=clock.genes)"
            if contrast
            else "raw counts of cells of the type",
        }
        about[name] = TRAINED_ON | told | errors
    pd.Series(about).to_json(kept / "about.json")
    return about


def taken_over(path: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Published clocks, saved in ``folder`` with the golden values of their own software, and what is said of them."""
    about = {}
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for key in file.files:
            name, _, array = key.rpartition("/")
            arrays.setdefault(name, {})[array] = file[key]
    for name, (own, transform, told) in METHYLATION.items():
        more = {"species": "human", "source": OMNIAGE.format(own), "input": "beta values"}
        save(folder / name, arrays[own], transform=transform)
        about[name] = more | told
    for short, name in TYPES.items():
        clock = save(folder / f"grn_{short}t", arrays[f"grn_{short.upper()}T"], values="log")
        about[f"grn_{short}t"] = GRN | {"cells": name, "mae_other_cohorts": error_of(clock, name)}
    for own in [name for name in arrays if name.startswith("spatial_")]:
        cells = own.removeprefix("spatial_")
        name = "mouse_brain_" + cells.lower().replace(" ", "_").replace("-", "_")
        save(folder / name, arrays[own], values="log", age_unit="months")
        about[name] = MOUSE | {"cells": cells}
    return about


def save(path: Path, found: dict[str, np.ndarray], **options: Any) -> Any:
    """A clock with the golden values of its own software."""
    table = pd.DataFrame({"gene": found["feature"], "coef": found["coef"]})
    for key in ("mean", "scale"):
        if key in found:
            table[key] = found[key]
    clock = agevi.model.LinearClock.from_coefficients(
        table, float(found["intercept"]), fill=dict(zip(found["feature"], found["usual"], strict=True)) if "usual" in found else None, **options
    )  # fmt: skip
    golden = {name: torch.from_numpy(found[name].copy()) for name in (_golden.INPUT, _golden.OUTPUT)}
    differs, allowed = _golden.difference(clock, golden)
    print(f"{path.name}: {differs.max():.1e} from its own software (allowed {allowed.min():.1e})", flush=True)
    meta = _save.full_meta(clock)
    _bundle.write_bundle(path, meta, clock.module.state_dict(), clock._card(meta), golden=golden, overwrite=True)
    return clock


def error_of(clock: Any, name: str) -> float:
    """Error on the real profiles of AIDA and Perez et al., on which the clock was not trained."""
    adata = _profiles(name)
    return float(np.abs(clock.predict_age(adata) - adata.obs["age"].to_numpy()).mean())


def main() -> None:
    """Write the shelf."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--kept", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        kept = args.kept or Path(folder, "kept")
        kept.mkdir(parents=True, exist_ok=True)
        file = kept / "about.json"
        about = pd.read_json(file, typ="series").to_dict() if file.exists() else of_tcells(kept)
        clocks = {name: kept / name for name in about}
        if args.published:
            published = taken_over(args.published, Path(folder))
            clocks |= {name: Path(folder, name) for name in published}
            about |= published
        agevi.io.write_shelf(args.out, clocks, about, overwrite=True)
    table = agevi.io.verify(args.out)
    print(table.join(agevi.io.list_shelf(args.out)[["mae", "mae_other_cohorts", "interval"]]).to_string())
    print(f"{table['size'].sum() / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
