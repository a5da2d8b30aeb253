"""Reactome among the genes of a clock of prefrontal cortex (146 donors, array), and how often chance gives a set.

A linear clock is trained on all donors, and its genes are tested with Fisher's test on the top 100, with ulm and with gsea
(``--gsea``, half a minute a run). Then ages are shuffled between donors and everything is repeated: a set that comes out there is a false one, which
happens because genes of a set rise and fall together. Both backgrounds are shown: the genes of the array, and the 20,000
genes that a web server takes. Last, genes are drawn at random from the array and from a T cell data set: what comes out is
the doing of the background.

usage: python benchmarks/enrichment.py [--data DIR] [--shuffles 20] [--gsea] [--figure FILE]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib

import anndata as ad
import numpy as np
import pandas as pd

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
METHODS = ["ora", "ora, 20,000 genes", "ulm"]


def attribute(adata: ad.AnnData, rng: int) -> None:
    """Train the clock and write its coefficients, in years per standard deviation, where attributions stand."""
    adata.obs["agevi_split"] = "train"
    agevi.model.PLSClock.setup_anndata(adata, subject_key="donor", age_key="age", normalize="none")
    model = agevi.model.PLSClock(adata, weights="zscore", rng=rng)
    model.train()
    signed = model.coefficients().reindex(adata.var_names).to_numpy()[:, None]
    adata.varm["agevi_attribution"], adata.varm["agevi_attribution_signed"] = np.abs(signed), signed
    adata.uns["agevi_attribution"] = {"groups": ["all"]}


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


def random_genes(names: pd.Index, sets: dict[str, list[str]], n_draws: int = 100) -> pd.DataFrame:
    """Sets below an adjusted p of 0.05 among 100 random genes, one row per draw."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.ones((1, len(names)), dtype=np.float32), var=pd.DataFrame(index=names.astype(str)))
    adata.uns["agevi_attribution"] = {"groups": ["all"]}
    draws = []
    for _ in range(n_draws):
        adata.varm["agevi_attribution"] = rng.random((len(names), 1))
        draws.append({m: (t["padj"] < 0.05).sum() for m, t in found(adata, sets, METHODS[:2]).items()})
    return pd.DataFrame(draws)


def main() -> None:
    """Print the best sets of every method, and the number below an adjusted p of 0.05 in the data and by chance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--gsea", action="store_true", help="gsea too")
    parser.add_argument("--figure", type=pathlib.Path, help="file for the dot plot")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    adata = ad.read_h5ad(args.data / "bulk_ba11_brain_146" / "bulk_ba11_brain_146.h5ad")
    adata.obs["donor"] = adata.obs_names.astype(str)
    net = agevi.tl._gene_sets.read_gmt(args.data / "reference" / "ReactomePathways_human.gmt.gz")
    methods = [*METHODS, *(["gsea"] if args.gsea else [])]
    attribute(adata, 0)
    tables = found(adata, net, methods)
    for method, table in tables.items():
        columns = [c for c in ("term", "overlap", "set_size", "odds_ratio", "combined_score", "score") if c in table]
        print(f"\n{method}\n{table[[*columns, 'p', 'padj']].head(10).to_string(index=False, float_format='%.3g')}")
    if args.figure:
        agevi.tl.enrich(adata, net)
        agevi.pl.enrichment(adata).figure.savefig(args.figure, dpi=110)
    rng = np.random.default_rng(0)
    by_chance = []
    for i in range(args.shuffles):
        shuffled = adata.copy()
        shuffled.obs["age"] = rng.permutation(adata.obs["age"].to_numpy())
        attribute(shuffled, i)
        by_chance.append({m: (t["padj"] < 0.05).sum() for m, t in found(shuffled, net, methods).items()})
    chance = pd.DataFrame(by_chance)
    counts = pd.DataFrame(
        {
            "sets tested": {m: len(t) for m, t in tables.items()},
            "padj < 0.05": {m: (t["padj"] < 0.05).sum() for m, t in tables.items()},
            "shuffled ages: mean": chance.mean(),
            "shuffled ages: share of runs with any": (chance > 0).mean(),
        }
    )
    print(f"\n{counts.to_string()}")
    for name, genes in (
        ("array", adata.var_names),
        ("T cells", agevi.datasets.tcells(n_subjects=3, n_cells=3).var_names),
    ):
        draws = random_genes(genes, net)
        print(f"\n100 random genes of the {len(genes):,} of the {name}, share of draws with any set below 0.05")
        print((draws > 0).mean().to_string())


if __name__ == "__main__":
    main()
