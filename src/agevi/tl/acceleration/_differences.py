"""Rows of the tables: a difference with its interval and tests, what limits it, and the deviation of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from agevi import _checks, _names, _units
from agevi.tl.acceleration._ancova import EQUAL, deviations, fieller, fit, permutation_p, two_sided
from agevi.tl.acceleration._design import (
    CUBIC,
    GROUP,
    Covariate,
    Design,
    Unusable,
    age_columns,
    columns_of,
    make_design,
)
from agevi.tl.acceleration._samples import Samples
from agevi.tl.predict._evaluate_by import OVERALL
from agevi.tl.predict._judged import FEW_SUBJECTS

TEXT = ["type", "group", "reference"]
COUNTS = ["n", "n_reference", "n_subjects"]
NUMBERS = ["difference", "se", "low", "high", "t", "df", "p", "p_permutation", "p_adjusted"]
NUMBERS += ["cohens_d", "slope", "slope_t"]
NUMBERS += ["scaled", "scaled_low", "scaled_high", "raw_gap", "age_reference", "age_group", "detectable"]
DEVIATION = ["expected", "acceleration", "low", "high", "z", "p"]
SAMPLE_COLUMNS = ["type", "sample", "subject", "group", "age", "predicted", *DEVIATION]
DETECTABLE = 2.8
"""Standard errors that a true difference has to measure to be found at p < .05 four times in five."""
SIGNAL, STRONG = 2.0, 4.0
"""t of the slope on age below which a clock has no signal, and from which a difference is divided by it."""
OVERLAP = 0.5
EXACT = 1e-6
"""Residual standard deviation, by that of the predictions, up to which it is rounding."""
APART = 0.25
"""Distance of mean ages, in standard deviations of age, from which a clock can take the disease for age."""
EXPLAINED = 0.75
"""Share of the group that covariates explain from which the standard error is twice that without them."""


@dataclass(frozen=True)
class Settings:
    """Arguments of the comparison."""

    groupby: str
    age_df: Any
    paired: bool
    level: float
    n_permutations: int
    seed: int


def pair_of(frame: pd.DataFrame, group: str, reference: str) -> pd.DataFrame:
    """The samples of a group and of the reference, told apart by the column ``is_group``."""
    pair = frame[frame["group"].isin([group, reference])]
    return pair.assign(is_group=pair["group"] == group)


def described(pair: pd.DataFrame, of_type: str, group: str, reference: str) -> dict[str, Any]:
    """What is known of a comparison without a model: numbers of samples, mean ages and the raw gap."""
    own, ref = pair[pair["is_group"]], pair[~pair["is_group"]]
    row: dict[str, Any] = {"type": of_type, "group": group, "reference": reference, "n": len(own)}
    row |= {"n_reference": len(ref), "n_subjects": pair["subject"].nunique()}
    row |= dict.fromkeys(NUMBERS, np.nan) | {"flags": "", "sentence": ""}
    if len(own) and len(ref):
        row["raw_gap"] = (own["predicted"] - own["age"]).mean() - (ref["predicted"] - ref["age"]).mean()
        row |= {"age_reference": ref["age"].mean(), "age_group": own["age"].mean()}
    return row


def compare(
    pair: pd.DataFrame, group: str, reference: str, covariates: list[Covariate], settings: Settings
) -> tuple[dict[str, Any], list[str]]:
    """Estimates and flags of a comparison of :func:`pair_of`, and the lines that explain the flags."""
    n = pair.groupby("is_group")["subject"].nunique().reindex([False, True], fill_value=0)
    argument = f"{group!r} and {reference!r}"
    if n.min() < _units.MIN_LABELLED_SUBJECTS:
        counts = f"{group!r}: {n[True]}, {reference!r}: {n[False]}"
        least = _units.MIN_LABELLED_SUBJECTS
        raise Unusable(f"fewer than {least} subjects in one of the groups ({counts}).", "few_subjects")
    cluster = _cluster(pair, argument, settings)
    design = make_design(pair, covariates, settings.age_df, argument, cluster)
    predicted = pair["predicted"].to_numpy(dtype=np.float64)
    if np.ptp(predicted) <= EQUAL * np.abs(predicted).max():
        raise Unusable(f"all {len(pair)} samples of {argument} are predicted {predicted[0]:.1f}, as by a clock that "
                       "knows nothing but the median age.", "no_age_signal")  # fmt: skip
    row = _estimates(design, predicted, cluster, settings)
    if row["residual_sd"] <= EXACT * predicted.std():
        names = _checks.listed(["age", *(c.name for c in covariates)])
        raise Unusable(f"the predictions of {argument} follow exactly from {names}, so that nothing is left to "
                       "compare; leave out covariates that were made of predictions.", "confounded")  # fmt: skip
    del row["residual_sd"]
    reasons = _flags(row, pair, group, reference, design.explained, settings.groupby)
    row["flags"] = ";".join(dict.fromkeys(flag for flag, _ in reasons))
    return row, [reason for _, reason in reasons]


def _cluster(pair: pd.DataFrame, argument: str, settings: Settings) -> np.ndarray | None:
    """Subject of every sample as a number, None where each sample is a subject."""
    n_groups = pair.groupby("subject")["is_group"].nunique()
    shared = n_groups.index[n_groups > 1]
    if len(shared) and not settings.paired:
        raise Unusable(
            f"subject {str(shared[0])!r} has samples in both {argument} ({len(shared)} in all); pass paired=True where "
            "these are visits of the same people, else correct the column.", "confounded",
        )  # fmt: skip
    if not len(shared) and settings.paired:
        raise Unusable(f"paired=True, and no subject has samples in both {argument}; leave it out.", "few_subjects")
    codes = pd.factorize(pair["subject"].astype(str), sort=True)[0]
    return np.asarray(codes) if codes.max() + 1 < len(pair) else None


def _estimates(design: Design, predicted: np.ndarray, cluster: np.ndarray | None, settings: Settings) -> dict[str, Any]:
    """The difference, its tests, and the slope that scales it."""
    # The slope is the line's also for a cubic, whose mean derivative hangs on its ends and varies almost twice as much.
    fitted, line = fit(design.x, predicted, cluster), fit(design.line, predicted, cluster)
    of_group, of_age = np.eye(design.x.shape[1])[GROUP], np.eye(design.line.shape[1])[GROUP + 1] / design.scale
    quantile = fitted.quantile(settings.level)
    difference, se = map(float, fitted.contrast(of_group))
    b, se_b = map(float, line.contrast(of_age))
    with np.errstate(invalid="ignore", divide="ignore"):
        t, slope_t = np.float64(difference) / se, np.float64(b) / se_b
        cohens_d = np.float64(difference) / fitted.sd
    reach = quantile * se
    row: dict[str, Any] = {"difference": difference, "se": se, "low": difference - reach, "high": difference + reach}
    row |= {"t": t, "df": fitted.df, "p": float(two_sided(t, fitted.df)), "cohens_d": cohens_d, "slope": b}
    row |= {"slope_t": slope_t, "detectable": DETECTABLE * se, "residual_sd": float(fitted.sd), "degree": design.degree}
    row["p_permutation"] = permutation_p(
        design.x, predicted, GROUP, settings.n_permutations, np.random.default_rng(settings.seed), cluster
    )
    if slope_t >= STRONG:
        row["scaled"] = difference / b
    if slope_t >= SIGNAL:
        covariance = float(fitted.moves(of_group, cluster) @ line.moves(of_age, cluster))
        low, high = fieller(difference, b, se**2, se_b**2, covariance, quantile)
        row |= {"scaled_low": float(low), "scaled_high": float(high)}
    return {name: value if np.isfinite(value) else np.nan for name, value in row.items()}


def _flags(
    row: dict[str, Any], pair: pd.DataFrame, group: str, reference: str, explained: float, groupby: str
) -> list[tuple[str, str]]:
    """Flags of a comparison, each with the line that explains it."""
    own, ref = pair[pair["is_group"]], pair[~pair["is_group"]]
    out, who = [], f"{group!r} against {reference!r}"
    slope_t = row["slope_t"]
    if not slope_t >= STRONG:
        signal = f"slope of predictions on age {row['slope']:.2f}, t = {slope_t:.1f}"
        if not slope_t >= SIGNAL:
            out.append(("no_age_signal", f"{who}: the clock has no age signal in these samples ({signal}), so the "
                        "difference says nothing about ageing, whatever its p value."))  # fmt: skip
        else:
            out.append(("weak_age_signal", f"{who}: the age signal is weak ({signal}); no scaled difference is given."))
    inside = own["age"].between(ref["age"].min(), ref["age"].max()).mean()
    if inside < OVERLAP:
        out.append(("ages_do_not_overlap", f"{who}: {inside:.0%} of the samples of {group!r} have an age within the "
                    f"range of {reference!r}; elsewhere the difference rests on the line's shape alone."))  # fmt: skip
    if explained > EXPLAINED:
        out.append(("confounded", f"{who}: covariates explain {explained:.0%} of the group, so little of it is left to "
                    "compare."))  # fmt: skip
    out += [("confounded", f"{who}: {why}") for why in _clocks_differ(own, ref, group, reference)]
    out += [("trained_on_group", f"{who}: {why}") for why in _learnt_group(own, ref, group, reference, groupby)]
    n = {group: own["subject"].nunique(), reference: ref["subject"].nunique()}
    few = min(n, key=lambda name: n[name])
    if n[few] < FEW_SUBJECTS:
        out.append(("few_subjects", f"{who}: {n[few]} subjects in {few!r}; a true difference below "
                    f"{row['detectable']:.1f} would be found less than four times in five."))  # fmt: skip
    return out


def _clocks_differ(own: pd.DataFrame, ref: pd.DataFrame, group: str, reference: str) -> list[str]:
    """In what way the predictions of the groups come from different clocks."""
    roles = [set(part["role"]) for part in (own, ref)]
    if not roles[0] & roles[1]:
        return [
            f"the predictions of {group!r} have the role {_checks.listed(sorted(roles[0]))} and those of {reference!r} "
            f"{_checks.listed(sorted(roles[1]))}, so different clocks made them; predict both in one tl.cross_validate."
        ]
    out = []
    if "trains" in own and own["trains"].any() and not ref["trains"].any():
        out.append(
            f"the clock was trained on {group!r} and not on {reference!r}, which hides what sets {group!r} apart."
        )
    n_folds = pd.concat([own["fold"], ref["fold"]]).nunique()
    for name, part in ((group, own), (reference, ref)):
        reach = min(n_folds, part["subject"].nunique())
        there = part["fold"].nunique()
        if reach > 1 and there < reach / 2:
            out.append(f"the predictions of {name!r} come from {there} of {n_folds} folds, whose clocks differ; "
                       "balance folds with tl.cross_validate(stratify_by=...).")  # fmt: skip
    return out


def _learnt_group(own: pd.DataFrame, ref: pd.DataFrame, group: str, reference: str, groupby: str) -> list[str]:
    """Whether clocks that learnt from both groups can take what sets the group apart for age."""
    if "trains" not in own or not (own["trains"].any() and ref["trains"].any()):
        return []
    older = (own["age"].mean() - ref["age"].mean()) / pd.concat([own["age"], ref["age"]]).std()
    if not abs(older) > APART:
        return []
    column = groupby if groupby.isidentifier() else f"`{groupby}`"
    return [
        f"the clock was trained on {group!r}, too, whose subjects are {abs(older):.1f} standard deviations of age "
        f"{'older' if older > 0 else 'younger'}, so that it can take what sets {group!r} apart for age; train on the "
        f"reference alone: tl.cross_validate(train_on=\"{column} == '{reference}'\")."
    ]


def sample_rows(frame: pd.DataFrame, of_type: str, samples: Samples, settings: Settings) -> pd.DataFrame:
    """Deviation of every sample of a type (``frame``, all groups) from the line of the reference."""
    is_reference = (frame["group"] == samples.reference).to_numpy()
    out = frame.rename_axis("sample").reset_index().assign(type=of_type)
    empty = dict.fromkeys(DEVIATION, np.nan)
    ages = frame["age"][is_reference]
    if frame["subject"][is_reference].nunique() < _units.MIN_LABELLED_SUBJECTS or ages.nunique() < 2:
        return out.assign(**empty)[SAMPLE_COLUMNS]
    line = frame.assign(is_group=~is_reference)
    age_df = settings.age_df if ages.nunique() > CUBIC + 1 else 1
    degree = age_columns(line, age_df, "the reference")[0].shape[1]
    # Powers of age around the reference, where they differ even if others are far from its ages.
    z = (frame["age"].to_numpy(dtype=np.float64) - ages.mean()) / ages.std(ddof=0)
    powers = z[:, None] ** np.arange(1, degree + 1)
    blocks = [columns_of(c, line) for c in samples.covariates]
    x = np.concatenate([np.ones((len(frame), 1)), powers, *blocks], axis=1)
    predicted = frame["predicted"].to_numpy(dtype=np.float64)
    subject = pd.factorize(frame["subject"].astype(str), sort=True)[0]
    found = deviations(x, predicted, is_reference, subject)
    deviation = predicted - found.expected
    reach = student.ppf((1 + settings.level) / 2, np.maximum(found.df, 1)) * found.spread
    with np.errstate(invalid="ignore", divide="ignore"):
        z = deviation / found.spread
    columns = {"expected": found.expected, "acceleration": deviation, "low": found.expected - reach}
    columns |= {"high": found.expected + reach, "z": z, "p": two_sided(z, np.maximum(found.df, 1))}
    return out.assign(**columns)[SAMPLE_COLUMNS]


def sentence(row: dict[str, Any], samples: Samples, unit: str, level: float, family: str) -> str:
    """The result in words, as papers print it; ``family`` is what ``p_adjusted`` is corrected for, "" where it is p."""
    where = "" if row["type"] == OVERALL else f" ({row['type']})"
    who = f"{row['group']}{where}"
    if np.isnan(row["difference"]):
        return f"{who}: no comparison with {row['reference']} ({row['flags']})."
    digits = _decimals(row["se"])
    old = "older" if row["difference"] >= 0 else "younger"
    low, high = (row["low"], row["high"]) if row["difference"] >= 0 else (-row["high"], -row["low"])  # of the size
    size = f"{abs(row['difference']):.{digits}f}"
    terms = [f"the shares of {c.name}" if c.kind == "composition" else c.name for c in samples.covariates]
    adjusted = f", adjusted for {_names.in_words(terms)};" if terms else ","
    kind = "HC3" if row["df"] != row["n_subjects"] - 1 else "CR3"
    corrected = (
        f", {p_text(row['p_adjusted']).removeprefix('p ').removeprefix('= ')} corrected for {family}" if family else ""
    )
    permuted = "" if np.isnan(row["p_permutation"]) else f", permutation {p_text(row['p_permutation'])}"
    n = f"n = {row['n']} vs {row['n_reference']} subjects"
    if row["n"] + row["n_reference"] != row["n_subjects"]:
        n = f"n = {row['n']} vs {row['n_reference']} samples of {row['n_subjects']} subjects"
    k = samples.n_left_out if row["type"] == OVERALL else 0
    if k:
        n += f" ({k} sample{'s' * (k != 1)} with missing values left out)"
    flags = f"; flags: {row['flags'].replace(';', ', ')}" if row["flags"] else ""
    return (
        f"{who}: {size} {unit} {old} on the clock's scale than {row['reference']} of the same age "
        f"[{100 * level:g}% CI {low:.{digits}f}, {high:.{digits}f}]{adjusted} {kind} ANCOVA "
        f"t({row['df']:.0f}) = {row['t']:.2f}, {p_text(row['p'])}{corrected}{permuted}; {n}; difference detectable "
        f"with 80% power {row['detectable']:.{digits}f} {unit}{flags}."
    )


def _decimals(se: float) -> int:
    """Decimals at which a standard error shows: none from 20 on, one from 0.2 on, and below that two digits of it."""
    if se >= 20:
        return 0
    return 1 if se >= 0.2 or not se > 0 else 1 - int(np.floor(np.log10(se)))


def p_text(p: float) -> str:
    """A p value as journals print it."""
    if np.isnan(p):
        return "p not defined"
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.9995 else "p = 1"
