"""The bundled cohort: CD4 T cells of 722 healthy donors."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi.datasets._cells import sample_cells

_TABLE = "cd4_tcells.npz"
_NOTE = (
    "Semi-synthetic. Between-donor signal: real CD4 T profiles of AIDA v1 and Perez et al. 2022 (via grnimmuneclock "
    "1.2.0, MIT). Cells: simulated independently from one profile per donor; no cell states."
)


def tcells(n_subjects: int = 300, n_cells: int = 30, rng: int | np.random.Generator | None = 0) -> AnnData:
    """Counts of CD4 T cells of up to 722 healthy blood donors aged 21 to 90 years, bundled and offline.

    The signal between donors is real: one CD4 T cell profile per donor over 2,025 genes, from AIDA v1 (623 donors) and
    Perez et al. 2022 (99 donors). The cells are not: each is simulated independently from its donor's one profile by
    :func:`sample_cells`, so there are no cell states, the sum over a donor's cells is nearly sufficient, and nothing
    can be learned from differences between cells of one donor. The source chose the genes as associated with age in
    other cohorts: ages do not leak, but the genes are a biased background for enrichment. Sources, licenses and how the
    table was made are told in ``agevi/datasets/data/README.md``.

    Parameters
    ----------
    n_subjects
        Donors, drawn at random from the 722 without regard to age or cohort.
    n_cells
        Cells per donor.
    rng
        Seed or generator, for the choice of donors and for their cells.

    Returns
    -------
    AnnData of shape ``(n_subjects * n_cells, 2025)``

        - ``X``: CSR matrix of counts, float32.
        - ``obs["donor"]``, ``obs["dataset"]``: categorical; the dataset is ``"aida"`` or ``"perez_sle"``.
        - ``obs["age"]``: years, float64.
        - ``var``: index of gene symbols.
        - ``uns["source"]``: what is real in these cells and what is simulated, text.

    Raises
    ------
    TypeError
        When a parameter is not an integer.
    ValueError
        When ``n_subjects`` is not between 1 and 722, or ``n_cells`` is below 1.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.tcells(n_subjects=5, n_cells=4)
    >>> adata.shape
    (20, 2025)
    >>> adata.obs["donor"].nunique()
    5
    """
    profiles = _profiles()
    n_subjects = _checks.count(n_subjects, "n_subjects", high=profiles.n_obs)
    n_cells = _checks.count(n_cells, "n_cells")
    generator = _checks.generator(rng)
    chosen = np.sort(generator.choice(profiles.n_obs, n_subjects, replace=False))
    adata = sample_cells(profiles[chosen].copy(), n_cells, rng=generator)
    for key in ("donor", "dataset"):
        adata.obs[key] = adata.obs[key].astype("category")
    adata.uns["source"] = _NOTE
    return adata


def _profiles() -> AnnData:
    """The bundled table as log1p(CPM), one row per donor."""
    with as_file(files("agevi.datasets") / "data" / _TABLE) as path, np.load(path, allow_pickle=False) as table:
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
