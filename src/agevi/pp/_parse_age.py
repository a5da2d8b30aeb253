"""Ages that are text, bins or bounds, as numbers."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _names
from agevi._compat import written_to

logger = logging.getLogger(__name__)

STRATEGIES = ("midpoint", "lower", "drop")
ERRORS = ("raise", "coerce")
_PER_YEAR = {"years": 1.0, "months": 12.0, "weeks": 365.25 / 7, "days": 365.25}
_WORDS = {
    "years": "years|year|yrs|yr|y|yo|y/o|y.o",
    "months": "months|month|mths|mth|mons|mon|mos|mo|m",
    "weeks": "weeks|week|wks|wk|w",
    "days": "days|day|d",
}
_UNIT_OF = {word: unit for unit, words in _WORDS.items() for word in words.split("|")}
_LISTED = 20
_AMBIGUOUS = "m"  # months, or in a table of people a man
_MISSING = set(
    "|unknown|unspecified|undetermined|nan|nat|na|n/a|n.a.|n.a|#n/a|#n/a n/a|<na>|none|null|missing|n.d.|not "
    "available|not applicable|not reported|not recorded|not provided|not collected|not determined|not known|not "
    "specified|?|-|--|.".split("|")
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_UNIT = "|".join(re.escape(word) for word in sorted(_UNIT_OF, key=len, reverse=True))
# What may follow a number: "41 years", "41yo", "41 yrs.", "41-year-old".
_TAIL = rf"(?:[\s-]?(?P<{{0}}_unit>{_UNIT})\.?(?:[\s-]old)?)?"


def _pattern(template: str) -> re.Pattern[str]:
    """``template`` with LOW and HIGH as ages, ±LOW as a signed one, #LOW and LOW# as its number and its unit alone."""
    for name in ("LOW", "HIGH"):
        number, tail = f"(?P<{name.lower()}>{_NUMBER})", _TAIL.format(name.lower())
        signed = f"(?P<{name.lower()}>[+-]?{_NUMBER})"
        for form, meaning in (
            (f"±{name}", signed + tail),
            (f"#{name}", number),
            (f"{name}#", tail),
            (name, number + tail),
        ):
            template = template.replace(form, meaning)
    return re.compile(template)


_EXACT = _pattern("±LOW")
_BINS = (
    _pattern(r"LOW\s?(?:-|to)\s?HIGH"),
    _pattern(r"[\[(]\s?±LOW\s?,\s?±HIGH\s?[\])]"),  # "(60, 70]", as pandas.cut writes it
)
_BOUNDS = (
    _pattern(
        r"(?:>=|<=|>|<|≥|≤|(?:over|above|under|below|at least|(?:more|older|greater|less|younger) than)[\s-])\s?LOW"
    ),
    _pattern(r"LOW\s?(?:\+|(?:and|or)\s(?:over|older|above|more))"),
    _pattern(r"#LOW\s?\+LOW#"),  # "90+ years"
)
_PART = rf"({_NUMBER})[\s-]?({_UNIT})"
_SEVERAL = re.compile(rf"{_PART}(?:(?:\s|,\s|\sand\s|,\sand\s)?{_PART})+")  # "1 year 6 months"
_DURATION = re.compile(rf"p(?=\d)(?:{_NUMBER}y)?(?:{_NUMBER}m)?(?:{_NUMBER}w)?(?:{_NUMBER}d)?")  # "P1Y6M" of ISO 8601
_DECADE = re.compile(rf"({'|'.join(_ORDINALS)}) decade")  # "fifth decade stage" is over 40 and under 50
# From ontologies of stages: "41-year-old human stage", "2-month-old stage (mouse)", "child stage (1-4 yo)".
_STAGE = re.compile(r" (?:human |child )?stage(?= and over$|$)")
_SPECIES = re.compile(r" \((?:human|mouse)\)$")
_NAMED_STAGE = re.compile(r"[a-z]+ stage \((.+)\)")
_COMMA = re.compile(r"(?<=\d),(?=\d(?!\d))")  # "41,5"; "34,37" may be two donors, and "1,200" a thousand


