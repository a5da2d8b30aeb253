"""Ages that are text, bins or bounds, as numbers."""

from __future__ import annotations

import logging
import re
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi._compat import written_to

logger = logging.getLogger(__name__)

STRATEGIES = ("midpoint", "lower", "drop")
_PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
_WORDS = {
    "years": "years|year|yrs|yr|y|yo|y/o",
    "months": "months|month|mos|mo",
    "weeks": "weeks|week|wks|wk|w",
    "days": "days|day|d",
}
_UNIT_OF = {word: unit for unit, words in _WORDS.items() for word in words.split("|")}
_MISSING = set("|unknown|nan|na|n/a|<na>|none|null|missing|not available|not reported|not provided|?|-|.".split("|"))

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_UNIT = "|".join(re.escape(word) for word in sorted(_UNIT_OF, key=len, reverse=True))
# What may follow a number: "41 years", "41yo", "41-year-old stage" (the ontology of developmental stages).
_TAIL = rf"(?:[\s-]?(?P<{{0}}_unit>{_UNIT})(?:[\s-]old)?(?:\s(?:human\s)?stage)?)?"


def _pattern(template: str) -> re.Pattern[str]:
    """``template`` with LOW and HIGH as ages without a sign and ±LOW and ±HIGH as ages with one."""
    for name in ("LOW", "HIGH"):
        tail = _TAIL.format(name.lower())
        template = template.replace(f"±{name}", f"(?P<{name.lower()}>[+-]?{_NUMBER}){tail}")
        template = template.replace(name, f"(?P<{name.lower()}>{_NUMBER}){tail}")
    return re.compile(template)


_EXACT = _pattern("±LOW")
_BINS = (
    _pattern(r"LOW\s?(?:-|to)\s?HIGH"),
    _pattern(r"[\[(]\s?±LOW\s?,\s?±HIGH\s?[\])]"),  # "(60, 70]", as pandas.cut writes it
)
_BOUNDS = (
    _pattern(r"(?:>=|<=|>|<|≥|≤|over\s|under\s)\s?LOW"),
    _pattern(r"LOW\s?(?:\+|(?:and|or)\s(?:over|older|above))"),
)


def parse_age(
    adata: AnnData,
    age_key: str,
    *,
    strategy: Literal["midpoint", "lower", "drop"] = "midpoint",
    age_unit: Literal["years", "months", "weeks", "days"] = "years",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Ages in numbers from text such as "41 years", "60-69", ">89", "<1" or "18 weeks", in ``age_unit``.

    Ages with a unit are converted (a year has 12 months and 365.25 days), numbers without one are taken to be in
    ``age_unit`` already. Bins and bounds do not become more exact by this: a clock that is trained or scored on them
    inherits half a bin of error, and a bound such as ">89" is too low for most. Gestational ages ("18 pcw") are refused, because
    their zero is not birth.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    age_key
        Column of ``adata.obs``: text, categories, intervals or numbers.
    strategy
        What a bin becomes: ``"midpoint"`` the mean of its ends (64.5 for "60-69"), ``"lower"`` its lower end. A bound
        (">89", "89+", "<1") becomes that number with both. ``"drop"`` makes bins and bounds NaN, which means unlabelled.
    age_unit
        Unit of the result and of numbers without a unit.
    key_added
        Column to write. None replaces ``adata.obs[age_key]``; name another column to keep the text.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets ``adata.obs[key_added or age_key]``, float64 in ``age_unit``; NaN where the age is missing
    ("", "unknown", "NA") or dropped.

    Raises
    ------
    KeyError
        The column is absent.
    ValueError
        A value cannot be read (the message lists examples), or ``strategy`` or ``age_unit`` is unknown. Nothing is
        written then.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=1, n_genes=50)
    >>> adata.obs["stage"] = ["41 years", "60-69", ">89", "18 months"]
    >>> agevi.pp.parse_age(adata, "stage", key_added="age")
    >>> adata.obs["age"].tolist()
    [41.0, 64.5, 89.0, 1.5]
    """
    _checks.anndata(adata)
    _checks.choice(strategy, STRATEGIES, "strategy")
    _checks.choice(age_unit, tuple(_PER_YEAR), "age_unit")
    values = _checks.column(adata, age_key, "age_key")
    codes, distinct = pd.factorize(values.astype(object), use_na_sentinel=True)
    read = [_read(value, strategy, age_unit) for value in distinct]
    unreadable = [value for value, found in zip(distinct, read, strict=True) if found is None]
    if unreadable:
        raise ValueError(
            f"adata.obs[{age_key!r}] has {len(unreadable)} values that are no age: {_checks.listed(unreadable)}; write "
            "them as '41', '41 years', '18 weeks', '60-69', '>89' or '<1', or set them to NaN."
        )
    ages = np.array([*(found[0] for found in read if found), np.nan])
    kinds = np.array([*(found[1] for found in read if found), "missing"])
    counts = {kind: int((kinds[codes] == kind).sum()) for kind in ("binned", "bound", "missing")}
    logger.info(
        "obs[%r]: of %d cells %d have a binned age and %d a bound (strategy %r), %d have none.",
        age_key, adata.n_obs, counts["binned"], counts["bound"], strategy, counts["missing"],
    )  # fmt: skip
    out = written_to(adata, copy=copy)
    out.obs[key_added or age_key] = ages[codes]  # code -1, a missing value, is the last entry
    return out if copy else None


def _read(value: object, strategy: str, age_unit: str) -> tuple[float, str] | None:
    """Age and its kind (exact, binned, bound, missing), or None where the value cannot be read."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return (float(value), "exact") if np.isfinite(value) else None
    text = re.sub(r"\s+", " ", re.sub("[–—−]", "-", str(value))).strip().lower()
    if text in _MISSING:
        return np.nan, "missing"
    if exact := _EXACT.fullmatch(text):
        return _number(exact, "low", age_unit), "exact"
    for bound in filter(None, (pattern.fullmatch(text) for pattern in _BOUNDS)):
        return (np.nan if strategy == "drop" else _number(bound, "low", age_unit)), "bound"
    for binned in filter(None, (pattern.fullmatch(text) for pattern in _BINS)):
        low = _number(binned, "low", age_unit, default=binned["high_unit"])
        high = _number(binned, "high", age_unit)
        if low <= high:
            return {"midpoint": (low + high) / 2, "lower": low, "drop": np.nan}[strategy], "binned"
    return None


def _number(match: re.Match[str], name: str, age_unit: str, default: str | None = None) -> float:
    """A matched number in ``age_unit``."""
    word = match[f"{name}_unit"] or default
    if word is None:
        return float(match[name])
    return float(match[name]) * _PER_YEAR[age_unit] / _PER_YEAR[_UNIT_OF[word]]
