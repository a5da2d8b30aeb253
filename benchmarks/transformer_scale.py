"""Time and memory of one epoch of ``TransformerClock`` at the size of a published cohort: 20,000 samples x 14,000 features.

Half of the samples are expression, half methylation, of 30 tissues; values are dense float32. Prints one line of JSON for each
architecture: seconds of a training of one epoch (moments, modules and linear path included), seconds to predict all
samples, and the peak of the resident memory with the data (GB).

usage: python benchmarks/transformer_scale.py [--samples 20000] [--features 14000] [--architectures ft tab]
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from linear_scale import Peak, resident

import agevi

INIT: dict[str, dict[str, Any]] = {"ft": {}, "tab": agevi.model.presets.PRECIOUS1GPT["init"]}
TRAIN: dict[str, dict[str, Any]] = {"ft": {}, "tab": agevi.model.presets.PRECIOUS1GPT["train"]}


def cohort(n_samples: int, n_features: int) -> ad.AnnData:
    """Noise with a slope by age; a tenth of the features is of one modality alone."""
    rng = np.random.default_rng(0)
    age, modality = rng.uniform(0, 100, n_samples), np.arange(n_samples) % 2
    slope = rng.normal(size=n_features).astype(np.float32) / 100
    x = np.empty((n_samples, n_features), dtype=np.float32)
    masks = np.ones((n_features, 2), dtype=bool)
    masks[: n_features // 20, 0], masks[-n_features // 20 :, 1] = False, False
    for rows in np.array_split(np.arange(n_samples), 50):
        x[rows] = rng.standard_normal((len(rows), n_features), dtype=np.float32)
        x[rows] += (age[rows, None] - 50).astype(np.float32) * slope
        x[rows] *= masks.T[modality[rows]]
    obs = pd.DataFrame(
        {
            "subject": [f"p{i}" for i in range(n_samples)],
            "age": age,
            "modality": np.array(["expression", "methylation"])[modality],
            "tissue": [f"tissue {i}" for i in rng.integers(30, size=n_samples)],
        },
        index=[f"s{i}" for i in range(n_samples)],
    )
    out = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"f{i}" for i in range(n_features)]))
    out.varm["agevi_measured"] = masks
    out.uns["agevi_measured"] = {"sets": ["expression", "methylation"], "key": "agevi_feature_set"}
    out.obs["agevi_feature_set"] = out.obs["modality"].astype("category")
    return out


def main() -> None:
    """Run both architectures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=14_000)
    parser.add_argument("--architectures", nargs="+", default=list(INIT), choices=list(INIT))
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    adata = cohort(args.samples, args.features)
    for architecture in args.architectures:
        peak = Peak()
        with peak.watch():
            cls = agevi.model.TransformerClock
            cls.setup_anndata(adata, age_key="age", subject_key="subject", modality_key="modality", tissue_key="tissue")
            model = cls(adata, **({"architecture": architecture} | INIT[architecture]))
            seconds = [time.monotonic(), time.process_time()]
            model.train(1, accelerator="cpu", enable_progress_bar=False, **TRAIN[architecture])
            seconds = [time.monotonic() - seconds[0], time.process_time() - seconds[1]]
            started = time.monotonic()
            model.predict_age()
            predicted = time.monotonic() - started
        print(
            json.dumps(
                {
                    "architecture": architecture,
                    "seconds": round(seconds[0], 1),
                    "cpu_seconds": round(seconds[1], 1),
                    "predict_seconds": round(predicted, 1),
                    "peak_gb": round(peak.highest, 2),
                    "matrix_gb": round(adata.X.nbytes / 1e9, 2),
                    "after_gb": round(resident(), 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
