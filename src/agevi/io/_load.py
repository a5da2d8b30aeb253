"""Loading a clock without knowing its class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from anndata import AnnData

from agevi.io import _bundle, _fetch, _files

READY_MADE = Path(__file__).parents[1] / "clocks" / "data"
"""The shelf of the clocks that come with agevi."""


def load_clock(path: str | Path, adata: AnnData | None = None, *, shelf: str | Path | None = None) -> Any:
    """Load a clock of any class that its ``save`` wrote, or one of a shelf by its name.

    Nothing in a bundle can run code; a bundle that was damaged or edited is refused. A clock of a shelf on a web server
    is downloaded once, checked, and read from the cache from then on, which is in the folder of the environment
    variable ``AGEVI_CACHE`` or, by default, where the system has its caches.

    Parameters
    ----------
    path
        Directory of the clock; or its name on the ``shelf``, or among the ready-made ones of :func:`agevi.clocks.list`.
    adata
        Data to attach, for example to train on; prediction needs none.
    shelf
        Directory or address (http or https) of a shelf that :func:`agevi.io.write_shelf` wrote.

    Returns
    -------
    The trained clock.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``, no such clock on the shelf, or the shelf cannot be reached and the clock was
        not downloaded before.
    ValueError
        If the bundle is damaged, was edited, or holds a class that this version does not know; or if the shelf is.

    Examples
    --------
    >>> import agevi
    >>> clock = agevi.io.load_clock("horvath_2013")
    >>> len(clock.genes)
    353
    """
    return built(found(path, shelf), adata)


def found(path: str | Path, shelf: str | Path | None = None) -> _bundle.Bundle:
    """The bundle at a path or, by its name, on a shelf; each of its bytes was checked."""
    if shelf is not None:
        return on_shelf(shelf, path)
    name = path if isinstance(path, str) else ""
    if name and not os.path.lexists(os.path.expanduser(name)) and os.path.basename(name) == name:
        if name in (ready := _fetch.entries(READY_MADE)):
            return on_shelf(READY_MADE, name)
        try:
            return _bundle.read_bundle(path)
        except _files.BundleMissingError as error:
            raise _files.BundleMissingError(
                f"{error} Nor is {_files.show(name)} a ready-made clock; those are {_files.listed(ready, name)}, see "
                "agevi.clocks.list()."
            ) from None
    return _bundle.read_bundle(path)


def on_shelf(shelf: str | Path, name: Any) -> _bundle.Bundle:
    """The bundle of a clock on a shelf."""
    entries = _fetch.entries(shelf)
    if name not in entries:
        raise _files.BundleMissingError(
            f"{_files.show(name)} is not a clock of the shelf {shelf}; it has {_files.listed(entries, str(name))}."
        )
    folder, contents = _fetch.contents(shelf, entries[name])
    return _bundle.decode(folder, contents)


def built(bundle: _bundle.Bundle, adata: AnnData | None = None) -> Any:
    """The clock in a bundle."""
    from agevi.model.base import _save

    return _save.build(_save.class_of(bundle.meta, bundle.path), bundle, adata)
