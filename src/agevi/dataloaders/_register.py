"""Registration of an AnnData for a clock: all gates first, then scvi-tools' fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names, _units
from agevi._ages import ADULT, YEAR
from agevi._compat.scvi import REGISTRY_KEYS, AnnDataManager, LayerField, NumericalJointObsField
from agevi._keys import MEASURED
from agevi._source import CLR, READERS, inner, place, read, where
from agevi.dataloaders import _fields
from agevi.dataloaders._measured import check_sets
from agevi.dataloaders._own_subjects import warn_of_cells
from agevi.dataloaders._summed import check_sums
from agevi.nn.heads import AGE_TRANSFORMS

CATEGORY_KEYS = ("modality_key", "tissue_key")
"""Arguments of ``setup_anndata`` that some clocks have; each names a categorical column that they read."""
MIN_OF_MODALITY = 2
ADVICE_OF_MASK = f"values that were not measured are 0 there, and False in adata.varm[{MEASURED!r}]"
RAW = "adata.raw"
NORMALIZE = ("log1p_cp10k", "none", CLR)


def check_setup(
    adata: AnnData,
    setup: dict[str, Any],
    *,
    counts: bool,
    model: str,
    require_ages: bool = True,
    from_disk: bool = False,
) -> tuple[pd.Series, pd.Series]:
    """Subject and sample of every cell, after every gate of ``setup_anndata``; nothing is written.

    ``require_ages``: the ages must be enough to train on. ``from_disk``: the matrix may be on disk.
    """
    _checks.anndata(adata)
    _checks.choice(setup["normalize"], NORMALIZE, "normalize")
    refuse_dimensions(setup, counts=counts, model=model)
    adata = read(adata, setup)
    if not from_disk:
        _checks.in_memory(adata)
    subject, sample = check_tables(adata, setup, require_ages=require_ages)
    _checks.not_a_view_on_disk(adata)
    x = _checks.matrix(adata, setup["layer"])
    _checks.by_rows(x, place(setup))
    check_sums(adata, x, place(setup))
    check_values(x, setup, counts=counts, model=model, source=adata)
    if counts or inner(setup["normalize"]) != "none":
        warn_of_cells(subject, x, setup["subject_key"])
    if CATEGORY_KEYS[0] in setup:
        check_sets(adata)
        check_modalities(adata, setup["modality_key"], sample)
    return subject, sample


def check_tables(adata: AnnData, setup: dict[str, Any], *, require_ages: bool = True) -> tuple[pd.Series, pd.Series]:
    """Subject and sample of every cell, after the gates of columns and names; values are not read."""
    _checks.choice(setup["age_unit"], tuple(YEAR), "age_unit")
    _checks.choice(setup["age_transform"], ("auto", *AGE_TRANSFORMS), "age_transform")
    if setup["age_transform"] == "horvath":
        _check_horvath(adata, setup, require_ages)
    _checks.unique_names(adata)
    if setup.get("cell_type_key"):
        cell_types(adata, setup["cell_type_key"], "cell_type_key")
    subject, sample = _units.units(adata, setup["subject_key"], setup["sample_key"])
    if require_ages:
        check_ages(adata, setup, subject, sample)
    for argument, keys in covariate_columns(setup):
        for key in keys:
            check_covariate(adata, key, argument)
    return subject, sample


def cell_types(adata: AnnData, key: str | None, argument: str) -> tuple[np.ndarray, list[str]]:
    """Position of each cell's type among the names of types, (n_cells,), -1 where missing; and the names."""
    values = type_names(adata, key, argument)
    if values.isna().all():
        raise ValueError(f"{_names.in_types(key)} is missing in all cells; {argument} needs the type of each cell.")
    return _names.coded(values, key or _names.ALL_CELLS)  # in an order without categories


def type_names(adata: AnnData, key: str | None, argument: str) -> pd.Series:
    """Name of each cell's type, (n_cells,), NaN where missing; without a column all cells are of one type."""
    if key is None:
        return pd.Series(_names.ALL_CELLS, index=adata.obs_names, dtype=object)
    return _names.names(_checks.column(adata, key, argument), _names.in_types(key))


