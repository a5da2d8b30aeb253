"""The bundled cohort: CD4 and CD8 T cells of 722 healthy donors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import as_file, files
from typing import Literal

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names
from agevi.datasets._cells import sample_cells

_TABLES = {"CD4 T": "cd4_tcells.npz", "CD8 T": "cd8_tcells.npz"}
_SPELLING = re.compile(r"(cd[48])(positive)?(alphabeta|ab|αβ)?(t(cells?)?)?")  # without spaces, hyphens and plus signs
_NOTE = (
    "Semi-synthetic. Between-donor signal: real {types} profiles of AIDA v1 and Perez et al. 2022 (via grnimmuneclock "
    "1.2.0, MIT). Cells: simulated independently from one profile per donor; no cell states."
)
_INFERRED = (
    " One profile per donor and type; which CD8 T profile of AIDA belongs to which donor was inferred from the ages."
)


def tcells(
    n_subjects: int = 300,
    n_cells: int = 30,
    rng: int | np.random.Generator | None = 0,
    *,
    cell_types: str | Iterable[str] = ("CD4 T",),
    join: Literal["inner", "outer"] = "inner",
) -> AnnData:
    """Counts of CD4 and CD8 T cells of up to 722 healthy blood donors aged 21 to 90 years, bundled and offline.

    The signal between donors is real: one profile per donor and type, from AIDA v1 (623 donors) and Perez et al. 2022
    (99 donors), over 2,025 genes for CD4 T cells and 2,868 for CD8 T cells. The cells are not: each is simulated
    independently from its donor's one profile by :func:`sample_cells`, so there are no cell states, the sum over a
    donor's cells of a type is nearly sufficient, and nothing can be learned from differences between these cells. The
    source chose the genes as associated with age in other cohorts: ages do not leak, but the genes are a biased
    background for enrichment. Every donor has the same number of cells of each type: composition carries no age. Which
    CD8 T profile of AIDA belongs to which donor was inferred, as the source names them differently. Sources, licenses
    and how the tables were made are described in ``agevi/datasets/data/README.md``.

    Parameters
    ----------
    n_subjects
        Donors, drawn at random from the 722 without regard to age or cohort; two of them lack CD8 T cells.
    n_cells
        Cells per donor and type.
    rng
        Seed or generator, for the choice of donors and for their cells. The types have random numbers of their own: the
        donors of ``("CD4 T", "CD8 T")`` and the counts of their CD4 T cells are those of ``("CD4 T",)``.
    cell_types
        ``"CD4 T"``, ``"CD8 T"`` or both; ``"CD8+ T cells"`` and other usual spellings are understood.
    join
        The genes of two types. ``"inner"``: the 1,066 that both tables have. ``"outer"``: all 3,827, which is for
        clocks of one type each; a gene that the table of a type lacks is 0 in its cells, so that comparisons between
        types, and clocks of both types together, would read as biology what is the choice of genes.

    Returns
    -------
    AnnData of shape ``(n_subjects * n_cells, 2025)``; for CD8 T cells there are 2,868 genes, and for both types
    those of ``join`` and the cells of the first type, then those of the second

        - ``X``: CSR matrix of counts, float32.
        - ``obs["donor"]``, ``obs["dataset"]``: categorical; the dataset is ``"aida"`` or ``"perez_sle"``.
        - ``obs["age"]``: years, float64.
        - ``obs["cell_type"]``: categorical, for two types.
        - ``var``: index of gene symbols; for ``join="outer"`` and two types, the columns ``"CD4 T"`` and ``"CD8 T"``
          say whether the table of the type has the gene, bool.
        - ``uns["source"]``: what is real in these cells and what is simulated, text.

    Raises
    ------
    TypeError
        When a parameter is not an integer.
    ValueError
        When ``n_subjects`` is not between 1 and 722 (720 for CD8 T cells alone), ``n_cells`` is below 1, or a cell type
        is unknown or given twice.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.tcells(n_subjects=5, n_cells=4)
    >>> adata.shape
    (20, 2025)
    >>> adata.obs["donor"].nunique()
    5
    >>> both = agevi.datasets.tcells(n_subjects=5, n_cells=4, cell_types=("CD4 T", "CD8 T"))
    >>> both.shape
    (40, 1066)
    >>> both.obs["cell_type"].value_counts().to_dict()
    {'CD4 T': 20, 'CD8 T': 20}
    """
    types = _types(cell_types)
    _checks.choice(join, ("inner", "outer"), "join")
    profiles = {name: _profiles(name) for name in _TABLES if name in types}
    donors = pd.unique(np.concatenate([table.obs_names.to_numpy(dtype=object) for table in profiles.values()]))
    n_subjects = _checks.count(n_subjects, "n_subjects", high=len(donors))
    n_cells = _checks.count(n_cells, "n_cells")
    generator = _checks.generator(rng)
    # A child of the generator, which leaves the generator's own numbers, those of CD4 T cells, as they are.
    streams = {"CD4 T": generator, "CD8 T": generator.spawn(1)[0] if "CD8 T" in types else generator}
    chosen = donors[np.sort(generator.choice(len(donors), n_subjects, replace=False))]
    cells = {}
    for name in types:
        there = chosen[np.isin(chosen, profiles[name].obs_names.to_numpy(dtype=object))]
        if len(there):  # of a single donor, a type may be absent
            cells[name] = sample_cells(profiles[name][there].copy(), n_cells, rng=streams[name])
    adata = _joined(cells, join) if len(types) > 1 else cells[types[0]]
    for key in ("donor", "dataset"):
        adata.obs[key] = adata.obs[key].astype("category")
    adata.uns["source"] = _NOTE.format(types=" and ".join(types)) + (_INFERRED if len(types) > 1 else "")
    return adata


def _types(cell_types: str | Iterable[str]) -> list[str]:
    """The tables that ``cell_types`` names, in its order."""
    types = []
    for given in _names.several(cell_types):
        found = _SPELLING.fullmatch(re.sub(r"[\W_]+", "", given).lower())
        if found is None:
            hint = _checks.closest(given, list(_TABLES))
            raise ValueError(
                f"cell_types={given!r} is not bundled{hint}. Available: {_checks.listed(_TABLES)}; pass one of them, "
                "or both."
            )
        types.append(f"{found[1].upper()} T")
    if not types or len(set(types)) < len(types):
        what = f"names {_checks.listed(types)}, one of them twice" if types else "is empty"
        raise ValueError(f"cell_types {what}; pass one of {_checks.listed(_TABLES)}, or both.")
    return types


def _joined(cells: dict[str, AnnData], join: str) -> AnnData:
    """The cells of several types in one AnnData, with a column that names the type."""
    held = {name: table.var_names for name, table in cells.items()}
    start = 0
    for table in cells.values():
        table.obs_names = [f"cell{i}" for i in range(start, start + table.n_obs)]
        start += table.n_obs
    adata = ad.concat(cells, join=join, label="cell_type")
    if join == "outer":
        for name, genes in held.items():
            adata.var[name] = adata.var_names.isin(genes)
    return adata


def _profiles(cell_type: str = "CD4 T") -> AnnData:
    """The bundled table of a type as log1p(CPM), one row per donor."""
    place = files("agevi.datasets") / "data" / _TABLES[cell_type]
    with as_file(place) as path, np.load(path, allow_pickle=False) as table:
        x = table["low"] + table["codes"].T * table["step"]  # stored gene by gene, which compresses better
        obs = pd.DataFrame(
            {
                "donor": table["donor"].astype(object),
                "age": table["age"].astype(np.float64),
                "dataset": table["dataset"].astype(object),
            },
            index=table["donor"].astype(object),
        )
        var = pd.DataFrame(index=table["gene"].astype(object))
    return AnnData(x.astype(np.float32), obs=obs, var=var)
