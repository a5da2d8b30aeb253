"""A cohort of cells whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi.datasets import _counts, _parameters
from agevi.datasets._truth import (
    EFFECT_YEARS,
    SUBJECT_SHARE,
    Cells,
    Genes,
    Settings,
    age_curves,
    composition,
    draw_cells,
    draw_genes,
    draw_samples,
)

_SMALL = 1 << 25  # entries below which threads do not pay


def simulate_cohort(  # noqa: PLR0913
    n_subjects: int = 60,
    n_cells: int | Sequence[int] = 50,
    n_genes: int = 500,
    *,
    n_age_genes: int = 100,
    effect_range: tuple[float, float] = (0.03, 0.15),
    age_range: tuple[float, float] = (20.0, 90.0),
    n_cell_types: int = 3,
    composition_shift: float = 0.3,
    n_modules: int = 3,
    subject_sd: float = 0.08,
    n_batches: int = 2,
    batch_sd: float = 0.15,
    batch_age_correlation: float = 0.0,
    case_fraction: float = 0.3,
    acceleration: float = 0.0,
    missing_age: float = 0.0,
    n_visits: int = 1,
    library_size: float = 2000.0,
    library_sd: float = 0.35,
    dispersion: float = 0.3,
    dropout: float = 0.0,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
) -> AnnData:
    """Counts of a simulated cohort whose ages, age genes and confounders are known."""
    settings = Settings(
        n_subjects=n_subjects,
        n_cells=n_cells,
        n_genes=n_genes,
        n_age_genes=n_age_genes,
        effect_range=effect_range,
        age_range=age_range,
        n_cell_types=n_cell_types,
        composition_shift=composition_shift,
        n_modules=n_modules,
        subject_sd=subject_sd,
        n_batches=n_batches,
        batch_sd=batch_sd,
        batch_age_correlation=batch_age_correlation,
        case_fraction=case_fraction,
        acceleration=acceleration,
        missing_age=missing_age,
        n_visits=n_visits,
        library_size=library_size,
        library_sd=library_sd,
        dispersion=dispersion,
        dropout=dropout,
    )
    if n_jobs is not None:
        n_jobs = _parameters.count(n_jobs, "n_jobs")
    entropy = _parameters.generator(rng).integers(0, 2**32, size=4, dtype=np.uint32)
    seeds = np.random.SeedSequence(entropy.tolist()).spawn(5)
    genes = draw_genes(settings, np.random.default_rng(seeds[0]))
    samples = draw_samples(settings, np.random.default_rng(seeds[1]))
    cells = draw_cells(settings, samples, np.random.default_rng(seeds[2]))
    n_obs = len(cells.sample)
    tasks = _tasks(settings, genes, samples, cells, seeds[3:])
    x = _counts.stack(_counts.in_threads(tasks, 1 if n_obs * n_genes < _SMALL else n_jobs), n_obs, n_genes)
    adata = AnnData(x, obs=_obs(settings, samples, cells), var=genes.table)
    adata.varm["cell_type_effect"] = genes.cell_type_effect
    adata.varm["batch_effect"] = genes.batch_effect
    adata.obsm["module_activity"] = cells.activity
    adata.uns["truth"] = _truth(settings, samples)
    return adata


def _tasks(
    settings: Settings, genes: Genes, samples: pd.DataFrame, cells: Cells, seeds: Sequence[np.random.SeedSequence]
) -> list[Callable[[], _counts.Block]]:
    """One task per block of cells of one sample; a block's numbers hang on its seed alone, not on threads."""
    of_subject = seeds[0].spawn(settings.n_subjects)
    step = max(1, _counts.BLOCK_SIZE // settings.n_genes)
    ends = np.cumsum(samples["n_cells"].to_numpy())
    spans = [
        (i, start, min(start + step, end))
        for i, end in enumerate(ends)
        for start in range(end - samples["n_cells"].iloc[i], end, step)
    ]
    rates = _Rates(settings, genes, samples, of_subject)
    return [
        partial(_block, rates, cells, i, slice(start, stop), seed)
        for (i, start, stop), seed in zip(spans, seeds[1].spawn(len(spans)), strict=True)
    ]


class _Rates:
    """Expected counts of each cell type in each sample, before size factors and modules."""

    def __init__(
        self, settings: Settings, genes: Genes, samples: pd.DataFrame, seeds: Sequence[np.random.SeedSequence]
    ) -> None:
        self.settings, self.samples, self.seeds = settings, samples, seeds
        table = genes.table
        kind, effect = table["kind"].astype(str).to_numpy(), table["effect"].to_numpy()
        own = table["effect_cell_type"].astype(str).to_numpy() == settings.cell_types[:, None]
        self.linear = np.where((kind == "linear") | ((kind == "cell_type") & own), effect, 0)  # n_cell_types x n_genes
        self.saturating = np.where(kind == "saturating", effect, 0)
        self.baseline = np.log(table["baseline_mean"].to_numpy()) + genes.cell_type_effect.T
        self.batch, self.sex = genes.batch_effect.T, table["sex_effect"].to_numpy()
        modules = [f"module{k}" for k in range(settings.n_modules)]
        self.module = pd.Index(modules).get_indexer(table["module"].astype(str))  # -1: in none
        self.loading = table["loading"].to_numpy().astype(np.float32)

    def __call__(self, sample: int) -> np.ndarray:
        """Rates (n_cell_types, n_genes), float32."""
        row = self.samples.iloc[sample]
        linear, saturating = age_curves(row["biological_age"], self.settings)
        log_rate = self.baseline + linear * self.linear + saturating * self.saturating + self.batch[row["batch"]]
        if row["sex"] == "male":
            log_rate += self.sex
        subject = np.random.default_rng(self.seeds[sample // self.settings.n_visits])
        log_rate += self.settings.subject_sd * subject.standard_normal(len(self.loading))
        return np.exp(log_rate).astype(np.float32)


def _block(rates: _Rates, cells: Cells, sample: int, rows: slice, seed: np.random.SeedSequence) -> _counts.Block:
    """Counts of some cells of one sample."""
    mean = rates(sample)[cells.cell_type[rows]]  # n_rows x n_genes
    mean *= cells.size_factor[rows, None]
    if rates.settings.n_modules:
        activity = np.pad(cells.activity[rows], ((0, 0), (0, 1)))  # a last column of zeros for genes in no module
        activity = np.take(activity, rates.module, axis=1, mode="wrap")
        activity *= rates.loading
        mean *= np.exp(activity, out=activity)
    return _counts.draw_block(mean, rates.settings.dispersion, rates.settings.dropout, np.random.default_rng(seed))


def _obs(settings: Settings, samples: pd.DataFrame, cells: Cells) -> pd.DataFrame:
    """What is known of each cell."""
    obs = samples.drop(columns=["n_cells", "true_age"]).rename(columns={"subject": "donor"}).iloc[cells.sample]
    obs["batch"] = "batch" + obs["batch"].astype(str)
    if settings.n_visits > 1:
        obs.insert(1, "sample", obs.index)
    obs["cell_type"] = settings.cell_types[cells.cell_type]
    obs["size_factor"] = cells.size_factor
    for key in obs.columns[obs.dtypes == object]:
        obs[key] = obs[key].astype("category")
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    return obs


def _truth(settings: Settings, samples: pd.DataFrame) -> dict[str, Any]:
    """What was planted beside the columns of ``obs`` and ``var``, in values that files can hold."""
    share, log_weight, slope = composition(samples["biological_age"].to_numpy(), settings)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(samples["batch"], samples["true_age"])[0, 1] if settings.n_batches > 1 else 0.0
    return {
        "reference_age": settings.reference_age,
        "effect_years": EFFECT_YEARS,
        "saturation_start": float(settings.age_range[0]),
        "subject_sd": float(settings.subject_sd),
        "module_subject_share": SUBJECT_SHARE,
        "dispersion": float(settings.dispersion),
        "dropout": float(settings.dropout),
        "library_size": float(settings.library_size),
        "library_sd": float(settings.library_sd),
        "acceleration": float(settings.acceleration),
        "batch_age_correlation": float(correlation),
        "cell_types": settings.cell_types,
        "composition_log_weight": log_weight,
        "composition_slope": slope,
        "samples": samples.index.to_numpy(),
        "sample_age": samples["true_age"].to_numpy(),
        "sample_composition": share,
    }