def check_values(
    x: Any,
    setup: dict[str, Any],
    *,
    counts: bool,
    model: str,
    new: bool = False,
    empty_ok: bool = False,
    source: AnnData | None = None,
) -> None:
    """Refuse values that a clock cannot read; the message names where else in ``source`` there are counts.

    ``counts``: the model is fitted to raw counts. ``new``: a trained clock is given new data, which may be empty.
    """
    refuse_dimensions(setup, counts=counts, model=model)
    what = place(setup)
    if not counts and inner(setup["normalize"]) == "none":
        masked = CATEGORY_KEYS[0] in setup
        _checks.finite(x, what, advice=f"{ADVICE_OF_MASK}." if masked else "remove or fill them first.")
        return
    why = f"{model} is fitted to raw counts" if counts else f"{model} normalises raw counts itself"
    if new:
        advice = "Predict from the counts that the clock was trained on, in the same place."
    else:
        advice = "Pass them with layer=...."
        if not counts:
            advice = "Pass them with layer=..., or set normalize='none' for values that are normalised already."
    try:
        _checks.counts(x, what, why, advice=advice, empty_ok=new or empty_ok)
    except ValueError:
        found = "" if source is None else counts_in(source)
        if found in ("", what):
            raise
        if found == RAW:
            advice = f"{RAW} holds counts: adata = {RAW}.to_adata()."
        elif new:
            advice = f"{found} holds counts; predict from them: {what} = {found}."
        else:
            layer = found.removeprefix("adata.layers[").removesuffix("]") if found != where(None) else "None"
            advice = f"{found} holds counts; pass layer={layer}."
        _checks.counts(x, what, why, advice=advice, empty_ok=new or empty_ok)


def refuse_dimensions(setup: Mapping[str, Any], *, counts: bool, model: str) -> None:
    """Refuse tables of ``obsm`` for clocks of counts."""
    if counts and setup.get("obsm_key") is not None:
        raise ValueError(f"{model} is fitted to raw counts of genes and cannot read {place(setup)}; {READERS} can.")


def counts_in(adata: AnnData) -> str:
    """Where in ``adata`` raw counts are, as a message writes it: a layer, X or ``adata.raw``; "" where nowhere."""
    layers = {where(key): adata.layers[key] for key in adata.layers if key is not None}
    places = layers | {where(None): adata.X} | ({} if adata.raw is None else {RAW: adata.raw.X})
    return next((place for place, x in places.items() if x is not None and _checks.holds_counts(x)), "")


def absent_layer(adata: AnnData, layer: str, *, counts: bool) -> str:
    """What to say where new data lack the layer that a clock was trained on, and X does not take its place."""
    names = [str(key) for key in adata.layers if key is not None]
    start = (
        f"layer={layer!r}, which the clock reads, is not in adata.layers{_checks.closest(layer, names)} (available: "
        f"{_checks.listed(names) or 'none'})"
    )
    if not counts:
        return (
            f"{start}, and nothing shows that adata.X holds values that were normalised as in training; if it does: "
            f"{where(layer)} = adata.X."
        )
    found = counts_in(adata)
    if found == RAW:
        return f"{start}, and adata.X does not hold raw counts; {RAW} does: adata = {RAW}.to_adata()."
    if found:
        return f"{start}, and adata.X does not hold raw counts; {found} does: {where(layer)} = {found}."
    return (
        f"{start}, and adata.X does not hold raw counts; put the counts of these cells and genes into {where(layer)}."
    )


def _check_horvath(adata: AnnData, setup: dict[str, Any], require_ages: bool) -> None:
    """Refuse ages without a logarithm."""
    unit, key = setup["age_unit"], setup["age_key"]
    if not require_ages:
        return
    lowest = float(np.nanmin(_units.ages(adata, key, min_age=-np.inf, unit=unit)))
    if lowest <= -YEAR[unit]:
        raise ValueError(
            f"adata.obs[{key!r}] has an age of {lowest:g} {unit}; age_transform='horvath' takes the logarithm of age "
            f"+ 1 year, so ages are above -{YEAR[unit]:g} {unit}, prenatal ones too. Correct it, set it to NaN, or "
            "pass age_transform='none'."
        )


def check_horvath_unit(age_unit: str) -> None:
    """Refuse units of unknown length, since the transform of Horvath changes its form at an age in years."""
    if age_unit not in YEAR:
        raise ValueError(
            f"the transform 'horvath' changes its form at {ADULT:g} years, and age_unit={age_unit!r} has no known "
            f"length; pass one of {', '.join(map(repr, YEAR))}, or the transform 'log'."
        )


