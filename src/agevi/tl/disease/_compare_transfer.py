"""Whether what a clock has learnt from ages helps to tell cases from controls."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat import version
from agevi._docs import shared
from agevi.dataloaders._folds import MIN_FOLDS
from agevi.model.base._save import copy_of
from agevi.model.transfer import CaseControlClassifier
from agevi.tl._store import store_table
from agevi.tl.disease._folds import Fits, Fold, draw_folds, fit_folds
from agevi.tl.disease._linear_models import Samples, reading, samples_of
from agevi.tl.disease._table import metric_table
from agevi.tl.validate._recipe import OWN_ARGUMENTS, check_kwargs


@shared
def compare_transfer(  # noqa: PLR0913
    adata: AnnData,
    clock: Any,
    *,
    condition_key: str,
    control: str,
    n_folds: int = 5,
    n_repeats: int = 5,
    sex_key: str | None = None,
    layer: str | None = None,
    obsm_key: str | None = None,
    reference: str = "from scratch",
    validation_size: float = 0.2,
    train_kwargs: dict[str, Any] | None = None,
    refit_clock: bool = False,
    clock_kwargs: dict[str, Any] | None = None,
    n_boot: int = 1000,
    n_jobs: int | None = 1,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """How well cases are told from controls with and without what a clock has learnt from ages, without unit.

    All rows are fitted in the same folds of whole subjects, which are balanced over the condition, and judged on the
    subjects that were held out. ``"frozen transfer"``: the clock with a new last unit; ``"encoder frozen"``;
    ``"fine-tuned"``: all layers trained on; ``"from scratch"``: the same network from new weights
    (:class:`agevi.model.CaseControlClassifier` says what each trains). ``"logistic regression"``: on what the clock
    reads of each sample, scaled on training subjects (each modality on its own), the penalty chosen inside these;
    ``"age + sex"``: the same on age and ``sex_key`` alone, or ``"age"`` without it. Where ``"age + sex"`` does as well
    as the others, these may tell age. Subjects that trained the clock are held out from the classifier alone: the clock
    knows their ages, which may go with their condition, and its rows look better than they are, as a warning says. Pass
    a clock of other people, or ``refit_clock=True``.

    Parameters
    ----------
    adata
        Samples or cells of cases and controls, with the clock's genes.
    clock
        A trained network clock.
    condition_key
        Column of ``adata.obs`` with two values; missing ones mean unlabelled, and such subjects are left out.
    control
        Its value in controls.
    n_folds
        Folds, at most as many as there are subjects in the smaller class.
    n_repeats
        Times that subjects are dealt into folds. Each metric is taken over all held-out subjects of a repeat, of whose
        samples the mean probability counts, and averaged over repeats. AUROC is taken over pairs of subjects that the
        same fold held out.
    sex_key
        Column with the sex, or another category of samples, for the row without genes.
    layer
        Layer of ``adata`` with the values, where it is not the one that the clock was trained on.
    obsm_key
        The same for clocks on a table of ``adata.obsm``.
    reference
        Row that the others are compared with.
    validation_size
        Share of the training subjects of each class, the same for all networks of a fold, that choose the epochs of a
        network, which is then trained anew for as many on all training subjects; 0, or fewer than 2 subjects of a
        class: all epochs are run.
    train_kwargs
        Arguments of :meth:`agevi.model.CaseControlClassifier.train` for all networks, such as ``max_epochs``.
    refit_clock
        Train the clock anew in every fold, with its arguments and genes, on the ages of the subjects that train the
        classifiers there; those that choose epochs do so for the clock too. It takes that much longer.
    clock_kwargs
        Arguments of the clock's ``train`` then, such as ``max_epochs``.
    n_boot
        Draws of subjects for the intervals, the same for all rows.
    n_jobs
        Folds side by side, as in joblib; results do not depend on it.
    %(key_added)s
    rng
        Seed or generator of folds, networks and draws.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_transfer"]``
        DataFrame, index model: ``n_subjects``, ``n_cases`` (subjects), each of ``auroc``, ``auprc``, ``f1``, ``mcc``,
        ``balanced_accuracy`` and ``brier`` with the ends of its 95 % interval over subjects (``..._low``,
        ``..._high``), ``auroc_sd`` over repeats, and ``difference``, ``difference_low`` and ``difference_high``: AUROC
        minus that of the reference in the same draws.
    ``adata.uns[f"{key_added}_transfer_params"]``
        Arguments, names of the classes, the clock's class, and ``n_known``: subjects of the clock's training, 0 where
        it was trained anew.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If ``clock`` is not a network clock.
    RuntimeError
        If the clock is not trained.
    ValueError
        If the column has not two values, a subject is both case and control, there are too few of a class, or a clock
        that is to be trained anew finds no ages.

    Warns
    -----
    UserWarning
        If subjects of ``adata`` trained the clock or chose its epochs.

    Notes
    -----
    Intervals are of the mean over repeats. They cover the choice of subjects, not that of the training data, and are
    too narrow with fewer than about ten subjects in a class.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=10, n_genes=60, case_fraction=0.5)
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
    ...     sex_key="sex",
    ...     n_boot=20,
    ...     train_kwargs={"max_epochs": 1},
    ...     refit_clock=True,
    ...     clock_kwargs={"max_epochs": 1},
    ... )
    >>> agevi.get.transfer_df(adata)["model"].tolist()[-1]
    'age + sex'
    """
    arguments = {k: v for k, v in locals().items() if k not in ("adata", "clock", "n_jobs", "key_added", "copy")}
    _checks.in_memory(_checks.anndata(adata), "tl.compare_transfer reads", "")
    keys, n_folds = _keys.Keys(key_added), _checks.count(n_folds, "n_folds", low=MIN_FOLDS)
    n_repeats, n_boot = _checks.count(n_repeats, "n_repeats"), _checks.count(n_boot, "n_boot")
    if not isinstance(validation_size, numbers.Real) or not 0 <= validation_size < 1:
        raise ValueError(
            f"validation_size={validation_size!r} is not a share; pass a number from 0 to below 1, such as 0.2."
        )
    if clock_kwargs and not refit_clock:
        raise ValueError(
            "clock_kwargs is for clocks that are trained anew; pass refit_clock=True too, or leave it out."
        )
    reserved = ("self", *OWN_ARGUMENTS)
    check_kwargs("train_kwargs", train_kwargs, "CaseControlClassifier.train", CaseControlClassifier.train, reserved)
    check_kwargs("clock_kwargs", clock_kwargs, f"{type(clock).__name__}.train", type(clock).train, reserved)
    data = reading(adata, clock, layer, obsm_key)
    model = CaseControlClassifier.from_clock(clock, data, condition_key=condition_key, control=control)
    samples = samples_of(data, clock, model, condition_key, sex_key)
    _checks.choice(reference, samples.rows, "reference")
    _check_folds(samples, n_folds, condition_key)
    n_known = 0 if refit_clock else _warn_of_known(samples, clock)
    generator = _checks.generator(rng)
    fits = Fits(
        samples,
        copy_of(clock),
        condition_key,
        control,
        train_kwargs={"early_stopping": validation_size > 0} | (train_kwargs or {}),
        clock_kwargs=(clock_kwargs or {}) if refit_clock else None,
    )
    folds = [f for i in range(n_repeats) for f in draw_folds(samples, i, n_folds, validation_size, generator)]
    probability, fold_of = _held_out(samples, folds, fit_folds(fits, folds, n_jobs))
    case = samples.case_of.to_numpy()
    table = metric_table(samples.rows, case, probability, fold_of, reference=reference, n_boot=n_boot, rng=generator)
    names = {"condition_key": condition_key, "control": model.control, "case": model.case}
    given = {"train_kwargs": train_kwargs or {}, "clock_kwargs": clock_kwargs or {}}
    of_clock = {"model": type(clock).__name__, "n_known": n_known, "version": version("agevi")}
    return store_table(adata, keys, "transfer", table, names | arguments | names | given | of_clock, copy=copy)


def _check_folds(samples: Samples, n_folds: int, condition_key: str) -> None:
    """Refuse more folds than there are subjects of a class."""
    n_cases = int(samples.case_of.sum())
    n_controls = len(samples.case_of) - n_cases
    fewest = min(n_cases, n_controls)
    if n_folds > fewest:
        raise ValueError(
            f"n_folds={n_folds}, but adata.obs[{condition_key!r}] has {n_cases} cases and {n_controls} controls; each "
            f"fold holds out one of each or more. Pass n_folds={max(fewest, MIN_FOLDS)} or less."
        )


def _warn_of_known(samples: Samples, clock: Any) -> int:
    """How many subjects the clock was fitted to; warns of them."""
    n_known = sum(clock.split_.get(subject) in _keys.FITTED_ROLES for subject in samples.case_of.index)
    if n_known:
        warnings.warn(
            f"{n_known} of {len(samples.case_of)} subjects trained the clock or chose its epochs, so that it knows "
            "their ages: the rows that start from it look better than they would for other people. Pass a clock of "
            "other people, or refit_clock=True.",
            UserWarning,
            stacklevel=_checks.stack_depth(),
        )
    return n_known


def _held_out(samples: Samples, folds: list[Fold], found: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of each subject, (n_rows, n_repeats, n_subjects), and its fold, (n_repeats, n_subjects)."""
    n_repeats = 1 + folds[-1].repeat
    of_samples = np.full((len(samples.rows), n_repeats, len(samples.case)), np.nan)
    fold_of = np.zeros((n_repeats, len(samples.case_of)), dtype=np.int64)
    for fold, probability in zip(folds, found, strict=True):
        of_samples[:, fold.repeat, fold.held_out] = probability
        fold_of[fold.repeat, fold.roles == _keys.TEST] = fold.number
    owner = samples.case_of.index.get_indexer(pd.Index(samples.subject))
    member = np.zeros((len(owner), len(samples.case_of)))
    member[np.arange(len(owner)), owner] = 1 / np.bincount(owner)[owner]
    return of_samples @ member, fold_of
