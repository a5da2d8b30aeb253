"""An ageing clock from end to end: train with whole donors held out, predict, average per donor, judge, draw, save.

usage: python tutorials/demo.py

Runs offline on the bundled T cells, in a few minutes on two cores, and writes its figures to ``demo_output/``.
"""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib
import numpy as np
import scanpy as sc

import agevi

matplotlib.use("Agg")  # figures go to files, so no screen is needed

output = Path("demo_output")
output.mkdir(exist_ok=True)


def save(figure: matplotlib.figure.Figure, name: str) -> None:
    """Write a figure to the output folder."""
    figure.savefig(output / f"{name}.png", dpi=150, bbox_inches="tight")


# Cells of 300 donors. The differences between donors are real; the cells are drawn from one profile per donor.
adata = agevi.datasets.tcells()
print(f"{adata.n_obs:,} cells x {adata.n_vars:,} genes of {adata.obs['donor'].nunique()} donors\n")

# Whole donors are held out, spread over the ages and both studies.
agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", stratify_by="dataset")
ax = agevi.pl.age_distribution(adata, age_key="age", subject_key="donor")
save(ax.figure, "age_distribution")

# Train. Ages are learnt from sums of cells of a donor; the validation donors are watched on the way.
agevi.model.PoissonVAE.setup_anndata(adata, subject_key="donor", age_key="age")
model = agevi.model.PoissonVAE(adata)
start = time.perf_counter()
model.train()
print(f"\nTrained in {time.perf_counter() - start:.0f} s.\n")
save(agevi.pl.training(model).figure, "training")

# Predict cells and, from the sums of their cells, donors.
agevi.tl.predict_age(adata, model)
agevi.tl.aggregate_subjects(adata)
subjects = agevi.get.subjects_df(adata)
subjects.to_csv(output / "subjects.csv", index=False)
test = subjects[subjects["role"] == "test"]
print(f"The first 10 of {len(test)} test donors, ages in years:")
print(test.drop(columns="sample").head(10).round(1).to_string(index=False))

# Judge on the test donors, beside a guess that ignores the genes: the median age of the training donors.
judged = agevi.get.metrics_df(adata).loc["test"]
print(f"\nMean absolute error on {judged['n']:.0f} test donors (95 % bootstrap interval over donors)")
print(f"  clock             {judged['mae']:5.2f} years [{judged['mae_low']:.2f}, {judged['mae_high']:.2f}]")
print(f"  median predictor  {judged['mae_median']:5.2f} years")
print(f"  ratio             {judged['mae'] / judged['mae_median']:5.2f}")
print(f"Pearson r {judged['pearson']:.2f}, slope of predicted on actual age {judged['slope']:.2f}\n")
save(agevi.pl.predicted_vs_actual(adata).figure, "predicted_vs_actual")

# The latent space is an ordinary scanpy representation.
sc.pp.neighbors(adata, use_rep="X_agevi")
sc.tl.umap(adata)
titles = ["Predicted age (years)", "Study"]
save(sc.pl.umap(adata, color=["agevi_predicted", "dataset"], title=titles, frameon=False, return_fig=True), "umap")

# Save, load without the data, and predict the same.
model.save(output / "clock", overwrite=True)
clock = agevi.io.load_clock(output / "clock")
if not np.array_equal(clock.predict_age(adata), model.predict_age(adata)):
    raise RuntimeError("the clock that was saved and loaded predicts other ages.")
print(f"The saved clock, loaded again, predicts the same ages. Look at {output}/:")
print("  " + "\n  ".join(sorted(path.name for path in output.iterdir())))
