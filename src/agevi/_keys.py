"""Every name that agevi writes to an AnnData, and the form in which values may be stored there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DEFAULT_KEY = "agevi"
ANCHORED = "_anchored"
"""What is added to the key of predictions out of fold for those at the level of the anchor."""
SPLIT = "agevi_split"
CONTRAST = "agevi_contrast"
"""Slot of ``uns`` with what :func:`agevi.pp.contrast_types` compared."""
SUMS = "agevi_sums"
"""Slot of ``uns`` with what :func:`agevi.pp.sum_samples` summed; rows of such data are sums of cells."""
N_CELLS = "n_cells"
"""Column of ``obs`` with the cells in every row of such data."""
SUM_LIBRARY_SQUARES = "agevi_sum_library_squares"
"""Column of ``obs`` with the sum over the cells of a row of l^2, l the counts of a cell."""
SUM_SQUARES = "agevi_sum_squares"
"""Layer with the sum of x^2 over the cells of a row."""
SUM_LIBRARY_PRODUCTS = "agevi_sum_library_products"
"""Layer with the sum of l x over the cells of a row."""
FEATURE_SET = "agevi_feature_set"
"""Column of ``obs`` with the data set of every sample, which tells the features that were measured in it."""
ATTRIBUTION_PARTS = ("", "signed", "se", "rank_low", "rank_high", "selected")
"""What :func:`agevi.tl.attribute_genes` stores of every gene."""
MEASURED = "agevi_measured"
"""Slot of ``varm`` (n_vars, n_sets) with what each data set measured, and of ``uns`` with the names of the sets."""

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
OUT_OF_FOLD = "out_of_fold"
NEW = "new"
RECALIBRATION = "recalibration"
"""Role of the labelled samples of a cohort whose predictions :func:`agevi.tl.recalibrate` moved by them."""
SPLIT_ROLES = (TRAIN, VALIDATION, TEST)
ROLES = (TRAIN, VALIDATION, TEST, OUT_OF_FOLD, NEW, RECALIBRATION)
FITTED_ROLES = (TRAIN, VALIDATION)
SHAPED_ROLES = (*FITTED_ROLES, RECALIBRATION)
"""Roles whose ages shaped their predictions, of which nothing may be judged."""
HELD_OUT_ROLES = (TEST, OUT_OF_FOLD, NEW)
"""Roles whose ages did not shape the fitted weights, so that statistics on age gaps may use them."""


def check(value: Any, argument: str) -> None:
    """Refuse what cannot be the prefix of slots."""
    if not isinstance(value, str):
        raise TypeError(
            f"{argument}={value!r} is a {type(value).__name__}; pass text, the prefix of the slots, such as "
            f"{DEFAULT_KEY!r}."
        )
    if not value.strip():
        raise ValueError(f"{argument}={value!r} is empty; pass the prefix of the slots, such as {DEFAULT_KEY!r}.")


@dataclass(frozen=True)
class Slot:
    """A slot of AnnData: where it lies, its name around ``{key}``, which functions write it, and what it holds."""

    where: str
    pattern: str
    writers: str
    content: str
    of_predictions: bool = False  # whether it goes when other predictions are written under the key


def _table(
    noun: str, writer: str, content: str, params: str = "Arguments of that call.", *, of_predictions: bool = False
) -> dict[str, Slot]:
    """The slots of a tool's table: the table itself, and its parameters."""
    own = Slot("uns", f"{{key}}_{noun}", writer, content, of_predictions)
    return {noun: own, f"{noun}_params": Slot("uns", f"{{key}}_{noun}_params", writer, params, of_predictions)}


