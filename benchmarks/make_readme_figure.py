"""The figure of the README: a PoissonVAE of the bundled donors, 45 of them held out for testing.

usage: python benchmarks/make_readme_figure.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import scanpy as sc

import agevi

OUT = Path(__file__).resolve().parents[1] / "docs/_static/readme.png"


def main() -> None:
    matplotlib.use("Agg")
    adata = agevi.datasets.tcells()
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", stratify_by="dataset")
    agevi.model.PoissonVAE.setup_anndata(adata, subject_key="donor", age_key="age")
    model = agevi.model.PoissonVAE(adata)
    model.train()
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    sc.pp.neighbors(adata, use_rep="X_agevi", transformer="sklearn")
    sc.tl.umap(adata)

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.8, 4.2), layout="constrained", gridspec_kw={"width_ratios": [1, 1.1]}
    )
    agevi.pl.predicted_vs_actual(adata, ax=left)
    left.set_title("Donors, each from the sum of its cells", fontsize="medium")
    sc.pl.umap(adata, color="agevi_predicted", ax=right, show=False, frameon=False, size=9)
    right.set_title("Latent space of the cells, predicted age (years)", fontsize="medium")
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=110)
    print(f"{OUT.name}: {OUT.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
