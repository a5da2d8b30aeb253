"""A cohort of another laboratory: clocks of one type as they are, of two types against each other, and what repairs them.

753 donors of three cohorts with CD4 and CD8 T cells, 60 semi-synthetic cells of each (``agevi.datasets.sample_cells``). Each
cohort is held out in turn. The donor's own CD8 cells are the reference of ``agevi.pp.contrast_types``; ``--other-donors``
takes those of another donor of the cohort in their place, which must lose.

usage: python benchmarks/contrast.py [--seeds 7 8 9] [--other-donors]

The profiles are looked for in ``$AGEVI_DATA/pb_tcells_cd4`` and ``pb_tcells_cd8`` (default: ``../shared/data``).
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import agevi

DATA = Path(os.environ.get("AGEVI_DATA", Path(__file__).parents[2] / "shared" / "data"))
KEYS = {"age_key": "age", "subject_key": "donor"}
TYPES = {"target": "CD4 T", "reference": "CD8 T", "subject_key": "donor"}


def cells(seed: int) -> dict[str, ad.AnnData]:
    """Cells of both types by type, of the donors who have both."""
    out = {}
    for i, kind in enumerate(("cd4", "cd8")):
        profiles = ad.read_h5ad(DATA / f"pb_tcells_{kind}" / f"{kind}t_donors.h5ad")
        drawn = agevi.datasets.sample_cells(profiles, n_cells=60, rng=seed + i)
        drawn.obs["cell_type"] = f"{kind.upper()} T"
        drawn.obs_names = kind + "_" + drawn.obs_names.astype(str)
        for column in ("donor", "dataset"):
            drawn.obs[column] = drawn.obs[column].astype(str)
        out[kind] = drawn
    both = set(out["cd4"].obs["donor"]) & set(out["cd8"].obs["donor"])
    return {kind: drawn[drawn.obs["donor"].isin(both).to_numpy()].copy() for kind, drawn in out.items()}


def of_other_donors(adata: ad.AnnData, seed: int) -> ad.AnnData:
    """The same cells under the name of another donor of their cohort."""
    donors = adata.obs.drop_duplicates("donor").set_index("donor")["dataset"].astype(str)
    rng, other = np.random.default_rng(seed), {}
    for _, own in donors.groupby(donors):
        names = rng.permutation(own.index)
        other |= dict(zip(names, np.roll(names, 1), strict=True))
    out = adata.copy()
    age = adata.obs.drop_duplicates("donor").set_index("donor")["age"]
    out.obs["donor"] = [other[donor] for donor in adata.obs["donor"]]
    out.obs["age"] = age[out.obs["donor"]].to_numpy()
    return out


def held_out(adata: ad.AnnData, **setup: object) -> pd.DataFrame:
    """Subject table with every cohort predicted by a clock of the others."""
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, fold_key="dataset", setup_kwargs=setup)
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata).set_index("subject")


def repaired(adata: ad.AnnData, **how: object) -> pd.DataFrame:
    """The same table after :func:`agevi.tl.recalibrate`."""
    agevi.tl.recalibrate(adata, by="dataset", **how)
    return agevi.get.subjects_df(adata, key_added="recalibrated").set_index("subject")


def of_types(adata: ad.AnnData) -> dict[str, pd.DataFrame]:
    """The subject tables of clocks of both types with an anchor, raw and at the level of the anchor, from one call."""
    agevi.tl.cross_validate(
        adata,
        agevi.model.CellTypeClock,
        **KEYS,
        fold_key="dataset",
        setup_kwargs={"cell_type_key": "cell_type"},
        model_kwargs={"anchor": "CD8 T"},
    )
    names = {"agevi": "CellTypeClock", "agevi_anchored": "CellTypeClock, anchor='CD8 T'"}
    return {name: agevi.get.subjects_df(adata, key_added=key).set_index("subject") for key, name in names.items()}


def run(seed: int, *, other_donors: bool) -> pd.DataFrame:
    """MAE, and mean error of each cohort, of every way."""
    data = cells(seed)
    cohort = data["cd4"].obs.drop_duplicates("donor").set_index("donor")["dataset"]
    age = data["cd4"].obs.drop_duplicates("donor").set_index("donor")["age"]
    reference = of_other_donors(data["cd8"], seed) if other_donors else data["cd8"]
    both = ad.concat([data["cd4"], reference], join="inner")
    contrast = agevi.pp.contrast_types(both, "cell_type", **TYPES)
    found = {"contrast of CD4 and CD8": held_out(contrast, normalize="none")}
    anchor = found["contrast of CD4 and CD8"]["predicted"]
    mean_age = age.groupby(cohort).mean().to_dict()
    for kind in ("cd4", "cd8"):
        name = kind.upper()
        found[name] = held_out(data[kind])
        found[f"{name}, anchored on the contrast"] = repaired(data[kind], anchor=anchor)
        found[f"{name}, mean age of the cohort given"] = repaired(data[kind], mean_age=mean_age)
    anchored = [found[f"{name}, anchored on the contrast"] for name in ("CD4", "CD8")]
    found["mean of both, anchored"] = anchored[0].assign(
        predicted=(anchored[0]["predicted"] + anchored[1]["predicted"].reindex(anchored[0].index)) / 2
    )
    if not other_donors:
        found |= of_types(ad.concat([data["cd4"], data["cd8"]], join="inner"))
    rows = []
    for name, table in found.items():
        error = table["predicted"] - table["age"]
        of_cohort = error.groupby(cohort.reindex(table.index))
        maes, levels = error.abs().groupby(cohort.reindex(table.index)).mean(), of_cohort.mean()
        rows.append(
            {"seed": seed, "clock": name, "MAE": error.abs().mean()}
            | {c: f"{maes[c]:.1f} ({levels[c]:+.1f})" for c in maes.index}
        )
    return pd.DataFrame(rows)


def main() -> None:
    """A table per seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    parser.add_argument("--other-donors", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    agevi.settings.verbosity = "error"
    for seed in args.seeds:
        print(run(seed, other_donors=args.other_donors).round(2).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
