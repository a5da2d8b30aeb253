"""What every gene adds to predicted ages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import version, written_to
from agevi._progress import Bar, progress
from agevi._source import is_dimensions, place
from agevi.dataloaders._query import begin
from agevi.metrics._ranks import mean_and_error, rank_stability
from agevi.model.base._clock import require_clock
from agevi.model.base._seed import as_seed, in_float32
from agevi.tl.genes._passes import Function, Settings, Totals, add_rows, background_of, settings_of
from agevi.tl.genes._row_sets import Units, draw_cells, make_units


def attribute_genes(  # noqa: PLR0913
    adata: AnnData,
    model: Any,
    *,
    method: str = "auto",
    groupby: str | None = None,
    background: str | AnnData = "subjects",
    n_samples: int | None = None,
    n_cells_per_subject: int | None = None,
    unit: str = "auto",
    cells: Sequence[str] | None = None,
    n_top: int | None = None,
    n_boot: int = 200,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Years that every gene adds to, or takes from, predicted ages, as a mean over subjects.

    Each predicted age is divided among the genes: what they are given adds up to the age minus the mean age of a
    background of training subjects. A high value says that the clock uses a gene, not that the gene causes ageing, and
    not that genes without value do not change with age: of genes that go together a clock may use one. Rows are those
    in which the clock predicts: the sum of a sample's cells (of its cells of each group, with ``groupby`` or for a
    clock with ``pseudocell_groupby``), or single cells for clocks that were trained on them. They are averaged within
    subjects first, so that many cells or samples do not weigh more. Expected gradients: Erion et al. (2021); integrated
    gradients: Sundararajan et al. (2017).

    Parameters
    ----------
    adata
        Cells with the clock's genes.
    model
        A trained clock, or a list of clocks with the same genes, for example one per fold: attributions are then the
        mean over the clocks, and ranks are taken when clocks are drawn anew too.
    method
        ``"expected_gradients"``: path integrals from many background rows, the default of networks and ensembles;
        ``"integrated_gradients"``: from the mean of the background alone; ``"linear"``: expected gradients in closed
        form, the default of linear clocks; ``"shap"``: the explainers of the shap package, on 200 rows at most, as a
        reference.
    groupby
        Column of ``adata.obs``, such as the cell type or an age bin, whose groups are attributed too. Where it divides
        samples, rows are compared with background rows of their own group. The groups of a
        :class:`agevi.model.CellTypeClock` are its types, each attributed by its own clock; ``"all"`` is then their sum
        with the weights that they have in each sample (without the composition).
    background
        ``"subjects"``: rows of the training subjects, as equally many of each as there are (of all subjects where the
        data hold none of them); or an AnnData whose rows are taken, for example of young controls.
    n_samples
        Gradients for each row: with expected gradients 8 points on the path from each background row for sums, 4 for
        cells. Default: 400 for sums, 100 for cells and for :class:`agevi.model.NMFClock`, which takes long for each.
    n_cells_per_subject
        Cells of each subject at most, drawn at random.
    unit
        ``"auto"``: rows as the clock predicts them; ``"sample"``: sums; ``"cell"``: single cells.
    cells
        Names of cells whose own attributions are kept too.
    n_top
        Rank up to which a gene counts as selected. Default: 100, or all genes where there are fewer.
    n_boot
        Draws of subjects for the intervals of ranks.
    key_added
        Prefix of the slots.
    rng
        Seed or generator.
    copy
        Return a copy of ``adata`` with the slots instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets, NaN for genes that the clock does not know, float32 (n_genes, n_groups):

    ``adata.varm[f"{key_added}_attribution"]``
        Mean over subjects of the mean absolute attribution of their rows, in the unit of the age.
    ``adata.varm[f"{key_added}_attribution_signed"]``
        The same mean with a sign: that of the attribution where a row expresses the gene above the mean of the
        background, and the opposite where it expresses it below. Positive: more of the gene looks older. Near 0 beside
        a large mean absolute value: the direction differs between rows.
    ``adata.varm[f"{key_added}_attribution_se"]``
        Standard error of the mean absolute attribution across subjects.
    ``adata.varm[f"{key_added}_attribution_rank_low"]``, ``..._rank_high``, ``..._selected``
        95 % interval of the rank, and share of draws with a rank of ``n_top`` or less, when subjects are drawn anew.
    ``adata.uns[f"{key_added}_attribution"]``
        ``groups`` (names of the columns, the first is ``"all"``), ``n_subjects`` of each, settings, ``n_rows``,
        ``completeness_error`` (mean over rows of the absolute difference between the sum of attributions and what they
        have to add up to, in the unit of the age), ``completeness_error_max``, ``predicted_range`` and
        ``background_age``.
    ``adata.layers[f"{key_added}_attribution"]``
        With ``cells``: their attributions, CSR; other rows are empty.

    Raises
    ------
    KeyError
        If a column, or a cell of ``cells``, does not exist.
    TypeError
        If ``model`` is not a clock.
    RuntimeError
        If the clock is not trained.
    ValueError
        If genes are missing, values are not what the clock was trained on, or a method or unit does not fit the clock.

    Notes
    -----
    What is differentiated is the predicted age as a function of the values that the clock reads: log(1 + counts per
    10,000), for :class:`agevi.model.NMFClock` counts per 10,000, with ``normalize="none"`` the values themselves. Paths
    are straight in these values. The library size is divided out before and takes no part, and batch and covariates of
    a row stay as they are along the whole path, so that nothing of them is given to genes.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.attribute_genes(adata, model, groupby="cell_type")
    >>> adata.varm["agevi_attribution"].shape
    (500, 4)
    """
    keys, models = _keys.Keys(key_added), _clocks(adata, model, unit)
    model, genes = models[0], models[0].genes
    n_boot = _checks.count(n_boot, "n_boot")
    n_top = min(100, len(genes)) if n_top is None else _checks.count(n_top, "n_top", high=len(genes))
    generator = _checks.generator(rng)
    chosen, runs, layers = _positions(adata, cells), [], []
    drawn, row_seed = draw_cells(adata, model, n_cells_per_subject, generator), as_seed(generator.spawn(1)[0])
    units = [make_units(adata, clock, groupby=groupby, unit=unit, cells=drawn) for clock in models]
    methods, numbers = [], []
    n_rows = sum(len(rows.subject) for own in units for rows in own.sets)
    with in_float32(), progress(n_rows, f"{type(model).__name__}, attributions", "rows") as bar:
        for clock, own in zip(models, units, strict=True):
            used, n_used, settings = settings_of(
                own.sets[0].clock or clock, method, n_samples, summed=own.summed, rng=generator, row_seed=row_seed
            )
            methods.append(used)
            numbers.append(n_used)
            runs.append(run(adata, clock, own, settings, background, bar))
            if chosen is not None:
                layers.append(_of_cells(adata, clock, chosen, settings) / len(models))
        bar.end("some of the rows, as the method takes")
    stored = _aligned(adata, model, _summaries(runs, units[0].groups, n_top, n_boot, generator))
    params = {
        "method": _one_or_all(methods),
        "n_samples": _one_or_all(numbers),
        "groupby": groupby,
        "background": "subjects" if isinstance(background, str) else "adata",
        "n_cells_per_subject": n_cells_per_subject,
        "unit": "sample" if units[0].summed else "cell",
        "n_top": n_top,
        "n_boot": n_boot,
        "rng": rng,
    }
    record = _keys.to_uns(_record(runs, units[0].groups, models) | {"params": params})
    out = written_to(adata, copy=copy)
    for part, values in stored.items():
        out.varm[keys.attribution(part)] = values
    out.layers.pop(keys.attribution(), None)
    if layers:
        out.layers[keys.attribution()] = sum(layers[1:], layers[0])
    out.uns[keys.attribution_groups] = record
    return out if copy else None


