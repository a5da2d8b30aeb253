"""The numbers that say how good a saved clock is, checked value by value: a bundle may be hostile."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from agevi._gene_names import KINDS

SCALES = ("constant", "predicted", "log", "mondrian")
FEATURES = ("predicted", "n_cells")
ROLES = ("test", "out_of_fold", "new")
_LARGEST = 1e9  # of ages, scores and numbers of cells
_EXPONENT = 50.0  # of the scale of residuals
_TEXT = 200  # characters of a name


def check_calibration(values: Any) -> dict[str, Any]:
    """A calibration with the entries that are known, as new plain values."""
    out = _entries(values, "calibration", _CALIBRATION)
    out |= _entries(values, "calibration", {k: v for k, v in _ERRORS.items() if values.get(k) is not None})
    scores, weights, strata = out["scores"], out["weights"], out["strata"]
    n_features = len(out["features"])
    ends = [(1.0, 1.0), *zip(out["ranges"][::2], out["ranges"][1::2], strict=False)]
    terms = [(c * low, c * high) for c, (low, high) in zip(out["coefficients"], ends, strict=False)]
    exponent = max(abs(sum(map(min, terms))), abs(sum(map(max, terms))))  # features are not extrapolated
    rules = {
        "scale": out["scale"] in SCALES,
        "features": out["features"] == list(FEATURES[:n_features]) and (not n_features or out["scale"] == "predicted"),
        "coefficients": len(out["coefficients"]) == n_features + 1 and exponent <= _EXPONENT,
        "ranges": len(out["ranges"]) == 2 * n_features
        and all(a <= b for a, b in zip(out["ranges"][::2], out["ranges"][1::2], strict=False)),
        "scores": bool(scores) and scores == sorted(scores) and scores[0] >= 0,
        "weights": len(weights) == len(scores) and all(0 < w <= 1 for w in weights),
        "n": 1 <= out["n"] == round(sum(weights)),
        "n_samples": out["n_samples"] == len(scores),
        "cuts": len(out["cuts"]) == 2 * (out["scale"] == "mondrian") and out["cuts"] == sorted(out["cuts"]),
        "strata": len(strata) == len(scores) and all(0 <= k <= len(out["cuts"]) for k in strata),
        "level": 0 < out["level"] < 1,
        "h": out["h"] >= 0,
        "origin": out["origin"] <= -1,
        "min_age": out["min_age"] >= out["origin"],
        "guarantee": out["guarantee"] in ("split", "approximate"),
        "roles": all(role in ROLES for role in out["roles"]),
        "residuals": len(out.get("residuals", [0.0] * out["n"])) == out["n"],
        "shift_var": out.get("shift_var", 0.0) >= 0,
    }
    _refuse(rules, "calibration", values)
    return out


def check_training_cohorts(values: Any) -> dict[str, Any]:
    """What a clock records of its training cohorts, as new plain values."""
    if isinstance(values, dict) and values.keys() != _COHORTS.keys():
        raise ValueError("training_cohorts does not hold what a reference of cohorts does")
    out = _entries(values, "training_cohorts", _COHORTS)
    k = len(out["names"])
    rules = {name: len(out[name]) == k for name in ("n_subjects", "mean_age")}
    _refuse(rules | {"names": k > 0, "left_out": len(out["left_out"]) in (0, k)}, "training_cohorts", values)
    return out


def check_evaluation(values: Any) -> dict[str, Any]:
    """An evaluation with the entries that are known, as new plain values."""
    out = _entries(values, "evaluation", _EVALUATION)
    if values.get("intervals") is not None:
        out["intervals"] = _entries(values["intervals"], "evaluation['intervals']", _INTERVALS)
    rules = {
        "roles": all(role in ROLES for role in out["roles"]),
        "n_subjects": 1 <= out["n_subjects"] <= out["n_samples"],
        "n_folds": out["n_folds"] >= 0,
        "level": 0 < out["level"] < 1,
        "mae": out["mae"] >= 0,
    }
    _refuse(rules, "evaluation", values)
    return out


def check_kind(values: Any) -> dict[str, Any]:
    """Of what kind the values are that a clock reads, as new plain values."""
    out = _entries(values, "values", _KIND)
    contrast = values.get("contrast")
    out["contrast"] = None if contrast is None else _entries(contrast, "values['contrast']", _CONTRAST)
    rules = {
        "low": out["low"] <= out["high"],
        "mean": (out["mean"] or 0) >= 0,
        "negative": 0 <= out["negative"] <= 1,
        "total": out["total"] is None or out["total"] > 0,
        "closed": out["total"] is not None or not out["closed"],
        "contrast": contrast is None or out["contrast"]["scale"] > 0,
    }
    _refuse(rules, "values", values)
    return out


def check_gene_names(values: Any, n_genes: int) -> dict[str, list[str]]:
    """Other names of the genes of a clock, those of known kinds, as new lists; empty where there are none."""
    if values is None:
        return {}
    wanted: dict[str, Callable[[Any], Any]] = dict.fromkeys(KINDS, _gene_texts)
    held = {kind: read for kind, read in wanted.items() if not isinstance(values, dict) or kind in values}
    out = _entries(values, "gene_names", held)
    _refuse({kind: len(names) == n_genes for kind, names in out.items()}, "gene_names", values)
    return out


def _refuse(rules: dict[str, bool], what: str, values: dict[str, Any]) -> None:
    """The standard error for the first rule that does not hold."""
    wrong = [name for name, holds in rules.items() if not holds]
    if wrong:
        shown = str(values[wrong[0]])
        raise ValueError(f"{what}[{wrong[0]!r}] does not fit the rest ({shown[:60]}{'...' * (len(shown) > 60)})")


def _entries(values: Any, what: str, wanted: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The entries that are wanted, each read by its function, which gives None for what it cannot take."""
    if not isinstance(values, dict):
        raise ValueError(f"{what} is a {type(values).__name__} and not a dictionary")
    out = {}
    for name, read in wanted.items():
        if name not in values:
            raise ValueError(f"{what} has no {name!r}")
        out[name] = read(values[name])
        if out[name] is None and not (read is _maybe and values[name] is None):
            shown = repr(values[name])
            raise ValueError(f"{what}[{name!r}] is {shown[:60]}, which cannot be used")
    return out


