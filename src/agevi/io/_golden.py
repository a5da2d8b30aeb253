"""Golden values of a clock: rows of made-up input, and what the clock gave for them when they were stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

INPUT, OUTPUT = "input", "predicted"
N_ROWS = 4
TOLERANCE = {True: 1e-6, False: 1e-4}
"""Relative to the age, above 1: of linear maps, and of networks, whose float32 sums differ between machines."""
_ROW = "agevi_golden_row"


def make(model: Any) -> dict[str, torch.Tensor]:
    """Golden values of a trained clock; none where it reads several tables of ``obsm``."""
    setups = [member.setup_args for member in model.members()]
    if len({setup.get("obsm_key") for setup in setups}) > 1:
        return {}
    n, rng = max(N_ROWS, len(_types(model))), np.random.default_rng(0)
    mean, sd = _usual(model)
    if any(member._of_counts for member in model.members()):
        rate = np.expm1(mean.clip(0.05, 6)) * rng.gamma(4.0, 0.25, (n, len(mean)))
        x = torch.from_numpy(rng.poisson(rate).clip(0, 255).astype(np.uint8))
    else:
        x = torch.from_numpy(_of_its_kind(model, rng.normal(mean, sd, (n, len(mean)))).astype(np.float32))
    return {INPUT: x, OUTPUT: torch.from_numpy(predict(model, x))}


def _of_its_kind(model: Any, values: np.ndarray) -> np.ndarray:
    """Values such as a clock reads, (n_rows, n_features): as they are, within those of training, or whole."""
    if getattr(model, "values", None) == "beta":
        return values.clip(0, 1)
    kind = next((member.value_kind for member in model.members() if member.value_kind is not None), None)
    if kind is None:
        return values
    return (np.rint(values) if kind.whole else values).clip(kind.low, kind.high)


def predict(model: Any, x: torch.Tensor) -> np.ndarray:
    """What the clock gives for rows of its own features, (n_rows,) float64, each row as a sample of its own."""
    adata = _data(model, x)
    if model.predicts_sums and not _types(model):
        return np.asarray(model.predict_samples(adata, sample_key=_ROW), dtype=np.float64)
    return np.asarray(model.predict_rows(adata).value, dtype=np.float64)


def difference(model: Any, golden: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """How far predictions are from the stored ones, and how far they may be, (n_rows,) each."""
    x, stored = golden.get(INPUT), golden.get(OUTPUT)
    if x is None or stored is None or x.ndim != 2 or stored.shape != x.shape[:1] or x.shape[1] != len(model.genes):
        raise ValueError(
            f"its golden values are not rows of the clock's {len(model.genes):,} features with a prediction each"
        )
    known = stored.double().numpy()
    linear = all(member.linear for member in model.members())
    return np.abs(predict(model, x) - known), TOLERANCE[linear] * np.maximum(1.0, np.abs(known))


def _usual(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the features as a clock reads them, (n_features,), near which inputs are made."""
    known = getattr(model.module, "input", None)
    if len(model.members()) > 1 or known is None or not hasattr(known, "sd"):
        return np.full(len(model.genes), 0.7), np.ones(len(model.genes))
    mean, sd = (values.detach().cpu().double().numpy() for values in (known.mean, known.sd))
    return mean, np.full_like(sd, 0.1) if getattr(model, "values", None) == "beta" else sd


def _types(model: Any) -> list[str]:
    """Types that a clock of types has members for; none for other clocks."""
    return [str(name) for name in (model.type_clocks if model.of_types else ())]


def _data(model: Any, x: torch.Tensor) -> AnnData:
    """Rows as data that the clock reads: its matrix, wherever that is, and every column that it needs."""
    from agevi.model.base import _save  # here, so that shelves are listed without scvi-tools

    n, values = len(x), x.numpy().astype(np.float32)
    adata = AnnData(
        obs=pd.DataFrame(index=[f"row{i}" for i in range(n)]),
        var=pd.DataFrame(index=pd.Index(model.genes, dtype=object)),
    )
    adata.X = values
    adata.obs[_ROW] = adata.obs_names.to_numpy(dtype=object)
    types = _types(model)
    for member in model.members():
        setup = member.setup_args
        if setup.get("obsm_key") is not None:
            adata.obsm[setup["obsm_key"]] = pd.DataFrame(values, index=adata.obs_names, columns=list(model.genes))
        elif setup["layer"] is not None:
            adata.layers[setup["layer"]] = values
        for key in (setup["subject_key"], setup["sample_key"]):
            if key:
                adata.obs[key] = adata.obs_names.to_numpy(dtype=object)
        for key in setup["continuous_covariate_keys"] or []:
            adata.obs[key] = 0.0
        for key, names in _save.categories(member.registry_).items():
            adata.obs[key] = [names[i % len(names)] for i in range(n)]
        if groups := member.init_args.get("pseudocell_groupby"):
            adata.obs[groups] = "all"
    if types and model.setup_args["cell_type_key"] is not None:
        adata.obs[model.setup_args["cell_type_key"]] = [types[i % len(types)] for i in range(n)]
    return adata
