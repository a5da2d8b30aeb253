"""Tables of classifiers."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys


def transfer_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """How well every row of a transfer tells held-out cases from controls, without unit.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.compare_transfer`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the column ``model`` and those that :func:`agevi.tl.compare_transfer` lists, the rows that start
    from the clock first.

    Raises
    ------
    KeyError
        :func:`agevi.tl.compare_transfer` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(case_fraction=0.5)
    >>> agevi.model.MLPClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> clock = agevi.model.MLPClock(adata, n_hidden=[16])
    >>> clock.train(max_epochs=2, enable_progress_bar=False)
    >>> agevi.tl.compare_transfer(
    ...     adata,
    ...     clock,
    ...     condition_key="condition",
    ...     control="control",
    ...     n_folds=2,
    ...     n_repeats=1,
    ...     n_boot=20,
    ...     train_kwargs={"max_epochs": 1},
    ...     refit_clock=True,
    ...     clock_kwargs={"max_epochs": 1},
    ... )
    >>> agevi.get.transfer_df(adata)["model"].tolist()[:2]
    ['frozen transfer', 'encoder frozen']
    """
    call = "agevi.tl.compare_transfer(adata, clock, condition_key=..., control=...)"
    table: pd.DataFrame = _checks.slot(adata, _keys.Keys(key_added).table("transfer"), "uns", call)
    return table.rename_axis("model").reset_index()
