"""How right, how firm and how fast attributions to genes are.

- ``truth``: simulated cohorts whose age genes are known: average precision of the ranking and signs of large effects for every
  model, beside the per-gene Spearman correlation with age on pseudobulk and ridge coefficients of the same training subjects.
- ``shap``: rank correlation with shap's GradientExplainer, and cells per second in one process at equal sample counts.
- ``scale``: time and memory of single cells at 100,000 x 2,000 and 50,000 x 10,000.
- ``published``: signed attributions of CD4 T clocks beside the coefficients of published ones.

usage: OMP_NUM_THREADS=1 python benchmarks/attribution.py truth [--seeds 0 1 2] [--models NAME ...]
       python benchmarks/attribution.py shap | scale [--cells N] [--genes N] | published
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import resource
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import torch
from reference import pseudobulk
from scipy.stats import hypergeom, spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
SETUP = {"age_key": "age", "subject_key": "donor"}
MODELS = {
    "PoissonVAE": ("PoissonVAE", {}),
    "GaussianVAE": ("GaussianVAE", {}),
    "DenoisingVAE": ("DenoisingVAE", {}),
    "MLPClock": ("MLPClock", {}),
    "NMFClock": ("NMFClock", {}),
    "ElasticNetClock": ("ElasticNetClock", {}),
    "PLSClock": ("PLSClock", {}),
    "PLSClock(weights='zscore')": ("PLSClock", {"weights": "zscore"}),
    "PLSClock(method='ridge', weights='zscore')": ("PLSClock", {"weights": "zscore", "method": "ridge"}),
    "PoissonVAE(train_unit='cell')": ("PoissonVAE", {"train_unit": "cell"}),
}


def train(adata: ad.AnnData, cls: str, **init: object) -> object:
    """A clock of the class on the training subjects."""
    kind = getattr(agevi.model, cls)
    kind.setup_anndata(adata, **SETUP)
    model = kind(adata, **init)
    model.train(enable_progress_bar=False, accelerator="cpu")
    return model


# --- truth -----------------------------------------------------------------------------------------------------


def cohort(seed: int, n_cell_types: int) -> ad.AnnData:
    """200 subjects, 2,000 genes of which 100 change with age, batch correlated 0.5 with age, modules of genes."""
    adata = agevi.datasets.simulate_cohort(
        n_subjects=200, n_cells=40, n_genes=2000, n_age_genes=100, effect_range=(0.03, 0.15),
        batch_age_correlation=0.5, case_fraction=0.0, n_cell_types=n_cell_types, rng=seed,
    )  # fmt: skip
    agevi.pp.split_subjects(adata, **SETUP, rng=seed)
    return adata


def references(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Signed scores of genes from the pseudobulk of the training subjects."""
    first = adata.obs.groupby(adata.obs["donor"].astype(str))[["age", "agevi_split"]].first()
    bulk = pseudobulk(adata)
    use = (first.loc[bulk.index, "agevi_split"] == "train").to_numpy()
    x, age = bulk.to_numpy()[use], first.loc[bulk.index, "age"].to_numpy()[use]
    spearman = np.array([spearmanr(c, age)[0] if np.ptp(c) > 0 else 0.0 for c in x.T])
    ridge = RidgeCV(np.logspace(0, 5, 15)).fit(StandardScaler().fit_transform(x), age).coef_
    return {"per-gene Spearman": spearman, "ridge coefficients": ridge}


