"""``agevi report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options

EPILOG = """\b
Examples
  agevi report results --out results/report.html
  agevi report analysed.h5ad --out report.html
  agevi report results/clock --out clock.html
  agevi report horvath_2013 --out clock.html"""


@click.command(epilog=EPILOG)
@options.together(
    click.argument("what"),
    click.option("--out", required=True, type=options.NEW, metavar="FILE", help="HTML file."),
    options.force, options.as_json, options.debug,
)  # fmt: skip
def report(what: str, out: Path, force: bool, as_json: bool) -> None:
    """One page to read and to send, without any address outside of it.

    WHAT is the folder of a study, an h5ad file that agevi's functions wrote to, the folder of a clock, or the name of a
    ready-made clock.
    """
    from agevi.cli._outputs import check_new, say_json

    check_new(out, [Path(what)] if Path(what).is_file() else [], force=force)
    path = write_report(subject_of(what), out)
    if as_json:
        say_json({"report": str(path)})
    else:
        click.echo(f"Report: {path}")


def subject_of(what: str) -> Any:
    """The AnnData or the clock that is reported on."""
    import agevi
    from agevi.cli._inputs import read_cells
    from agevi.tl.full_study._folder import RESULT

    path = Path(what)
    if (path / RESULT).is_file():
        return read_cells(path / RESULT)
    return read_cells(path) if path.is_file() else agevi.io.load_clock(what)


def write_report(what: Any, path: Path) -> Path:
    """Write the report of an AnnData or of a clock, over an earlier one."""
    import agevi

    return agevi.report(what, path, overwrite=True)
