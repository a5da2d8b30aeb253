"""The folder of a study: what it is of, what it resumes from, and its results, each whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names
from agevi._compat import version
from agevi._source import read
from agevi.io._csv import write_csv
from agevi.io._folder import as_text, check_path, claim, digest, matrix_digest, recorded
from agevi.io._out import put
from agevi.tl.full_study._plan import Arguments
from agevi.tl.validate._arguments import with_matrix
from agevi.tl.validate._recipe import recipe_of

MANIFEST, RESULT, TABLES = "study.json", "study.h5ad", "tables"
OTHER = "results of another study"


def check_out(out: Any) -> dict[str, Any]:
    """Refuse what is not the folder of a study, nor new or empty; what is recorded of the study in it."""
    try:
        check_path(out)
        return recorded(Path(out), MANIFEST) or {}
    except (TypeError, ValueError) as error:
        raise type(error)(_as_out(error)) from None


def claim_out(out: Any, adata: AnnData, given: Arguments, seed: int) -> Path:
    """The folder for a study of these data and arguments, refused where another study is in it."""
    try:
        path = claim(out, MANIFEST, _fingerprint(adata, given, seed), OTHER)
    except ValueError as error:
        raise ValueError(_as_out(error)) from None
    (path / TABLES).mkdir(exist_ok=True)
    for rest in path.rglob(".*.tmp"):  # what a killed call was writing
        rest.unlink()
    return path.resolve()


def _as_out(error: Exception) -> str:
    """A message about ``checkpoint_dir`` as one about ``out``."""
    return str(error.args[0]).replace("checkpoint_dir", "out")


def _fingerprint(adata: AnnData, given: Arguments, seed: int) -> dict[str, Any]:
    """Everything that the results depend on, by the name that a message gives it."""
    arguments = {name: as_text(value) for name, value in asdict(given).items() if name != "reference"}
    arguments["reference"] = "" if given.reference is None else _names.name(given.reference)
    columns = {key: digest(_text(adata.obs[key])) for key in _columns(given)}
    columns = {f"adata.obs[{key!r}]": value for key, value in columns.items()}
    keys = {"age_key": given.age_key, "subject_key": given.subject_key, "sample_key": given.sample_key}
    setup = recipe_of("PLSClock", keys, with_matrix(None, given.layer, given.obsm_key)).full_setup
    source = read(adata, setup)
    values = matrix_digest(_checks.matrix(source, setup["layer"]))
    genes = digest(source.var_names.to_numpy(dtype=object))
    return {"version of agevi": version("agevi"), **arguments, "rng": seed, **columns, "values": values, "genes": genes}


def _columns(given: Arguments) -> list[str]:
    """Columns of ``obs`` that are read."""
    keys = (given.age_key, given.subject_key, given.sample_key, given.cell_type_key, given.condition_key)
    return list(dict.fromkeys(key for key in (*keys, *given.covariates) if key is not None))


def _text(values: pd.Series) -> np.ndarray:
    """A column as text."""
    return values.astype(object).map(str, na_action=None).to_numpy(dtype=object)


def write_results(path: Path, adata: AnnData, given: Arguments, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the tables and what the study wrote to ``adata``, without its values."""
    for name, table in tables.items():
        write_csv(path / TABLES / f"{name}.csv", table)
    mine = given.key_added
    columns = [*_columns(given), *(c for c in adata.obs if str(c).startswith(f"{mine}_"))]
    slots = AnnData(
        obs=adata.obs[list(dict.fromkeys(columns))].copy(),
        var=adata.var[[]].copy(),
        uns={k: v for k, v in adata.uns.items() if k == mine or str(k).startswith(f"{mine}_")},
        varm={k: v for k, v in adata.varm.items() if str(k).startswith(f"{mine}_")},
    )
    put(path / RESULT, slots)


def remove_study(out: Path) -> None:
    """Remove the folder of a study, and nothing that is not one."""
    check_out(out)
    shutil.rmtree(out)


def default_seed(stored: Mapping[str, Any], rng: Any) -> Any:
    """``rng``, or for None the seed of the study that is there."""
    return stored["rng"] if rng is None and "rng" in stored else rng