def check_clock(adata: AnnData, model: Any, verb: str) -> None:
    """Refuse what is not a trained clock, or not an AnnData."""
    require_clock(model)
    model.check_trained(verb)
    begin(_checks.anndata(adata))
    keys = {clock.setup_args.get("obsm_key") for clock in model.members()}
    if keys == {None}:
        return
    if len(keys) > 1:
        places = sorted({place(clock.setup_args) for clock in model.members()})
        raise ValueError(
            f"the members of this {type(model).__name__} read different matrices ({', '.join(places)}), whose columns "
            f"have no place in one AnnData; call {verb} for each of model.clocks."
        )
    key = keys.pop()
    if not is_dimensions(adata, key):
        raise ValueError(
            f"this {type(model).__name__} reads {place({'obsm_key': key})}, whose dimensions are not genes of "
            f"adata.var_names; call {verb} on agevi.pp.from_obsm(adata, {key!r}), an AnnData of these dimensions."
        )


def with_background(
    settings: Settings, model: Any, background: str | AnnData, *, summed: bool, clock: Any = None
) -> Settings:
    """Settings with the background that was asked for."""
    if isinstance(background, str):
        _checks.choice(background, ("subjects",), "background")
        return settings
    _checks.anndata(background, "background")
    unit = "sample" if summed else "cell"
    sets = make_units(background, model, groupby=None, unit=unit).sets
    own = next((rows for rows in sets if rows.clock is clock), None)
    if own is None:
        raise ValueError("background has no cells of a type that adata has; pass one with all types of the clock.")
    reads = Function(clock or model, background, own.cells, own.codes)
    return replace(settings, background=reads, background_rows=own)


