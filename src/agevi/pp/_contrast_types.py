"""Two types of cells of the same sample against each other, gene by gene."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _gene_names, _names, _symbols, _units
from agevi._keys import CONTRAST
from agevi._source import where
from agevi.dataloaders._contrast import MIN_COUNTS, SCALE, contrast, enough_counts
from agevi.dataloaders._summed import cells_of_units
from agevi.dataloaders._sums import sum_rows

logger = logging.getLogger(__name__)
_MOST_NAMED = 3


def contrast_types(  # noqa: PLR0913
    adata: AnnData,
    cell_type_key: str,
    *,
    target: str | Sequence[str],
    reference: str | Sequence[str],
    subject_key: str,
    sample_key: str | None = None,
    genes: Iterable[str] | None = None,
    like: AnnData | None = None,
    layer: str | None = None,
    min_counts: int = MIN_COUNTS,
    scale: float = SCALE,
) -> AnnData:
    r"""Expression of one type of cells relative to another one of the same sample, (n_samples, n_genes).

    A laboratory, a chemistry or a pipeline multiplies a gene by a factor that is about the same in all types of cells
    of a sample. With the shares :math:`q` of a sample's counts in the target :math:`T` and the reference :math:`R`,

    .. math::

        x_g = \log(1 + s \, q_g^T) - \log(1 + s \, q_g^R)

    loses that factor, in each sample by itself: no other sample of its cohort and no age is needed, and the mean age of
    a cohort stays. A clock of this contrast is less off in other cohorts than one of either type, and less exact in its
    own; it says nothing where both types age alike. Both types must come from the same library: types that were sorted
    or run apart do not share factors.

    Parameters
    ----------
    adata
        Annotated data, cells x genes, with raw counts.
    cell_type_key
        Column of ``adata.obs`` with the type of each cell.
    target, reference
        Type or types whose counts are summed on either side.
    subject_key
        Column with the person or animal.
    sample_key
        Column with the visit or biopsy. Default: the subject.
    genes
        Genes over which shares are taken; those that ``adata`` lacks are refused. Default: all.
    like
        A contrast that was made before, such as the training data of a clock: its types, genes and scale are used, so
        that the shares are those that the clock knows. ``target`` and ``reference`` name the types as ``adata`` does.
    layer
        Layer with the counts; default X.
    min_counts
        Counts that a sample needs in the target and in the reference.
    scale
        Counts that a sample is scaled to. A factor cancels only where the logarithm is one, so that it is high.

    Returns
    -------
    An AnnData of samples with the contrast as float32 ``X``, to be set up with ``normalize="none"``. ``obs`` has the
    columns that are the same in all cells of each sample that are read, and ``n_cells_target``,
    ``n_cells_reference``, ``n_counts_target`` and ``n_counts_reference``; ``var`` that of ``adata``;
    ``uns["agevi_contrast"]`` the types, the scale and the arguments. Samples that lack a type or counts are left out,
    with a warning.

    Raises
    ------
    KeyError
        A column or the layer is absent, or ``like`` was not made by this function.
    TypeError
        ``genes`` is not a list of names.
    ValueError
        Values are not counts, a type is absent, a type is on both sides, genes are missing, or no sample is left.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=60, n_genes=50)
    >>> contrast = agevi.pp.contrast_types(adata, "cell_type", target="type0", reference="type1", subject_key="donor")
    >>> contrast.shape
    (12, 50)
    >>> agevi.model.PLSClock.setup_anndata(contrast, age_key="age", subject_key="donor", normalize="none")
    """
    _checks.anndata(adata)
    _checks.unique_names(adata)
    _checks.count(min_counts, "min_counts")
    scale = _scale(scale, like)
    side = _sides(adata, cell_type_key, target, reference)
    subject, sample = _units.units(adata, subject_key, sample_key)
    x, columns = _checks.matrix(adata, layer), _columns(adata, genes, like)
    _checks.counts(x, where(layer), "pp.contrast_types compares raw counts", advice="Pass them with layer=....")
    code, names = pd.factorize(sample.to_numpy(), sort=True)
    n = len(names)
    unit = np.where(side >= 0, code + n * side, -1)
    sums = _checks.dense(sum_rows(x, unit, 2 * n)[:, columns], np.float64)
    n_cells, n_counts = cells_of_units(adata, unit, 2 * n), sums.sum(axis=1)
    kept = enough_counts(sums[:n], sums[n:], min_counts)
    _say_left_out(np.asarray(names, dtype=object), kept, n_counts.reshape(2, n), min_counts)
    obs = _constant_columns(adata.obs[(side >= 0) & kept[code]], code[(side >= 0) & kept[code]])
    obs.index = pd.Index(np.asarray(names, dtype=object)[kept].astype(str))
    obs[subject_key] = _units.PerUnit(subject, sample).values.to_numpy()[kept]
    for name, values in {"n_cells": n_cells, "n_counts": n_counts}.items():
        for i, which in enumerate(("target", "reference")):
            obs[f"{name}_{which}"] = values.reshape(2, n)[i][kept]
    out = AnnData(contrast(sums[:n][kept], sums[n:][kept], scale), obs=obs, var=adata.var.iloc[columns].copy())
    out.uns[CONTRAST] = {
        "target": _names.several(target),
        "reference": _names.several(reference),
        "cell_type_key": cell_type_key,
        "scale": scale,
        "min_counts": int(min_counts),
    }
    return out


def _scale(scale: Any, like: AnnData | None) -> float:
    """Counts to scale to: those of ``like`` where it is given."""
    if like is not None:
        if not isinstance(like, AnnData) or CONTRAST not in like.uns:
            raise KeyError(
                f"like has no uns[{CONTRAST!r}]; pass what agevi.pp.contrast_types returned for the training data."
            )
        return float(like.uns[CONTRAST]["scale"])
    if isinstance(scale, bool) or not isinstance(scale, int | float | np.number) or not 0 < scale < np.inf:
        raise ValueError(f"scale={scale!r} is not a number above 0; pass one such as 1e6.")
    return float(scale)


def _sides(adata: AnnData, key: str, target: Any, reference: Any) -> np.ndarray:
    """0 for cells of the target, 1 for those of the reference and -1 for others, (n_cells,)."""
    types = _names.names(_checks.column(adata, key, "cell_type_key"), f"adata.obs[{key!r}]")
    found = [str(name) for name in pd.unique(types.dropna())]
    given = {"target": _names.several(target), "reference": _names.several(reference)}
    for argument, names in given.items():
        absent = [name for name in names if name not in found]
        if absent or not names:
            hint = _checks.closest(absent[0], found) if absent else ""
            raise ValueError(
                f"{argument}={_checks.listed(absent) or 'no type'} is not among the types in adata.obs[{key!r}]{hint}. "
                f"Available: {_checks.listed(found)}."
            )
    both = sorted(set(given["target"]) & set(given["reference"]))
    if both:
        raise ValueError(f"target and reference both hold {both[0]!r}, which would cancel; name different types.")
    sides = np.full(adata.n_obs, -1)
    for i, names in enumerate(given.values()):
        sides[types.isin(names).to_numpy()] = i
    return sides


def _columns(adata: AnnData, genes: Any, like: AnnData | None) -> np.ndarray:
    """Positions of the genes over which shares are taken."""
    if genes is not None and like is not None:
        raise ValueError("genes and like are both given; like brings its own genes, so leave genes out.")
    if genes is None and like is None:
        return np.arange(adata.n_vars)
    if genes is not None and (isinstance(genes, str) or not isinstance(genes, Iterable)):
        raise TypeError(f"genes is a {type(genes).__name__}; pass names of genes in a list.")
    own = [] if genes is None else [str(gene) for gene in genes]
    wanted = pd.Index(own, dtype=object) if like is None else like.var_names
    found = _gene_names.locate(wanted, None if like is None else _gene_names.kept(like.var), adata.var, enough=1.0)
    absent = wanted[found.columns < 0]
    if len(absent):
        said = f"; {found.n:,} are found {found.how}"
        if not found.how:
            said = _symbols.mismatch(wanted, adata.var_names, "they are", "the data use")[1]
        raise ValueError(
            f"{len(absent):,} of the {len(wanted):,} genes of {'genes' if like is None else 'like'} are absent from "
            f"adata.var_names (e.g. {_checks.listed(absent, 2)}){said}. Shares are over all of them: make both "
            "contrasts over the genes that both data sets have, with genes=.... For a clock that is trained already, "
            "and where few are absent, leave those out: genes=[g for g in clock.genes if g in adata.var_names]."
        )
    if found.how:
        logger.info("%s", _gene_names.message(found, wanted, adata.var, whose="genes" if like is None else "like"))
    return found.columns


def _say_left_out(names: np.ndarray, kept: np.ndarray, n_counts: np.ndarray, min_counts: int) -> None:
    """Name the samples that lack a type, refusing to go on without any."""
    if not kept.any():
        best = n_counts.min(axis=0).max()
        raise ValueError(
            f"no sample has min_counts={min_counts} counts in target and reference (most in both: {best:,.0f}); lower "
            "min_counts, or take types with more cells."
        )
    if not kept.all():
        warnings.warn(
            f"{(~kept).sum()} of {len(kept)} samples have fewer than min_counts={min_counts} counts in target or "
            f"reference and are left out ({_checks.listed(names[~kept], _MOST_NAMED)}).",
            UserWarning,
            stacklevel=3,
        )


def _constant_columns(obs: pd.DataFrame, code: np.ndarray) -> pd.DataFrame:
    """Columns with one value in each unit, one row per unit in the order of codes."""
    first = np.unique(code, return_index=True)[1]
    same = [name for name in obs.columns if int(obs[name].groupby(code).nunique(dropna=False).max()) == 1]
    out = obs[list(same)].iloc[first].copy()
    for name in out.select_dtypes("category"):
        out[name] = out[name].cat.remove_unused_categories()
    return out
