"""Tables that are returned as the tools left them, or by a choice of their rows."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi.get._read import documented, read, stored

_STUDY = ("1", "2", "3", "4", "others", "defaults", "test")


@documented
def acceleration_df(
    adata: AnnData, table: Literal["groups", "samples"] = "groups", *, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """Differences in predicted age between groups at equal age, or the deviation of each sample, in the unit of age.

    Parameters
    ----------
    %(after_acceleration)s
    table
        ``"groups"`` or ``"samples"``.
    %(key_added)s

    %(returns_acceleration)s

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
    found: pd.DataFrame = stored(adata, "acceleration", key_added)[table]
    return found.reset_index(drop=True)


@documented
def calibration_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """How well intervals of age hold: coverage as a share, width and interval score in the unit of the age column.

    Read ``coverage`` beside ``level`` in every row, and ``interval_score`` beside ``interval_score_trivial``, that of
    intervals which no clock is needed for.

    %(plain_calibration)s

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
    return read(adata, "calibration", key_added)


@documented
def correlation_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Correlation of every component of a representation with age, without unit.

    %(plain_correlation)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> agevi.tl.age_correlation(adata, age_key="age", subject_key="donor", use_rep="module_activity")
    >>> agevi.get.correlation_df(adata)["component"].tolist()
    ['0', '1', '2']
    """
    return read(adata, "correlation", key_added)


@documented
def leaderboard_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Accuracy of every compared model, the smallest error first; errors in the unit of the age column.

    %(plain_leaderboard)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=10, n_genes=30)
    >>> agevi.tl.compare_models(adata, [], age_key="age", subject_key="donor", n_folds=3)
    >>> agevi.get.leaderboard_df(adata)[["model", "n"]].to_dict("records")
    [{'model': 'median age', 'n': 12}, {'model': 'pseudobulk ridge', 'n': 12}]
    """
    return read(adata, "leaderboard", key_added)


@documented
def explanation_df(
    adata: AnnData, table: Literal["groups", "samples"] = "groups", *, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """What each type of cells and the composition add to predicted ages, in the unit of age.

    Parameters
    ----------
    %(after_explanation)s
    table
        ``"groups"`` or ``"samples"``.
    %(key_added)s

    %(returns_explanation)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.explain_age` was not run.
    ValueError
        ``table`` is unknown.

    Examples
    --------
    %(example_explanation)s
    >>> agevi.get.explanation_df(adata, "samples").groupby("sample")["contribution"].sum().shape
    (30,)
    """
    _checks.choice(table, ("groups", "samples"), "table")
    found: pd.DataFrame = stored(adata, "explanation", key_added)[table]
    return found.reset_index(drop=True)


@documented
def learning_curve_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Out-of-fold error against the number of subjects and of cells, in the unit of the age column.

    %(plain_learning_curve)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=12, n_genes=60)
    >>> keys = {"age_key": "age", "subject_key": "donor"}
    >>> agevi.tl.learning_curve(adata, "PLSClock", **keys, n_subjects=[6], n_cells=[3, 6], n_folds=2, n_repeats=1)
    >>> agevi.get.learning_curve_df(adata).loc[0, ["axis", "n", "n_train", "n_cells"]].to_dict()
    {'axis': 'subjects', 'n': 6, 'n_train': 6, 'n_cells': 12}
    """
    return read(adata, "learning_curve", key_added)


@documented
def metrics_by_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Accuracy overall and per group of samples, errors in the unit of the age column.

    %(plain_metrics)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> adata.obs["agevi_predicted"] = adata.obs["age"] + 2  # stands for tl.predict_age(adata, model)
    >>> adata.obs["agevi_role"] = "new"
    >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
    >>> agevi.tl.evaluate_by(adata, age_bins=[20, 90])
    >>> agevi.get.metrics_by_df(adata)["group"].tolist()
    ['', '20 to 90']
    """
    return read(adata, "metrics", key_added)


@documented
def neuron_clock_study_df(
    adata: AnnData, table: int | str | None = None, *, key_added: str = _keys.DEFAULT_KEY
) -> pd.DataFrame:
    """Errors of the rows of the neuron-clock paper on your cells, in the unit of the age column.

    Parameters
    ----------
    %(after_neuron_clock_study)s
    table
        One table in the paper's layout, with the columns that say something there: 1 (multilayer perceptrons), 2
        (Gaussian autoencoders), 3 (Poisson), 4 (denoising), ``"others"``, ``"defaults"`` or ``"test"``. All rows by
        default.
    %(key_added)s

    Returns
    -------
    A copy with the columns that :func:`agevi.tl.neuron_clock_study` lists; ``published`` is the error in the paper,
    ``mae`` that on your cells.

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
    out = read(adata, "neuron_clock_study", key_added)
    if table is None:
        return out
    out = out[out["table"] == _checks.choice(str(table), _STUDY, "table")].reset_index(drop=True)
    empty = [name for name in out if out[name].isna().all() or out[name].isin(["", 0]).all()]
    return out.drop(columns=["table", *empty])


@documented
def normative_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Centile and z score of every held-out sample among reference samples of its age, ages in the unit of age.

    %(plain_normative)s

    Examples
    --------
    %(example_normative)s
    >>> bool(agevi.get.normative_df(adata)["centile"].between(0, 100).all())
    True
    """
    return read(adata, "normative", key_added)


@documented
def posterior_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Posterior mean, standard deviation and interval of the age of every sample, in the unit of the age column.

    %(plain_posterior)s

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
    return read(adata, "posterior", key_added)


@documented
def programs_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Latent dimensions or components by their part in predicted ages, in the unit of the age column.

    %(plain_programs)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort()
    >>> agevi.model.NMFClock.setup_anndata(adata, age_key="age", subject_key="donor")
    >>> model = agevi.model.NMFClock(adata, n_components=3, n_hidden=[8], n_fit=300)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> agevi.tl.age_programs(adata, model)
    >>> sorted(agevi.get.programs_df(adata)["program"])
    ['component_0', 'component_1', 'component_2']
    """
    return read(adata, "programs", key_added)


@documented
def study_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Steps of a study: the calls of each as text, whether it was made, and why not; ``seconds`` in seconds.

    %(plain_study)s

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=10, n_genes=40, rng=1)
    >>> found = agevi.tl.study(adata, age_key="age", subject_key="donor", quick=True)
    >>> agevi.get.study_df(adata)["step"].tolist()[:3]
    ['audit', 'who trains', 'predictions']
    """
    return read(adata, "study", key_added)


@documented
def transfer_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """How well every row of a transfer tells held-out cases from controls, without unit.

    %(plain_transfer)s

    Examples
    --------
    %(example_transfer)s
    >>> agevi.get.transfer_df(adata)["model"].tolist()[:2]
    ['frozen transfer', 'encoder frozen']
    """
    return read(adata, "transfer", key_added)


@documented
def trend_df(adata: AnnData, *, key_added: str = _keys.DEFAULT_KEY) -> pd.DataFrame:
    """Trend of predicted ages along an ordered covariate: correlation, and slope in the unit of age per unit of order.

    %(plain_trend)s

    Examples
    --------
    %(example_trend)s
    >>> agevi.get.trend_df(adata)["slope"].round(3).tolist()
    [0.5]
    """
    return read(adata, "trend", key_added)
