"""Checking saved clocks: every checksum, and what they predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from agevi._progress import steps
from agevi.io import _bundle, _fetch, _files, _golden, _index, _load


def verify(path: str | Path) -> pd.DataFrame:
    """Check a saved clock, or all clocks of a shelf, and replay their golden values, in the unit of age.

    Size and SHA-256 of every file are compared with what was written, each clock is loaded, and predicts the rows of
    input that are stored with it (see :func:`agevi.io.write_shelf`). What it predicts may differ from what is stored by
    1e-6 of the age for linear clocks, and by 1e-4 for networks, whose sums differ a little between machines.

    Parameters
    ----------
    path
        Directory of a clock or of a shelf, address of a shelf, or name of a ready-made clock.

    Returns
    -------
    DataFrame, index clock, with ``class`` (text), ``size`` (int64, bytes), ``n_golden`` (int64, rows that were
    replayed, 0 for clocks without any), ``difference`` and ``tolerance`` (float64, of the row that comes nearest to its
    tolerance; NaN without rows).

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        If a file is not the one that was written, or a prediction differs; the message names the file or the row.

    Examples
    --------
    >>> import agevi
    >>> found = agevi.io.verify("horvath_2013")
    >>> bool((found["difference"] <= found["tolerance"]).all())
    True
    """
    rows = {}
    if _fetch.is_url(path) or (Path(path).expanduser() / _index.INDEX).exists():
        entries = _fetch.entries(path)
        for name in steps(entries, len(entries), "verifying", "clocks"):
            rows[name] = _row(_load.on_shelf(path, name), entries[name].size)
    else:
        bundle = _load.found(path)
        rows[bundle.path.name] = _row(bundle, sum(f.stat().st_size for f in bundle.path.iterdir() if f.is_file()))
    out = pd.DataFrame.from_dict(rows, orient="index", columns=["class", "size", "n_golden", "difference", "tolerance"])
    return out.rename_axis(index="clock")


def _row(bundle: _bundle.Bundle, size: int) -> list[Any]:
    """What is found of a clock, whose files were checked."""
    model, cls = _load.built(bundle), bundle.meta["class"]
    if not bundle.golden:
        return [cls, size, 0, float("nan"), float("nan")]
    try:
        differs, allowed = _golden.difference(model, bundle.golden)
    except ValueError as error:
        raise _files.BundleError(f"{bundle.path / _files.GOLDEN} cannot be replayed: {error}.") from None
    wrong = (~(differs <= allowed)).nonzero()[0]
    if len(wrong):
        row, unit = int(wrong[0]), bundle.meta.get("age", {}).get("unit", "")
        raise _files.BundleError(
            f"{bundle.path} predicts row {row} of its {len(differs)} golden values {differs[row]:.3g} "
            f"{unit} off what {_files.GOLDEN} holds (allowed: {allowed[row]:.1g}); the clock or the "
            "software computes something else than when it was stored."
        )
    worst = int((differs / allowed).argmax())
    return [cls, size, len(differs), float(differs[worst]), float(allowed[worst])]