def truth(args: argparse.Namespace) -> None:
    """Average precision and signs for every model and seed."""
    rows = []
    for seed in args.seeds:
        adata = cohort(seed, args.cell_types)
        effect, planted = adata.var["effect"].to_numpy(), (adata.var["kind"] != "none").to_numpy()
        large = planted & (np.abs(effect) > np.median(np.abs(effect[planted])))

        def score(name: str, value: np.ndarray, signed: np.ndarray, seconds: float = 0.0, seed: int = seed,
                  effect: np.ndarray = effect, planted: np.ndarray = planted, large: np.ndarray = large) -> None:  # fmt: skip
            rows.append(
                {
                    "seed": seed,
                    "model": name,
                    "average precision": average_precision_score(planted, value),
                    "signs": (np.sign(signed) == np.sign(effect))[large].mean(),
                    "seconds": seconds,
                }
            )
            print(rows[-1], flush=True)

        for name, value in references(adata).items():
            score(name, np.abs(value), value)
        for name in args.models:
            cls, init = MODELS[name]
            model = train(adata, cls, **init)
            start = time.perf_counter()
            agevi.tl.attribute_genes(adata, model)
            seconds = time.perf_counter() - start
            score(name, adata.varm["agevi_attribution"][:, 0], adata.varm["agevi_attribution_signed"][:, 0], seconds)
        ages = adata.obs.groupby("donor", observed=True)["age"].first()
        shuffled = pd.Series(np.random.default_rng(seed).permutation(ages.to_numpy()), index=ages.index)
        adata.obs["age"] = adata.obs["donor"].map(shuffled).astype(float)
        for name in args.null:
            cls, init = MODELS[name]
            agevi.tl.attribute_genes(adata, train(adata, cls, **init))
            score(f"{name}, shuffled ages", adata.varm["agevi_attribution"][:, 0], adata.varm["agevi_attribution_signed"][:, 0])  # fmt: skip
    table = pd.DataFrame(rows).groupby("model", sort=False)[["average precision", "signs", "seconds"]].mean()
    print(table.round(3).to_markdown() if args.markdown else table.round(3).to_string())


# --- shap ------------------------------------------------------------------------------------------------------


