"""Does a network that reads all cells of a sample as a set beat what agevi has? Mean and attention pooling, simulated.

A bag of cells of one sample, drawn anew in each step, passes a perceptron cell by cell; the mean of their embeddings
(deep sets) or a weighted mean whose weights are learnt (gated attention, Ilse 2018) passes a second one that gives the
age. A sample is predicted from all its cells. Beside it, on the same folds of subjects, the clocks of ``states.py``, and
clocks per cluster of cells in place of the cell type.

Designs: ``alike``, ``opposite`` and ``one`` are those of ``states.py`` (composition varies at random). In the others
composition also changes with age: ``composition``, in which nothing else does; ``default``, the effects of
``simulate_cohort`` itself, a third of the age genes in one type only; ``uneven``, three types of rates 1, 0.5 and -0.5.
The settings in ``SETTINGS`` were chosen on cohorts of seeds 100 and 101.

usage: python benchmarks/set_attention.py [--designs alike ...] [--seeds 0 1 2 3 4] [--subjects 80] [--cells 30]
                                           [--clocks PLSClock ...]

Prints, over cohorts, the mean absolute error in years (standard deviation) and its mean difference to the best clock of
agevi that is told no cell types, and to the best of all, with 95 % intervals (t distribution over cohorts, or over
subjects where there is one cohort).
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import numpy as np
import pandas as pd
import scipy.stats
import torch
from anndata import AnnData
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from states import MODELS, NETWORKS, OF_CELLS, by_type, held_out
from torch import nn

import agevi
from agevi.dataloaders._stats import log1p_cp10k

CLOCKS = MODELS | NETWORKS
VARYING = {"composition_shift": 0.0, "composition_sd": 1.0, "effect_range": (0.1, 0.3)}
SHIFTING = {"composition_shift": 0.3, "composition_sd": 0.5}
DESIGNS = {
    "alike": VARYING | {"ageing_rates": [1, 1]},
    "opposite": VARYING | {"ageing_rates": [1, -1]},
    "one": VARYING | {"ageing_rates": [0, 0, 1]},
    "composition": SHIFTING | {"ageing_rates": [0, 0, 0]},
    "default": SHIFTING,
    "uneven": SHIFTING | {"ageing_rates": [1, 0.5, -0.5], "effect_range": (0.1, 0.3)},
}
SETTINGS = {"width": 128, "dropout": 0.2, "bag": 0.25, "steps": 300, "lr": 0.015, "weight_decay": 1e-2}
SAMPLES_PER_STEP = 32
SETS = {"set, mean of embeddings": False, "set, attention": True}


class SetNetwork(nn.Module):
    """Standardised age of bags of cells."""

    def __init__(self, n_genes: int, width: int, dropout: float, attention: bool) -> None:
        super().__init__()

        def block(n: int) -> list[nn.Module]:
            return [nn.Linear(n, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]

        self.cell = nn.Sequential(*block(n_genes), *block(width))
        self.of_bag = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1))
        self.attention = attention
        self.value, self.gate, self.score = nn.Linear(width, 64), nn.Linear(width, 64), nn.Linear(64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ages (n_bags,) of cells (n_bags, n_cells, n_genes)."""
        h = self.cell(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if self.attention:
            weight = self.score(torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h))).softmax(1)
            pooled = (weight * h).sum(1)
        else:
            pooled = h.mean(1)
        return self.of_bag(pooled).squeeze(-1)


