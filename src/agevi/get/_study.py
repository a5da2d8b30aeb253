"""The tables of the neuron-clock study."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys

_TABLES = ("1", "2", "3", "4", "others", "defaults", "test")


def neuron_clock_study_df(
    adata: AnnData, table: int | str | None = None, *, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """Errors of the rows of the neuron-clock paper on your cells, in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.neuron_clock_study`.
    table
        One table in the paper's layout, with the columns that say something there: 1 (multilayer perceptrons), 2 (Gaussian
        autoencoders), 3 (Poisson), 4 (denoising), ``"others"``, ``"defaults"`` or ``"test"``. All rows by default.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy with the columns that :func:`agevi.tl.neuron_clock_study` lists; ``published`` is the error in the paper, ``mae`` that
    on your cells.

    Raises
    ------
    KeyError
        :func:`agevi.tl.neuron_clock_study` was not run.
    ValueError
        ``table`` is unknown.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=8, n_genes=30)
    >>> agevi.tl.neuron_clock_study(
    ...     adata, age_key="age", subject_key="donor", epochs=0.04, widths=0.02, rows=["mlp [500, 500]"]
    ... )  # doctest: +ELLIPSIS
    Table 1: multilayer perceptrons, validation subjects
    ...
    >>> agevi.get.neuron_clock_study_df(adata, 1)[["n_hidden", "learning_rate", "published"]].to_dict("records")
    [{'n_hidden': '500-500', 'learning_rate': 0.001, 'published': 8.44}]
    """
    found: pd.DataFrame = _checks.slot(
        adata,
        _keys.Keys(key_added).table("neuron_clock_study"),
        "uns",
        "agevi.tl.neuron_clock_study(adata, age_key=..., subject_key=...)",
    )
    out = found.reset_index(drop=True)
    if table is None:
        return out
    out = out[out["table"] == _checks.choice(str(table), _TABLES, "table")].reset_index(drop=True)
    empty = [name for name in out if out[name].isna().all() or out[name].isin(["", 0]).all()]
    return out.drop(columns=["table", *empty])
