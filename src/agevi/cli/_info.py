"""``agevi info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agevi.cli import _options as options
from agevi.cli._errors import one_line

MOST = 8
EPILOG = """\b
Examples
  agevi info cohort.h5ad
  agevi info cohort.h5ad --age age --subject donor --cell-type cell_type
  agevi info new.h5ad --clock results/clock
  agevi info results/clock
  agevi info horvath_2013"""


@click.command(epilog=EPILOG)
@options.together(
    click.argument("what"),
    click.option("--age", "age_key", metavar="COLUMN", help="With --subject: would `agevi study` take these columns?"),
    options.age_unit, options.parse_ages,
    click.option("--subject", "subject_key", metavar="COLUMN", help="Column with the donor or animal."),
    options.sample, options.cell_type,
    click.option("--condition", "condition_key", metavar="COLUMN", help="Column with the groups to compare."),
    click.option("--reference", metavar="GROUP", help="The group that the others are compared with."),
    click.option("--covariate", "covariates", multiple=True, metavar="COLUMN", help="Column to adjust for."),
    options.layer, options.obsm, options.obs,
    click.option("--clock", metavar="CLOCK", help="Would this clock predict the data?"),
    options.as_json, options.debug,
)  # fmt: skip
def info(what: str, obs: Path | None, clock: str | None, as_json: bool, **given: Any) -> None:
    """What is in a file of cells or in a clock, and what would be refused and why.

    WHAT is a file or folder of cells, the folder of a clock, or the name of a ready-made clock.
    """
    from agevi.cli._outputs import say_json

    if bool(given["age_key"]) != bool(given["subject_key"]):
        raise click.UsageError("--age and --subject go together.")
    path = Path(what)
    is_clock = (path / "clock.json").is_file() or not path.exists()
    found = of_clock(what) if is_clock else of_cells(path, obs, clock, given)
    if as_json:
        found.pop("card", None)
        say_json(found)
        return
    click.echo(found.pop("card", None) or "\n".join(_lines(found)))


def of_clock(what: str) -> dict[str, Any]:
    """What a saved clock says of itself."""
    import agevi
    from agevi.io._load import found

    bundle, clock = found(what), agevi.io.load_clock(what)
    age = bundle.meta.get("age", {})
    return {
        "kind": "clock",
        "class": type(clock).__name__,
        "features": len(clock.genes),
        "unit": age.get("unit"),
        "subjects": age.get("n_subjects"),
        "ages": [age.get("min"), age.get("max")],
        "evaluation": clock.evaluation,
        "calibrated": clock.calibration is not None,
        "versions": bundle.meta.get("versions"),
        "card": bundle.card,
    }


def of_cells(path: Path, obs: Path | None, clock: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """What is in a file of cells, and whether it would be taken."""
    from agevi.cli._inputs import kind_of, read_cells

    adata = read_cells(path, obs, backed=given["age_key"] is None)
    found: dict[str, Any] = {
        "kind": kind_of(path),
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "columns": {str(name): _column(adata.obs[name]) for name in adata.obs},
        "layers": sorted(adata.layers),
        "obsm": sorted(adata.obsm),
        "made by agevi": sorted(name for name in adata.uns if str(name).startswith("agevi")),
    }
    if given["age_key"] is not None:
        found["agevi study"] = _study(adata, given)
    if clock is not None:
        found["agevi predict"] = _predict(adata, clock, given["sample_key"])
    return found


def _study(adata: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What a study would make of the data, or why it would refuse them."""
    from agevi.cli._inputs import read_ages
    from agevi.tl.full_study._plan import Arguments, make_plan

    try:
        read_ages(adata, given["age_key"], given.pop("parse_ages"), given["age_unit"])
        plan = make_plan(adata, Arguments(**given, quick=False, key_added="agevi"), 0)
    except (KeyError, TypeError, ValueError) as error:
        return {"refused": one_line(error)}
    out: dict[str, Any] = {"refused": "", "clock": plan.clock, "subjects with an age": plan.n_subjects}
    if plan.given.cell_type_key and not plan.typed:
        out["types left out"] = plan.no_types
    if plan.given.condition_key:
        out["trains"] = plan.comparison.why
        out["comparison left out"] = plan.comparison.left_out
    return out


def _predict(adata: Any, clock: str, sample_key: str | None) -> dict[str, Any]:
    """Whether a clock would predict the data, from its genes and the first cells."""
    import agevi

    model = agevi.io.load_clock(clock)
    try:
        coverage = float(model.gene_coverage(adata, 0.8))
        few = adata[: min(adata.n_obs, 200)]
        agevi.tl.predict_age(few.to_memory(), model, sample_key=sample_key, overwrite=True)
    except (KeyError, TypeError, ValueError) as error:
        return {"refused": one_line(error)}
    return {"refused": "", "features found": f"{coverage:.0%}"}


def _column(values: Any) -> dict[str, Any]:
    """Kind of a column, its values or their range, and how many are missing."""
    import pandas as pd

    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    known = values.dropna()
    out: dict[str, Any] = {"kind": "numbers" if numeric else "text", "different": int(known.nunique())}
    if numeric and len(known):
        out["range"] = [float(known.min()), float(known.max())]
    elif len(known):
        out["values"] = [str(v) for v in known.unique()[:MOST]]
    missing = int(values.isna().sum())
    return out | ({"missing": missing} if missing else {})


def _lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    out = [f"{found['kind']}: {found['cells']:,} cells x {found['genes']:,} genes", "columns of the cells:"]
    for name, column in found["columns"].items():
        what = f"{column['kind']}, {column['different']:,} different"
        if "range" in column:
            what += ", {:g} to {:g}".format(*column["range"])
        if "values" in column:
            what += ": " + ", ".join(column["values"]) + (", ..." if column["different"] > MOST else "")
        out.append(f"  {name}: {what}" + (f"; {column['missing']:,} missing" if "missing" in column else ""))
    for name in ("layers", "obsm", "made by agevi"):
        if found[name]:
            out.append(f"{name}: {', '.join(map(str, found[name]))}")
    for command in ("agevi study", "agevi predict"):
        if command in found:
            refused = found[command].pop("refused")
            told = ", ".join(f"{name}: {value}" for name, value in found[command].items() if value not in ("", None))
            out.append(f"{command} would refuse it: {refused}" if refused else f"{command} would take it ({told})")
    return out