def against_shap(args: argparse.Namespace) -> None:
    """Agreement on 200 cells, and speed on 2,000 cells x 2,000 genes at 50 samples, in one process and thread."""
    import shap

    from agevi.nn.attribution import path_attributions
    from agevi.tl.genes._passes import N_POINTS, Function, _Net

    adata = agevi.datasets.simulate_cohort(n_subjects=50, n_cells=40, n_genes=2000, n_age_genes=100, rng=0)
    agevi.pp.split_subjects(adata, **SETUP, rng=0)
    model = train(adata, "PoissonVAE", train_unit="cell")
    function = Function(model, adata, np.arange(adata.n_obs), None)
    rng = np.random.default_rng(0)
    pool = function.values(rng.choice(adata.n_obs, 200, replace=False))
    rows = rng.choice(adata.n_obs, 200, replace=False)
    shifts, values = function.shifts(rows), function.values(rows)
    net = _Net(function.reader, shifts)
    ours = path_attributions(function.reader, values, pool, shifts, n_points=4).values[0].numpy()
    theirs = shap.GradientExplainer(net, pool).shap_values(values, nsamples=1000, rseed=0)
    theirs = np.asarray(theirs[0] if isinstance(theirs, list) else theirs).reshape(ours.shape)
    by_gene = spearmanr(np.abs(ours).mean(0), np.abs(theirs).mean(0))[0]
    by_cell = np.mean([spearmanr(a, b)[0] for a, b in zip(ours, theirs, strict=True)])
    print(f"200 cells: rank correlation of mean |attribution| {by_gene:.3f}, of the genes of a cell {by_cell:.3f}")
    n = 50
    start = time.perf_counter()
    some = 200
    shap.GradientExplainer(net, pool).shap_values(function.values(np.arange(some)), nsamples=n, rseed=0)
    slow = some / (time.perf_counter() - start)
    start = time.perf_counter()
    for block in function.blocks(np.arange(2000)):
        found = path_attributions(
            function.reader, function.values(block), [p[: n // N_POINTS[False]] for p in pool], shifts,
            n_points=N_POINTS[False],
        )  # fmt: skip
        found.values[0].abs().sum(0)
    fast = 2000 / (time.perf_counter() - start)
    start = time.perf_counter()
    agevi.tl.attribute_genes(adata, model, n_samples=n)
    whole = adata.n_obs / (time.perf_counter() - start)
    print(
        f"{n} samples: shap {slow:,.0f} cells/s, the same gradients here {fast:,.0f}, tl.attribute_genes {whole:,.0f}"
    )
    print(f"times shap: {fast / slow:.1f}, {whole / slow:.1f}")


# --- scale -----------------------------------------------------------------------------------------------------


def scale(args: argparse.Namespace) -> None:
    """Time and memory of single cells of a clock of single cells."""
    small = agevi.datasets.simulate_cohort(n_subjects=50, n_cells=40, n_genes=args.genes, n_age_genes=100, rng=0)
    agevi.pp.split_subjects(small, **SETUP, rng=0)
    agevi.model.PoissonVAE.setup_anndata(small, **SETUP)
    model = agevi.model.PoissonVAE(small, train_unit="cell")
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    adata = agevi.datasets.simulate_cohort(
        n_subjects=100, n_cells=args.cells // 100, n_genes=args.genes, n_age_genes=100, rng=1
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    held = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr)) / 2**30
    current = float(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**30
    start = time.perf_counter()
    agevi.tl.attribute_genes(adata, model, n_samples=args.samples)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{adata.n_obs:,} cells x {adata.n_vars:,} genes, {args.samples or 100} samples, {torch.get_num_threads()} "
        f"threads: {seconds:.0f} s; matrix {held:.2f} GiB, resident before {current:.2f}, peak {peak:.2f} GiB (peak "
        f"before {before:.2f}): {peak - current:.2f} GiB beyond"
    )


# --- published clocks ------------------------------------------------------------------------------------------


def published(args: argparse.Namespace) -> None:
    """Signed attributions of clocks of CD4 T cells beside published coefficients."""
    from accuracy import cells

    adata = cells(DATA / "pb_tcells_cd4" / "cd4t_donors.h5ad", 7, 60)
    adata.obs["agevi_split"] = "train"
    tables = published_tables()
    for name in args.models:
        cls, init = MODELS[name]
        agevi.tl.attribute_genes(adata, train(adata, cls, **init))
        table = agevi.get.attribution_df(adata).set_index("gene")
        for other, coefficients in tables.items():
            shared = table.index.intersection(coefficients.index)
            used = coefficients[shared]
            rho, p = spearmanr(table.loc[shared, "signed"], used)
            n = min(100, len(shared) // 4)  # of few shared genes a quarter
            first = set(table.loc[shared, "attribution"].nlargest(n).index)
            theirs = set(used.abs().nlargest(n).index)
            overlap = len(first & theirs)
            chance = hypergeom.sf(overlap - 1, len(shared), n, n)
            print(
                f"{name} and {other}: {len(shared):,} shared genes, Spearman {rho:.3f} (p {p:.1e}), top {n}: {overlap} shared "
                f"(expected {n * n / len(shared):.1f}, p {chance:.1e})",
                flush=True,
            )


def published_tables() -> dict[str, pd.Series]:
    """Coefficients of the published clocks of CD4 T cells by symbol."""
    clocks = DATA / "clocks"
    grn = pd.read_csv(clocks / "grnimmuneclock" / "CD4T_coefs.csv").set_index("gene")["coef_scaled"]
    sc = pd.read_csv(clocks / "scImmuAging" / "CD4T.csv").set_index("gene")["coef"].drop("Intercept")
    symbol = pd.read_csv(DATA / "reference" / "ensembl_to_symbol.csv.gz").drop_duplicates("ensembl")
    sc = sc.rename(symbol.set_index("ensembl")["Symbol"])
    return {"grnimmuneclock": grn, "scImmuAging": sc[~sc.index.duplicated()]}


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["truth", "shap", "scale", "published"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cell-types", type=int, default=1, help="with several, their shares change with age too")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--null", nargs="*", choices=MODELS, default=["PoissonVAE", "PLSClock(weights='zscore')"])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="shap")
    {"truth": truth, "shap": against_shap, "scale": scale, "published": published}[args.what](args)


if __name__ == "__main__":
    main()
