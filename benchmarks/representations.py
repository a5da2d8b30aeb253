"""Clocks on embeddings of cells: foundation models, and scVI's latent space beside the counts that it was fitted to.

``donors`` and ``datasets``: 1,075 blood T cells of 140 donors (171 samples: donor and age in whole years) in 13 data sets, as the 2,048
dimensions of TranscriptFormer and the 50 of the Census model of scVI. Whole donors are held out (five folds, drawn
several times), or whole data sets. scikit-learn stands beside the clocks, on the same means of samples and in the same
folds: ``make_pipeline(StandardScaler(), RidgeCV(numpy.logspace(0, 6, 19)))``.

``latent``: semi-synthetic CD4 T cells of 755 donors in the 5 fixed folds of ``accuracy.py``. For each fold scVI is fitted
to the cells of the training donors alone, and a clock to their latent means; held-out donors are encoded by that model.

usage: python benchmarks/representations.py [donors] [datasets] [latent] --out FOLDER [--tables TranscriptFormer scVI]
       [--draws 3] [--cells 30] [--epochs 30] [--n-latent 30] [--folds 0 1 2 3 4]

Prints the mean absolute error over held-out samples in years. Folds of ``latent`` that are finished are kept in the folder.
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scvi
from accuracy import DATA, PROFILES, cells
from depth import donor_ages
from held_out import SETUP, cells_of, donors_of, trained
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import agevi

FILE = DATA / "embeddings_blood_t_140donors" / "cellxgene_blood_T_140donors_scvi_transcriptformer.h5ad"
KEYS = {"age_key": "age", "subject_key": "donor", "sample_key": "sample"}
TABLES = {"TranscriptFormer": "X_transcriptformer", "scVI": "X_scVI"}
CLOCKS = {
    "`PLSClock(method='ridge')`": ({"method": "ridge"}, {}),
    "the same, `age_transform='log'`": ({"method": "ridge"}, {"age_transform": "log"}),
    "`PLSClock`": ({}, {}),
}
SKLEARN, MEDIAN = "scikit-learn", "median age"


def embeddings() -> ad.AnnData:
    """The cells with their samples."""
    adata = ad.read_h5ad(FILE)
    adata.obsm["X_scVI"] = np.asarray(adata.X)
    adata.obs["sample"] = adata.obs["donor"].astype(str) + "_" + adata.obs["age"].astype(int).astype(str)
    return adata


def by_sample(adata: ad.AnnData, obsm_key: str, fold_key: str | None, seed: int) -> pd.DataFrame:
    """Predictions of every sample by all clocks in the same folds, with its age and donor."""
    out = pd.DataFrame()
    for name, (init, setup) in CLOCKS.items():
        options = {"fold_key": fold_key, "model_kwargs": init, "setup_kwargs": setup, "rng": seed}
        agevi.tl.cross_validate(adata, agevi.model.PLSClock, **KEYS, obsm_key=obsm_key, **options, key_added="cv")
        first = adata.obs.drop_duplicates("sample").set_index("sample").sort_index()
        out[name] = first["cv_predicted"].astype(float)
    means = pd.DataFrame(adata.obsm[obsm_key]).groupby(adata.obs["sample"].to_numpy()).mean().loc[out.index].to_numpy()
    fold, age = first["cv_fold"].astype(str).to_numpy(), first["age"].to_numpy(float)
    for name in np.unique(fold):
        train, test = fold != name, fold == name
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 19))).fit(means[train], age[train])
        out.loc[test, SKLEARN] = ridge.predict(means[test])
        out.loc[test, MEDIAN] = np.median(age[train])
    return out.assign(age=age, donor=first["donor"].astype(str), draw=seed)


def interval(values: pd.Series, donor: pd.Series, rng: np.random.Generator) -> str:
    """Mean of values and its 95 % interval when donors are drawn anew."""
    table = values.groupby(donor).agg(["sum", "size"]).to_numpy()
    drawn = rng.integers(len(table), size=(2000, len(table)))
    low, high = np.quantile(table[drawn, 0].sum(1) / table[drawn, 1].sum(1), [0.025, 0.975])
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def foundation(design: str, tables: list[str], draws: int, out: pathlib.Path) -> None:
    """Errors on the embeddings of foundation models."""
    adata, fold_key = embeddings(), None if design == "donors" else "dataset_id"
    for name in tables:
        obsm_key, seeds = TABLES[name], range(draws if fold_key is None else 1)
        found = pd.concat([by_sample(adata, obsm_key, fold_key, seed) for seed in seeds])
        found.to_csv(out / f"{obsm_key}_{design}.csv")
        columns = [*CLOCKS, SKLEARN, MEDIAN]
        error = found[columns].sub(found["age"], axis=0).abs()
        bias = found[columns].sub(found["age"], axis=0).mean()
        spread = error.groupby(found["draw"]).mean().std()
        error["donor"] = found["donor"]
        error = error.groupby(["sample", "donor"]).mean().reset_index("donor")
        print(f"\n{design} held out, {name}\n\n| model | MAE | sd over draws | minus scikit-learn | mean error |")
        print("| --- | --- | ---: | --- | ---: |")
        for column in columns:
            rng = np.random.default_rng(0)
            difference = interval(error[column] - error[SKLEARN], error["donor"], rng)
            mae = interval(error[column], error["donor"], np.random.default_rng(0))
            print(f"| {column} | {mae} | {spread[column]:.2f} | {difference} | {bias[column]:+.1f} |", flush=True)


def encoded(adata: ad.AnnData, model: scvi.model.SCVI) -> ad.AnnData:
    """The cells with their latent means."""
    adata.obsm["X_scVI"] = model.get_latent_representation(adata, batch_size=4096)
    return adata


def latent_fold(adata: ad.AnnData, donors: pd.DataFrame, fold: str, args: argparse.Namespace) -> pd.DataFrame:
    """Ages of the donors of one fold, from counts and from a latent space that was fitted without them."""
    test = cells_of(adata, donors.index[donors["fold"] == fold])
    train = cells_of(adata, donors.index[donors["fold"] != fold])
    out = {"counts": donor_ages(test, trained(agevi.model.PLSClock, train, 0))}
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(train)
    network = scvi.model.SCVI(train, n_latent=args.n_latent, gene_likelihood="nb")
    network.train(max_epochs=args.epochs, batch_size=512, accelerator="cpu", train_size=1.0, enable_progress_bar=False)
    train, test = encoded(train, network), encoded(test, network)
    for method in ("pls", "ridge"):
        agevi.model.PLSClock.setup_anndata(train, **SETUP, obsm_key="X_scVI")
        clock = agevi.model.PLSClock(train, method=method)
        clock.train()
        out[f"scVI, {method}"] = donor_ages(test, clock)
    age = donors["age"]
    means, held = (
        pd.DataFrame(part.obsm["X_scVI"]).groupby(part.obs["donor"].astype(str).to_numpy()).mean()
        for part in (train, test)
    )
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 19))).fit(means, age[means.index])
    out["scVI, scikit-learn"] = pd.Series(ridge.predict(held), index=held.index)
    out[MEDIAN] = pd.Series(np.median(age[means.index]), index=held.index)
    return pd.DataFrame(out)


def latent(args: argparse.Namespace) -> None:
    """Errors of clocks on counts and on scVI's latent space of the same cells."""
    adata = cells(PROFILES, 7, args.cells)
    donors, parts = donors_of(adata), []
    folder = args.out / f"latent_{args.cells}_{args.n_latent}_{args.epochs}"
    folder.mkdir(exist_ok=True)
    for fold in args.folds:
        path = folder / f"{fold}.csv"
        if not path.exists():
            latent_fold(adata, donors, fold, args).rename_axis("donor").to_csv(path)
            print(f"fold {fold} is finished", flush=True)
        parts.append(pd.read_csv(path, index_col="donor"))
    found = pd.concat(parts)
    found.index = found.index.astype(str)
    age = donors["age"][found.index]
    error = found.sub(age, axis=0).abs()
    print(f"\n{len(found)} donors, {args.cells} cells each\n\n| model | MAE | minus counts |\n| --- | --- | --- |")
    for column in error.mean().sort_values().index:
        own, donor = error[column], pd.Series(found.index, index=found.index)
        mae = interval(own, donor, np.random.default_rng(0))
        print(f"| {column} | {mae} | {interval(own - error['counts'], donor, np.random.default_rng(0))} |")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("designs", nargs="*", default=["donors", "datasets", "latent"])
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--cells", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--n-latent", type=int, default=30)
    parser.add_argument("--folds", nargs="*", default=list("01234"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for design in ("donors", "datasets"):
        if design in args.designs:
            foundation(design, args.tables, args.draws, args.out)
    if "latent" in args.designs:
        latent(args)


if __name__ == "__main__":
    main()
