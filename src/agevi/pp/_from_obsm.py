"""The dimensions of a representation as the features of an AnnData."""

from __future__ import annotations

from anndata import AnnData

from agevi import _checks
from agevi._source import read


def from_obsm(adata: AnnData, obsm_key: str) -> AnnData:
    """The same cells with the dimensions of a table of ``adata.obsm`` as their features.

    Clocks that were set up with this ``obsm_key`` read it as they read ``adata``. It is what the tools need that write
    one row per feature: :func:`agevi.tl.attribute_genes` and :func:`agevi.tl.perturb_genes`. A dimension of an
    embedding has no meaning by itself; the columns of a table of proteins have.

    Parameters
    ----------
    adata
        Cells; not changed.
    obsm_key
        Name of the table, an array or a DataFrame.

    Returns
    -------
    AnnData of shape (n_cells, n_dimensions) with the values as X, which an array shares with ``adata``, a copy of the
    columns of ``obs``, and ``var_names`` ``f"{obsm_key}_0"``, ``f"{obsm_key}_1"``, ..., or those of the DataFrame.

    Raises
    ------
    KeyError
        If the table does not exist.
    TypeError
        If it is not a table of numbers.
    ValueError
        If it has missing values or repeated columns.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> adata.obsm["X_pca"] = adata.X[:, :3].toarray()
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor", obsm_key="X_pca")
    >>> model = agevi.model.PLSClock(adata)
    >>> model.train()
    >>> dimensions = agevi.pp.from_obsm(adata, "X_pca")
    >>> agevi.tl.attribute_genes(dimensions, model)
    >>> dimensions.varm["agevi_attribution"].shape
    (3, 1)
    """
    out = read(_checks.anndata(adata), {"obsm_key": obsm_key, "normalize": "none"})
    out.obs = out.obs.copy()
    return out
