"""Rows of the tables of the neuron-clock paper: recipes scaled to the data, and what the paper prints beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agevi import _checks
from agevi import model as models
from agevi.model import presets
from agevi.tl.validate._recipe import recipe_of

N_TRAIN_CELLS = 189_432 * 50 / 69
"""Training cells of the paper, about."""
SIZES = {"test": 10 / 69, "validation": 9 / 69}
"""Shares of the subjects; 50 of the 69 train."""
OTHERS, DEFAULTS, TEST = "others", "defaults", "test"
TABLES = {
    "1": "multilayer perceptrons",
    "2": "Gaussian autoencoders",
    "3": "Poisson autoencoders",
    "4": "denoising autoencoders",
    OTHERS: "without a table in the paper",
    DEFAULTS: "defaults of agevi",
    TEST: "the best row of each model, refitted with the validation subjects",
}
FAMILIES = {
    "PLSClock": "Partial least squares",
    "ElasticNetClock": "Elastic net",
    "MLPClock": "MLP",
    "NMFClock": "NMF + MLP",
    "GaussianVAE": "Gaussian VAE",
    "PoissonVAE": "Poisson VAE",
    "DenoisingVAE": "Denoising VAE",
}
_TABLE_OF = {"MLPClock": "1", "GaussianVAE": "2", "PoissonVAE": "3", "DenoisingVAE": "4"}
# Su & Mukundan, tables 1 to 4: mean absolute error of the validation subjects, in years.
_PUBLISHED = {
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
PUBLISHED_TEST = {"MLP": 15.97, "NMF + MLP": 13.08, "Poisson VAE": 7.55, "Denoising VAE": 16.09}
"""Mean absolute error of the paper's 10 test subjects, in years."""
LAYOUT: dict[str, Any] = {
    **dict.fromkeys(("n_hidden", "n_latent", "n_head", "noise", "learning_rate", "dropout", "epochs"), ""),
    **{"n_latent": 0, "learning_rate": float("nan"), "epochs": 0},
}
"""Columns of the paper's tables, with what stands there for rows that are not in them."""


@dataclass(frozen=True)
class StudyRow:
    """One row: what is fitted, and what the paper says of it."""

    name: str
    table: str
    family: str  # name of the model in the paper
    recipe: Any = None  # none of baselines
    layout: dict[str, Any] = field(default_factory=dict)
    published: float = float("nan")

    @property
    def published_test(self) -> float:
        """The paper's error of the test subjects, NaN where there is none."""
        return float("nan") if self.table == DEFAULTS else PUBLISHED_TEST.get(self.family, float("nan"))


def make_rows(
    keys: Mapping[str, Any],
    *,
    n_train: int,
    n_genes: int,
    epochs: float,
    widths: float,
    rows: Sequence[str] | None,
    defaults: bool,
) -> list[StudyRow]:
    """The rows that are asked for, in the order of the tables."""
    if isinstance(rows, str):
        rows = [rows]
    for name in rows or ():
        if name not in presets.ROWS:
            hint = _checks.closest(name, list(presets.ROWS))
            raise ValueError(
                f"rows holds {name!r}, which is not a row of the paper{hint}; see agevi.model.presets.ROWS."
            )
    out = []
    for name, preset in presets.ROWS.items():
        if rows is None or name in rows:
            cls = getattr(models, preset["model"])
            init, train = _scaled(preset, n_train, n_genes, epochs, widths)
            recipe = recipe_of(cls, keys, preset["setup"], init, train)
            table, family = _TABLE_OF.get(preset["model"], OTHERS), FAMILIES[preset["model"]]
            out.append(StudyRow(name, table, family, recipe, _layout(preset), _PUBLISHED.get(name, float("nan"))))
    out.sort(key=lambda row: list(TABLES).index(row.table))  # stable
    for model, family in FAMILIES.items() if defaults else ():
        recipe = recipe_of(getattr(models, model), keys)
        out.append(StudyRow(f"{family}, defaults of agevi", DEFAULTS, family, recipe))
    return out


def _scaled(
    preset: Mapping[str, Any], n_train: int, n_genes: int, epochs: float, widths: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of constructor and training for fewer cells, epochs and units than the published ones."""
    init, train = dict(preset["init"]), dict(preset["train"])
    if "n_hidden" in init:
        init["n_hidden"] = [max(4, round(widths * n)) for n in init["n_hidden"]]
    if "n_components" in init:
        init["n_components"] = min(init["n_components"], max(2, n_genes // 2))
    if "max_epochs" in train:
        plan = dict(train["plan_kwargs"])
        for name in ("kl_kwargs", "lr_kwargs"):
            if name in plan:  # as many cycles as theirs
                plan[name] = {k: max(1, round(epochs * v)) for k, v in plan[name].items()}
        train |= {
            "max_epochs": max(1, round(epochs * train["max_epochs"])),
            "batch_size": max(16, round(train["batch_size"] * min(1.0, n_train / N_TRAIN_CELLS))),  # as many steps
            "plan_kwargs": plan,
        }
    return init, train


def _layout(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What the paper's tables say of a row, as published."""
    init, train = preset["init"], preset["train"]
    plan = train.get("plan_kwargs", {})
    noise = f"{init['noise_level']:g} x {init['noise_relative_to']}" if "noise_level" in init else ""
    return {
        "n_hidden": _joined(init.get("n_hidden", ())),
        "n_latent": int(init.get("n_latent", init.get("n_components", 0))),
        "n_head": _joined(init.get("n_head", ())),
        "noise": noise,
        "learning_rate": float(plan.get("lr", float("nan"))),
        "dropout": "yes" if init.get("dropout_rate") else "no",
        "epochs": int(train.get("max_epochs", 0)),
    }


def _joined(sizes: Sequence[int]) -> str:
    """Sizes of layers as text."""
    return "-".join(map(str, sizes))
