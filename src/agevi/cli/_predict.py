"""``agevi predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options

EPILOG = """\b
Examples
  agevi predict new.h5ad --clock results/clock --out ages.csv
  agevi predict blood.h5ad --clock tcells_cd4 --sample donor
\b
Columns of the table: sample, subject, age (where the data have it), predicted, n_cells, role, and lower and
upper, between which the age of a new donor lies with 90 % where the clock is calibrated. The role "train"
marks donors that trained the clock: their predictions say nothing about how good it is."""


@click.command(epilog=EPILOG)
@options.together(
    options.data, options.clock,
    click.option(
        "--sample", "sample_key", metavar="COLUMN", help="Column with the donor or visit whose cells are one sample."
    ),
    click.option(
        "--by", metavar="COLUMN", help="Column with the cohort: warns of those that the clock was not made for."
    ),
    options.obs,
    click.option("--out", type=options.NEW, metavar="FILE", help="CSV file; without it the table is printed."),
    options.force, options.as_json, options.debug,
)  # fmt: skip
def predict(
    data: Path, clock: str, sample_key: str | None, by: str | None, obs: Path | None, out: Path | None, force: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Predict the age of every sample in DATA with a saved clock; ages are not needed.

    h5ad files are read in blocks, so that they may be larger than the memory.
    """
    from agevi.cli._outputs import check_new, rows, say_json, write_table

    if out is not None:
        check_new(out, [data, Path(clock), *([obs] if obs else [])], force=force)
    import agevi
    from agevi.cli._inputs import read_cells

    model = agevi.io.load_clock(clock)
    adata = read_cells(data, obs, backed=True)
    table = predicted(adata, model, sample_key, by)
    if out is not None or not as_json:
        write_table(out, table)
    if as_json:
        said = {} if out is None else {"out": str(out)}
        say_json({"clock": clock, "unit": adata.uns["agevi"]["age_unit"], **said, "samples": rows(table)})
    elif out is not None:
        click.echo(f"{len(table):,} samples in {out}")


def predicted(adata: Any, model: Any, sample_key: str | None, by: str | None) -> Any:
    """The table of samples, or of rows for a published clock where nothing names the samples."""
    import agevi

    agevi.tl.predict_age(adata, model, sample_key=sample_key, by=by, overwrite=True)
    record = adata.uns["agevi"]
    key = sample_key or record.get("sample_key")
    if not key or key not in adata.obs:
        ages = adata.obs["agevi_predicted"]
        return ages.rename("predicted").rename_axis("sample").reset_index()
    _read_ages(adata, record.get("age_key"), key, record["age_unit"])
    agevi.tl.aggregate_subjects(adata)
    return agevi.get.subjects_df(adata)


def _read_ages(adata: Any, age_key: Any, sample_key: str, unit: Any) -> None:
    """Read ages that are text, and leave out those that cannot be used: predictions do not need them."""
    import agevi

    if age_key not in adata.obs:
        return
    what = ""
    if adata.obs[age_key].dtype.kind not in "iuf":
        try:
            agevi.pp.parse_age(adata, age_key, age_unit=unit)
            what = "were read as numbers, bins (if any) as their midpoints"
        except ValueError:
            del adata.obs[age_key]
            what = "cannot be read as ages and are left out"
    if age_key in adata.obs and (adata.obs.groupby(sample_key, observed=True)[age_key].nunique() > 1).any():
        del adata.obs[age_key]
        what = f"differ between cells of one {sample_key!r} and are left out"
    if what:
        click.echo(f"values of {age_key!r} {what}", err=True)
