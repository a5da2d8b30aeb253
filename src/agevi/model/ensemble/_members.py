"""What clocks must share to be averaged, and what they are as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agevi import _checks, _keys
from agevi._units import sample_column
from agevi.model.base._clock import is_clock

_STRICTEST = ("counts", "continuous", "any")
_FIRST_OF = (_keys.TRAIN, _keys.VALIDATION, _keys.TEST)  # the closest use of a subject by any member counts
_ERROR = "age_mae_validation"


def check_members(clocks: Any) -> list[Any]:
    """Trained clocks that predict in one unit for the same subjects and samples."""
    if not isinstance(clocks, list | tuple) or not clocks:
        what = "empty" if isinstance(clocks, list | tuple) else f"a {type(clocks).__name__}"
        raise TypeError(f"clocks is {what}; pass a list of trained clocks.")
    for i, clock in enumerate(clocks):
        if not is_clock(clock):
            what = f"the class {clock.__name__}" if isinstance(clock, type) else f"a {type(clock).__name__}"
            raise TypeError(
                f"clocks[{i}] is {what}; pass trained clocks, for example agevi.model.PLSClock(adata) after train()."
            )
        clock.check_ages(f"EnsembleClock, for clocks[{i}],")
    for argument in ("age_unit", "subject_key", "sample_key"):
        given = [{**clock.setup_args, "sample_key": sample_column(clock.setup_args)}[argument] for clock in clocks]
        other = next((i for i, value in enumerate(given) if value != given[0]), None)
        if other is not None:
            raise ValueError(
                f"clocks differ in {argument}: {given[0]!r} ({type(clocks[0]).__name__}), {given[other]!r} "
                f"({type(clocks[other]).__name__}); set up and train them with the same {argument}."
            )
    return list(clocks)


def shared_setup(clocks: Sequence[Any], scale: str) -> dict[str, Any]:
    """Arguments of ``setup_anndata`` that the clocks share; None where they differ."""
    setups = [clock.setup_args for clock in clocks]
    out = {key: value if all(s.get(key) == value for s in setups) else None for key, value in setups[0].items()}
    return out | {
        "age_key": setups[0]["age_key"],
        "sample_key": setups[0]["sample_key"],
        "min_age": min(s["min_age"] for s in setups),
        "age_transform": "log" if scale == "log" else "none",
    }


def strictest(clocks: Sequence[Any]) -> str:
    """What the values must be so that every clock takes them."""
    kinds = {clock.expects for clock in clocks}
    return next(kind for kind in _STRICTEST if kind in kinds)


def joined_split(clocks: Sequence[Any]) -> dict[str, str]:
    """Role of every subject: ``train`` if any clock trained on it, ``validation`` if any chose by it, else ``test``."""
    out: dict[str, str] = {}
    for role in reversed(_FIRST_OF):
        for clock in clocks:
            out |= {subject: role for subject, own in clock.split_.items() if own == role}
    return dict(sorted(out.items()))


def joined_ages(clocks: Sequence[Any], scale: str) -> dict[str, Any]:
    """Range of the ages that trained any clock, and their median."""
    ages = [clock.age_summary_ for clock in clocks]
    out = {"unit": ages[0]["unit"], "transform": "log" if scale == "log" else "none"}
    known = [a for a in ages if "min" in a]  # published clocks do not tell theirs
    if known:
        out |= {"min": min(a["min"] for a in known), "max": max(a["max"] for a in known)}
        medians = [a["median"] for a in known if "median" in a]  # which bundles of 0.1.0 did not tell
        out |= {"median": float(np.median(medians))} if medians else {}
    return out


def validation_errors(clocks: Sequence[Any]) -> list[float]:
    """Error of every clock over the same validation subjects, in the unit of the ages."""
    held = [{s for s, role in clock.split_.items() if role == _keys.VALIDATION} for clock in clocks]
    errors = [_validation_error(clock) for clock in clocks]
    for i, error in enumerate(errors):
        if error is None or not held[i]:
            raise ValueError(
                f"weights='inner' needs the error on validation subjects, and clocks[{i}], a "
                f"{type(clocks[i]).__name__}, held none out in its last training. Pass weights='equal', or the "
                "weights_ of an ensemble made before the final training."
            )
        if held[i] != held[0]:
            odd = sorted(held[i] ^ held[0])
            raise ValueError(
                f"weights='inner' compares errors on the same validation subjects; those of clocks[0] and clocks[{i}] "
                f"differ (e.g. {_checks.listed(odd, 3)}). Train the clocks with one split, or pass weights='equal'."
            )
    return [float(error) for error in errors if error is not None]


def _validation_error(clock: Any) -> float | None:
    """Mean absolute error over the samples of validation subjects at the epoch that was kept."""
    frame = (clock.history_ or {}).get(_ERROR)
    kept = (clock.best_epoch_ or 0) - 1
    if frame is None or kept not in frame.index:
        return None
    value = float(frame.loc[kept].iloc[0])
    return value if np.isfinite(value) else None
