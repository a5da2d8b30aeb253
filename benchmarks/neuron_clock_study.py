"""The neuron clock of Su and Mukundan, all rows of its tables, on a simulated cohort of its design.

69 subjects aged 25 to 94, split 50 / 9 / 10 by whole subjects. ``agevi.tl.neuron_clock_study`` trains every row on the
training subjects, scores it on the validation subjects, refits the best row of each model on both, and scores the test subjects
once. Every finished row is kept in the output folder, so a run that was stopped goes on when it is started again.

usage: python benchmarks/neuron_clock_study.py --out FOLDER [--quick] [--page benchmarks/NEURON_CLOCK_STUDY.md]
"""

from __future__ import annotations

import argparse
import pathlib
import re

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

import agevi

KEYS = {"age_key": "age", "subject_key": "donor"}
TITLES = {
    1: "Table 1: multilayer perceptrons",
    2: "Table 2: Gaussian autoencoders",
    3: "Table 3: Poisson autoencoders",
    4: "Table 4: denoising autoencoders",
    "others": "Without a table in the paper, and baselines",
    "defaults": "The classes of agevi with their defaults",
}


def cohort(args: argparse.Namespace) -> ad.AnnData:
    """Cells of 69 subjects of different numbers of cells, with as many counts per gene as nuclei have."""
    rng = np.random.default_rng(args.seed)
    spread = rng.lognormal(0, 0.35, 69)
    adata = agevi.datasets.simulate_cohort(
        69,
        np.maximum(8, (spread * args.cells / spread.mean()).astype(int)).tolist(),
        args.genes,
        age_range=(25, 94),
        n_cell_types=5,
        case_fraction=0,
        library_size=0.57 * args.genes,
        rng=args.seed,
    )
    agevi.pp.split_subjects(adata, **KEYS, stratify_by="sex", test_size=10, validation_size=9, rng=args.seed)
    return adata


def markdown(table: pd.DataFrame, columns: list[str]) -> list[str]:
    """A table as Markdown, figures to two digits."""
    form = {c: "{:.2f}" if pd.api.types.is_float_dtype(table[c]) else "{}" for c in columns} | {"learning_rate": "{:g}"}
    lines = ["| " + " | ".join(columns) + " |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    for row in table[columns].itertuples(index=False):
        cells = [("" if pd.isna(v) else form[column].format(v)) for column, v in zip(columns, row, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def tables(adata: ad.AnnData) -> str:
    """The results in the layout of the paper."""
    lines = []
    for number, title in TITLES.items():
        if str(number) not in set(agevi.get.neuron_clock_study_df(adata)["table"]):
            continue
        table = agevi.get.neuron_clock_study_df(adata, number).rename(columns={"mae": "here", "published": "paper"})
        described = [
            c for c in ("n_hidden", "n_latent", "n_head", "noise", "learning_rate", "dropout", "epochs") if c in table
        ]
        paper = ["paper"] if "paper" in table else []
        if "seconds" in table:
            table["seconds"] = table["seconds"].map(lambda s: "" if pd.isna(s) else f"{s:.0f}")
        lines += [f"**{title}**, MAE of {table['n'].iloc[0]} validation subjects in years", ""]
        lines += markdown(
            table,
            [
                "row",
                *(described if number in (1, 2, 3, 4) else []),
                *paper,
                "here",
                *(["seconds"] if "seconds" in table else []),
            ],
        )
    table = agevi.get.neuron_clock_study_df(adata, "test").rename(columns={"published": "paper MAE"})
    n = table["n"].iloc[0]
    table["MAE here"] = [f"{r.mae:.2f} [{r.mae_low:.2f}, {r.mae_high:.2f}]" for r in table.itertuples()]
    lines += [
        f"**Test**: the best row of each model, refitted with the validation subjects, {n} test subjects scored once",
        "",
    ]
    lines += markdown(table.rename(columns={"pearson": "r"}), ["model", "row", "paper MAE", "MAE here", "r", "slope"])
    return "\n".join(lines)


def figures(adata: ad.AnnData, out: pathlib.Path) -> None:
    """Predicted against actual age per model, ages over cells, and the correlations of the SVD."""
    tested = adata.uns["agevi_neuron_clock_study_predictions"].query("role == 'test' and row != 'median age'")
    names = tested["row"].unique()
    n_rows = -(-len(names) // 4)
    figure, panels = plt.subplots(n_rows, 4, figsize=(18, 4.6 * n_rows), layout="constrained", squeeze=False)
    for ax, name in zip(panels.flat, names, strict=False):
        table = tested[tested["row"] == name].drop(columns="row").set_index("sample")
        adata.uns["study_subjects"] = table.assign(n_cells=1, sd_cells=np.nan)
        agevi.pl.predicted_vs_actual(adata, key_added="study", ax=ax).set_title(name, fontsize="medium")
    for ax in panels.flat[len(names) :]:
        ax.remove()
    figure.savefig(out / "predicted_vs_actual.png", dpi=110)
    agevi.pl.age_distribution(adata, age_key="age", level="cell").figure.savefig(out / "ages.png", dpi=110)
    z = sc.pp.scale(adata, zero_center=False, copy=True)
    sc.pp.pca(z, n_comps=min(100, min(z.shape) - 1), zero_center=False)
    for level in ("cell", "sample"):
        agevi.tl.age_correlation(z, age_key="age", subject_key="donor", level=level)
        params = z.uns["agevi_correlation_params"]
        best = agevi.get.correlation_df(z).set_index("component").loc[params["best"]]
        print(
            f"SVD over {level}s: best of {len(z.uns['agevi_correlation'])} components r {best['r']:.2f} (paper: .43 over "
            f"cells), p {best['p']:.3f}; the best of permuted ages is {params['band_low']:.2f} to {params['band_high']:.2f}"
        )
        agevi.pl.age_correlation(z)["box"].figure.savefig(out / f"svd_{level}s.png", dpi=110)
    plt.close("all")


def main() -> None:
    """Run what is missing, print the tables and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for results and figures")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--cells", type=int, default=120, help="cells per subject, on average")
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=0.2, help="share of the published epochs")
    parser.add_argument("--widths", type=float, default=1.0, help="share of the published widths")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--page", type=pathlib.Path, help="Markdown file whose results are replaced")
    args = parser.parse_args()
    if args.quick:
        args.cells, args.genes, args.epochs, args.widths = 12, 120, 0.01, 0.02
    args.out.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("agg")
    adata = cohort(args)
    agevi.tl.neuron_clock_study(
        adata,
        **KEYS,
        split_key="agevi_split",
        epochs=args.epochs,
        widths=args.widths,
        rows=args.rows,
        defaults=not args.quick,
        checkpoint_dir=args.out / "fits",
        rng=args.seed,
    )
    agevi.get.neuron_clock_study_df(adata).to_csv(args.out / "results.csv", index=False)
    text = tables(adata)
    (args.out / "tables.md").write_text(text)
    print(text)
    figures(adata, args.out)
    if args.page:
        marked = re.compile(r"(<!-- results -->\n).*(<!-- end of results -->)", re.S)
        args.page.write_text(marked.sub(lambda m: f"{m[1]}\n{text}\n{m[2]}", args.page.read_text()))


if __name__ == "__main__":
    main()