_from_predictions = partial(_table, of_predictions=True)
_PREDICTS = "tl.predict_age, tl.cross_validate"
SLOTS: dict[str, Slot] = {
    "uns": Slot(
        "uns", "{key}", _PREDICTS, "The clock, its version, columns and unit of ages, coverage of genes, arguments."
    ),
    "predicted": Slot("obs", "{key}_predicted", _PREDICTS, "Predicted age, float32, in the unit of the age column."),
    "predicted_sample": Slot(
        "obs",
        "{key}_predicted_sample",
        _PREDICTS,
        "Age predicted from the sum of the cell's sample, by clocks of sums.",
        of_predictions=True,
    ),
    "cell_deviation": Slot(
        "obs",
        "{key}_cell_deviation",
        "tl.predict_age",
        "Deviation of a cell from its sample, by clocks of sums, on request.",
        of_predictions=True,
    ),
    "cell_signal": Slot(
        "obs",
        "{key}_cell_signal",
        "tl.cell_age_signal",
        "What a cell adds to the predicted age of its sample, centred within sample and type.",
        of_predictions=True,
    ),
    "cell_signal_params": Slot(
        "uns",
        "{key}_cell_signal_params",
        "tl.cell_age_signal",
        "Arguments of that call, and the unit.",
        of_predictions=True,
    ),
    "role": Slot("obs", "{key}_role", _PREDICTS, "What the cell's subject was to the clock: one of `_keys.ROLES`."),
    "fold": Slot(
        "obs", "{key}_fold", "tl.cross_validate", "Fold in which the cell's subject was held out.", of_predictions=True
    ),
    "latent": Slot(
        "obsm", "X_{key}", "tl.predict_age", "Latent representation, of clocks that have one.", of_predictions=True
    ),
    "subjects": Slot(
        "uns", "{key}_subjects", "tl.aggregate_subjects, tl.cross_validate", "One row per sample.", of_predictions=True
    ),
    "anchor": Slot(
        "uns",
        "{key}_anchor",
        _PREDICTS,
        "Age of each sample by the anchor of a clock of cell types, for `tl.recalibrate`.",
        of_predictions=True,
    ),
    **_from_predictions("by_group", "tl.cross_validate", "Predictions of each sample by the clock of each group."),
    **_from_predictions(
        "acceleration", "tl.age_acceleration", "Tables `samples` and `groups`: differences in age at equal age."
    ),
    **_from_predictions(
        "calibration", "tl.calibrate", "Coverage and width of intervals.", "The calibration itself, and the arguments."
    ),
    **_table("correlation", "tl.age_correlation", "Correlation of each component of a representation with age."),
    **_table("enrichment", "tl.enrich", "Enrichment of each gene set in a ranking of genes."),
    **_table("leaderboard", "tl.compare_models", "Accuracy of each model."),
    "leaderboard_predictions": Slot(
        "uns", "{key}_leaderboard_predictions", "tl.compare_models", "Held-out predictions of each model."
    ),
    **_from_predictions(
        "explanation",
        "tl.explain_age",
        "Tables `samples` and `groups`: what each type of cells adds to ages.",
    ),
    **_table("learning_curve", "tl.learning_curve", "Error against the number of subjects and of cells."),
    **_from_predictions("metrics", "tl.evaluate_by", "Accuracy overall and per group of samples."),
    **_table("neuron_clock_study", "tl.neuron_clock_study", "Error of each row of the study."),
    "neuron_clock_study_predictions": Slot(
        "uns", "{key}_neuron_clock_study_predictions", "tl.neuron_clock_study", "Predictions of each row of the study."
    ),
    **_from_predictions("normative", "tl.normative_scores", "Score of each sample among references of its age."),
    **_table("perturbation", "tl.perturb_genes", "Change of the predicted age for each gene and group."),
    **_from_predictions("posterior", "tl.subject_posterior", "Age of each subject with its uncertainty."),
    **_table("programs", "tl.age_programs", "Part of each program in the predicted age."),
    "programs_genes": Slot("varm", "{key}_programs", "tl.age_programs", "Weight of each gene in each program."),
    **_from_predictions("recalibration", "tl.recalibrate", "What moved the predictions of each cohort."),
    **_table("study", "tl.study", "Steps of a study, each with its calls.", "Arguments, seed, version and verdict."),
    "study_audit": Slot("uns", "{key}_study_audit", "tl.study", "Findings that could make a clock look too good."),
    "study_role": Slot("obs", "{key}_study_role", "tl.study", "Role of every cell in the training of the final clock."),
    **_table("transfer", "tl.compare_transfer", "Accuracy of a classifier with and without the clock's weights."),
    **_from_predictions("trend", "tl.trend_test", "Trend of predicted age along ordered groups."),
    "attribution": Slot(
        "varm", "{key}_attribution", "tl.attribute_genes", "Attribution of each gene in each group, (n_vars, n_groups)."
    ),
    "attribution_signed": Slot("varm", "{key}_attribution_signed", "tl.attribute_genes", "The same with a sign."),
    "attribution_se": Slot("varm", "{key}_attribution_se", "tl.attribute_genes", "Its standard error over subjects."),
    **{
        f"attribution_{part}": Slot("varm", f"{{key}}_attribution_{part}", "tl.attribute_genes", content)
        for part, content in {
            "rank_low": "Lower end of the 95 % interval of the gene's rank.",
            "rank_high": "Upper end of that interval.",
            "selected": "Share of draws of subjects in which the gene is selected.",
        }.items()
    },
    "attribution_groups": Slot(
        "uns", "{key}_attribution", "tl.attribute_genes", "Names of the groups, and the arguments."
    ),
    "attribution_cells": Slot(
        "layers", "{key}_attribution", "tl.attribute_genes", "Attributions of cells, on request."
    ),
}
"""Every slot under a ``key_added``, by its attribute of :class:`Keys`; the docs have a page made from it."""