def run(adata: AnnData, model: Any, units: Units, settings: Settings, background: str | AnnData, bar: Bar) -> Totals:
    """Attribute all rows."""
    totals, made = None, None
    for rows in units.sets:
        function = Function(rows.clock or model, adata, rows.cells, rows.codes)
        if made is None or rows.clock is not None:  # what was drawn serves all sets of one clock
            made = with_background(settings, model, background, summed=units.summed, clock=rows.clock)
        totals = totals or Totals.empty(units, len(function.genes), function.device)
        totals.bar = bar
        add_rows(totals, units, rows, function, made)
    if totals is None:
        raise RuntimeError("no rows were made.")
    return totals


def _clocks(adata: AnnData, model: Any, unit: str) -> list[Any]:
    """The clocks that are attributed, which read the same genes of the same units."""
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ValueError("model is an empty list; pass a trained clock, or a list of them.")
    for clock in models:
        check_clock(adata, clock, "tl.attribute_genes")
    for clock in models[1:]:
        if (
            not np.array_equal(clock.genes, models[0].genes)
            or any(clock.setup_args[key] != models[0].setup_args[key] for key in ("subject_key", "sample_key"))
            or clock.unit != models[0].unit
        ):
            raise ValueError(
                "the clocks in model differ in their genes, subject_key, sample_key or age_unit; attribute each under "
                "its own key_added, or join them to an agevi.model.EnsembleClock."
            )
        if unit != "cell" and clock.predicts_sums != models[0].predicts_sums:
            raise ValueError("some clocks in model predict sums of cells and others single cells; pass unit='cell'.")
    return models


