"""The table of samples, and the accuracy of their predicted ages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _subjects
from agevi.get._read import documented, read
from agevi.metrics._register import ROW
from agevi.metrics._rows import metrics_row
from agevi.tl.predict._judged import (
    REFERENCE,
    TYPE,
    announce,
    announce_types,
    check_groupby,
    of_types,
    references,
    say_left_out,
    say_single,
    types_key,
)


@documented
def subjects_df(
    adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY, roles: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Predicted and actual age of every sample, in the unit of the age column.

    Parameters
    ----------
    %(after_subjects)s
    %(key_added)s
    roles
        Keep samples of these roles: ``"train"``, ``"validation"``, ``"test"``, ``"out_of_fold"``, ``"new"``,
        ``"recalibration"``. All by default.

    Returns
    -------
    A copy with the columns ``sample``, ``subject``, ``age``, ``predicted``, ``n_cells``, ``sd_cells``, ``role`` and
    what other tools added to the table. If cells of some samples were removed since, one line of the log says so.

    Raises
    ------
    KeyError
        :func:`agevi.tl.aggregate_subjects` was not run.
    ValueError
        A role is unknown.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = 50.0  # stands for tl.predict_age(adata, model)
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.get.subjects_df(adata).columns.tolist()
    ['sample', 'subject', 'age', 'predicted', 'n_cells', 'sd_cells', 'role']
    """
    wanted = _roles(roles)
    out, keys = read(adata, "subjects", key_added), _keys.Keys(key_added)
    _subjects.say_without_cells(adata, keys, out["sample"], keys.subjects)
    return out if wanted is None else out[out["role"].isin(wanted)].reset_index(drop=True)


def _roles(roles: str | Sequence[str] | None) -> list[str] | None:
    """Known roles as a list, None for all."""
    if roles is None:
        return None
    return [_checks.choice(role, _keys.ROLES, "roles") for role in ([roles] if isinstance(roles, str) else roles)]


@documented
def metrics_df(
    adata: AnnData,
    *,
    key_added: str = _keys.DEFAULT_KEY,
    groupby: str = "role",
    roles: str | Sequence[str] | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Accuracy of predicted ages per role, over samples; errors in the unit of the age column.

    Read ``mae`` beside ``mae_median``, the error of predicting for everyone the median age of the training samples. A
    clock without signal does not beat it. Only the roles test, out_of_fold and new say how well new subjects are
    predicted: train is what was fitted, and validation chose when to stop. Where these subjects are not predicted
    better than by the median age, or are fewer than 10, one line of the log says so.

    Parameters
    ----------
    %(after_subjects)s
    %(key_added)s
    groupby
        Column of :func:`subjects_df` that makes the rows, such as ``"role"`` or ``"fold"``; or that of
        ``tl.cross_validate(groupby=...)``: one row per type of cells, of its own clocks.
    roles
        Use samples of these roles only; all but ``"recalibration"`` by default. Naming that or ``"train"`` warns.
    level
        Coverage of the bootstrap interval of the MAE.
    n_boot
        Draws of the bootstrap, of whole subjects.
    rng
        Seed or generator of the bootstrap.

    Returns
    -------
    DataFrame indexed by group, with ``n`` (samples with age and prediction), ``n_subjects``, ``mae``, ``mae_low``,
    ``mae_high``, ``mae_median`` and the other values of :func:`agevi.metrics.regression_metrics`. Values that are not
    defined are NaN: all metrics of fewer than 2 samples, and ``mae_median`` where no training ages are known, neither
    from the table nor from the clock. For out-of-fold predictions those are the ages of the other folds.

    Raises
    ------
    KeyError
        The table or the column is absent.
    ValueError
        No sample has an age and a prediction.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=4)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> adata.obs["agevi_role"] = adata.obs["agevi_split"]
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.get.metrics_df(adata)[["n", "mae"]].round(3)
                n  mae
    role
    train       6  2.0
    validation  2  2.0
    test        4  2.0
    """
    keys, wanted = _keys.Keys(key_added), _roles(roles)
    by_type = isinstance(groupby, str) and groupby == types_key(adata, keys)
    if not by_type and keys.subjects in adata.uns:
        _subjects.check_cells(adata, keys, adata.uns[keys.subjects].index, keys.subjects)
    table = of_types(adata, keys) if by_type else subjects_df(adata, key_added=key_added)
    if by_type:
        _subjects.check_cells(adata, keys, table["sample"], keys.by_group)
    else:
        check_groupby(adata, table, keys, groupby)
    keep = table["age"].notna() & table["predicted"].notna()
    keep &= table["role"] != _keys.RECALIBRATION if wanted is None else table["role"].isin(wanted)
    if not keep.any():
        raise ValueError(
            f"no sample{f' of the roles {_checks.listed(wanted)}' if wanted else ''} has an age and a prediction in "
            f"adata.uns[{keys.subjects!r}]; metrics need both (roles there: "
            f"{_checks.listed(sorted(set(table['role'])))}). Pass other roles, or age_key to "
            "agevi.tl.aggregate_subjects."
        )
    fitted = [role for role in (_keys.TRAIN, _keys.RECALIBRATION) if wanted is not None and role in wanted]
    if fitted:
        warnings.warn(
            f"metrics on role {fitted[0]!r} show how well these subjects were fitted, not how well new ones are "
            f"predicted; use roles={'test' if fitted[0] == _keys.TRAIN else 'new'!r}.",
            UserWarning,
            stacklevel=2,
        )
    say_left_out(table, wanted)
    if by_type:
        announce_types(adata, table, keys, groupby, wanted)
    else:
        table[REFERENCE] = references(adata, table, keys)
        announce(adata, table, keys, wanted, reference=table[REFERENCE].to_numpy())
    kept = table[keep]
    rows = {
        group: metrics_row(
            part["age"].to_numpy(),
            part["predicted"].to_numpy(),
            subject=part["subject"].to_numpy(),
            reference=part[REFERENCE].to_numpy(),
            level=level,
            n_boot=n_boot,
            rng=rng,
        )
        for group, part in kept.groupby(TYPE if by_type else groupby, sort=True)
    }
    say_single(rows, groupby)
    order = sorted(rows, key=_keys.ROLES.index) if set(rows) <= set(_keys.ROLES) else list(rows)
    return pd.DataFrame([rows[group] for group in order], index=pd.Index(order, name=groupby), columns=ROW)
