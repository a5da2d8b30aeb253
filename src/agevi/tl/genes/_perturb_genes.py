"""Predicted ages when genes are turned down or up in the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._progress import Bar, progress
from agevi.tl._store import store_table
from agevi.tl.genes._attribute_genes import check_clock, columns_of
from agevi.tl.genes._passes import Function
from agevi.tl.genes._row_sets import RowSet, Units, draw_cells, make_units

Sets = dict[str, list[str]]


def perturb_genes(  # noqa: PLR0913
    adata: AnnData,
    model: Any,
    genes: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    factor: float = 0.0,
    groupby: str | None = None,
    n_exact: int = 100,
    unit: str = "auto",
    n_cells_per_subject: int | None = None,
    n_boot: int = 1000,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """Change of predicted ages, in the unit of the age, when the counts of genes are multiplied by a factor.

    This is the answer of a model, not of an experiment: the clock sees the same cells with fewer or more counts of a
    gene, and nothing else changes. What a cell would do without the gene is not known to it, genes that go together are
    not moved together, and few cells it was trained on look like the perturbed ones. Use it to read a clock, and to
    choose what to test. Every change comes from the clock's own prediction of the perturbed rows; with ``genes=None``
    all genes are screened by the slope of the age, and those with the largest changes are predicted.

    Parameters
    ----------
    adata
        Cells with the clock's genes.
    model
        A trained clock.
    genes
        A gene, several genes, each on its own, or a dictionary of gene sets, each perturbed as a whole, without those
        of its genes that the clock does not read (``n_genes`` counts the others). Default: all genes of the clock are
        screened.
    factor
        What expression is multiplied by: 0 knocks a gene out, 0.5 halves it, 2 doubles it. A gene without counts stays
        without.
    groupby
        Column of ``adata.obs`` whose groups are listed too.
    n_exact
        Genes that are predicted after the screen.
    unit, n_cells_per_subject
        Rows, as in :func:`agevi.tl.attribute_genes`.
    n_boot
        Draws of subjects for the intervals.
    key_added
        Prefix of the slots.
    rng
        Seed or generator.
    copy
        Return a copy of ``adata`` with the slots instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_perturbation"]``
        DataFrame with one row per gene or set and group: ``group`` (``"all"`` first), ``gene``, ``n_genes``, ``change``
        (mean over subjects of the predicted age minus that without perturbation; negative looks younger), ``low`` and
        ``high`` (95 % bootstrap interval over subjects), ``n_subjects`` and ``first_order`` (what the slope of the age
        alone says). The largest changes of a group come first.
    ``adata.uns[f"{key_added}_perturbation_params"]``
        Arguments, and the unit of the age.

    Raises
    ------
    KeyError
        If a gene or a column does not exist.
    TypeError
        If ``model`` is not a clock.
    RuntimeError
        If the clock is not trained.
    ValueError
        If a set is empty, ``factor`` changes nothing, or values are negative.

    Notes
    -----
    The library size of a row is that of the unperturbed counts, so that other genes keep their normalised values. With
    ``normalize="none"`` the values themselves are multiplied, which means something only where 0 means no expression.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> agevi.tl.perturb_genes(adata, model, {"pair": ["gene000", "gene001"]}, factor=2)
    >>> adata.uns["agevi_perturbation"]["n_genes"].tolist()
    [2]
    """
    keys = _keys.Keys(key_added)
    check_clock(adata, model, "tl.perturb_genes")
    n_exact, n_boot = _checks.count(n_exact, "n_exact"), _checks.count(n_boot, "n_boot")
    factor, generator = _factor(factor), _checks.generator(rng)
    there = _names_there(adata, model)
    sets = None if genes is None else _sets(genes, adata, there)
    cells = draw_cells(adata, model, n_cells_per_subject, generator)
    units = make_units(adata, model, groupby=groupby, unit=unit, cells=cells)
    functions = [Function(rows.clock or model, adata, rows.cells, rows.codes) for rows in units.sets]
    if sets is None:
        slope = _screen(units, functions, factor)
        order = pd.Series(np.abs(slope).max(axis=0), index=functions[0].genes)[there].sort_values(ascending=False)
        own = pd.Series(there.index, index=there)
        sets = {str(own[gene]): [str(gene)] for gene in order.index[:n_exact]}
    n_blocks = sum(len(f.blocks(np.arange(len(r.subject)))) for r, f in zip(units.sets, functions, strict=True))
    with progress(n_blocks * len(sets), f"{type(model).__name__}, perturbations", "predictions") as bar:
        change, first_order = _exact(units, functions, sets, factor, bar)
    table = _table(units, sets, change, first_order, n_boot, generator)
    params = {
        "factor": factor,
        "groupby": groupby,
        "screened": genes is None,
        "n_exact": n_exact,
        "unit": "sample" if units.summed else "cell",
        "n_cells_per_subject": n_cells_per_subject,
        "n_boot": n_boot,
        "rng": rng,
        "model": type(model).__name__,
        "age_unit": model.unit,
    }
    return store_table(adata, keys, "perturbation", table, params, copy=copy)


def _factor(factor: Any) -> float:
    """A factor that changes something."""
    if isinstance(factor, bool) or not isinstance(factor, (int, float, np.number)):
        raise TypeError(f"factor={factor!r} is a {type(factor).__name__}; pass a number, for example 0 or 2.")
    if not np.isfinite(factor) or factor < 0 or factor == 1:
        raise ValueError(f"factor={factor:g} is not a perturbation; pass 0 for a knock-out, 0.5 to halve, 2 to double.")
    return float(factor)


def _names_there(adata: AnnData, model: Any) -> pd.Series:
    """The clock's name of each gene that it and the data have, by the name in ``adata.var_names``."""
    place, genes = columns_of(adata, model), np.asarray(model.genes, dtype=object)
    return pd.Series(genes[place >= 0], index=adata.var_names[place[place >= 0]].astype(object))