def parse_age(
    adata: AnnData,
    age_key: str,
    *,
    strategy: Literal["midpoint", "lower", "drop"] = "midpoint",
    age_unit: Literal["years", "months", "weeks", "days"] = "years",
    errors: Literal["raise", "coerce"] = "raise",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Ages in numbers from text such as "41 years", "60-69", "90+ years", "<1", "18 weeks" or "P41Y", in ``age_unit``.

    Stages of the ontologies are read where they name an age ("41-year-old stage", "20 month-old stage and over", "fifth
    decade stage", "child stage (1-4 yo)"), and so is one decimal behind a comma ("41,5"). Ages with a unit are
    converted (a year has 12 months and 365.25 days), numbers without one are taken to be in ``age_unit`` already. Bins
    and bounds do not become more exact by this: a clock that is trained or scored on them inherits half a bin of error,
    and a bound such as ">89" is too low for most. Gestational ages ("18 pcw", "E14.5", "ninth LMP month stage") are
    refused, because their zero is not birth, and so is "41m" in years, which may be a man of 41; in months, weeks and
    days, "24m" is 24 months.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    age_key
        Column of ``adata.obs``: text, categories, intervals or numbers.
    strategy
        What a bin becomes: ``"midpoint"`` the mean of its ends (64.5 for "60-69"), ``"lower"`` its lower end. A bound
        (">89", "89+", "<1") becomes that number with both. ``"drop"`` makes bins and bounds NaN, which means
        unlabelled.
    age_unit
        Unit of the result and of numbers without a unit.
    errors
        What happens to values that cannot be read: ``"raise"`` refuses the column, ``"coerce"`` makes them NaN, with a
        warning that lists them and the number of their cells.
    key_added
        Column to write. None replaces ``adata.obs[age_key]``; name another column to keep the text.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets ``adata.obs[key_added or age_key]``, float64 in ``age_unit``; NaN where the age is missing
    ("", "unknown", "n.a.", "not applicable"), dropped or, with ``errors="coerce"``, not read.

    Raises
    ------
    KeyError
        The column is absent.
    ValueError
        A value cannot be read (the message lists examples) and ``errors="raise"``, or ``strategy``, ``age_unit`` or
        ``errors`` is unknown. Nothing is written then.

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
    _checks.choice(errors, ERRORS, "errors")
    values = _checks.column(adata, age_key, "age_key")
    codes, distinct = pd.factorize(values.astype(object), use_na_sentinel=True)
    read = [read_age(value, strategy, age_unit) for value in distinct]
    ages = np.array([*(found[0] for found in read), np.nan])
    kinds = np.array([*(found[1] for found in read), "missing"])
    counts = {kind: int((kinds[codes] == kind).sum()) for kind in ("binned", "bound", "missing", "unreadable")}
    if counts["unreadable"]:
        _report(list(distinct[kinds[:-1] == "unreadable"]), counts["unreadable"], age_key, errors)
    logger.info(
        "obs[%r]: of %d cells %d have a binned age and %d a bound (strategy %r), %d have none.",
        age_key, adata.n_obs, counts["binned"], counts["bound"], strategy, counts["missing"],
    )  # fmt: skip
    out = written_to(adata, copy=copy)
    out.obs[key_added or age_key] = ages[codes]  # code -1, a missing value, is the last entry
    return out if copy else None


def _report(values: list[object], n_cells: int, age_key: str, errors: str) -> None:
    """Refuse values that cannot be read, or warn of them."""
    what = "1 value that is not an age" if len(values) == 1 else f"{len(values)} values that are not ages"
    start = f"adata.obs[{age_key!r}] has {what}: "
    if errors == "raise":
        if any(re.fullmatch(rf"{_NUMBER}\s?m", str(value).strip().lower()) for value in values):
            start += "'m' is read as months with age_unit='months', and may be a man with 'years': "
        raise ValueError(
            f"{start}{_checks.listed(values)}; write them as '41', '41 years', '18 weeks', '60-69', '>89' or '<1', set "
            "them to NaN, or pass errors='coerce', which does so and lists them."
        )
    warnings.warn(
        f"{start}{_checks.listed(values, _LISTED)}; their {n_cells:,} cells have no age now.",
        UserWarning,
        stacklevel=_checks.stack_depth(),
    )


def read_age(value: object, strategy: str, age_unit: str) -> tuple[float, str]:
    """Age and its kind: exact, binned, bound, missing or unreadable."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return (float(value), "exact") if np.isfinite(value) else (np.nan, "unreadable")
    text = re.sub(r"\s+", " ", re.sub("[–—−]", "-", _names.name(value))).strip().lower()
    text = _NAMED_STAGE.sub(r"\1", _STAGE.sub("", _SPECIES.sub("", text)))
    text = text if text[:1] in ("(", "[") else _COMMA.sub(".", text)
    if text in _MISSING:
        return np.nan, "missing"
    if exact := _EXACT.fullmatch(text):
        return _checked(_number(exact, "low", age_unit), "exact")
    if _DURATION.fullmatch(text) or _SEVERAL.fullmatch(text):
        return sum(_converted(number, word, age_unit) for number, word in re.findall(_PART, text)), "exact"
    for bound in filter(None, (pattern.fullmatch(text) for pattern in _BOUNDS)):
        age, kind = _checked(_number(bound, "low", age_unit), "bound")
        return (np.nan if strategy == "drop" else age), kind
    if decade := _DECADE.fullmatch(text):
        low = 10.0 * _ORDINALS.index(decade[1]) * _PER_YEAR[age_unit]
        return _binned(low, low + 10 * _PER_YEAR[age_unit], strategy)
    for binned in filter(None, (pattern.fullmatch(text) for pattern in _BINS)):
        return _binned(
            _number(binned, "low", age_unit, default=binned["high_unit"]), _number(binned, "high", age_unit), strategy
        )
    return np.nan, "unreadable"


def _checked(age: float, kind: str) -> tuple[float, str]:
    """An age with its kind, unreadable where its unit may be none."""
    return age, "unreadable" if np.isnan(age) else kind


def _binned(low: float, high: float, strategy: str) -> tuple[float, str]:
    """What a bin becomes; unreadable where its ends are not in order."""
    if not low <= high:
        return np.nan, "unreadable"
    return {"midpoint": (low + high) / 2, "lower": low, "drop": np.nan}[strategy], "binned"


def _number(match: re.Match[str], name: str, age_unit: str, default: str | None = None) -> float:
    """A matched number in ``age_unit``, NaN where "m" may stand for a man."""
    word = match[f"{name}_unit"] or default
    if word is None:
        return float(match[name])
    return np.nan if word == _AMBIGUOUS and age_unit == "years" else _converted(match[name], word, age_unit)


def _converted(number: str, word: str, age_unit: str) -> float:
    """A number of the unit that a word names, in ``age_unit``."""
    return float(number) * _PER_YEAR[age_unit] / _PER_YEAR[_UNIT_OF[word]]
