"""The command ``agevi`` and its sub-commands; what they need is imported when they run."""

from __future__ import annotations

import click

from agevi.cli._clocks import clocks
from agevi.cli._demo import demo
from agevi.cli._errors import Agevi
from agevi.cli._info import info
from agevi.cli._options import debug
from agevi.cli._predict import predict
from agevi.cli._report import report
from agevi.cli._study import study
from agevi.cli._train import train

EPILOG = """\b
Begin with
  agevi demo
and then, with your own cells,
  agevi info cohort.h5ad
  agevi study cohort.h5ad --age age --subject donor --out results
\b
Exit codes: 0 done, 1 the data cannot be used, 2 the command was mistyped.
Errors are one line; --debug shows more."""


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        import agevi

        click.echo(f"agevi {agevi.__version__}")
        ctx.exit()


@click.group(
    cls=Agevi,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@debug
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Ageing clocks from single cells: how old the cells of a donor look, and how sure that is.

    A clock learns to predict the age of donors from the counts of their cells, and is judged by donors that it
    never saw.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (study, train, predict, report, info, clocks, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    cli.main(prog_name="agevi")
