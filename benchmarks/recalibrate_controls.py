"""Ten labelled controls of another laboratory's cohort against its best constant, beside the verdict before prediction.

Three cohorts of CD4 and CD8 T cells, each predicted by a PLS clock of the other two and of each other one, from 60 semi-synthetic
cells per donor and from profiles: 36 transfers, as in ``transport.py``; and each data set of blood methylation with 25 controls or
more from the others. Ten donors are drawn (20 times) and labelled; the errors of all others are compared before and after
``agevi.tl.recalibrate``, and with those less their own mean, which is the best that a constant can do and needs all ages. All
donors are healthy. ``--chemistries`` judges two small cohorts of COVID-19 patients, without healthy controls and by two chemistries, by
the clocks that come with agevi, anchored on the contrast, and by one another.

usage: python benchmarks/recalibrate_controls.py [--seed 7] [--draws 20] [--profiles] [--chemistries]

The data are looked for in ``$AGEVI_DATA`` (default: ``../shared/data``).
"""

from __future__ import annotations

import argparse
import warnings

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import linregress
from transport import DATA, cohorts, methylation, trained

import agevi
from agevi._ages import AgeTransform

N_LABELLED = 10
FEWEST = 25  # samples of a cohort, so that enough are left


def transfer(adata: ad.AnnData, known: np.ndarray, new: np.ndarray, n_draws: int, **setup: object) -> dict[str, object]:
    """Figures of one cohort predicted by a clock of others, means over draws of the labelled donors."""
    old = adata[known].copy()
    clock = trained(old, **setup)
    agevi.tl.calibrate(old)
    clock.set_calibration(old)
    cells = adata[new].copy()
    verdict = agevi.tl.check_transport(cells, clock, by=None).iloc[0]
    agevi.tl.predict_age(cells, clock)
    agevi.tl.aggregate_subjects(cells)
    one = cells[~cells.obs["donor"].duplicated().to_numpy()].copy()  # the table of subjects tells the rest
    table = agevi.get.subjects_df(one).set_index("subject")
    error = table["predicted"] - table["age"]
    rows = []
    for draw in range(n_draws):
        labelled = np.random.default_rng(draw).permutation(np.sort(table.index))[:N_LABELLED]
        one.obs["known"] = one.obs["age"].where(one.obs["donor"].isin(labelled))
        others = ~table.index.isin(labelled)
        row = {"raw": error[others].abs().mean(), "oracle": (error[others] - error[others].mean()).abs().mean()}
        for kind in ("shift", "auto"):
            agevi.tl.recalibrate(one, by=None, labels="known", kind=kind)
            after = agevi.get.subjects_df(one, key_added="recalibrated").set_index("subject")
            after = after[~after.index.isin(labelled)]
            row[kind] = (after["predicted"] - after["age"]).abs().mean()
        row["covered"] = ((after["age"] >= after["lower"]) & (after["age"] <= after["upper"])).mean()
        rows.append(row)
    found = pd.DataFrame(rows)
    above = found[["shift", "auto"]].sub(found["oracle"], axis=0)
    scale = AgeTransform.of(one.uns["agevi"])
    slope = linregress(*(scale.forward(table[name].to_numpy(dtype=float)) for name in ("predicted", "age")))
    return (
        {"n": len(table), "constant": error.mean(), "slope": slope.slope, "se": slope.stderr}
        | {"verdict": verdict["verdict"]}
        | found.mean().to_dict()
        | {f"{kind} - oracle": above[kind].mean() for kind in above}
        | {f"{kind} > 1 year": (above[kind] > 1).mean() for kind in above}
    )


def run(seed: int, n_draws: int, depths: tuple[bool, ...]) -> pd.DataFrame:
    """All transfers, of cells (True) and of profiles."""
    rows = []
    for kind in ("cd4", "cd8"):
        for cells in depths:
            adata = cohorts(kind, cells=cells, seed=seed)
            setup = {} if cells else {"normalize": "none"}
            dataset, what = adata.obs["dataset"].to_numpy(), f"{kind.upper()} {'cells' if cells else 'profiles'}"
            names = sorted(set(dataset))
            for target in names:
                rest = [name for name in names if name != target]
                for sources in (rest, *([name] for name in rest)):
                    found = transfer(adata, np.isin(dataset, sources), dataset == target, n_draws, **setup)
                    rows.append({"task": what, "predicted": f"{target} from {'+'.join(sources)}"} | found)
                    print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=len(rows) == 1), flush=True)
    adata = methylation()
    dataset = adata.obs["dataset"].astype(str).to_numpy()
    for target in [name for name in sorted(set(dataset)) if (dataset == name).sum() >= FEWEST]:
        found = transfer(adata, dataset != target, dataset == target, n_draws, normalize="none")
        rows.append({"task": "methylation", "predicted": f"{target} from the others"} | found)
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def patients(i: int) -> ad.AnnData:
    """First visits of a cohort of patients: sums of counts of the kinds of CD4 and CD8 T cells."""
    out = ad.read_h5ad(DATA / "pseudobulk_covid_ss_2chemistries" / f"ss_cohort{i}_pseudobulk.h5ad")
    name = out.obs["cell_type"].astype(str)
    out.obs["kind"] = np.select([name.str.contains(rf"CD{k}\+") for k in (4, 8)], ["CD4 T", "CD8 T"], "other")
    out.obs["age"], out.obs["dataset"] = out.obs["age_numeric"].astype(float), f"cohort {i}"
    for column in ("donor", "sampleID"):
        out.obs[column] = out.obs[column].astype(str)
    first = out.obs["sampleID"] == out.obs.groupby("donor")["sampleID"].transform("min")
    return out[(first & (out.obs["kind"] != "other")).to_numpy()].copy()


