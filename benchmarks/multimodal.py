"""Expression and methylation of several tissues in one clock: the transformer's two architectures beside ridge per data set.

Six real data sets (controls, ages in years) with almost no features in common are joined and cross-validated in five folds of
whole subjects, stratified by tissue and modality. Every clock is fitted on the same folds. The two architectures are the class's
defaults and the published recipe. Defaults were chosen by the error on validation subjects of one split into training,
validation and test subjects; epochs in each fold on 15 % of its training subjects, before a refit to all of them. Ridge is scikit-learn's, one per data set, on z-scored features; the median is that of the training subjects
of the data set.

usage: python benchmarks/multimodal.py --out FOLDER [--data FOLDER] [--seed 0] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
KEYS = {"modality_key": "modality", "tissue_key": "tissue"}
N_TOP = 2000  # genes of the islets with the largest mean count: a filter that looks at no age and at no spread
MODELS: dict[str, dict[str, Any]] = {
    "ft": {"setup": KEYS},
    "ft without linear path": {"setup": KEYS, "init": {"skip": "none"}},
    "tab": {"setup": KEYS, **{k: agevi.model.presets.PRECIOUS1GPT[k] for k in ("init", "train")}},
}


def expression(data: pathlib.Path) -> dict[str, ad.AnnData]:
    """Expression sets as logarithms."""
    brain = ad.read_h5ad(data / "bulk_ba11_brain_146" / "bulk_ba11_brain_146.h5ad")
    tcells = ad.read_h5ad(data / "pb_tcells_cd4" / "cd4t_donors.h5ad")
    islets = ad.read_h5ad(data / "bulk_fadista_islets_77" / "bulk_fadista_islets_77.h5ad")
    islets = islets[islets.obs["hba1c_class"] == "Normal"].copy()
    x = np.asarray(islets.X.todense() if sp.issparse(islets.X) else islets.X, dtype=np.float64)
    top = np.sort(np.argsort(-x.mean(0), kind="stable")[:N_TOP])
    cpm = x / x.sum(1, keepdims=True) * 1e6
    islets = ad.AnnData(np.log1p(cpm[:, top]), obs=islets.obs, var=islets.var.iloc[top])
    return {"cortex": brain, "CD4 T cells": tcells, "pancreatic islets": islets}


def methylation(data: pathlib.Path) -> dict[str, ad.AnnData]:
    """Methylation sets as beta values."""
    blood = ad.read_h5ad(data / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    blood = blood[blood.obs["group"] == "control"].copy()
    cortex = ad.read_h5ad(next((data / "dnam_cortex_38").glob("*.h5ad")))
    sorted_cells = ad.read_h5ad(data / "dnam_carpentries_37" / "dnam_carpentries_37.h5ad")
    sorted_cells.X = sorted_cells.layers["beta"]
    return {"blood": blood, "cortex": cortex, "sorted blood cells": sorted_cells}


def joined(data: pathlib.Path) -> ad.AnnData:
    """All sets over the union of their features, 0 and masked where a set has no such feature."""
    parts = {("expression", tissue): part for tissue, part in expression(data).items()}
    parts |= {("methylation", tissue): part for tissue, part in methylation(data).items()}
    features = pd.Index([])
    for part in parts.values():
        features = features.union(part.var_names, sort=False)
    names = [f"{modality}, {tissue}" for modality, tissue in parts]
    x, obs, masks = [], [], np.zeros((len(features), len(parts)), dtype=bool)
    for i, ((modality, tissue), part) in enumerate(parts.items()):
        columns = features.get_indexer(part.var_names)
        values = np.zeros((part.n_obs, len(features)), dtype=np.float32)
        values[:, columns] = part.X.toarray() if sp.issparse(part.X) else part.X
        masks[columns, i] = True
        subject = names[i] + " " + part.obs["donor"].astype(str).to_numpy()
        columns_of = {
            "subject": subject,
            "age": part.obs["age"].to_numpy(float),
            "modality": modality,
            "tissue": tissue,
        }
        obs.append(
            pd.DataFrame({**columns_of, "data set": names[i]}, index=names[i] + " " + part.obs_names.astype(str))
        )
        x.append(values)
    out = ad.AnnData(np.concatenate(x), obs=pd.concat(obs), var=pd.DataFrame(index=features))
    out.obs["sample"] = out.obs_names
    out.varm["agevi_measured"], out.uns["agevi_measured"] = masks, {"sets": names, "key": "agevi_feature_set"}
    out.obs["agevi_feature_set"] = pd.Categorical(out.obs["data set"], categories=names)
    return out


def cross_validated(adata: ad.AnnData, name: str, seed: int) -> None:
    """Out-of-fold ages of one clock, and the folds."""
    preset = MODELS[name]
    agevi.tl.cross_validate(
        adata,
        agevi.model.TransformerClock,
        age_key="age",
        subject_key="subject",
        sample_key="sample",
        n_folds=5,
        stratify_by=["modality", "tissue"],
        setup_kwargs=preset["setup"],
        model_kwargs=preset.get("init"),
        train_kwargs={"accelerator": "cpu"} | preset.get("train", {}),
        key_added=name,
        rng=seed,
    )


def references(adata: ad.AnnData) -> pd.DataFrame:
    """Ridge per data set, and the median age of the training subjects of the data set, on the same folds."""
    age, fold = adata.obs["age"].to_numpy(), adata.obs["fold"].astype(str).to_numpy()
    sets = adata.obs["agevi_feature_set"].astype(str).to_numpy()
    out = pd.DataFrame(index=adata.obs_names, columns=["ridge per data set", "median"], dtype=float)
    for i, name in enumerate(adata.uns["agevi_measured"]["sets"]):
        columns = np.flatnonzero(adata.varm["agevi_measured"][:, i])
        for held in np.unique(fold):
            train, test = ((sets == name) & of for of in (fold != held, fold == held))
            x = adata.X[:, columns]
            scaler = StandardScaler().fit(x[train])
            ridge = RidgeCV(np.logspace(0, 5, 15)).fit(scaler.transform(x[train]), age[train])
            out.loc[test, "ridge per data set"] = ridge.predict(scaler.transform(x[test]))
            out.loc[test, "median"] = np.median(age[train])
    return out


def errors(ages: pd.DataFrame, obs: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute error of every clock in every data set, and the mean over data sets."""
    error = ages.sub(obs["age"], axis=0).abs()
    table = error.groupby(obs["agevi_feature_set"].to_numpy(), observed=True).mean()
    table.loc["mean over data sets"] = table.mean()
    table.insert(0, "samples", [*obs["agevi_feature_set"].value_counts()[table.index[:-1]], len(obs)])
    return table


