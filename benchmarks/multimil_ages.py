"""MultiMIL beside ``PLSClock`` on embeddings of cells: the same samples, in the same folds of whole donors.

The data, units and folds are those of ``representations.py``: 1,075 blood T cells of 140 donors (171 samples), the 50 dimensions of the
Census model of scVI or the 2,048 of TranscriptFormer. ``multimil.model.MILClassifier`` predicts ages with gated attention
over the cells of a sample. It keeps its defaults, with three exceptions. A bag has 16 cells, drawn with replacement from those
of the training sample, because samples of fewer cells than a bag are dropped and these have six on average. Dimensions
and ages are standardised with the training samples. At most ``--epochs`` are trained; as by default a tenth of the training samples, which may
share donors with the rest, stops the training early. Held-out samples are predicted from their own cells.

MultiMIL 1.0.0 needs Python 3.12, and an environment of its own keeps its dependencies away from those of agevi:

    python3.12 -m venv .venv-multimil
    .venv-multimil/bin/python -m pip install --editable . multimil==1.0.0

usage: .venv-multimil/bin/python benchmarks/multimil_ages.py --out FOLDER [--tables scVI] [--draws 1] [--folds 5] [--epochs 100]

Where MultiMIL is not installed, the reason is printed and nothing is run. Finished folds are kept in the folder.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pathlib
import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scvi
from representations import KEYS, MEDIAN, SKLEARN, TABLES, by_sample, embeddings, interval

BAG = 16
OPTIONS = {"categorical_covariate_keys": ["sample"], "continuous_covariate_keys": ["age"]}


def bags(adata: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Cells of every sample, drawn until each has a full bag or several of them, samples one after the other."""
    rows = []
    for _, own in pd.Series(np.arange(adata.n_obs)).groupby(adata.obs["sample"].astype(str).to_numpy()):
        more = rng.choice(own, -len(own) % BAG)
        rows.append(np.concatenate([own, more]))
    out = adata[np.concatenate(rows)].copy()
    out.obs_names_make_unique()
    return out


def held_out_ages(adata: ad.AnnData, test: np.ndarray, seed: int, epochs: int, library: Any) -> pd.Series:
    """Age of every sample of the cells in ``test`` by a model that is trained on the others."""
    train, new = adata[~test].copy(), adata[test][np.argsort(adata.obs["sample"][test], kind="stable")].copy()
    mean, sd = train.X.mean(axis=0), train.X.std(axis=0) + 1e-8
    of_samples = train.obs.drop_duplicates("sample")["age"]
    train.X, new.X = (train.X - mean) / sd, (new.X - mean) / sd
    train.obs["age"] = (train.obs["age"] - of_samples.mean()) / of_samples.std()
    new.obs["age"] = 0.0  # the column has to exist, and is not read
    scvi.settings.seed = seed
    train = bags(train, np.random.default_rng(seed))
    library.setup_anndata(train, **OPTIONS)
    model = library(train, sample_key="sample", regression=["age"], sample_batch_size=BAG)
    model.train(max_epochs=epochs, batch_size=2 * BAG, accelerator="cpu", enable_progress_bar=False)
    query = library.load_query_data(new, model, accelerator="cpu")
    query.get_model_output(batch_size=2 * BAG)
    predicted = new.obs.groupby(new.obs["sample"].astype(str))["predicted_age"].mean()
    return predicted.astype(float) * of_samples.std() + of_samples.mean()


def run(table: str, seed: int, args: argparse.Namespace, library: Any) -> pd.DataFrame:
    """Predictions of every sample of the folds that are asked for, by all models."""
    adata = embeddings()
    found = by_sample(adata, TABLES[table], None, seed)
    fold = adata.obs["cv_fold"].astype(str)
    cells = ad.AnnData(np.asarray(adata.obsm[TABLES[table]], dtype=np.float32), obs=adata.obs[[*KEYS.values()]].copy())
    cells.obs["age"] = cells.obs["age"].astype(float)
    parts = []
    for name in sorted(fold.unique())[: args.folds]:
        path = args.out / f"{TABLES[table]}_{seed}_{args.epochs}_{name}.csv"
        if not path.exists():
            start = time.process_time()
            ages = held_out_ages(cells, (fold == name).to_numpy(), seed, args.epochs, library)
            ages.rename_axis("sample").rename("MultiMIL").to_csv(path)
            print(f"{table}, draw {seed}, fold {name}: {time.process_time() - start:.0f} s of the CPU", flush=True)
        parts.append(pd.read_csv(path, index_col="sample")["MultiMIL"])
    return found.join(pd.concat(parts), how="inner")


def main() -> None:
    """Errors of all models on the same held-out samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=["scVI"])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--folds", type=int, default=5, help="number of folds of each draw that are run")
    parser.add_argument("--epochs", type=int, default=100)
    args = parser.parse_args()
    try:
        library = importlib.import_module("multimil").model.MILClassifier
    except ImportError as error:
        print(f"Skipped: MultiMIL cannot be imported here ({error}). How to install it is said above: --help.")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    scvi.settings.logging_dir = args.out / "checkpoints"
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for table in args.tables:
        found = pd.concat([run(table, seed, args, library) for seed in range(args.draws)])
        columns = [name for name in found.columns if name not in ("age", "donor", "draw")]
        error = found[columns].sub(found["age"], axis=0).abs()
        means = error.groupby(level=0).mean()
        donor = found["donor"].groupby(level=0).first()
        print(f"\n{table}, {len(means)} samples of {donor.nunique()} donors, {args.folds} folds, draws: {args.draws}\n")
        print("| model | MAE | minus MultiMIL |\n| --- | --- | --- |")
        for name in [*(c for c in columns if c not in (SKLEARN, MEDIAN)), SKLEARN, MEDIAN]:
            mae = interval(means[name], donor, np.random.default_rng(0))
            difference = interval(means[name] - means["MultiMIL"], donor, np.random.default_rng(0))
            print(f"| {name} | {mae} | {difference} |", flush=True)


if __name__ == "__main__":
    main()
