"""Options that several commands share, each described once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agevi.cli._errors import Agevi

F = TypeVar("F", bound=Callable[..., Any])
EXISTING = click.Path(exists=True, path_type=Path)
NEW = click.Path(path_type=Path)


def _debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    Agevi.debug = Agevi.debug or value


debug = click.option(
    "--debug", is_flag=True, expose_value=False, is_eager=True, callback=_debug,
    help="Show where in the code an error came from.",
)  # fmt: skip
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
force = click.option("--force", is_flag=True, help="Replace what is at --out.")
data = click.argument("data", type=EXISTING)
obs = click.option(
    "--obs",
    type=EXISTING,
    help="CSV table with more columns. Its first column holds names of cells, or is called like a column of the data "
    "(the donor, say), by whose values it is joined.",
)
age = click.option("--age", "age_key", required=True, metavar="COLUMN", help="Column with the age.")
age_unit = click.option(
    "--age-unit",
    type=click.Choice(("years", "months", "weeks", "days")),
    default="years",
    show_default=True,
    help="Unit of the ages.",
)
parse_ages = click.option(
    "--parse-ages",
    type=click.Choice(("midpoint", "lower", "drop")),
    help='Read ages from text such as "41 years", "60-69" or ">89"; says what a bin becomes.',
)
subject = click.option(
    "--subject", "subject_key", required=True, metavar="COLUMN",
    help="Column with the donor or animal: all its cells are held out together.",
)  # fmt: skip
sample = click.option(
    "--sample", "sample_key", metavar="COLUMN", help="Column with the visit or biopsy, where donors have several."
)
cell_type = click.option(
    "--cell-type", "cell_type_key", metavar="COLUMN", help="Column with the type of each cell: each type gets a clock."
)
layer = click.option("--layer", metavar="NAME", help="Layer with the raw counts, where they are not in X.")
obsm = click.option("--obsm", "obsm_key", metavar="NAME", help="Embedding to read in place of genes, such as X_scVI.")
seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all that is drawn."
)
clock = click.option(
    "--clock", required=True, metavar="CLOCK", help="Folder of a clock, or the name of one that `agevi clocks` lists."
)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator for several options, which stand in the help in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