def _number(value: Any) -> float | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok and abs(value) <= _LARGEST else None


def _maybe(value: Any) -> float | None:
    """A number, which may be None where it is not defined."""
    return _number(value)


def _whole(value: Any) -> int | None:
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    return int(value) if ok else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= _TEXT and value.isprintable() else None


def _clock(value: Any) -> dict[str, str] | None:
    ok = isinstance(value, dict) and len(value) <= 10 and None not in map(_text, [*value, *value.values()])
    return dict(value) if ok else None


def _list(read: Callable[[Any], Any], n_most: int | None = None) -> Callable[[Any], list[Any] | None]:
    """A reader of lists of at most ``n_most``, whose items ``read`` takes all."""

    def items(values: Any) -> list[Any] | None:
        ok = isinstance(values, list) and (n_most is None or len(values) <= n_most)
        out = [read(value) for value in values] if ok else [None]
        return None if None in out else out

    return items


_names = _list(_text, 10_000)
_gene_texts = _list(_text, 1 << 20)
_CALIBRATION: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("scale", "guarantee", "age_unit", "groupby"), _text),
    **dict.fromkeys(("features", "roles", "cohorts"), _names),
    **dict.fromkeys(("coefficients", "ranges", "scores", "weights", "cuts"), _list(_number)),
    **dict.fromkeys(("h", "level", "origin", "min_age"), _number),
    **dict.fromkeys(("n", "n_samples"), _whole),
    "strata": _list(_whole),
    "clock": _clock,
}
_ERRORS: dict[str, Callable[[Any], Any]] = {"residuals": _list(_number), "shift_var": _number}
"""Of the clock on its scale of ages, which tl.recalibrate reads; calibrations of earlier versions lack them."""
_EVALUATION: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("age_unit", "fold_key", "train_on"), _text),
    **dict.fromkeys(("roles", "cohorts"), _names),
    **dict.fromkeys(("n_subjects", "n_samples", "n_folds"), _whole),
    **dict.fromkeys(("age_min", "age_max", "mae", "rmse", "mae_median", "level"), _number),
    **dict.fromkeys(("mae_low", "mae_high", "slope", "slope_low", "slope_high", "pearson", "spearman"), _maybe),
}
_COHORTS: dict[str, Callable[[Any], Any]] = {
    "by": _text,
    "names": _names,
    "n_subjects": _list(_whole),
    **dict.fromkeys(("mean_age", "left_out"), _list(_number)),
    **dict.fromkeys(("age_mean", "age_sd", "limit"), _number),
}
_KIND: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("low", "high", "negative"), _number),
    **dict.fromkeys(("whole", "closed"), _truth),
    **dict.fromkeys(("mean", "total"), _maybe),
}
_CONTRAST: dict[str, Callable[[Any], Any]] = {**dict.fromkeys(("target", "reference"), _names), "scale": _number}
_INTERVALS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("level", "width", "interval_score"), _number),
    **dict.fromkeys(("coverage", "coverage_low", "coverage_high"), _number),
    "n_subjects": _whole,
}
