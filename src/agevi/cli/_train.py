"""``agevi train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options

MODELS = (
    "auto", "PLSClock", "CellTypeClock", "ElasticNetClock", "MLPClock", "PoissonVAE", "GaussianVAE", "DenoisingVAE",
    "NMFClock",
)  # fmt: skip
EPILOG = """\b
Examples
  agevi train cohort.h5ad --age age --subject donor --out clock
  agevi train cohort.h5ad --age age --subject donor --cell-type cell_type --out clock
  agevi predict new.h5ad --clock clock --out ages.csv"""


@click.command(epilog=EPILOG)
@options.together(
    options.data, options.age, options.age_unit, options.parse_ages, options.subject, options.sample, options.cell_type,
    click.option(
        "--model", type=click.Choice(MODELS), default="auto", show_default=True,
        help="auto: a clock per type with --cell-type, else PLSClock. The others are for those who know why.",
    ),
    options.layer, options.obsm, options.obs,
    click.option("--out", required=True, type=options.NEW, metavar="FOLDER", help="Folder for the clock."),
    options.seed, options.force, options.as_json, options.debug,
)  # fmt: skip
def train(
    data: Path, obs: Path | None, model: str, out: Path, seed: int, force: bool, as_json: bool, **given: Any
) -> None:
    """Train a clock on all donors, with its error and its intervals from donors held out.

    The folder of the clock holds a card, README.md, which says on whom it was trained and how well it predicts
    donors that it never saw. For a report and a comparison of groups take `agevi study`.
    """
    from agevi.cli._outputs import check_new

    check_new(out, [data, *([obs] if obs else [])], force=force, folder=True)
    from dataclasses import replace

    from agevi.cli._inputs import read_ages, read_cells
    from agevi.cli._study import steps_shown
    from agevi.tl.full_study._plan import Arguments, make_plan
    from agevi.tl.full_study._steps import Run

    if model == "CellTypeClock" and given["cell_type_key"] is None:
        raise click.UsageError("--model CellTypeClock needs --cell-type=COLUMN.")
    adata = read_cells(data, obs)
    read_ages(adata, given["age_key"], given.pop("parse_ages"), given["age_unit"])
    none: dict[str, Any] = {
        "condition_key": None,
        "reference": None,
        "covariates": (),
        "quick": False,
        "key_added": "agevi",
    }
    plan = make_plan(adata, Arguments(**given, **none), seed)
    if model not in ("auto", plan.clock):
        plan = replace(
            plan, clock=model, setup_kwargs=plan.given.unit, model_kwargs={}, no_types="--model is for all cells"
        )
    run = Run(adata, plan, None)
    with steps_shown():
        verdict = run.trained()
    run.log.variables["clock"].save(out, overwrite=force)
    if as_json:
        from agevi.cli._outputs import say_json

        accuracy = run.log.variables["accuracy"]
        said = {"clock": str(out), "class": plan.clock, "verdict": verdict.text, "beats_median": verdict.beats_median}
        say_json({**said, "accuracy": accuracy})
        return
    click.echo(verdict.text)
    click.echo(f"{plan.clock} saved in {out}; its card is {out / 'README.md'}")
