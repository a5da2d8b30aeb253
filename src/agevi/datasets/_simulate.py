"""A cohort of cells whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi.datasets import _counts
from agevi.datasets._truth import (
    EFFECT_YEARS,
    SUBJECT_SHARE,
    Cells,
    Composition,
    Genes,
    Settings,
    age_curves,
    draw_cells,
    draw_composition,
    draw_genes,
    draw_samples,
    rates_of_types,
)

_LABELS = ["donor", "sample", "sex", "condition", "batch", "cell_type"]
_SMALL = 1 << 25  # entries below which threads do not pay


def simulate_cohort(  # noqa: PLR0913
    n_subjects: int = 60,
    n_cells: int | Sequence[int] = 50,
    n_genes: int = 500,
    *,
    n_age_genes: int | None = None,
    effect_range: tuple[float, float] = (0.03, 0.15),
    age_range: tuple[float, float] = (20.0, 90.0),
    n_cell_types: int = 3,
    composition_shift: float = 0.3,
    composition_sd: float = 0.0,
    ageing_rates: Sequence[float] | None = None,
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
    r"""Counts of a simulated cohort whose ages (years), age genes and confounders are known.

    Every count is negative binomial (gamma-Poisson) with mean ``baseline_mean * size_factor * exp(effects)`` and
    variance ``mean + dispersion * mean**2``. The effects, all on the log scale, add up: age (linear, saturating, or in
    one cell type), cell type, module, sex, batch and subject. So whatever a clock or an attribution claims on these
    cells can be compared with what was planted. It does not replace real data: effects are additive on the log scale,
    genes outside a module are independent given the cell's columns, and ages are uniform.

    Parameters
    ----------
    n_subjects
        Subjects, at least 2.
    n_cells
        Cells of each visit: one number, or one per subject.
    n_genes
        Genes.
    n_age_genes
        Genes whose mean changes with age, a fifth of all by default, from the better expressed half where that is
        enough; a third each linear, saturating and in one cell type only (one cell type: half linear, half saturating).
    effect_range
        Smallest and largest size of an age effect: log fold change per 20 years, for saturating genes over the 20 years
        that follow the lowest age of ``age_range``. Signs are drawn at random.
    age_range
        Years between which ages at the first visit are uniform. Age effects are zero in the middle of it.
    n_cell_types
        Cell types. Each shifts about 15 % of the genes (sd of the log fold change 0.8).
    composition_shift
        How fast the composition changes with age: log weight that the last type gains and the first loses in 20 years;
        the others lie between.
    composition_sd
        How much the composition differs between subjects of one age: standard deviation of each subject's own log
        weight of each type.
    ageing_rates
        Factor of the age effects in each cell type, from -10 to 10: with ``[0, 0, 1]`` only the third type ages, with
        ``[1, -1]`` the same genes change in opposite directions. With rates, half of the age genes are linear and half
        saturating, in all types. Default: rate 1 in each type, with a third of the age genes in one type only.
    n_modules
        Latent programs. Each moves its own 10 % of the genes up or down together; half of the variance of its activity
        lies between subjects, half between cells.
    subject_sd
        Standard deviation of each subject's own log fold change of each gene.
    n_batches
        Batches of equal size; all cells of a visit are in one.
    batch_sd
        Standard deviation of a batch's log fold change, in 30 % of the genes.
    batch_age_correlation
        Correlation of batch number with age over visits, between -0.85 and 0.85, reached as closely as the number of
        visits allows; ``uns["truth"]`` has the one that was reached.
    case_fraction
        Share of subjects that are cases.
    acceleration
        Years that cases are biologically older than their age; gene expression and composition follow the biological
        age.
    missing_age
        Share of subjects without age.
    n_visits
        Visits of each subject, 1 to 5 years apart; with 2 or more there is a column ``"sample"``.
    library_size
        Sum of the baseline means: expected counts of a cell in which all effects are zero.
    library_sd
        Standard deviation of the log of the cells' size factors, whose mean is 1.
    dispersion
        Variance of the gamma factor of each count; 0 gives Poisson counts.
    dropout
        Probability with which a count is set to zero, whatever its size (zero inflation).
    rng
        Seed or generator.
    n_jobs
        Threads for large cohorts; all processors by default. The result does not depend on it.

    Returns
    -------
    AnnData of shape ``(n_subjects * n_visits * n_cells, n_genes)``, cells of a visit together

        - ``X``: CSR matrix of counts, float32.
        - ``obs``: ``donor`` (the subject), ``sample`` (the visit, with 2 visits or more), ``age`` (years, NaN where
          missing), ``biological_age`` (years, never missing), ``sex``, ``condition`` (``"case"``, ``"control"``),
          ``batch``, ``cell_type``, ``size_factor``.
        - ``obsm["module_activity"]``: float32 ``(n_cells, n_modules)``, variance 1.
        - ``var``: ``baseline_mean`` (counts per cell), ``kind`` of age effect (``"none"``, ``"linear"``,
          ``"saturating"``, ``"cell_type"``), ``effect``, ``effect_cell_type``, ``module``, ``loading`` (log fold change
          per unit of the module's activity), ``sex_effect`` (log fold change of males).
        - ``varm["cell_type_effect"]``, ``varm["batch_effect"]``: log fold changes, float32.
        - ``uns["truth"]``: dict of the remaining numbers: ``reference_age``, ``effect_years``, ``saturation_start``,
          ``batch_age_correlation``, ``dispersion``, ``dropout``, ``ageing_rates``, the composition and, by visit,
          ``samples``, ``sample_age`` (not masked) and ``sample_composition``.

    Raises
    ------
    TypeError
        When a parameter is of the wrong type.
    ValueError
        When a parameter is out of range, ``n_cells`` has not one number per subject, or ``ageing_rates`` not one per
        cell type.

    Notes
    -----
    With biological age :math:`a`, reference age :math:`r`, and :math:`a_0` the lowest age of ``age_range``, an effect
    :math:`\beta` adds :math:`\beta (a - r) / 20` (linear, and ``"cell_type"`` in its type) or
    :math:`\beta (s(a) - s(r))`, :math:`s(a) = (1 - e^{-(a - a_0) / 20}) / (1 - e^{-1})` (saturating) to the log mean,
    times the rate of the cell's type. A count is drawn in two steps: one uniform number decides whether it is zero, and
    only the others get a value, so that time and memory follow the number of nonzero counts.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=10, n_cells=20, n_genes=100, n_age_genes=30, acceleration=8)
    >>> adata.shape
    (200, 100)
    >>> adata.var["kind"].value_counts().to_dict()
    {'none': 70, 'cell_type': 10, 'linear': 10, 'saturating': 10}
    >>> cases = adata.obs["condition"] == "case"
    >>> float((adata.obs["biological_age"] - adata.obs["age"])[cases].mean())
    8.0
    """
    given = dict(locals())  # the arguments, before any other name is bound; a copy, which a debugger leaves alone
    if n_age_genes is None:
        given["n_age_genes"] = _checks.count(n_genes, "n_genes", low=2) // 5
    settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
    if n_jobs is not None:
        n_jobs = _checks.count(n_jobs, "n_jobs")
    entropy = _checks.generator(rng).integers(0, 2**32, size=4, dtype=np.uint32)
    seeds = np.random.SeedSequence(entropy.tolist()).spawn(6)
    genes = draw_genes(settings, np.random.default_rng(seeds[0]))
    samples = draw_samples(settings, np.random.default_rng(seeds[1]))
    mixture = draw_composition(settings, samples, np.random.default_rng(seeds[5]))
    cells = draw_cells(settings, samples, mixture.share, np.random.default_rng(seeds[2]))
    n_obs = len(cells.sample)
    tasks = _tasks(settings, genes, samples, cells, seeds[3:5])
    x = _counts.stack(_counts.in_threads(tasks, 1 if n_obs * n_genes < _SMALL else n_jobs), n_obs, n_genes)
    adata = AnnData(x, obs=_obs(settings, samples, cells), var=genes.table)
    adata.varm["cell_type_effect"] = genes.cell_type_effect
    adata.varm["batch_effect"] = genes.batch_effect
    adata.obsm["module_activity"] = cells.activity
    adata.uns["truth"] = _truth(settings, samples, mixture)
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
        of_gene = (kind == "linear") | ((kind == "cell_type") & own)
        rates = rates_of_types(settings.ageing_rates, settings.n_cell_types)[:, None]
        self.linear = rates * np.where(of_gene, effect, 0)  # n_cell_types x n_genes
        self.saturating = rates * np.where(kind == "saturating", effect, 0)
        self.baseline = np.log(table["baseline_mean"].to_numpy()) + genes.cell_type_effect.T
        self.batch, self.sex = genes.batch_effect.T, table["sex_effect"].to_numpy()
        modules = [f"module{k}" for k in range(settings.n_modules)]
        self.module = pd.Index(modules).get_indexer(pd.Index(table["module"].astype(str)))  # -1: in none
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
    for key in obs.columns.intersection(_LABELS):
        obs[key] = obs[key].astype("category")
    obs.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    return obs


def _truth(settings: Settings, samples: pd.DataFrame, mixture: Composition) -> dict[str, Any]:
    """What was planted beside the columns of ``obs`` and ``var``, in values that files can hold."""
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
        "ageing_rates": rates_of_types(settings.ageing_rates, settings.n_cell_types),
        "composition_log_weight": mixture.log_weight,
        "composition_slope": mixture.slope,
        "composition_sd": float(settings.composition_sd),
        "samples": samples.index.to_numpy(),
        "sample_age": samples["true_age"].to_numpy(),
        "sample_composition": mixture.share,
    }