def _sets(genes: Any, adata: AnnData, there: pd.Series) -> Sets:
    """Genes of every set that the clock reads, by its names; they may be given by those of the data or by these."""
    called = {gene: gene for gene in there} | there.to_dict()
    if isinstance(genes, str):
        genes = [genes]
    if not isinstance(genes, Mapping):
        names = [str(gene) for gene in genes]
        for name in names:
            if name not in called:
                raise KeyError(_absent(name, adata, there.index))
        genes = {name: [name] for name in names}
    if not genes:
        raise ValueError("genes is empty; pass genes, a dictionary of gene sets, or None to screen all genes.")
    out = {}
    for name, members in genes.items():
        members = [members] if isinstance(members, str) else list(members)
        kept = list(dict.fromkeys(str(called[gene]) for gene in members if gene in called))
        if not kept:
            raise ValueError(
                f"gene set {str(name)!r} has {len(members)} genes ({_checks.listed(members, 3)}), and none of them is "
                f"among the {len(there):,} that both the clock and adata.var_names have (e.g. "
                f"{_checks.listed(there.index, 3)}). Symbols against Ensembl ids: rename them."
            )
        out[str(name)] = kept
    return out


def _absent(name: str, adata: AnnData, there: pd.Index) -> str:
    """What to say of a gene that cannot be perturbed."""
    if name in adata.var_names:
        return f"gene {name!r} is in adata.var_names, but the clock was trained without it; it cannot change its ages."
    hint = _checks.closest(name, [str(gene) for gene in there])
    return f"gene {name!r} is not in adata.var_names{hint}. Available: {_checks.listed(there)}."


def _screen(units: Units, functions: list[Function], factor: float) -> np.ndarray:
    """First-order change of the mean age by every gene, (n_groups, n_genes)."""
    out = torch.zeros(len(units.groups), len(functions[0].genes), device=functions[0].device)
    for rows, function in zip(units.sets, functions, strict=True):
        of_row = _shares(units, rows)
        for block in function.blocks(np.arange(len(rows.subject))):
            values, _, slopes, _ = _state(function, block)
            moved = [
                (_moved(part.reading, v, factor) - v) * (s @ w)
                for part, v, s, w in zip(function.parts, values, slopes, function.reader.weights, strict=True)
            ]
            weights = torch.from_numpy(of_row[:, block]).to(out)
            out += weights @ function.joined(moved)
    return out.cpu().numpy()


def _shares(units: Units, rows: RowSet) -> np.ndarray:
    """Share of every row in the mean over the subjects of each group, (n_groups, n_rows)."""
    out = np.zeros((len(units.groups), len(rows.subject)), dtype=np.float32)
    for group, weight in rows.targets:
        used = np.flatnonzero(group >= 0)
        n_subjects = pd.Series(rows.subject[used]).groupby(group[used]).nunique()
        out[group[used], used] = weight[used] / n_subjects[group[used]].to_numpy()
    return out


