"""The tables of numbers that a study is planned and defended with."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys


def acceleration_df(
    adata: AnnData, table: Literal["groups", "samples"] = "groups", *, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """Differences in predicted age between groups at equal age, or the deviation of each sample, in the unit of age.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.age_acceleration`.
    table
        ``"groups"`` or ``"samples"``.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.age_acceleration` lists.

    Raises
    ------
    KeyError
        :func:`agevi.tl.age_acceleration` was not run.
    ValueError
        ``table`` is unknown.

    Examples
    --------
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50, case_fraction=0.5)
    >>> noise = np.repeat(np.random.default_rng(0).normal(0, 3, 12), 5)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2 + noise  # stands for tl.cross_validate(adata, model)
    >>> adata.obs["agevi_role"] = "out_of_fold"
    >>> adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age"}
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.age_acceleration(adata, groupby="condition", reference="control", n_permutations=0)
    >>> agevi.get.acceleration_df(adata)[["group", "reference"]].values.tolist()
    [['case', 'control']]
    >>> agevi.get.acceleration_df(adata, "samples").shape[0]
    12
    """
    _checks.choice(table, ("groups", "samples"), "table")
    slot = _keys.Keys(key_added).table("acceleration")
    call = "agevi.tl.age_acceleration(adata, groupby=..., reference=...)"
    found: pd.DataFrame = _checks.slot(adata, slot, "uns", call)[table]
    return found.reset_index(drop=True)


def calibration_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """How well intervals of age hold: coverage as a share, width and interval score in the unit of the age column.

    Read ``coverage`` beside ``level`` in every row, and ``interval_score`` beside ``interval_score_trivial``, that of
    intervals which no clock is needed for.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.calibrate`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.calibrate` lists, all samples first, then each group.

    Raises
    ------
    KeyError
        :func:`agevi.tl.calibrate` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=50)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.calibrate(adata, level=0.8)
    >>> agevi.get.calibration_df(adata)[["groupby", "n", "level"]].head(1).values.tolist()
    [['overall', 30, 0.8]]
    """
    call = f"agevi.tl.calibrate(adata, key_added={key_added!r})"
    table: pd.DataFrame = _checks.slot(adata, _keys.Keys(key_added).table("calibration"), "uns", call)
    return table.reset_index(drop=True)


def posterior_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Posterior mean, standard deviation and interval of the age of every sample, in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.subject_posterior`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy with the columns that :func:`agevi.tl.subject_posterior` lists: one row per sample with ``type`` ``"all"``, and one
    per sample and type where types were told apart.

    Raises
    ------
    KeyError
        :func:`agevi.tl.subject_posterior` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=20, n_genes=60)
    >>> agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    >>> agevi.tl.aggregate_subjects(adata)
    >>> agevi.tl.subject_posterior(adata)
    >>> list(agevi.get.posterior_df(adata))[:7]
    ['sample', 'type', 'subject', 'age', 'predicted', 'n_cells', 'mean']
    """
    table: pd.DataFrame = _checks.slot(
        adata, _keys.Keys(key_added).table("posterior"), "uns", "agevi.tl.subject_posterior(adata)"
    )
    return table.reset_index(drop=True)


def normative_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Centile and z score of every held-out sample among reference samples of its age, ages in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.normative_scores`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy of the table with the columns that :func:`agevi.tl.normative_scores` lists.

    Raises
    ------
    KeyError
        :func:`agevi.tl.normative_scores` was not run.

    Examples
    --------
    >>> import agevi, numpy as np
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50)
    >>> noise = np.repeat(np.random.default_rng(0).normal(0, 5, 40), 5)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2 + noise  # stands for tl.cross_validate(adata, model)
    >>> adata.obs["agevi_role"] = "out_of_fold"
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.tl.normative_scores(adata)
    >>> bool(agevi.get.normative_df(adata)["centile"].between(0, 100).all())
    True
    """
    slot = _keys.Keys(key_added).table("normative")
    found: pd.DataFrame = _checks.slot(adata, slot, "uns", "agevi.tl.normative_scores(adata)")
    return found.reset_index(drop=True)


def learning_curve_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Out-of-fold error against the number of subjects and of cells, in the unit of the age column.

    Parameters
    ----------
    adata
        Annotated data after :func:`agevi.tl.learning_curve`.
    key_added
        Prefix of the slots.

    Returns
    -------
    A copy with one row per axis and level and the columns that :func:`agevi.tl.learning_curve` lists.

    Raises
    ------
    KeyError
        :func:`agevi.tl.learning_curve` was not run.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=12, n_genes=60)
    >>> agevi.tl.learning_curve(adata, "PLSClock", age_key="age", subject_key="donor", n_cells=[3, 6], n_repeats=1)
    >>> agevi.get.learning_curve_df(adata).loc[0, ["axis", "n", "n_train", "n_cells"]].to_dict()
    {'axis': 'subjects', 'n': 8, 'n_train': 8, 'n_cells': 12}
    """
    found: pd.DataFrame = _checks.slot(
        adata,
        _keys.Keys(key_added).table("learning_curve"),
        "uns",
        "agevi.tl.learning_curve(adata, model_cls, age_key=..., subject_key=...)",
    )
    return found.reset_index(drop=True)
