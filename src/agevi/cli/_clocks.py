"""``agevi clocks``."""

from __future__ import annotations

import click

from agevi.cli import _options as options

COLUMNS = ["cells", "species", "class", "features", "donors", "unit", "mae", "mae_other_cohorts"]


@click.command(epilog="\b\nExample\n  agevi predict new.h5ad --clock tcells_cd4 --sample donor --out ages.csv")
@options.together(options.as_json, options.debug)
def clocks(as_json: bool) -> None:
    """List the clocks that come with agevi.

    mae is the error on held-out donors of the training cohorts, mae_other_cohorts that in other laboratories, which is
    what you can expect. `agevi info NAME` tells more.
    """
    import agevi
    from agevi.cli._outputs import rows, say_json

    table = agevi.clocks.list()
    if as_json:
        say_json(rows(table.rename_axis("name").reset_index()))
        return
    shown = table[COLUMNS].round(2).astype(object).where(table[COLUMNS].notna(), "")
    click.echo(shown.rename_axis(None).to_string(max_colwidth=28))