def markdown(table: pd.DataFrame) -> str:
    """The table for the docs."""
    lines = ["| data set | " + " | ".join(table.columns) + " |", "| --- |" + " ---: |" * table.shape[1]]
    for name, row in table.iterrows():
        lines.append(f"| {name} | {row.iloc[0]:.0f} | " + " | ".join(f"{v:.2f}" for v in row.iloc[1:]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all clocks on the same folds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for predictions and the table")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    adata = joined(args.data)
    folds, ages = None, pd.DataFrame(index=adata.obs_names)
    for name in args.models:
        path = args.out / f"{name} {args.seed}.csv"
        if not path.exists():
            started = time.monotonic()
            cross_validated(adata, name, args.seed)
            adata.obs[[f"{name}_predicted", f"{name}_fold"]].to_csv(path)
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        found = pd.read_csv(path, index_col=0, dtype={f"{name}_fold": str})
        ages[name] = found[f"{name}_predicted"]
        if folds is not None and (folds != found[f"{name}_fold"]).any():
            raise RuntimeError(f"{name} was run on other folds")
        folds = found[f"{name}_fold"]
    adata.obs["fold"] = folds
    table = errors(pd.concat([ages, references(adata)], axis=1), adata.obs)
    table.to_csv(args.out / f"table {args.seed}.csv")
    print(markdown(table))


if __name__ == "__main__":
    main()