def chemistries() -> pd.DataFrame:
    """Two cohorts of patients by ready-made clocks and by one another: verdicts, and errors before and after the anchor."""
    data, rows = [patients(1), patients(2)], []
    for i, adata in enumerate(data):
        contrast = agevi.io.load_clock("tcells_contrast")
        genes = [gene for gene in contrast.genes if gene in adata.var_names]
        own = agevi.pp.contrast_types(
            adata, "kind", target="CD4 T", reference="CD8 T", subject_key="donor", genes=genes
        )
        anchor = pd.Series(contrast.predict_samples(own), index=own.obs["donor"].to_numpy())
        for kind in ("CD4 T", "CD8 T"):
            new = adata[(adata.obs["kind"] == kind).to_numpy()].copy()
            clock = agevi.io.load_clock(f"tcells_{kind[:3].lower()}")
            rows.append({"clock": f"tcells_{kind[:3].lower()}", "cohort": i + 1} | anchored(new, clock, anchor))
            old = data[1 - i][(data[1 - i].obs["kind"] == kind).to_numpy()]
            common = old.var_names.intersection(new.var_names)
            rows.append(
                {"clock": f"trained on {kind} of cohort {2 - i}", "cohort": i + 1}
                | anchored(new, trained(old[:, common].copy()), None)
            )
    return pd.DataFrame(rows)


def anchored(new: ad.AnnData, clock: object, anchor: pd.Series | None) -> dict[str, object]:
    """Verdicts, and mean error and MAE as they are and anchored."""
    out: dict[str, object] = {"verdict": agevi.tl.check_transport(new, clock, by=None)["verdict"].iloc[0]}
    agevi.tl.predict_age(new, clock)
    agevi.tl.aggregate_subjects(new)
    found = {"": agevi.get.subjects_df(new)}
    if anchor is not None:
        out["with the anchor"] = agevi.tl.check_transport(new, clock, by=None, anchor=anchor)["verdict"].iloc[0]
        agevi.tl.recalibrate(new, by=None, anchor=anchor)
        found[" anchored"] = agevi.get.subjects_df(new, key_added="recalibrated")
    for name, table in found.items():
        error = table["predicted"] - table["age"]
        out |= {"n": len(table), f"constant{name}": error.mean(), f"MAE{name}": error.abs().mean()}
    return out


def main() -> None:
    """Every transfer, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--chemistries", action="store_true")
    parser.add_argument(
        "--profiles", action="store_true", help="leave out the transfers of cells, which take most time"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    agevi.settings.verbosity = "error"
    if args.chemistries:
        print(chemistries().round(2).to_string(index=False))
        return
    table = run(args.seed, args.draws, (False,) if args.profiles else (True, False))
    table["off"] = pd.cut(table["constant"].abs(), [-1, 8, np.inf], labels=["within 8 years", "over 8 years"])
    print(pd.crosstab([table["task"], table["off"]], table["verdict"]).to_string())
    figures = ["raw", "oracle", "shift", "auto", "shift - oracle", "auto - oracle", "shift > 1 year", "auto > 1 year"]
    print(table.groupby(["task", "off"], observed=True)[figures].mean().round(2).to_string())
    spread = np.sqrt(table["slope"].var() - (table["se"] ** 2).mean())
    print(
        f"slopes of age on prediction {table['slope'].min():.2f} to {table['slope'].max():.2f}, sd {spread:.2f} beyond their"
    )
    print(f"standard errors; 90 % intervals cover {table['covered'].mean():.3f}; over 1 year above: shift", end=" ")
    print(
        f"{(table['shift - oracle'] > 1).sum()}, line {(table['auto - oracle'] > 1).sum()} of {len(table)}; mean",
        end=" ",
    )
    print(table[["raw", "oracle", "shift", "auto"]].mean().round(2).to_dict())


if __name__ == "__main__":
    main()
