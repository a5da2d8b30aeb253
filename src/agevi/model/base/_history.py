"""What a training logs, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from agevi._compat.scvi import Logger


class History(Logger):
    """Metrics by epoch, of which tables are made when they are asked for: adding rows to tables takes time."""

    name, version = "history", 0

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, dict[int, float]] = {}
        self._units: dict[str, str] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep metrics under the step or epoch that Lightning puts among them."""
        unit = next((unit for unit in ("step", "epoch") if unit in metrics), "step")
        at = int(metrics.get(unit, step or 0))
        for metric, value in metrics.items():
            if metric != unit:
                self._values.setdefault(metric, {})[at] = float(value)
                self._units.setdefault(metric, unit)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep none: the model has its arguments."""

    def state(self) -> dict[str, Any]:
        """All that was logged, as plain values."""
        return {"values": self._values, "units": self._units}

    def go_on(self, state: dict[str, Any]) -> None:
        """Have logged what a state holds."""
        self._values, self._units = state["values"], state["units"]

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """One column for each metric, by epoch, as scvi-tools' logger has them."""
        return {
            metric: pd.DataFrame({metric: list(values.values())}, pd.Index(list(values), name=self._units[metric]))
            for metric, values in self._values.items()
        }
