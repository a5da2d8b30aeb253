"""Several files of cells as one, sorted by sample, so that the cells of a sample are read side by side."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anndata import AnnData

from agevi._compat import version
from agevi._progress import progress
from agevi.io._folder import check_path
from agevi.io._out import beside, check_out
from agevi.io._store_file import write_rows
from agevi.io._store_parts import KeptStore, Parts
from agevi.io._store_tables import Tables, read_tables

logger = logging.getLogger(__name__)


def write_store(
    paths: Sequence[str | os.PathLike[str] | AnnData] | str | os.PathLike[str] | AnnData,
    out: str | os.PathLike[str],
    sample_key: str,
    *,
    layer: str | None = None,
    genes: Any = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Cells of several files as one file of rows sorted by sample, written without the matrix in memory.

    Training from disk reads rows side by side, and pseudocells need the cells of a sample: here they are brought
    together. Each file is read once, in blocks; its values are put into parts on disk, which are then sorted and
    written one after the other. Tables of cells and genes are in memory. The parts take 12 bytes for each value that is
    not zero (16 for float64) beside ``out`` while the call runs.

    Parameters
    ----------
    paths
        h5ad files and zarr stores, with dense or sparse matrices, or AnnData, of which one may be opened with
        ``backed="r"`` or have arrays of dask.
    out
        File to write, ``.h5ad`` or ``.zarr`` (of format 3, with shards), which must not exist yet.
    sample_key
        Column of ``obs`` with the sample of each cell. Cells are sorted by it, those of a sample by file and their
        place in it.
    layer
        Layer that holds the values in each file; default X.
    genes
        A clock, or names of genes. Default: those of the first file. They are found under the names that fit best, as
        by :func:`agevi.pp.align_genes`; genes that a file lacks are left out, which is logged.
    checkpoint_dir
        Directory for the parts. Default: ``out`` with ``.parts`` behind it. After a kill or where the disk is full the
        same call resumes with it, and gives the same arrays; it is deleted at the end.

    Returns
    -------
    The path of ``out``, which holds

    - ``X``: CSR, in the type that holds the values of all files;
    - ``obs``: all columns of all files, missing where a file lacks one, with names in categories. Where cells of two
      files have the same name, the name of its file is added to each;
    - ``var``: the columns of the first file.

    Other slots are not copied.

    Raises
    ------
    FileExistsError
        ``out`` exists.
    FileNotFoundError
        A file does not exist.
    KeyError
        A file lacks ``sample_key`` or the layer.
    OSError
        The disk is full, or cannot be written to.
    TypeError
        ``paths`` names no files, or values are not numbers.
    ValueError
        Files have no genes in common, names of cells are repeated in a file, a column is of numbers in one file and of
        names in another, a sample has no name, or a file cannot be read or changes meanwhile.

    Examples
    --------
    >>> import agevi, tempfile, anndata
    >>> folder = tempfile.mkdtemp()
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=20, n_genes=50)
    >>> adata[::2].write_h5ad(f"{folder}/one.h5ad")
    >>> adata[1::2].write_h5ad(f"{folder}/other.h5ad")
    >>> paths = [f"{folder}/one.h5ad", f"{folder}/other.h5ad"]
    >>> store = agevi.io.write_store(paths, f"{folder}/both.h5ad", sample_key="donor")
    >>> anndata.read_h5ad(store).obs["donor"].tolist()[:21:10]
    ['d00', 'd00', 'd01']
    """
    sources = _listed(paths)
    path, folder = Path(out), None if checkpoint_dir is None else Path(checkpoint_dir)
    own = path.with_name(f"{path.name}.parts") if folder is None else folder
    check_path(own)
    if path.exists() and (own / KeptStore.manifest).exists():
        shutil.rmtree(own)  # of a call that was killed at its very end
    check_out(path)
    tables = read_tables(sources, sample_key, layer, genes)
    fingerprint = {"version of agevi": version("agevi"), "layer": str(layer)} | tables.fingerprint()
    if any(part.identity is None for part in tables.parts) and (own / KeptStore.manifest).exists():
        shutil.rmtree(own)  # arrays of dask may be others
    with _folder(own, is_own=folder is None):
        _write(tables, layer, path, KeptStore(own, fingerprint))
    return path


def _write(tables: Tables, layer: str | None, path: Path, kept: KeptStore) -> None:
    """Put all values into parts, and these into the store."""
    parts = Parts(tables, kept)
    if kept.state is not None:
        logger.info("%d of %d files are in %s and are not read again.", parts.file, len(tables.parts), kept.path.parent)
    with progress(2 * len(tables.obs), "write_store", "cells") as bar:
        parts.fill(layer, bar)

        def rows() -> Iterator[Any]:
            for block in parts.rows():
                yield block
                bar.step(block.shape[0])

        with beside(path) as half:
            write_rows(half, rows(), tables.obs, tables.var, tables.dtype, parts.n_values)


def _listed(paths: Any) -> list[Any]:
    """The files, each a path or an AnnData."""
    sources = [paths] if isinstance(paths, str | os.PathLike | AnnData) else paths
    if not isinstance(sources, Sequence) or not len(sources):
        raise TypeError(f"paths={paths!r} names no files; pass the path of an h5ad file or a zarr store, or several.")
    for source in sources:
        if not isinstance(source, str | os.PathLike | AnnData):
            raise TypeError(f"paths holds a {type(source).__name__}; pass paths of h5ad files and zarr stores.")
    return list(sources)


@contextlib.contextmanager
def _folder(folder: Path, *, is_own: bool) -> Iterator[None]:
    """The folder of the parts, which goes when the store is written, and where files are at fault."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise type(error)(
            f"{error.strerror or error} What is done so far is in {str(folder)!r}: free some space, and make the same "
            "call again; or delete it."
        ) from error
    except Exception:
        if is_own:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
