"""``agevi demo``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options
from agevi.cli._errors import in_options

N_SUBJECTS, N_CELLS, N_NEW, N_SHOWN = 300, 30, 30, 10
EPILOG = """\b
What it shows, with files that it writes to demo_output:
  agevi study demo_output/cohort.h5ad --age age --subject donor --cell-type cell_type --out demo_output/results
  agevi predict demo_output/new.h5ad --clock demo_output/results/clock --out demo_output/ages.csv"""


@click.command(epilog=EPILOG)
@options.together(
    click.option(
        "--out", type=options.NEW, default=Path("demo_output"), show_default=True, metavar="FOLDER",
        help="Folder for the cells and the results.",
    ),
    click.option("--quick", is_flag=True, help="Fewer donors, a few seconds."),
    options.as_json, options.debug,
)  # fmt: skip
def demo(out: Path, quick: bool, as_json: bool) -> None:
    """A study from end to end on T cells of blood donors that come with agevi, in a few minutes and offline.

    The differences between donors are real; the cells are drawn from one profile per donor and type.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "cohort.h5ad").exists())):
        raise click.UsageError(f"--out={str(out)!r} holds other files; pass a new folder.")
    from agevi.cli import _predict, _report, _study
    from agevi.cli._outputs import rows, say_json, write_table

    out.mkdir(parents=True, exist_ok=True)
    cohort, new, results = out / "cohort.h5ad", out / "new.h5ad", out / "results"
    _write_cells(cohort, new, quick=quick)
    given = {
        "age_key": "age", "subject_key": "donor", "sample_key": None, "cell_type_key": "cell_type",
        "condition_key": None, "reference": None, "covariates": (), "layer": None, "obsm_key": None, "quick": quick,
    }  # fmt: skip
    found, adata = _study.made(cohort, None, results, 0, (results / "study.json").exists(), given)
    report = _report.write_report(adata, results / _study.REPORT)
    import agevi
    from agevi.cli._inputs import read_cells

    table = _predict.predicted(read_cells(new), agevi.io.load_clock(results / "clock"), None, None)
    write_table(out / "ages.csv", table)
    if as_json:
        said = {"verdict": found.verdict, "beats_median": found.beats_median}
        say_json({**said, "new": rows(table), "report": str(report)})
        return
    click.echo(f"\n{in_options(repr(found))}\n")
    click.echo(f"The first of {N_NEW} donors that took no part, from {out / 'ages.csv'}:\n{_shown(table)}\n")
    click.echo(EPILOG.removeprefix("\b\n").replace("demo_output", str(out)))
    click.echo(f"\nReport: {report}")


def _shown(table: Any) -> str:
    """Samples as text."""
    columns = [name for name in ("sample", "age", "predicted", "lower", "upper") if name in table]
    return str(table[columns].head(N_SHOWN).round(1).to_string(index=False))


def _write_cells(cohort: Path, new: Path, *, quick: bool) -> None:
    """Cells of the donors of the study, and of donors that take no part in it."""
    import agevi

    n = 60 if quick else N_SUBJECTS
    adata = agevi.datasets.tcells(n + N_NEW, 20 if quick else N_CELLS, cell_types=("CD4 T", "CD8 T"))
    donors = adata.obs["donor"].astype(str)
    last = donors.isin(sorted(set(donors))[:: (n + N_NEW) // N_NEW][:N_NEW]).to_numpy()
    for path, cells in ((cohort, ~last), (new, last)):
        part = path.with_name(f".{path.name}.tmp")
        adata[cells].copy().write_h5ad(part)
        os.replace(part, path)
