"""How well a saved clock predicts, as sentences of its card."""

from __future__ import annotations

from typing import Any


def how_well(meta: dict[str, Any]) -> str:
    """Error, slope and intervals of held-out subjects; empty where the clock does not tell.

    Parameters
    ----------
    meta
        Values of the bundle.
    """
    parts = []
    evaluation, calibration = meta.get("evaluation"), meta.get("calibration")
    if evaluation is not None:
        parts += [_error(evaluation), _line(evaluation)]
        if "intervals" in evaluation:
            parts.append(_intervals(evaluation["intervals"], evaluation["age_unit"]))
    if calibration is not None:
        parts.append(_calibrated(calibration))
    return " ".join(part for part in parts if part)


def _error(found: dict[str, Any]) -> str:
    """Who was held out, and the error beside that of the median age."""
    unit = found["age_unit"]
    low, high = found["mae_low"], found["mae_high"]
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    who = f"{found['n_subjects']:,} subjects aged {round(found['age_min'], 1):g} to {round(found['age_max'], 1):g}"
    more = f" ({found['n_samples']:,} samples)" if found["n_samples"] > found["n_subjects"] else ""
    return (
        f"mean absolute error {found['mae']:.2f} {unit}{interval} over {who}{more}, {_held_out(found)}; predicting the median "
        f"age for everyone gives {found['mae_median']:.2f}."
    )


def _held_out(found: dict[str, Any]) -> str:
    """How these subjects were kept from the clock."""
    if "out_of_fold" not in found["roles"]:
        return "which this clock never saw in training"
    by = f" by {found['fold_key']!r} ({_some(found['cohorts'])})" if found["fold_key"] else ""
    by += f", trained on {found['train_on']!r}" if found["train_on"] else ""
    return (
        f"each predicted by a clock of the same recipe that never saw it ({found['n_folds']} folds{by}), before this one was "
        "trained"
    )


def _line(found: dict[str, Any]) -> str:
    """Slope and correlation."""
    if found["slope"] is None or found["pearson"] is None:
        return ""
    return f"Slope of predicted on true age {found['slope']:.2f}, Pearson's r {found['pearson']:.2f}."


def _intervals(found: dict[str, Any], unit: str) -> str:
    """Coverage and width."""
    return (
        f"{100 * found['level']:.3g} % intervals are {found['width']:.1f} {unit} wide on average and held the age of "
        f"{100 * found['coverage']:.1f} % [{100 * found['coverage_low']:.1f}, {100 * found['coverage_high']:.1f}] of these "
        "subjects (cross-calibrated)."
    )


def _calibrated(found: dict[str, Any]) -> str:
    """What new predictions get."""
    cohorts = f" of {_some(found['cohorts'])}" if found["cohorts"] else ""
    return (
        f"Predictions come with {100 * found['level']:.3g} % intervals (`lower`, `upper`), calibrated on {found['n']:,} "
        f"subjects{cohorts}; they hold for subjects like those, and for less than that share in another cohort."
    )


def gene_examples(meta: dict[str, Any]) -> str:
    """The first genes by name, with their symbols where the clock holds them."""
    symbols = (meta.get("evaluation") or {}).get("gene_symbols")
    if not symbols:
        return f'"{meta["genes"][0]}", ...'
    pairs = [f'"{gene}" ({symbol})' for gene, symbol in zip(meta["genes"], symbols, strict=False) if symbol][:3]
    return ", ".join([*pairs, "..."]) + '; all symbols are in `clock.evaluation["gene_symbols"]`'


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
