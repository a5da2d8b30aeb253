"""Read published clocks with the software that published them: coefficients, and golden inputs and outputs.

The step before ``build_clocks.py``, which needs none of these packages. Run it in an environment of its own, since clocks are read
from pickles, which run code:

    python -m venv originals && originals/bin/pip install grnimmuneclock==1.3.0
    originals/bin/pip download --no-deps --dest wheels omniage==0.99.5 spatial-aging-clock==0.0.2 biolearn==0.9.1
    originals/bin/python benchmarks/read_published_clocks.py wheels published_clocks.npz

Of omniage 0.99.5 and spatial-aging-clock 0.0.2 the files are read out of their wheels; of their code the class of a linear clock is
run (omniage), and the stored scikit-learn pipeline (spatial-aging-clock). The ages of methylation clocks are compared with those by the
class and the tables of a second package, biolearn 0.9.1.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

N_ROWS = 4
METHYLATION = ("Horvath2013", "PhenoAge")
IMMUNE = ("CD4T", "CD8T")
SHA256 = {
    "omniage-0.99.5-py3-none-any.whl": "1d199a07db26b4acf688e736ed9df6ffd851a24229f38e7df171669339b70ba9",
    "spatial_aging_clock-0.0.2-py2.py3-none-any.whl": "ac9d5e09d58d7643390d390ceb2b4144dd66a4b5848b85821343bba33241c7d2",
    "biolearn-0.9.1-py3-none-any.whl": "cc996dffedb762f9c12af8e0b9ca14bfce4d7e33b419c9e4be2c315c2edff6db",
}
SECOND = {"Horvath2013": ("Horvathv1", 21 * (0.696 - 0.695507258)), "PhenoAge": ("PhenoAge", 0.0)}
"""Names in biolearn, and by how many years of an adult it differs, since it rounds the constant of a score."""


def unpacked(wheels: Path, name: str, into: Path) -> Path:
    """A wheel, checked and unpacked."""
    import hashlib

    data = (wheels / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise SystemExit(f"{name} is not the wheel that was published.")
    with zipfile.ZipFile(wheels / name) as archive:
        archive.extractall(into)
    return into


def inputs(mean: np.ndarray, sd: np.ndarray, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Made-up rows around the usual values, (n_rows, n_features) float32."""
    drawn = np.random.default_rng(0).normal(mean, sd, (N_ROWS, len(mean)))
    return drawn.clip(low, high).astype(np.float32)


def methylation(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Clocks of beta values in omniage: their tables, and what its classes give."""
    for name in ("omniage", "omniage.models"):  # without what the package imports for its other clocks
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    classes = importlib.import_module("omniage.models.linear_clocks")
    out = {}
    for name in METHYLATION:
        table = pd.read_csv(folder / "omniage" / "data" / f"{name}.csv")
        constant = table["probe"].str.lower().isin(["intercept", "(intercept)"])
        sites = table[~constant]
        usual = sites["medianByCpG"].to_numpy(dtype=np.float64) if "medianByCpG" in sites else None
        x = inputs(np.full(len(sites), 0.5) if usual is None else usual, np.full(len(sites), 0.15), 0.0, 1.0)
        clock = getattr(classes, name)(table)
        beta = pd.DataFrame(x.T.astype(np.float64), index=sites["probe"].to_numpy())
        out[name] = {
            "feature": sites["probe"].to_numpy(dtype=str),
            "coef": sites["coef"].to_numpy(dtype=np.float64),
            "intercept": np.float64(table.loc[constant, "coef"].iloc[0]),
            "input": x,
            "predicted": np.asarray(clock.predict(beta, verbose=False), dtype=np.float64),
        }
        if usual is not None:
            out[name]["usual"] = usual
    return out


def compare(folder: Path, found: dict[str, dict[str, np.ndarray]]) -> None:
    """Print how far ages by a second package are from the golden ones."""
    sys.path.insert(0, str(folder))
    for other in ("cvxpy", "appdirs"):  # which its other models and its downloads need
        sys.modules[other] = types.ModuleType(other)
    from biolearn.model import LinearMethylationModel, model_definitions

    for name, (theirs, rounded) in SECOND.items():
        beta = pd.DataFrame(found[name]["input"].T.astype(np.float64), index=found[name]["feature"])
        clock = LinearMethylationModel.from_definition(model_definitions[theirs] | {"name": theirs})
        ages = clock.predict(types.SimpleNamespace(dnam=beta)).iloc[:, 0].to_numpy()
        print(f"{name}: {np.abs(ages - rounded - found[name]['predicted']).max():.1e} years from biolearn")


def pipeline(model: object, features: np.ndarray) -> dict[str, np.ndarray]:
    """A scaler and a linear model of scikit-learn, and what they give."""
    steps = [step for _, step in model.steps]
    scaler, linear = steps[0], steps[-1]
    mean = np.asarray(getattr(scaler, "mean_", None) if scaler.with_mean else np.zeros(len(features)), dtype=np.float64)
    scale = np.asarray(scaler.scale_ if scaler.with_std else np.ones(len(features)), dtype=np.float64)
    x = inputs(mean, np.where(scale > 0, scale, 1.0))
    return {
        "feature": np.asarray(features, dtype=str),
        "coef": np.asarray(linear.coef_, dtype=np.float64).ravel(),
        "intercept": np.float64(np.ravel(linear.intercept_)[0]),
        "mean": mean,
        "scale": scale,
        "input": x,
        "predicted": np.asarray(model.predict(x.astype(np.float64)), dtype=np.float64).ravel(),
    }


def immune() -> dict[str, dict[str, np.ndarray]]:
    """The clocks of grnimmuneclock, by its own class."""
    from grnimmuneclock import AgingClock

    out = {}
    for name in IMMUNE:
        clock = AgingClock(cell_type=name)
        out[f"grn_{name}"] = pipeline(clock.model, clock.feature_names)
    return out


def spatial(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The clocks of spatial-aging-clock, by their stored pipelines."""
    out = {}
    for path in sorted((folder / "spatialclock" / "clocks").glob("*.pkl")):
        with open(path, "rb") as file:
            model = pickle.load(file)
        table = pd.read_csv(path.parent / "mean_impute_files" / f"{path.stem}.csv")
        out[f"spatial_{path.stem.split('neigh20_')[1]}"] = pipeline(model, table.columns.to_numpy())
    return out


def main() -> None:
    """Write one file of arrays, ``<clock>/<array>``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = list(SHA256)
        found = methylation(unpacked(args.wheels, names[0], Path(folder, "omniage")))
        found |= immune() | spatial(unpacked(args.wheels, names[1], Path(folder, "spatial")))
    for name, arrays in found.items():
        print(f"{name}: {len(arrays['feature']):,} features, golden ages {np.round(arrays['predicted'], 3)}")
    np.savez_compressed(
        args.out, **{f"{name}/{key}": value for name, arrays in found.items() for key, value in arrays.items()}
    )


if __name__ == "__main__":
    main()
