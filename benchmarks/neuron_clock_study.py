"""The neuron clock of Su and Mukundan, all rows of its tables, on a simulated cohort of its design.

69 subjects aged 25 to 94, split 50 / 9 / 10 by whole subjects. Every row is trained on the training subjects and scored on
the validation subjects; the best row of each model is refitted on both, and the test subjects are scored once. Recipes
are those of ``agevi.model.presets``, with everything that depends on the size of the data scaled (see ``scaled``). Each
finished row is appended to ``results.csv`` in the output folder, so a run that was stopped goes on when it is started again.

usage: python benchmarks/neuron_clock_study.py --out FOLDER [--quick] [--page benchmarks/NEURON_CLOCK_STUDY.md]
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import re
import time
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from reference import pseudobulk, ridge

import agevi
from agevi.model import presets

N_CELLS, N_GENES = 189_432, 17_658
"""Size of the published data."""
SETUP = {"age_key": "age", "subject_key": "donor"}
FAMILIES = {
    "PLSClock": "Partial least squares",
    "ElasticNetClock": "Elastic net",
    "MLPClock": "MLP",
    "NMFClock": "NMF + MLP",
    "GaussianVAE": "Gaussian VAE",
    "PoissonVAE": "Poisson VAE",
    "DenoisingVAE": "Denoising VAE",
}
DEFAULT = "defaults of agevi"
BASELINES = ("median age", "ridge on pseudobulk")
PAPER_VALIDATION = {
    "mlp [500, 500]": 8.44,
    "mlp [1000, 1000]": 9.11,
    "mlp [5000, 5000, 5000]": 7.78,
    "mlp [5000, 5000, 5000], lr 1e-4": 8.67,
    "gaussian, latent 20": 15.78,
    "gaussian, latent 30": 13.44,
    "gaussian, latent 40": 14.67,
    "gaussian, latent 50": 12.67,
    "gaussian, latent 60": 14.22,
    "gaussian, latent 70": 14.33,
    "gaussian [600, 150, 75], latent 50": 13.0,
    "gaussian [512, 256], latent 150, head [30, 20]": 13.0,
    "gaussian, latent 60, dropout, 200 epochs": 14.22,
    "poisson, 200 epochs": 9.56,
    "poisson, 500 epochs": 8.67,
    "poisson, 1000 epochs": 8.33,
    # One published row each; here in both units of the noise.
    **{f"denoising, noise 5 of {unit}": 14.07 for unit in ("input_sd", "max")},
    **{f"denoising, noise 0.5 of {unit}": 14.43 for unit in ("input_sd", "max")},
    **{f"denoising, noise 0.5 of {unit}, head [30, 20]": 14.14 for unit in ("input_sd", "max")},
}
PAPER_TEST = {
    "MLP": "15.97 (r .52)",
    "NMF + MLP": "13.08 (r .70)",
    "Poisson VAE": "7.55",
    "Denoising VAE": "16.09",
}
COLUMNS = ["row", "family", "scored_on", "n", "mae", "mae_low", "mae_high", "pearson", "slope", "epoch", "seconds"]


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
    agevi.pp.split_subjects(adata, **SETUP, stratify_by="sex", test_size=10, validation_size=9, rng=args.seed)
    return adata


def scaled(preset: dict[str, Any], args: argparse.Namespace, n_train: int) -> dict[str, Any]:
    """The preset for fewer cells and epochs than the published ones.

    Batches shrink with the number of training cells, so that an epoch has as many steps as theirs. Epochs shrink by
    ``--epochs``, and with them the phases of the KL weight and of the learning rate, so that a training has as many of
    those cycles as theirs.
    """
    train = dict(preset["train"])
    if "max_epochs" not in train:
        return preset
    share = args.epochs
    plan = dict(train["plan_kwargs"])
    for name in ("kl_kwargs", "lr_kwargs"):
        if name in plan:
            plan[name] = {k: max(1, round(share * v)) for k, v in plan[name].items()}
    train |= {
        "max_epochs": max(1, round(share * train["max_epochs"])),
        "batch_size": max(16, round(train["batch_size"] * n_train / (N_CELLS * 50 / 69))),
        "plan_kwargs": plan,
    }
    init = dict(preset["init"])
    if preset["model"] == "MLPClock":
        init["n_hidden"] = [max(4, round(args.widths * n)) for n in init["n_hidden"]]
    if "n_components" in init:
        init["n_components"] = min(init["n_components"], args.genes // 2)
    return {**preset, "init": init, "train": train}


def rows(args: argparse.Namespace, n_train: int) -> dict[str, dict[str, Any]]:
    """All rows by name: those of the paper, and the classes as they come."""
    out = {name: scaled(preset, args, n_train) for name, preset in presets.ROWS.items()}
    quick = {"max_epochs": 2} if args.quick else {}
    for name, family in FAMILIES.items():
        out[f"{family}, {DEFAULT}"] = {"model": name, "setup": {}, "init": {}, "train": quick, "own": True}
    return out


def fit(adata: ad.AnnData, row: dict[str, Any], roles: tuple[str, ...], seed: int, epochs: int | None) -> Any:
    """A clock trained on the subjects of some roles."""
    cls = getattr(agevi.model, row["model"])
    cls.setup_anndata(adata, **SETUP, **row["setup"])
    model = cls(adata, rng=seed, **row["init"])
    train = {**row["train"], "accelerator": "cpu", "enable_progress_bar": False}
    if epochs is not None:
        train["max_epochs"] = epochs
    model.train(train_roles=roles, **train)
    return model


def score(table: pd.DataFrame, role: str) -> dict[str, float]:
    """Accuracy over the subjects of one role."""
    part = table[table["role"] == role]
    found = agevi.metrics.regression_metrics(part["age"], part["predicted"])
    low, high = agevi.metrics.bootstrap_interval(agevi.metrics.mae, part["age"], part["predicted"])
    return {**{k: found[k] for k in ("n", "mae", "pearson", "slope")}, "mae_low": low, "mae_high": high}


class Study:
    """The results in a folder, and what is missing of them."""

    def __init__(self, adata: ad.AnnData, args: argparse.Namespace) -> None:
        self.adata, self.args, self.out = adata, args, args.out
        n_train = int((adata.obs["agevi_split"] == "train").sum())
        self.rows = rows(args, n_train)
        self.bulk = pseudobulk(adata)
        self.ages = adata.obs.groupby(adata.obs["donor"].astype(str))["age"].first().astype(float)
        self.roles = adata.obs.groupby(adata.obs["donor"].astype(str))["agevi_split"].first().astype(str)

    @property
    def results(self) -> pd.DataFrame:
        path = self.out / "results.csv"
        return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)

    def done(self, row: str, role: str) -> bool:
        found = self.results
        return bool(((found["row"] == row) & (found["scored_on"] == role)).any())

    def add(self, row: str, family: str, role: str, table: pd.DataFrame, seconds: float, epoch: Any = "") -> None:
        """Write one result, and the predictions that it is made of."""
        values = {"row": row, "family": family, "scored_on": role, "epoch": epoch, "seconds": round(seconds, 1)}
        result = pd.DataFrame([values | score(table, role)], columns=COLUMNS)
        predictions = table.assign(row=row, scored_on=role)[["row", "scored_on", "subject", "age", "predicted", "role"]]
        for name, frame in (("predictions", predictions), ("results", result)):
            path = self.out / f"{name}.csv"
            frame.to_csv(path, mode="a", header=not path.exists(), index=False)
        print(
            f"{role:10s} {row:55s} MAE {result['mae'][0]:6.2f}  r {result['pearson'][0]:5.2f}  {seconds:6.0f} s",
            flush=True,
        )

    def run(self, name: str, role: str, epochs: int | None = None) -> None:
        """Train one row and score it on one role, unless that was done."""
        if self.done(name, role):
            return
        row, start = self.rows[name], time.time()
        roles = ("train",) if role == "validation" else ("train", "validation")
        model = fit(self.adata, row, roles, self.args.seed, epochs)
        agevi.tl.predict_age(self.adata, model)
        agevi.tl.aggregate_subjects(self.adata)
        table = agevi.get.subjects_df(self.adata)
        epoch = model.best_epoch_ if type(model).chooses_epochs(row["init"]) else ""
        self.add(name, FAMILIES[row["model"]], role, table, time.time() - start, epoch)

    def baselines(self, role: str) -> None:
        """The median age and ridge on pseudobulk, from the same subjects."""
        fitted = self.roles.isin(["train"] if role == "validation" else ["train", "validation"])
        ages, bulk = self.ages[fitted], self.bulk[fitted]
        for name, predict in zip(
            BASELINES, (lambda: ages.median(), lambda: ridge(bulk, ages, self.bulk)), strict=True
        ):  # fmt: skip
            if not self.done(name, role):
                start = time.time()
                table = pd.DataFrame(
                    {"sample": self.ages.index, "subject": self.ages.index, "age": self.ages.to_numpy()}
                )
                table["predicted"], table["role"] = predict(), np.where(fitted, "train", self.roles)
                self.add(name, "Baselines", role, table, time.time() - start)

    def best(self, family: str, *, own: bool) -> str | None:
        """The row of a model with the lowest error on validation subjects."""
        found = self.results
        own_row = found["row"].str.endswith(DEFAULT)
        part = found[(found["family"] == family) & (found["scored_on"] == "validation") & (own_row == own)]
        return None if part.empty else str(part.loc[part["mae"].idxmin(), "row"])

    def all(self) -> None:
        """Validation of every row, then the test of the best of each model."""
        self.baselines("validation")
        for name in self.rows:
            self.run(name, "validation")
        self.baselines("test")
        for family in FAMILIES.values():
            for own in (False, True):
                name = self.best(family, own=own)
                if name is not None:
                    found = self.results.set_index(["row", "scored_on"])["epoch"]
                    # Some classes choose their epoch on validation subjects by default; the recipes of the paper fix it.
                    chosen = found.loc[(name, "validation")] if self.rows[name].get("own") else np.nan
                    self.run(name, "test", None if pd.isna(chosen) or chosen == "" else int(chosen))


def tables(study: Study) -> str:
    """The results in the layout of the paper, as Markdown."""
    found = study.results.set_index(["row", "scored_on"])
    lines = []
    for family in FAMILIES.values():
        names = [n for n, r in study.rows.items() if FAMILIES[r["model"]] == family]
        if not names:
            continue
        lines += [f"**{family}**, MAE of 9 validation subjects in years", "", "| row | paper | here | seconds |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for name in names:
            if (name, "validation") in found.index:
                result = found.loc[(name, "validation")]
                lines.append(
                    f"| {name} | {PAPER_VALIDATION.get(name, '')} | {result['mae']:.2f} | {result['seconds']:.0f} |"
                )
        lines.append("")
    lines += ["**Test**: the best row of each model, refitted on 59 subjects, 10 test subjects scored once", ""]
    lines += ["| model | row | paper MAE | MAE here | r | slope |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for (name, role), result in found.iterrows():
        if role == "test":
            paper = "" if DEFAULT in name else PAPER_TEST.get(result["family"], "")
            interval = f"{result['mae']:.2f} [{result['mae_low']:.2f}, {result['mae_high']:.2f}]"
            r = "" if pd.isna(result["pearson"]) else f"{result['pearson']:.2f}"
            lines.append(f"| {result['family']} | {name} | {paper} | {interval} | {r} | {result['slope']:.2f} |")
    validation = found[found.index.get_level_values(1) == "validation"]["mae"]
    lines += ["", "Validation MAE of the baselines: " + ", ".join(f"{n} {validation[(n, 'validation')]:.2f}" for n in BASELINES) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def figures(study: Study) -> None:
    """Predicted against actual age per model, ages over cells, and the correlations of the SVD."""
    adata, out = study.adata, study.out
    predictions = pd.read_csv(out / "predictions.csv", dtype={"subject": str})
    predictions = predictions.drop_duplicates(["row", "scored_on", "subject"], keep="last")
    tested = predictions[predictions["scored_on"] == "test"]
    names = [n for n in tested["row"].unique() if n != BASELINES[0]]
    n_rows = -(-len(names) // 4)
    figure, panels = plt.subplots(n_rows, 4, figsize=(18, 4.6 * n_rows), layout="constrained", squeeze=False)
    for ax, name in zip(panels.flat, names, strict=False):
        table = tested[tested["row"] == name].drop(columns=["row", "scored_on"])
        adata.uns["study_subjects"] = table.set_index(table["subject"].rename("sample"))
        agevi.pl.predicted_vs_actual(adata, key_added="study", roles=["train", "test"], ax=ax).set_title(
            name, fontsize="medium"
        )
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


def same_settings(args: argparse.Namespace) -> None:
    """Refuse to add to the results of other settings."""
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "page")} | {"version": agevi.__version__}
    path = args.out / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise SystemExit(f"{path} has other settings: {path.read_text()}; choose another folder, or delete it.")
    path.write_text(json.dumps(settings))


def main() -> None:
    """Run what is missing, print the tables and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for results and figures")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--cells", type=int, default=120, help="cells per subject, on average")
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--epochs", type=float, default=0.2, help="share of the published epochs")
    parser.add_argument("--widths", type=float, default=1.0, help="share of the published widths of the MLPs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--page", type=pathlib.Path, help="Markdown file whose results are replaced")
    args = parser.parse_args()
    if args.quick:
        args.cells, args.genes, args.epochs, args.widths = 12, 120, 0.01, 0.02
    args.out.mkdir(parents=True, exist_ok=True)
    same_settings(args)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    plt.switch_backend("agg")
    study = Study(cohort(args), args)
    study.all()
    text = tables(study)
    (args.out / "tables.md").write_text(text)
    print(text)
    figures(study)
    if args.page:
        marked = re.compile(r"(<!-- results -->\n).*(<!-- end of results -->)", re.S)
        args.page.write_text(marked.sub(lambda m: f"{m[1]}\n{text}\n{m[2]}", args.page.read_text()))


if __name__ == "__main__":
    main()
