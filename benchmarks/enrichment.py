"""Reactome among the genes of clocks of prefrontal cortex (146 donors, array), and how often chance gives a set.

A linear clock and a network are trained on all donors and attributed to genes, which are tested with Fisher's test on the top
100, with ulm and with gsea (``--gsea``, half a minute a run). Then ages are shuffled between donors and everything is repeated:
a set that comes out there is a false one, which happens because genes of a set rise and fall together. Both backgrounds are
shown: the genes of the array, and the 20,000 genes that a web server takes. Last, genes are drawn at random from the array and
from a T cell data set: what comes out is the doing of the background.

usage: python benchmarks/enrichment.py [--data DIR] [--clocks NAME ...] [--shuffles 20] [--gsea] [--figure FILE]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
METHODS = ["ora", "ora, 20,000 genes", "ulm"]
CLOCKS = {
    "PLSClock(weights='zscore')": (agevi.model.PLSClock, {"weights": "zscore"}),
    "MLPClock": (agevi.model.MLPClock, {}),
}


def attribute(adata: ad.AnnData, name: str) -> None:
    """Train the clock on all donors, and write its attributions."""
    cls, init = CLOCKS[name]
    adata.obs["agevi_split"] = "train"
    cls.setup_anndata(adata, subject_key="donor", age_key="age", normalize="none")
    model = cls(adata, **init)
    model.train(enable_progress_bar=False, accelerator="cpu")
    agevi.tl.attribute_genes(adata, model)


def found(adata: ad.AnnData, sets: dict[str, list[str]], methods: list[str]) -> dict[str, pd.DataFrame]:
    """The table of every method."""
    genes = set().union(*sets.values()).union(adata.var_names)
    server = [*genes, *(f"gene {i}" for i in range(20_000 - len(genes)))]
    out = {}
    for method in methods:
        background = server if "20,000" in method else "model"
        agevi.tl.enrich(adata, sets, method=method.split(",")[0], background=background)
        out[method] = agevi.get.enrichment_df(adata)
    return out


def significant(tables: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Sets below an adjusted p of 0.05 by every method."""
    return {method: int((table["padj"] < 0.05).sum()) for method, table in tables.items()}


def random_genes(names: pd.Index, sets: dict[str, list[str]], n_draws: int = 100) -> pd.DataFrame:
    """Sets below an adjusted p of 0.05 among 100 random genes, one row per draw."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.ones((1, len(names)), dtype=np.float32), var=pd.DataFrame(index=names.astype(str)))
    adata.uns["agevi_attribution"] = {"groups": ["all"]}
    draws = []
    for _ in range(n_draws):
        adata.varm["agevi_attribution"] = rng.random((len(names), 1))
        draws.append(significant(found(adata, sets, METHODS[:2])))
    return pd.DataFrame(draws)


def by_clock(adata: ad.AnnData, sets: dict[str, list[str]], name: str, methods: list[str], n_shuffles: int) -> None:
    """Print the best sets of every method, and the number below an adjusted p of 0.05 in the data and by chance."""
    attribute(adata, name)
    tables = found(adata, sets, methods)
    for method, table in tables.items():
        columns = [c for c in ("term", "overlap", "set_size", "odds_ratio", "combined_score", "score") if c in table]
        print(f"\n{name}, {method}")
        print(table[[*columns, "p", "padj"]].head(10).to_string(index=False, float_format="%.3g"), flush=True)
    rng, shuffled, by_chance = np.random.default_rng(0), adata.copy(), []
    for _ in range(n_shuffles):
        shuffled.obs["age"] = rng.permutation(adata.obs["age"].to_numpy())
        attribute(shuffled, name)
        by_chance.append(significant(found(shuffled, sets, methods)))
    chance = pd.DataFrame(by_chance, columns=methods)
    counts = {
        "sets tested": {method: len(table) for method, table in tables.items()},
        "padj < 0.05": significant(tables),
        "shuffled ages: mean": chance.mean(),
        "shuffled ages: share of runs with any": (chance > 0).mean(),
    }
    print(f"\n{name}\n{pd.DataFrame(counts).to_string()}", flush=True)


def draw(adata: ad.AnnData, sets: dict[str, list[str]], names: list[str], file: pathlib.Path) -> None:
    """Top 100 genes of every clock: the sets with the smallest p values, and how many genes the clocks share."""
    figure, axes = plt.subplots(len(names), 1, figsize=(9, 3.6 * len(names)), layout="constrained", squeeze=False)
    top = []
    for name, ax in zip(names, axes[:, 0], strict=True):
        attribute(adata, name)
        top.append(set(agevi.get.attribution_df(adata, n_top=100)["gene"]))
        agevi.tl.enrich(adata, sets)
        agevi.pl.enrichment(adata, n_terms=8, ax=ax).set_title(name)
    print(f"\n{len(set.intersection(*top))} of the top 100 genes are those of all of {names}")
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run the clocks, then draw genes at random."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--clocks", nargs="+", choices=CLOCKS, default=list(CLOCKS))
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--gsea", action="store_true", help="gsea too")
    parser.add_argument("--figure", type=pathlib.Path, help="file for the dot plots")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = ad.read_h5ad(args.data / "bulk_ba11_brain_146" / "bulk_ba11_brain_146.h5ad")
    adata.obs["donor"] = adata.obs_names.astype(str)
    sets = agevi.tl.sets._gene_sets.read_gmt(args.data / "reference" / "ReactomePathways_human.gmt.gz")
    if args.figure:
        draw(adata, sets, args.clocks, args.figure)
    for name in args.clocks:
        by_clock(adata, sets, name, [*METHODS, *(["gsea"] if args.gsea else [])], args.shuffles)
    t_cells = agevi.datasets.tcells(n_subjects=3, n_cells=3).var_names
    for source, genes in (("array", adata.var_names), ("T cells", t_cells)):
        draws = random_genes(genes, sets)
        print(f"\n100 random genes of the {len(genes):,} of the {source}, share of draws with any set below 0.05")
        print((draws > 0).mean().to_string())


if __name__ == "__main__":
    main()