def check_ages(adata: AnnData, setup: dict[str, Any], subject: pd.Series, sample: pd.Series) -> None:
    """Refuse ages that differ within a unit or that no clock can learn from."""
    age = _units.ages(adata, setup["age_key"], min_age=setup["min_age"], unit=setup["age_unit"])
    _units.learnable(*_units.ages_of_samples(age, subject, sample, setup["age_key"]), setup["age_key"])


def covariate_columns(setup: dict[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """Names of batch and covariate columns with the argument that named them."""
    one = [(name, [setup[name]] if setup.get(name) else []) for name in ("batch_key", *CATEGORY_KEYS)]
    return [
        *one,
        ("categorical_covariate_keys", setup["categorical_covariate_keys"] or []),
        ("continuous_covariate_keys", setup["continuous_covariate_keys"] or []),
    ]


def registered_columns(setup: dict[str, Any]) -> list[str]:
    """Columns of cells that the fields of a clock read."""
    units = [setup["age_key"], setup["subject_key"], _units.sample_column(setup)]
    types = [setup["cell_type_key"]] if setup.get("cell_type_key") else []
    return [*units, *types, *(key for _, keys in covariate_columns(setup) for key in keys)]


def check_modalities(adata: AnnData, modality_key: str | None, sample: pd.Series) -> None:
    """Refuse a modality of which there is one sample."""
    if modality_key is None:
        return
    n_samples = sample.groupby(_checks.labels(adata, modality_key, "modality_key").to_numpy()).nunique()
    if n_samples.min() < MIN_OF_MODALITY:
        raise ValueError(
            f"modality {n_samples.idxmin()!r} of adata.obs[{modality_key!r}] has {n_samples.min()} sample; a clock "
            f"learns the scale of a modality from {MIN_OF_MODALITY} or more. Leave it out, or add samples."
        )


def check_covariate(adata: AnnData, key: str, argument: str) -> None:
    """Refuse missing values, and text where a number is due."""
    values = _checks.column(adata, key, argument)
    if values.isna().any():
        raise ValueError(
            f"adata.obs[{key!r}] is missing in {values.isna().sum():,} cells; {argument} needs a value in every cell. "
            "Fill it, or leave the column out."
        )
    if argument == "continuous_covariate_keys" and not pd.api.types.is_numeric_dtype(values):
        raise TypeError(
            f"adata.obs[{key!r}] holds {values.dtype} values; continuous_covariate_keys are numbers. "
            f"Pass it with categorical_covariate_keys=[{key!r}]."
        )


def category_columns(setup: dict[str, Any]) -> list[str]:
    """Columns that enter a network as categories, in their order."""
    keys = [setup[name] for name in CATEGORY_KEYS] + list(setup["categorical_covariate_keys"] or [])
    return [key for key in keys if key]


def make_manager(
    setup: dict[str, Any], setup_method_args: dict[str, Any], known: Mapping[str, Sequence[Any]] | None = None
) -> AnnDataManager:
    """A manager with the fields of a clock; those whose set-up names modality and tissue read feature sets too.

    ``known`` are the categories by column, in the order of their codes, of a clock that was saved.
    """
    known = known or {}
    if CATEGORY_KEYS[0] in setup:
        categories = [_fields.CategoryField(i, key, known.get(key)) for i, key in enumerate(category_columns(setup))]
        fields: list[Any] = [*categories, _fields.FeatureSetField(), _fields.RowField()]
    else:
        fields = [
            _fields.BatchField(setup["batch_key"], known.get(setup["batch_key"])),
            _fields.CovariatesField(setup["categorical_covariate_keys"], known),
            NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, setup["continuous_covariate_keys"]),
        ]
    fields += [
        LayerField(REGISTRY_KEYS.X_KEY, setup["layer"], is_count_data=False, correct_data_format=False),
        _fields.AgeField(setup["age_key"], min_age=setup["min_age"]),
        _fields.UnitField(_fields.SUBJECT, setup["subject_key"]),
        _fields.UnitField(_fields.SAMPLE, _units.sample_column(setup)),
    ]
    return AnnDataManager(fields=fields, setup_method_args=setup_method_args)


def column_names(registry: Mapping[str, Any]) -> np.ndarray:
    """Names of the genes, or dimensions, of a registration."""
    return np.asarray(registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"])
