"""The ready-made clocks."""

from __future__ import annotations

import pandas as pd

from agevi.io._load import READY_MADE
from agevi.io._shelf import list_shelf


def list() -> pd.DataFrame:
    """The ready-made clocks, with what is known of each; errors and intervals in its unit of age.

    They are part of the package: :func:`agevi.io.load_clock` loads them by name without a network, and
    :func:`agevi.io.verify` replays their golden values, which for published clocks are those of their own software.
    ``mae`` is the error on held-out donors of the cohorts that a clock was trained on, and ``mae_other_cohorts`` that
    on cohorts of other laboratories, which is what new data are: where it is missing, it was not measured here.

    Returns
    -------
    DataFrame as of :func:`agevi.io.list_shelf`, with ``where`` = ``"bundled"``.

    Examples
    --------
    >>> import agevi
    >>> agevi.clocks.list().loc["horvath_2013", ["species", "unit", "licence"]].tolist()
    ['human', 'years', 'CC BY 2.0']
    """
    return list_shelf(READY_MADE).assign(where="bundled")