@dataclass(frozen=True)
class Keys:
    """Names of the slots of one ``key_added``, as ``Keys("mine").calibration_params``; :data:`SLOTS` declares them."""

    key_added: str = DEFAULT_KEY

    def __post_init__(self) -> None:
        check(self.key_added, "key_added")

    def __getattr__(self, name: str) -> str:
        if name not in SLOTS:
            raise AttributeError(f"{name!r} is not a slot of agevi; declare it in agevi._keys.SLOTS.")
        return SLOTS[name].pattern.format(key=self.key_added)

    def attribution(self, part: str = "") -> str:
        """Slot of ``varm`` with the attributions of genes, or with another ``part`` of them, such as ``"signed"``."""
        return self.table(f"attribution_{part}" if part else "attribution")

    def table(self, noun: str) -> str:
        """Slot of ``uns`` with the table of a tool, for a noun in a variable; ``keys.metrics`` where it is known."""
        return self.__getattr__(noun)

    def table_params(self, noun: str) -> str:
        """Slot of ``uns`` with the parameters of that table."""
        return f"{self.table(noun)}_params"


def clock_of(uns: Mapping[Any, Any], age_key: str, key_added: str = DEFAULT_KEY) -> str | None:
    """Slot of ``uns`` with what predicted from these very ages, whose unit they have; None without one."""
    record = uns.get(key_added)
    return key_added if isinstance(record, Mapping) and record.get("age_key") == age_key else None


def to_uns(value: Any) -> Any:
    """The same value in types that both h5ad and zarr can store."""
    # Anything else is refused, so that a file is never half-written because of it.
    if isinstance(value, Mapping):
        return {str(k): to_uns(v) for k, v in value.items() if v is not None}
    if isinstance(value, pd.DataFrame):
        return _plain_frame(value)
    if isinstance(value, np.random.Generator):
        return f"numpy.random.Generator({type(value.bit_generator).__name__})"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return to_uns(sorted(value))
    if isinstance(value, (list, tuple)):
        return _plain_sequence(list(value))
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, np.ndarray)):
        return "" if value is None else value
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored in adata.uns; pass plain values.")


def _plain_sequence(values: list[Any]) -> np.ndarray:
    """A list as a one-dimensional array of one dtype (text where types differ)."""
    plain = [to_uns(v) for v in values]
    kinds = {type(v) for v in plain}
    if kinds <= {int} or kinds <= {float, int} or kinds == {bool}:
        return np.asarray(plain)
    return np.asarray([str(v) for v in plain], dtype=object)


def _plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy with a plain string index that is not also a column."""
    out = frame.copy()
    out.index = pd.Index(out.index.astype(str), dtype=object).rename(None if out.index.name in out else out.index.name)
    out.columns = out.columns.astype(str)
    return out
