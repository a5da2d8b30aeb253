"""Sums of the cells of samples, or of their types, as an AnnData that clocks of sums read in place of the cells."""

from __future__ import annotations

import os
from collections.abc import Sequence

from anndata import AnnData

from agevi import _checks
from agevi.dataloaders._cell_sums import columns_of, sums_of
from agevi.io._out import written

VALUES = ("counts", "any")


def sum_samples(
    adata: AnnData | str | os.PathLike[str],
    by: str | Sequence[str],
    *,
    layer: str | None = None,
    values: str = "counts",
    out: str | os.PathLike[str] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Summed counts of the cells of every sample, or of every type in every sample, in one pass over the data.

    What a clock of sums learns from cells are their sums and, for the reliability of genes, three moments that add up
    over cells. They are all kept here, so that :class:`agevi.model.PLSClock`, :class:`agevi.model.ElasticNetClock` and
    :class:`agevi.model.CellTypeClock` with them are trained, validated and predict from this AnnData as from the cells,
    with the same numbers, though it is a small part of their size. Files are read in blocks of rows and never as a
    whole. Single cells and pseudocells cannot be had from sums: what needs them refuses such data.

    Parameters
    ----------
    adata
        Annotated data, cells x genes, in memory, opened with ``backed="r"`` or with arrays of dask; or the path of an
        h5ad file or of a zarr store. Not changed.
    by
        Columns of ``adata.obs``: the sample first, then what is kept apart in it, such as the type of the cells. Cells
        without a value in a further column are left out.
    layer
        Layer that holds the values; default X.
    values
        ``"counts"`` refuses what is not raw counts. ``"any"`` sums values as they are, such as logarithms of normalised
        counts: clocks that read means over cells (``normalize="none"``, and published clocks) take these sums.
    out
        File to write the sums to as well, ``.h5ad`` or ``.zarr``, which must not exist yet.
    checkpoint_dir
        Directory, new or of this same call, in which the sums so far are kept every ten seconds or more: after a kill
        the same call resumes from there and gives the same numbers. It is refused for other data or arguments, and is
        not deleted. Arrays of dask cannot be told from others; pass the path of their store.

    Returns
    -------
    A new AnnData with a row for each sample (x type), in the order of their names, and ``var`` as it was.

    - ``X``: sums, CSR, float32, or float64 where float32 would round.
    - ``obs``: the columns ``by``, ``n_cells`` (int64), and every column with one value in the cells of each row, such
      as the age. Other columns are left out, which is logged.
    - ``layers["agevi_sum_squares"]``, ``layers["agevi_sum_library_products"]`` and
      ``obs["agevi_sum_library_squares"]``: sums of :math:`x^2`, :math:`l x` and :math:`l^2` over the cells, :math:`l`
      being all counts of a cell (Cochran 1977).
    - ``uns["agevi_sums"]``: the columns ``by``, the number of cells, the layer, what clocks may make of the sums, and
      the version. With ``anndata.concat`` of several such data pass ``uns_merge="same"``, which keeps it.

    Raises
    ------
    FileExistsError
        ``out`` exists.
    FileNotFoundError
        The file does not exist.
    KeyError
        A column or the layer is absent.
    OSError
        ``out`` or ``checkpoint_dir`` cannot be written.
    TypeError
        ``by`` or the values have the wrong type.
    ValueError
        A sample has no name, values are not counts, rows are sums already, the file cannot be read or changes
        meanwhile, or ``checkpoint_dir`` holds the sums of another call. Nothing is left of ``out``.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=60, n_genes=50)
    >>> sums = agevi.pp.sum_samples(adata, by=["donor", "cell_type"])
    >>> sums.shape, int(sums.obs["n_cells"].sum())
    ((36, 50), 720)
    >>> agevi.model.PLSClock.setup_anndata(sums, age_key="age", subject_key="donor")
    >>> clock = agevi.model.PLSClock(sums)
    >>> clock.train()
    """
    columns, counts = columns_of(by), _checks.choice(values, VALUES, "values") == "counts"
    with written(out) as write:
        made = sums_of(adata, columns, layer, counts=counts, directory=checkpoint_dir)
        write(made)
    return made
