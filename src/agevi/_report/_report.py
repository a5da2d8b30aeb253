"""One page on a cohort or on a clock."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _symbols
from agevi._report._acceleration import acceleration_section
from agevi._report._ages import ages_section, subjects_section
from agevi._report._clock import clock_sections, facts_of
from agevi._report._cohort import Cohort, unsaid
from agevi._report._data import AUDIT, data_section
from agevi._report._genes import genes_section, sets_section
from agevi._report._made import made_section
from agevi._report._numbers import counted, whole
from agevi._report._page import check_path, page, write
from agevi._report._types import types_section
from agevi._report._verdict import verdict_section

logger = logging.getLogger(__name__)

SECTIONS = (
    verdict_section, data_section, ages_section, subjects_section, acceleration_section, types_section, genes_section,
    sets_section, made_section,
)  # fmt: skip
"""In the order in which they are read."""


def report(
    source: Any,
    path: str | os.PathLike[str],
    *,
    key_added: str = _keys.DEFAULT_KEY,
    title: str | None = None,
    audit: pd.DataFrame | None = None,
    gene_symbols: str | None = None,
    overwrite: bool = False,
) -> Path:
    """One HTML page on a cohort and its predicted ages, or on a clock, ages in the unit of the data.

    The page is one file without any address outside of it: it opens without a network, prints, and goes by e-mail.
    First it says whether held-out subjects are predicted better than by the median age; then come the data and the
    findings of the audit, predicted and actual ages with intervals, all subjects in a table that can be sorted,
    searched and copied, differences between groups with the sentence for the paper, types of cells, genes, sets of
    genes, and settings, seeds and versions. Nothing is computed anew: what tools left under the key is read through
    :mod:`agevi.get` and drawn through :mod:`agevi.pl`. Where a tool was not run, one line names the call.

    Parameters
    ----------
    source
        Annotated data after :func:`agevi.tl.cross_validate` or :func:`agevi.tl.predict_age` and
        :func:`agevi.tl.aggregate_subjects`; or a trained clock, or the path of a saved one, whose card is shown.
    path
        File to write, which ends with ``.html``.
    key_added
        Prefix of the slots that are read.
    title
        Heading of the page.
    audit
        What :func:`agevi.pp.audit_leakage` returned, whose findings are shown. Default: those of
        ``adata.uns[f"{key_added}_study_audit"]``, if it is there.
    gene_symbols
        Column of ``adata.var`` with the names of genes to show, as in scanpy.
    overwrite
        Replace an earlier report.

    Returns
    -------
    The path of the page.

    Raises
    ------
    FileExistsError
        There is something at ``path``, and ``overwrite`` is False or it is not a report of agevi.
    FileNotFoundError
        The folder of ``path``, or the saved clock, is absent.
    KeyError
        Nothing stands under the key, or ``gene_symbols`` is absent.
    RuntimeError
        The clock is not trained.
    TypeError
        An argument is of another kind.
    ValueError
        ``path`` does not end with ``.html``, the table of subjects has samples whose cells are gone, or the saved clock
        is damaged.

    Examples
    --------
    >>> import agevi, tempfile
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=50)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = agevi.report(adata, f"{folder}/report.html")
    ...     path.read_text()[:15]
    '<!DOCTYPE html>'
    """
    target = check_path(path, overwrite=overwrite)
    if title is not None and not isinstance(title, str):
        raise TypeError(f"title={title!r} is a {type(title).__name__}; pass text, or None.")
    if isinstance(source, AnnData):
        text = _of_cohort(source, key_added, title, audit, gene_symbols)
    else:
        text = _of_clock(source, title)
    write(target, text)
    logger.info("The report is in %s.", target)
    return target


def _of_cohort(
    adata: AnnData, key: str, title: str | None, audit: pd.DataFrame | None, gene_symbols: str | None
) -> str:
    """The page of a cohort."""
    _checks.anndata(adata)
    _keys.check(key, "key_added")
    if audit is not None and not (isinstance(audit, pd.DataFrame) and set(AUDIT) <= set(audit)):
        raise TypeError(f"audit is a {type(audit).__name__}; pass the table that agevi.pp.audit_leakage returned.")
    if gene_symbols is not None:
        _symbols.column(adata, gene_symbols)
    cohort = Cohort(adata, _keys.Keys(key), gene_symbols, audit)
    if not any(cohort.has(noun) for noun in _keys.SLOTS):
        there = sorted(str(name).removesuffix("_subjects") for name in adata.uns if str(name).endswith("_subjects"))
        raise KeyError(
            f"key_added={key!r}: nothing stands under it in adata{_checks.closest(key, there)}; run "
            "agevi.tl.cross_validate(adata, ...) and agevi.tl.aggregate_subjects(adata) first. Keys with a table of "
            f"subjects: {_checks.listed(there) or 'none'}."
        )  # fmt: skip
    with unsaid():
        sections = [section(cohort) for section in SECTIONS]
    n = cohort.subjects()["subject"].nunique()
    subtitle = f"{counted(n, 'subject')}, {whole(adata.n_obs)} cells, {whole(adata.n_vars)} genes"
    return page("Ageing clock report" if title is None else title, subtitle, sections)


def _of_clock(source: Any, title: str | None) -> str:
    """The page of a clock, or of a saved one."""
    from agevi.io._load import found

    if isinstance(source, str | os.PathLike):
        bundle = found(os.fspath(source))
        meta, card = bundle.meta, bundle.card
    else:
        from agevi.model.base import _save
        from agevi.model.base._clock import is_clock

        if not is_clock(source):
            raise TypeError(
                f"source is a {type(source).__name__}; pass an AnnData, a trained clock, or the path of a saved one."
            )
        source.check_trained("report")
        meta = _save.full_meta(source)
        card = source._card(meta)
    name = "Ageing clock" if title is None else title
    return page(name, facts_of(meta), clock_sections(meta, card))
