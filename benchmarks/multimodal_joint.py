"""What joining two modalities gains where they share features and subjects: simulated expression and methylation of the same genes.

Programs change with age, half of them in an S-shaped way, and genes follow programs. A sample shows every gene through its
modality: on another scale, at another level, and with noise of its own. Most of the loadings
(``--shared``, of their variance) are common to both modalities, the rest is of each alone. Of ten subjects, eight have an expression
sample, one a methylation sample, and one has both. The joint clock sees all training samples; the clocks of one modality see
those of theirs. All are tested on the same held-out subjects, in five folds.

usage: python benchmarks/multimodal_joint.py [--subjects 250] [--shared 0.9] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import agevi

MODALITIES = ("expression", "methylation")
N_GENES, N_PROGRAMS = 300, 20
CLOCKS: dict[str, dict[str, Any]] = {
    "ft": {"init": {"n_tokens": 8}, "train": {"early_stopping_patience": 20}},
}


def cohort(n_subjects: int, seed: int, shared: float) -> ad.AnnData:
    """Samples of both modalities over the same genes."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 90, n_subjects)
    t = (age - 55) / 20
    slope = rng.normal(size=N_PROGRAMS) * (np.arange(N_PROGRAMS) < 0.4 * N_PROGRAMS)
    shape = np.where(np.arange(N_PROGRAMS) % 2, np.tanh(2 * t[:, None]), t[:, None])
    programs = slope * shape + rng.normal(size=(n_subjects, N_PROGRAMS))
    common = rng.normal(size=(N_PROGRAMS, N_GENES)) * (rng.random((N_PROGRAMS, N_GENES)) < 0.1)
    kind = rng.random(n_subjects)
    has = {"expression": kind < 0.9, "methylation": kind > 0.8}  # both between 0.8 and 0.9
    parts = []
    for modality in MODALITIES:
        rows = np.flatnonzero(has[modality])
        own = rng.normal(size=common.shape) * (rng.random(common.shape) < 0.1)
        values = programs[rows] @ (np.sqrt(shared) * common + np.sqrt(1 - shared) * own) + rng.normal(
            size=(len(rows), N_GENES)
        )
        values = 6 + values if modality == "expression" else 1 / (1 + np.exp(-0.4 * values))
        obs = pd.DataFrame({"subject": [f"p{i}" for i in rows], "age": age[rows], "modality": modality})
        obs.index = [f"{modality} {i}" for i in rows]
        parts.append(ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=_genes())))
    out = ad.concat(parts)
    out.obs["sample"] = out.obs_names
    out.obs["fold"] = pd.Series(out.obs["subject"]).map(_folds(age)).to_numpy()
    return out


def _genes() -> list[str]:
    return [f"gene{i:04d}" for i in range(N_GENES)]


def _folds(age: np.ndarray) -> dict[str, str]:
    """Five folds of subjects that span all ages."""
    order = np.argsort(age)
    return {f"p{i}": str(place % 5) for place, i in enumerate(order)}


def out_of_fold(adata: ad.AnnData, name: str, seed: int) -> np.ndarray:
    """Ages of held-out samples by one clock."""
    agevi.tl.cross_validate(
        adata,
        agevi.model.TransformerClock,
        age_key="age",
        subject_key="subject",
        sample_key="sample",
        fold_key="fold",
        setup_kwargs={"modality_key": "modality"},
        model_kwargs=CLOCKS[name]["init"],
        train_kwargs={"accelerator": "cpu"} | CLOCKS[name].get("train", {}),
        rng=seed,
    )
    return adata.obs["agevi_predicted"].to_numpy()


def ridge(adata: ad.AnnData) -> np.ndarray:
    """Ages of held-out samples by scikit-learn's ridge."""
    out, fold, age = np.zeros(adata.n_obs), adata.obs["fold"].to_numpy(), adata.obs["age"].to_numpy()
    for held in np.unique(fold):
        train, test = fold != held, fold == held
        scaler = StandardScaler().fit(adata.X[train])
        fitted = RidgeCV(np.logspace(0, 5, 15)).fit(scaler.transform(adata.X[train]), age[train])
        out[test] = fitted.predict(scaler.transform(adata.X[test]))
    return out


def run(n_subjects: int, seed: int, shared: float) -> dict[str, float]:
    """Mean absolute error over the samples of each modality, of joint clocks and of clocks of one modality."""
    adata = cohort(n_subjects, seed, shared)
    parts = {m: adata[(adata.obs["modality"] == m).to_numpy()].copy() for m in MODALITIES}
    found = {f"{name}, joint": pd.Series(out_of_fold(adata, name, seed), adata.obs_names) for name in CLOCKS}
    for name in CLOCKS:
        apart = [pd.Series(out_of_fold(part, name, seed), part.obs_names) for part in parts.values()]
        found[f"{name}, one per modality"] = pd.concat(apart)
    found["ridge, one per modality"] = pd.concat([pd.Series(ridge(p), p.obs_names) for p in parts.values()])
    errors = {
        name: (ages - adata.obs["age"]).abs().groupby(adata.obs["modality"]).mean() for name, ages in found.items()
    }
    return {f"{modality}: {name}": float(error[modality]) for modality in MODALITIES for name, error in errors.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[250])
    parser.add_argument(
        "--shared", type=float, default=0.9, help="variance of loadings that is common to both modalities"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    for n_subjects in args.subjects:
        table = pd.DataFrame([run(n_subjects, seed, args.shared) for seed in args.seeds], index=args.seeds)
        print(f"\n{n_subjects} subjects\n")
        print("| clock | " + " | ".join(f"seed {s}" for s in args.seeds) + " | mean |")
        print("| --- |" + " ---: |" * (len(args.seeds) + 1))
        for name, row in table.T.iterrows():
            print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in [*row, row.mean()]) + " |", flush=True)


if __name__ == "__main__":
    main()
