"""What happened during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, get
from agevi.pl import _base
from agevi.pl._figure import figure

FAR = 10
"""Distances between quartiles and median beyond the quartiles that are drawn."""
_LABELS = {"age_mae": "Mean absolute error of subjects ({unit})"}


@figure
def training(model: Any, *, metric: str = "age_mae", show_kl_weight: bool = True, ax: Axes | None = None) -> Axes:
    """A metric per epoch on training and validation subjects, by default the error of predicted age.

    The dotted line is the epoch whose weights the model kept. A validation curve that rises while the training curve
    falls means overfitting. Where an epoch is chosen (``train_unit="cell"`` with early stopping), its validation error
    is the best of many and therefore too good; otherwise the last epoch is kept, which the legend says. The test
    subjects tell the error to expect.

    Parameters
    ----------
    model
        A model after ``train()``.
    metric
        Quantity of :func:`agevi.get.history_df`: ``"age_mae"``, ``"elbo"``, ``"reconstruction_loss"``, ...
    show_kl_weight
        Draw the weight of the KL term, if it was recorded and changed, as a grey background with its own scale.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The axes of the metric.

    Raises
    ------
    RuntimeError
        The model was not trained.
    KeyError
        The metric was not recorded.
    TypeError
        The model is not trained in epochs, as linear clocks are not.

    Examples
    --------
    >>> import agevi, pandas as pd
    >>> class Trained:  # stands for a model after train()
    ...     history = {"age_mae_train": pd.DataFrame({"age_mae_train": [9.0, 7.5]})}
    >>> ax = agevi.pl.training(Trained())
    >>> ax.get_ylabel()
    'Mean absolute error of subjects (years)'
    """
    if hasattr(type(model), "cv_results_"):
        raise TypeError(
            f"model is a {type(model).__name__}, which is not trained in epochs, so there is no curve to draw; the "
            "errors of the search for its settings are in model.cv_results_."
        )
    history = get.history_df(model)
    curves = history[history["quantity"] == metric]
    if curves.empty:
        there = history["quantity"].unique()
        raise KeyError(f"metric={metric!r} was not recorded; choose one of {_checks.listed(there, len(there))}.")
    ax = _base.axes(ax, width=4.2, height=3.4)
    for role in [r for r in ("", _keys.TRAIN, _keys.VALIDATION) if r in set(curves["role"])]:
        part = curves[curves["role"] == role]
        color = _base.ROLE_COLORS[role] if role else _base.LINE_COLOR
        alone: dict[str, Any] = {"marker": "o"} if len(part) == 1 else {}
        ax.plot(part["epoch"], part["value"], color=color, linewidth=1.6, label=role or metric, zorder=3, **alone)
    _mark_kept(ax, curves, getattr(model, "best_epoch_", None), chosen=_chooses(model))
    weight = history[history["quantity"] == "kl_weight"]
    with_weight = show_kl_weight and weight["value"].nunique() > 1 and metric != "kl_weight"
    behind = [_draw_weight(ax, weight)] if with_weight else []
    unit = getattr(model, "unit", "years")
    ax.set(xlabel="Epoch", ylabel=_LABELS.get(metric, metric).format(unit=unit))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    ax.set_ylim(*_limits(curves["value"].to_numpy()))
    _base.legend(ax, handles=[*ax.get_legend_handles_labels()[0], *behind], above=True, ncols=2)
    return ax


def _chooses(model: Any) -> bool:
    """Whether validation subjects choose an epoch of the model."""
    chooses = getattr(model, "chooses_epochs", None)
    return chooses is None or bool(
        chooses(model.init_params_["non_kwargs"] if hasattr(model, "init_params_") else None)
    )


def _mark_kept(ax: Axes, curves: pd.DataFrame, epoch: int | None, *, chosen: bool) -> None:
    """A line at the epoch whose weights were kept, and its value on validation subjects."""
    validation = curves[curves["role"] == _keys.VALIDATION]
    if epoch is None or validation.empty:
        return
    value = validation.loc[validation["epoch"] == epoch, "value"]
    which = f"epoch {epoch}" if chosen else f"epoch {epoch}, the last (none is chosen)"
    label = f"kept: {which}" + (f": {value.iloc[0]:.2f}" if len(value) else "")
    ax.axvline(epoch, color=_base.LINE_COLOR, linewidth=1, linestyle=":", label=label, zorder=2)
    if len(value):
        ax.plot(epoch, value.iloc[0], "o", color=_base.ROLE_COLORS[_keys.VALIDATION], markersize=6, zorder=4)


def _draw_weight(ax: Axes, weight: pd.DataFrame) -> Any:
    """The KL weight behind everything, on a scale of its own."""
    behind = ax.twinx()
    area = behind.fill_between(
        weight["epoch"], weight["value"], step="mid", color="#ececec", linewidth=0, label="KL weight"
    )
    behind.set(ylim=(0, 1.05 * weight["value"].max()))
    behind.set_ylabel("KL weight", color="#8c8c8c")
    behind.tick_params(axis="y", colors="#8c8c8c", labelsize="small")
    behind.spines[["top", "right", "left", "bottom"]].set_visible(False)
    behind.set_zorder(ax.get_zorder() - 1)
    ax.patch.set_visible(False)  # else the axes hide what is behind them
    return area


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Limits that a few values far from the others, as of the first epochs, do not widen."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    reach = FAR * max(high - middle, middle - low) or np.inf
    return _base.margins(values.clip(low - reach, high + reach))
