"""Expression and methylation of several tissues in one clock: the transformer's two architectures beside ridge per data set.

Six real data sets (controls, ages in years) with almost no features in common are joined and cross-validated in five folds of
whole subjects, stratified by tissue and modality. Every clock is fitted on the same folds; settings were chosen on validation
subjects inside the training folds (``--inner``), never on test folds. The two architectures are the class's defaults and the
published recipe. Ridge is scikit-learn's, one per data set, on z-scored features; the median is that of the training subjects
of the data set.

usage: python benchmarks/multimodal.py --out FOLDER [--data FOLDER] [--models NAME ...] [--inner]
"""

from __future__ import annotations

import os
import pathlib

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import agevi

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
SETUP = {"age_key": "age", "subject_key": "subject"}
KEYS = {"modality_key": "modality", "tissue_key": "tissue"}
N_TOP = 2000  # genes of the islets with the largest mean count: a filter that looks at no age and at no spread
MODELS: dict[str, dict] = {
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
