"""``agevi study``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options
from agevi.cli._errors import OPTIONS, DataError, in_options

REPORT = "report.html"
EPILOG = """\b
Examples
  agevi study cohort.h5ad --age age --subject donor --out results
  agevi study cohort.h5ad --age age --subject donor --cell-type cell_type \\
      --condition disease --reference healthy --covariate sex --out results
  agevi study filtered_feature_bc_matrix --obs donors.csv --age age --subject donor --out results
\b
Results
  report.html     the page to read and to send
  clock/          the clock, for `agevi predict --clock results/clock`
  tables/*.csv    everything in the report, for spreadsheets
  study.h5ad      the same in Python: agevi.get.subjects_df(anndata.read_h5ad(...))
\b
A study that was stopped goes on with the same command."""


@click.command(epilog=EPILOG)
@options.together(
    options.data, options.age, options.age_unit, options.parse_ages, options.subject, options.sample, options.cell_type,
    click.option(
        "--condition", "condition_key", metavar="COLUMN",
        help="Column with the groups, such as the diagnosis: do cases look older than controls of the same age?",
    ),
    click.option("--reference", metavar="GROUP", help="The group of --condition that the others are compared with."),
    click.option(
        "--covariate", "covariates", multiple=True, metavar="COLUMN",
        help="Column to adjust that comparison for, such as sex or batch; may be repeated.",
    ),
    options.layer, options.obsm, options.obs,
    click.option("--out", required=True, type=options.NEW, metavar="FOLDER", help="Folder for the results."),
    click.option("--quick", is_flag=True, help="A first look in a fraction of the time."),
    options.seed, options.force, options.as_json, options.debug,
)  # fmt: skip
def study(data: Path, obs: Path | None, out: Path, seed: int, force: bool, as_json: bool, **given: Any) -> None:
    """From cells to a report: whether a clock works here, and whether cases age faster.

    DATA is an h5ad file, a zarr store, or the h5 file or folder of 10x, with raw counts. Whole donors are held out:
    every age is predicted by a clock that never saw the donor. The first line says whether the clock beats the
    median age, which it must before anything else counts.
    """
    from agevi.cli._outputs import check_apart

    check_apart(out, [data, *([obs] if obs else [])])
    found, adata = made(data, obs, out, seed, force, given)
    from agevi.cli._report import write_report

    report = write_report(adata, out / REPORT)
    if as_json:
        from agevi.cli._outputs import say_json

        tables = {name: table for name, table in found.tables.items() if name not in ("genes", "pathways")}
        paths = {"report": report, "clock": out / "clock", "tables": out / "tables"}
        said = {"verdict": found.verdict, "beats_median": found.beats_median}
        say_json({**said, **{name: str(path) for name, path in paths.items()}, **tables})
        return
    click.echo(in_options(repr(found)))
    click.echo(f"Report: {report}")


def made(data: Path, obs: Path | None, out: Path, seed: int, force: bool, given: dict[str, Any]) -> tuple[Any, Any]:
    """The study of a file, and its cells with what the study wrote to them."""
    import agevi
    from agevi.cli._inputs import read_ages, read_cells
    from agevi.tl.full_study._folder import OTHER, check_out, remove_study
    from agevi.tl.full_study._plan import Arguments, make_plan

    check_out(out)
    adata = read_cells(data, obs)
    read_ages(adata, given["age_key"], given.pop("parse_ages", None), given.get("age_unit", "years"))
    if force and out.exists():
        make_plan(adata, Arguments(**{**given, "key_added": "agevi"}), seed)  # refused before anything is removed
        remove_study(out)
    try:
        with steps_shown():
            return agevi.tl.study(adata, **given, rng=seed, out=out), adata
    except ValueError as error:
        if OTHER not in str(error):
            raise
        said = re.sub(r"(?<=[:;] )\w+(?= was | differs)", lambda found: OPTIONS.get(found[0], found[0]), str(error))
        raise DataError(said.replace("Pass a new directory,", "Pass --force to replace them, a new folder,")) from error


@contextmanager
def steps_shown() -> Iterator[None]:
    """One line on stderr for each step of a study."""
    logger, handler = logging.getLogger("agevi.tl.full_study"), _Lines()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        logger.propagate = True


class _Lines(logging.Handler):
    """Lines on stderr, above a progress bar where one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        click.echo(in_options(record.getMessage()), err=True)