def fit_predict(
    x: torch.Tensor, age: torch.Tensor, train: torch.Tensor, *, attention: bool, seed: int, **settings: float
) -> np.ndarray:
    """Ages of all samples, by a network of the training samples; cells (n_samples, n_cells, n_genes)."""
    torch.manual_seed(seed)
    own = SETTINGS | settings
    x = (x - x[train].mean((0, 1))) / x[train].std((0, 1)).clamp_min(1e-3)
    mean, sd = age[train].mean(), age[train].std()
    net = SetNetwork(x.shape[2], own["width"], own["dropout"], attention)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=own["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, own["lr"], total_steps=own["steps"])
    n_bag = round(own["bag"] * x.shape[1])
    for _ in range(own["steps"]):
        sample = train[torch.randperm(len(train))[:SAMPLES_PER_STEP]]
        cells = torch.rand(len(sample), x.shape[1]).argsort(1)[:, :n_bag]
        loss = nn.functional.huber_loss(net(x[sample[:, None], cells]), (age[sample] - mean) / sd)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        return (net(x) * sd + mean).numpy()


def sets(adata: AnnData, of_sample: pd.DataFrame, seed: int, **settings: float) -> dict[str, pd.Series]:
    """Predictions of held-out samples by networks of sets; every sample has the same number of cells, in one block."""
    values = log1p_cp10k(adata.X).toarray()
    samples = adata.obs["donor"].astype(str).drop_duplicates()
    x = torch.tensor(values, dtype=torch.float32).unflatten(0, (len(samples), -1))
    ordered = of_sample.loc[samples]
    age = torch.tensor(ordered["age"].to_numpy(), dtype=torch.float32)
    fold = ordered["fold"].to_numpy()
    out = {}
    for name, attention in SETS.items():
        predicted = np.empty(len(samples))
        for i, held in enumerate(np.unique(fold)):
            train = torch.tensor(np.flatnonzero(fold != held))
            result = fit_predict(x, age, train, attention=attention, seed=1000 * seed + i, **settings)
            predicted[fold == held] = result[fold == held]
        out[name] = pd.Series(predicted, index=samples.to_numpy())
    return out


def by_cluster(adata: AnnData, n_clusters: int, seed: int) -> dict[str, pd.Series]:
    """The clocks per cell type, where the types are unknown: clusters of all cells, which no age has shaped, instead."""
    values = log1p_cp10k(adata.X).toarray()
    scores = PCA(20, random_state=seed).fit_transform(values - values.mean(0))
    found = KMeans(n_clusters, n_init=5, random_state=seed).fit_predict(scores)
    clustered = adata.copy()
    clustered.obs["cell_type"] = pd.Categorical(found.astype(str))
    predicted = by_type(clustered, seed)
    return {name.replace("type", "cluster"): p for name, p in predicted.items()}


def run(design: str, seed: int, n_subjects: int, n_cells: int, clocks: list[str] | None = None) -> pd.DataFrame:
    """Absolute error of every clock in every sample of one cohort."""
    rates = DESIGNS[design].get("ageing_rates", [1, 1, 1])
    own = DESIGNS[design] | {"n_cell_types": len(rates)}
    adata = agevi.datasets.simulate_cohort(n_subjects, n_cells, 150, **own, rng=seed)
    epochs = max(8, round(40 * 80 * 30 / adata.n_obs))  # 40 in a small cohort; else far more steps than were chosen
    of_cells = OF_CELLS | {"train_kwargs": OF_CELLS["train_kwargs"] | {"max_epochs": epochs}}
    models = CLOCKS | {"MLPClock, cells": (agevi.model.MLPClock, of_cells)}
    of_sample, predicted = held_out(adata, seed, {name: models[name] for name in clocks or models})
    predicted |= by_cluster(adata, len(rates), seed)
    start = time.process_time()
    predicted |= sets(adata, of_sample, seed)
    print(f"{design}, seed {seed}: networks of sets took {time.process_time() - start:.0f} s", flush=True)
    errors = {name: (p[of_sample.index] - of_sample["age"]).abs() for name, p in predicted.items()}
    return pd.DataFrame(errors).assign(seed=seed)


def markdown(errors: pd.DataFrame) -> str:
    """Means over cohorts, the smallest error first, and differences to the best clocks that agevi has."""
    mae = errors.groupby("seed").mean()
    present = mae.mean().drop(list(SETS))
    best = {present[~present.index.str.contains("type")].idxmin(): "without types", present.idxmin(): "of all"}
    paired = mae if len(mae) > 1 else errors.drop(columns="seed")
    heads = " | ".join(f"to {name}, best {kind}" for name, kind in best.items())
    lines = [f"| clock | MAE | {heads} |", "| --- | ---: |" + " --- |" * len(best)]
    for name in mae.mean().sort_values().index:
        cells = [f"{mae[name].mean():.1f}" + (f" ({mae[name].std():.1f})" if len(mae) > 1 else "")]
        for reference in best:
            difference = paired[name] - paired[reference]
            mean, half = difference.mean(), difference.sem() * scipy.stats.t.ppf(0.975, len(paired) - 1)
            cells.append("" if name == reference else f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, compare and print a table per design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--subjects", type=int, default=80)
    parser.add_argument("--cells", type=int, default=30)
    parser.add_argument("--clocks", nargs="+", choices=CLOCKS, help="of the clocks without types these alone")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    torch.set_num_threads(1)
    for design in args.designs:
        errors = pd.concat([run(design, seed, args.subjects, args.cells, args.clocks) for seed in args.seeds])
        print(f"\n{design}, seeds {args.seeds}\n\n{markdown(errors)}\n", flush=True)


if __name__ == "__main__":
    main()
