"""Values of cells by the unit (subject or sample) that they belong to, and where the cells of a unit disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


class PerUnit:
    """The one value of every unit; cells of the units ``several`` differ, only some of those in ``part`` have one."""

    def __init__(self, values: Any, unit: pd.Series) -> None:
        self._values, self._unit = pd.Series(values), unit.to_numpy()
        of, self.units = pd.factorize(self._unit, sort=True)
        code = pd.factorize(self._values)[0]  # (n_cells,), -1 where missing
        known = code >= 0
        # Of repeated indices the last assignment stays: here the first cell with a value, else the first cell.
        rows = np.concatenate([np.flatnonzero(known), np.flatnonzero(~known)])[::-1]
        self.first = np.empty(len(self.units), dtype=np.int64)  # a cell that has the value of its unit
        self.first[of[rows]] = rows
        of_unit = code[self.first][of]
        self.several = self.units[np.unique(of[known & (code != of_unit)])]
        self.part = self.units[np.unique(of[~known & (of_unit >= 0)])]

    @property
    def values(self) -> pd.Series:
        """Value of every unit, indexed by unit in the order of their names; missing where none of its cells has one."""
        return self._values.iloc[self.first].set_axis(pd.Index(self.units))

    def cells(self, unit: Any) -> pd.Series:
        """Values of the cells of one unit."""
        return self._values[self._unit == unit]