def _state(
    function: Function, block: np.ndarray
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Values of some rows, what comes out of the first layers, its slopes, and the ages."""
    values, shifts = function.values(block), function.shifts(block)
    units = [(u + s).requires_grad_() for u, s in zip(function.reader.units(values), shifts, strict=True)]
    with torch.enable_grad():
        age = function.reader.tail(units)
        slopes = torch.autograd.grad(age.sum(), units)
    return values, [u.detach() for u in units], list(slopes), age.detach()


def _moved(reading: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
    """Values under the perturbation."""
    if not reading.logarithmic and bool((values < 0).any()):
        raise ValueError(
            f"values are negative (lowest: {float(values.min()):g}), so that they cannot be multiplied by "
            f"factor={factor:g}; a perturbation needs a clock of counts or of values from 0 upwards."
        )
    return reading.scaled(values, factor)


@torch.no_grad()
def _exact(
    units: Units, functions: list[Function], sets: Sets, factor: float, bar: Bar
) -> tuple[np.ndarray, np.ndarray]:
    """Mean change by set, group and subject, predicted and by slope, NaN without rows."""
    shape = (len(sets), len(units.groups), len(units.subjects))
    total, slope, weight = np.zeros(shape), np.zeros(shape), np.zeros(shape[1:])
    for rows, function in zip(units.sets, functions, strict=True):
        members = [_members(function, part.genes, sets) for part in function.parts]
        for block in function.blocks(np.arange(len(rows.subject))):
            values, at, slopes, age = _state(function, block)
            change, linear = np.empty((len(sets), len(block))), np.empty((len(sets), len(block)))
            for i in range(len(sets)):
                steps = [
                    (_moved(part.reading, v[:, m[i]], factor) - v[:, m[i]]) @ w[:, m[i]].T
                    for part, v, m, w in zip(function.parts, values, members, function.reader.weights, strict=True)
                ]
                change[i] = (function.reader.tail([u + d for u, d in zip(at, steps, strict=True)]) - age).cpu()
                linear[i] = sum((d * s).sum(-1) for d, s in zip(steps, slopes, strict=True)).cpu()
                bar.step()
            for group, of_row in rows.targets:
                used = np.flatnonzero(group[block] >= 0)
                place = (group[block][used], rows.subject[block][used])
                np.add.at(weight, place, of_row[block][used])
                for i in range(len(sets)):
                    np.add.at(total[i], place, of_row[block][used] * change[i, used])
                    np.add.at(slope[i], place, of_row[block][used] * linear[i, used])
    with np.errstate(invalid="ignore"):
        return total / weight, slope / weight


def _members(function: Function, genes: np.ndarray, sets: Sets) -> list[torch.Tensor]:
    """Columns of every set among the genes of one part."""
    index = pd.Index(genes)
    found: Iterable[np.ndarray] = (index.get_indexer(pd.Index(members)) for members in sets.values())
    return [torch.from_numpy(np.sort(f[f >= 0])).to(function.device) for f in found]


def _table(
    units: Units, sets: Sets, change: np.ndarray, first_order: np.ndarray, n_boot: int, rng: np.random.Generator
) -> pd.DataFrame:
    """One row per set and group."""
    parts = []
    for g, group in enumerate(units.groups):
        subjects = np.flatnonzero(~np.isnan(change[0, g]))
        values, n = change[:, g, subjects], len(subjects)
        draws = rng.multinomial(n, np.full(n, 1 / n), size=n_boot) / n  # n_boot x n_subjects
        low, high = np.quantile(values @ draws.T, [0.025, 0.975], axis=1)
        part = pd.DataFrame(
            {
                "group": group,
                "gene": list(sets),
                "n_genes": [len(members) for members in sets.values()],
                "change": values.mean(axis=1),
                "low": low,
                "high": high,
                "n_subjects": n,
                "first_order": first_order[:, g, subjects].mean(axis=1),
            }
        )
        parts.append(part.iloc[np.argsort(-part["change"].abs().to_numpy(), kind="stable")])
    return pd.concat(parts, ignore_index=True)
