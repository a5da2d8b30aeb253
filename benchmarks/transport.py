"""The verdict of ``agevi.tl.check_transport`` before prediction, beside how far clocks were then off.

Three cohorts of CD4 and CD8 T cells, each predicted by a PLS clock of the other two and of each other one, from 60
semi-synthetic cells per donor (``agevi.datasets.sample_cells``) and from the donors' profiles: 36 transfers. A fifth of
the donors of the training cohorts is held out each time: these are at home and must not be called shifted. Blood
methylation at 353 CpGs, each data set with 5 controls or more left out: known to transfer.

usage: python benchmarks/transport.py [--seed 7]

The data are looked for in ``$AGEVI_DATA`` (default: ``../shared/data``).
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


def cohorts(kind: str, *, cells: bool, seed: int) -> ad.AnnData:
    """Cells or profiles of one type."""
    profiles = ad.read_h5ad(DATA / f"pb_tcells_{kind}" / f"{kind}t_donors.h5ad")
    out = agevi.datasets.sample_cells(profiles, n_cells=60, rng=seed) if cells else profiles
    for column in ("donor", "dataset"):
        out.obs[column] = out.obs[column].astype(str)
    return out


def methylation() -> ad.AnnData:
    """Controls of data sets of blood."""
    out = ad.read_h5ad(DATA / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    out = out[(out.obs["group"] == "control").to_numpy()].copy()
    size = out.obs["dataset"].astype(str).value_counts()
    return out[out.obs["dataset"].astype(str).isin(size.index[size >= 5]).to_numpy()].copy()


def trained(old: ad.AnnData, **setup: object) -> agevi.model.PLSClock:
    """A clock of all donors of some cohorts that tells its errors in folds of them, and what the cohorts look like."""
    agevi.model.PLSClock.setup_anndata(old, **KEYS, **setup)
    old.obs["role"] = "train"
    clock = agevi.model.PLSClock(old)
    clock.train(split_key="role")
    agevi.tl.cross_validate(old, agevi.model.PLSClock, **KEYS, setup_kwargs=setup)
    agevi.tl.aggregate_subjects(old)
    clock.set_evaluation(old)
    clock.set_cohorts(old, by="dataset")
    return clock


def transfer(adata: ad.AnnData, train: np.ndarray, groups: dict[str, np.ndarray], **setup: object) -> list[dict]:
    """Train on some cells, and judge groups of others; rows of figures."""
    clock = trained(adata[train].copy(), **setup)
    rows = []
    for name, mask in groups.items():
        new = adata[mask].copy()
        found = agevi.tl.check_transport(new, clock, by=None).iloc[0]
        age = new.obs.groupby("donor", observed=True)["age"].first().mean()
        error = found["level"] - age
        rows.append({"predicted": name, "n": found["n_subjects"], "error": error} | found.to_dict())
    return rows


def at_home(adata: ad.AnnData, cells: np.ndarray, seed: int) -> np.ndarray:
    """A fifth of the donors of some cells, as a mask."""
    donors = np.unique(adata.obs["donor"].to_numpy()[cells].astype(str))
    chosen = np.random.default_rng(seed).permutation(donors)[: max(len(donors) // 5, 5)]
    return cells & adata.obs["donor"].astype(str).isin(chosen).to_numpy()


def run(seed: int) -> pd.DataFrame:
    """All transfers."""
    rows = []
    for kind in ("cd4", "cd8"):
        for cells in (True, False):
            adata = cohorts(kind, cells=cells, seed=seed)
            setup = {} if cells else {"normalize": "none"}
            dataset, what = adata.obs["dataset"].to_numpy(), f"{kind.upper()} {'cells' if cells else 'profiles'}"
            names = sorted(set(dataset))
            for target in names:
                others = [name for name in names if name != target]
                for sources in [others, *([name] for name in others)]:
                    known = np.isin(dataset, sources)
                    home = at_home(adata, known, seed)
                    groups = {f"{target} from {'+'.join(sources)}": dataset == target, f"home of {sources}": home}
                    for row in transfer(adata, known & ~home, groups, **setup):
                        rows.append({"task": what} | row)
    adata = methylation()
    dataset = adata.obs["dataset"].astype(str).to_numpy()
    for target in sorted(set(dataset)):
        known = dataset != target
        home = at_home(adata, known, seed)
        groups = {f"{target} from the others": ~known, "home": home}
        for row in transfer(adata, known & ~home, groups, normalize="none"):
            rows.append({"task": "methylation"} | row)
    return pd.DataFrame(rows)


def main() -> None:
    """Tables of single transfers, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    agevi.settings.verbosity = "error"
    table = run(args.seed)
    shown = ["task", "predicted", "n", "error", "outside", "shrunk_by", "slope", "verdict"]
    print(table[shown].round(2).to_string(index=False))
    table["home"] = table["predicted"].str.startswith("home")
    table["of_rna"] = table["task"] != "methylation"
    table["off"] = pd.cut(table["error"].abs(), [-1, 8, np.inf], labels=["within 8 years", "over 8 years"])
    print(pd.crosstab([table["of_rna"], table["home"], table["off"]], table["verdict"]).to_string())


if __name__ == "__main__":
    main()