def _summaries(
    runs: Sequence[Totals], groups: Sequence[str], n_top: int, n_boot: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Every part of :data:`agevi._keys.ATTRIBUTION_PARTS` for the genes of the clocks, (n_genes, n_groups)."""
    columns: dict[str, list[np.ndarray]] = {part: [] for part in _keys.ATTRIBUTION_PARTS}
    for group in range(len(groups)):
        subjects = np.flatnonzero(_subjects(runs)[group])
        means = [totals.means(group, subjects) for totals in runs]
        absolute = np.stack([values for values, _ in means])  # n_clocks x n_subjects x n_genes
        mean, error = mean_and_error(absolute.mean(axis=0))
        signed = np.mean([values.mean(axis=0) for _, values in means], axis=0)
        found = mean, signed, error, *rank_stability(absolute, n_top=n_top, n_boot=n_boot, rng=rng)
        for part, values in zip(_keys.ATTRIBUTION_PARTS, found, strict=True):
            columns[part].append(values)
    return {part: np.stack(values, axis=1) for part, values in columns.items()}


def _aligned(adata: AnnData, model: Any, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same for the genes of ``adata`` in float32, NaN where the clock does not know a gene."""
    place = columns_of(adata, model)
    return {part: in_rows_of(adata, place, values) for part, values in parts.items()}


def in_rows_of(adata: AnnData, place: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of a clock's genes, (n_genes, n), at the rows ``place`` of those of ``adata``, float32, others NaN."""
    out = np.full((adata.n_vars, values.shape[1]), np.nan, dtype=np.float32)
    out[place[place >= 0]] = values[place >= 0]
    return out


def columns_of(adata: AnnData, model: Any) -> np.ndarray:
    """Column of ``adata`` of each of the clock's genes, (n_genes,), -1 where absent."""
    place: np.ndarray = model.find_genes(adata)
    there = place[place >= 0]
    if len(np.unique(there)) < len(there):
        raise ValueError(
            f"the members of this {type(model).__name__} call the same genes differently; treat each of model.clocks "
            "by itself."
        )
    return place


def _subjects(runs: Sequence[Totals]) -> np.ndarray:
    """Subjects with rows of every clock in each group, (n_groups, n_subjects)."""
    return np.all([totals.weight > 0 for totals in runs], axis=0)


def _record(runs: Sequence[Totals], groups: Sequence[str], models: Sequence[Any]) -> dict[str, Any]:
    """What ``uns`` keeps beside the arguments."""
    errors = np.abs(np.concatenate([part for totals in runs for part in totals.errors]))
    ranges = [float(np.ptp(np.concatenate(totals.outputs))) for totals in runs]
    return {
        "groups": list(groups),
        "n_subjects": _subjects(runs).sum(axis=1).tolist(),
        "n_rows": runs[0].n_rows,
        "n_clocks": len(runs),
        "completeness_error": float(errors.mean()),
        "completeness_error_max": float(errors.max()),
        "predicted_range": float(np.mean(ranges)),
        "background_age": float(np.mean(np.concatenate([part for totals in runs for part in totals.references]))),
        "model": ";".join(dict.fromkeys(type(model).__name__ for model in models)),
        "version": version("agevi"),
        "age_unit": models[0].unit,
    }


def _one_or_all(values: Sequence[Any]) -> Any:
    """What all clocks share, or the value of each."""
    return values[0] if len(set(values)) == 1 else list(values)


def _positions(adata: AnnData, cells: Sequence[str] | None) -> np.ndarray | None:
    """Positions of cells that are named."""
    if cells is None:
        return None
    names = pd.Index([cells] if isinstance(cells, str) else cells)
    position = adata.obs_names.get_indexer(names)
    if not len(names) or (position < 0).any():
        absent = names[position < 0]
        raise KeyError(
            f"cells holds {len(absent)} of {len(names)} names that are not in adata.obs_names "
            f"({_checks.listed(absent, 3)}); pass some of {_checks.listed(adata.obs_names, 3)}."
        )
    return position


def _of_cells(adata: AnnData, model: Any, chosen: np.ndarray, settings: Settings) -> sp.csr_matrix:
    """Attributions of single cells in the rows of ``adata``; cells of types without a clock have none."""
    units = make_units(adata, model, groupby=None, unit="cell")
    cells, parts = [], []
    for rows in units.sets:
        function = Function(rows.clock or model, adata, rows.cells, rows.codes)
        background, _ = background_of(units, rows, function, np.arange(len(rows.cells)), settings)
        place = pd.Index(rows.cells).get_indexer(chosen)
        cells.append(chosen[place >= 0])
        for block in function.blocks(place[place >= 0]):
            found = settings.explain(function.reader, function.values(block), background, function.shifts(block))
            parts.append(function.joined(list(found.values)).cpu().numpy())
    chosen, position = np.concatenate(cells), columns_of(adata, model)
    known = np.flatnonzero(position >= 0)
    values = np.concatenate([np.zeros((0, len(position)), dtype=np.float32), *parts])[:, known]
    indptr = np.zeros(adata.n_obs + 1, dtype=np.int64)
    indptr[chosen + 1] = len(known)
    order = np.argsort(chosen, kind="stable")
    indices = np.tile(position[known], len(chosen))
    out = sp.csr_matrix((values[order].ravel(), indices, np.cumsum(indptr)), shape=adata.shape)
    out.sort_indices()
    return out
