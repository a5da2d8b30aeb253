"""A shelf: a static folder of clocks that any web server or shared drive can hold."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from agevi._progress import steps
from agevi.io import _bundle, _fetch, _files, _golden, _index, _load
from agevi.io._files import BundleError, BundleExistsError


def write_shelf(
    path: str | Path,
    clocks: Mapping[str, Any],
    about: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write clocks as a shelf: a static folder that any web server or shared drive can hold.

    Each clock gets a folder of its own with its bundle, golden values (rows of made-up input, and what the clock gives
    for them, which :func:`agevi.io.verify` replays), a card that says what ``about`` tells, and the metadata that
    scvi-tools' hub reads. ``index.json`` lists all of them with the size and SHA-256 of every file. There is no program
    on the other side: copy the folder wherever it can be read.

    Parameters
    ----------
    path
        Directory to write; it appears whole or not at all.
    clocks
        Trained clocks, or directories in which clocks were saved, by name: letters, digits, ``_`` and ``-``.
    about
        What the list says of each clock, by the same names; each entry may be missing: text for ``cells``, ``tissue``,
        ``species``, ``cohorts``, ``licence``, ``citation``, ``source`` and ``input`` (what the values have to be), a
        number for ``donors``, and, in the unit of age, ``mae`` (error on held-out donors), ``mae_other_cohorts`` (error
        on cohorts that were left out) and ``interval`` (width). What the clock itself knows need not be told.
    overwrite
        Replace a shelf that is there, as a whole.

    Returns
    -------
    None.

    Raises
    ------
    FileExistsError
        If ``path`` exists and ``overwrite`` is False, or it is not a shelf.
    TypeError
        If ``clocks`` is not a mapping of names, or holds something else than clocks and paths.
    ValueError
        If a name or an entry of ``about`` cannot be used, or a saved clock was damaged.

    Examples
    --------
    >>> import agevi, tempfile
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=40)
    >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> clock = agevi.model.PLSClock(adata)
    >>> clock.train()
    >>> shelf = tempfile.mkdtemp() + "/shelf"
    >>> agevi.io.write_shelf(shelf, {"mine": clock}, {"mine": {"cells": "blood", "licence": "CC BY 4.0"}})
    >>> agevi.io.list_shelf(shelf)[["cells", "features", "licence"]].values.tolist()
    [['blood', 40, 'CC BY 4.0']]
    >>> bool(agevi.io.verify(shelf)["difference"].max() == 0)
    True
    """
    about = {} if about is None else about
    if not isinstance(clocks, Mapping) or not isinstance(about, Mapping):
        given = about if isinstance(clocks, Mapping) else clocks
        raise TypeError(f"clocks and about are dicts by the name of a clock; a {type(given).__name__} was given.")
    if unknown := [name for name in about if name not in clocks]:
        raise ValueError(f"about describes {unknown[0]!r}, which is not in clocks; those are {_files.listed(clocks)}.")
    directory = Path(os.path.realpath(os.path.expanduser(os.fspath(path))))
    _check_free(directory, overwrite=overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{directory.name}."
    with tempfile.TemporaryDirectory(_files.TEMPORARY, prefix, directory.parent, ignore_cleanup_errors=True) as folder:
        new = Path(folder, "new")
        new.mkdir()
        entries = []
        for name, clock in steps(clocks.items(), len(clocks), "writing a shelf", "clocks"):
            contents, told = _contents(name, clock, about.get(name, {}))
            (new / _index.check_name(name)).mkdir()
            for file, data in contents.items():
                (new / name / file).write_bytes(data)
            files = {file: {"sha256": _bundle.sha256(data), "size": len(data)} for file, data in contents.items()}
            entries.append(_index.Entry(name, files, told))
        data = _index.write(entries)
        _index.read(str(directory / _index.INDEX), data)  # what is written can be read
        (new / _index.INDEX).write_bytes(data)
        _check_free(directory, overwrite=overwrite)
        if directory.exists():
            os.rename(directory, Path(folder, "old"))
        os.rename(new, directory)


def list_shelf(path: str | Path) -> pd.DataFrame:
    """The clocks of a shelf, with what is known of each; errors and intervals in its unit of age.

    Only the index is read, or downloaded; :func:`agevi.io.load_clock` loads a clock by its name, and checks it. What
    the list says is what the authors of the shelf wrote there.

    Parameters
    ----------
    path
        Directory or address (http or https) of the shelf.

    Returns
    -------
    DataFrame, index name of the clock, with the columns

        - ``cells``, ``tissue``, ``species``, ``unit``, ``class``, ``cohorts``, ``licence``, ``citation``, ``source``,
          ``input``: text, None where it is not told.
        - ``features``, ``donors``: Int64, features that are read, and training donors.
        - ``mae``, ``mae_other_cohorts``, ``interval``: float64, mean absolute error of held-out donors of the training
          cohorts and of cohorts that were left out, and width of the interval.
        - ``where``: ``"folder"`` or ``"download"``; ``size``: int64, bytes; ``sha256``: of its ``clock.json``, which
          holds those of its other files.

    Raises
    ------
    FileNotFoundError
        If the directory is not a shelf, or the server cannot be reached and the index was not read before.
    ValueError
        If the index was damaged or edited, or names files that are too large or lie elsewhere.

    Examples
    --------
    >>> import agevi, pathlib
    >>> folder = pathlib.Path(agevi.clocks.__file__).parent / "data"
    >>> "horvath_2013" in agevi.io.list_shelf(folder).index
    True
    """
    return _index.table(_fetch.entries(path), "download" if _fetch.is_url(path) else "folder")


def _check_free(directory: Path, *, overwrite: bool) -> None:
    """Refuse to write where something is that is not a shelf, or that may not be replaced."""
    if not os.path.lexists(directory):
        return
    if not overwrite:
        raise BundleExistsError(f"{directory} already exists; pass overwrite=True to replace it, or another path.")
    try:
        names = _fetch.entries(directory)
        strangers = {file.name for file in directory.iterdir()} - {_index.INDEX, *names, *_files.CLUTTER}
    except (BundleError, OSError):
        strangers = {directory.name}
    if strangers:
        raise BundleExistsError(
            f"{directory} is not a shelf alone ({_files.listed(strangers)}), and agevi replaces nothing that it did "
            "not write; move it away or pass another path."
        )


def _contents(name: str, clock: Any, about: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a clock on a shelf by name, and what the index says of it."""
    about = _index.check_about(about, name)
    with tempfile.TemporaryDirectory(_files.TEMPORARY) as folder:
        if isinstance(clock, str | os.PathLike):
            bundle = _bundle.read_bundle(clock)
        elif hasattr(clock, "save") and hasattr(clock, "members"):
            clock.save(Path(folder, "clock"))
            bundle = _bundle.read_bundle(Path(folder, "clock"))
        else:
            raise TypeError(
                f"clocks[{name!r}] is a {type(clock).__name__}; pass a trained clock, or the directory where one "
                "was saved."
            )
    model = _load.built(bundle)
    golden = bundle.golden or _golden.make(model)
    told = _known(model, bundle.meta) | about
    card = bundle.card.partition(_HEADING)[0].rstrip() + "\n" + _section(told)
    return _bundle.encode(bundle.meta, bundle.tensors, card, golden) | {_index.HUB: _hub(bundle.meta)}, told


def _known(model: Any, meta: dict[str, Any]) -> dict[str, Any]:
    """What a clock itself says."""
    evaluation = meta.get("evaluation") or {}
    out = {
        "unit": meta.get("age", {}).get("unit"),
        "class": meta["class"],
        "features": len(model.genes),
        "donors": meta.get("age", {}).get("n_subjects"),
        "cohorts": ", ".join(evaluation.get("cohorts", ())) or None,
        "mae_other_cohorts" if evaluation.get("fold_key") else "mae": evaluation.get("mae"),
        "interval": (evaluation.get("intervals") or {}).get("width"),
    }
    return {key: value for key, value in out.items() if value is not None}


_HEADING = "\n## On the shelf\n"


def _section(told: dict[str, Any]) -> str:
    """What the card says of a clock on a shelf."""

    def lines() -> Iterator[str]:
        for key, value in told.items():
            number = f"{value:.2f} {told.get('unit', '')}, {_index.SHOWN[key]}" if key in _index.SHOWN else str(value)
            yield f"- **{key.replace('_', ' ')}**: {number}"

    return _HEADING + "\n" + "\n".join(lines()) + "\n"


def _hub(meta: dict[str, Any]) -> bytes:
    """The metadata that the hub of scvi-tools reads beside a model."""
    versions = meta.get("versions", {})
    document = {
        "scvi_version": str(versions.get("scvi-tools")),
        "anndata_version": str(versions.get("anndata")),
        "model_cls_name": meta["class"],
        "training_data_url": None,
        "model_parent_module": "agevi.model",
    }
    return (json.dumps(document, indent=4) + "\n").encode()
