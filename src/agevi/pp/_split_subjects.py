"""Whole subjects to training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _keys, _units
from agevi._compat import written_to
from agevi.dataloaders._assign import assign_roles, role_counts, subject_ages, subject_strata

logger = logging.getLogger(__name__)


def split_subjects(  # noqa: PLR0913
    adata: AnnData,
    *,
    subject_key: str,
    age_key: str,
    sample_key: str | None = None,
    test_size: float = 0.15,
    validation_size: float = 0.15,
    stratify_by: str | Sequence[str] | None = None,
    min_age: float = -1.0,
    rng: int | np.random.Generator | None = 0,
    key_added: str = _keys.SPLIT,
    copy: bool = False,
) -> AnnData | None:
    """Role of every cell's subject: train, validation or test, whole subjects only.

    Held-out subjects are spread evenly over the ages: labelled subjects in the order of age are cut into as many blocks
    as subjects are held out, and one of each block is drawn. Within that, numbers per stratum of ``stratify_by`` are
    proportional. With one or two held-out subjects no split is representative; use cross-validation there. With a
    condition in ``stratify_by``, an age that says nothing about it has an AUROC of 0.47 to 0.49 among the test subjects
    instead of 0.5, since what one role has of it the others lack; judge classifiers by
    :func:`agevi.tl.compare_transfer`, whose folds are balanced over the condition alone. The result depends on the
    names of the subjects and on ``rng``, not on the order of cells.

    Parameters
    ----------
    adata
        Annotated data, cells x genes.
    subject_key
        Column of ``adata.obs`` with the person or animal, the unit that is held out.
    age_key
        Column with the age, NaN where unlabelled.
    sample_key
        Column with the visit or biopsy, the unit with one age. Default: the subject. A subject counts with the mean age
        of its samples.
    test_size, validation_size
        A float is a share of the subjects with an age (rounded half up, but one at least), an integer their number; 0
        leaves the role out.
    stratify_by
        Column or columns to balance as well (sex, tissue, cohort). A subject whose cells differ counts with its most
        common value, or its equally common values as a stratum of their own; missing values are a stratum of their own.
    min_age
        Lowest age that is accepted, in the unit of the column.
    rng
        Seed or generator.
    key_added
        Column to write.
    copy
        Return a copy instead of writing to ``adata``.

    Returns
    -------
    None, or the copy. Sets ``adata.obs[key_added]``, categorical ``"train"``, ``"validation"``, ``"test"``. Subjects
    without age train: they can help the reconstruction only.

    Raises
    ------
    KeyError
        A column is absent.
    TypeError
        Ages are text, or a size is not a number.
    ValueError
        Ages or units are unusable, fewer than 3 subjects have an age, or the sizes leave no subject to train on.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=5, n_genes=50)
    >>> agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", stratify_by="sex")
    >>> adata.obs.groupby("agevi_split", observed=True)["donor"].nunique().to_dict()
    {'train': 14, 'validation': 3, 'test': 3}
    """
    _checks.anndata(adata)
    subject, sample = _units.units(adata, subject_key, sample_key)
    age = _units.ages(adata, age_key, min_age=min_age, clock=_keys.clock_of(adata.uns, age_key))
    by_sample, owner = _units.ages_of_samples(age, subject, sample, age_key)
    _units.learnable(by_sample, owner, age_key)
    columns = [stratify_by] if isinstance(stratify_by, str) else list(stratify_by or [])
    strata = subject_strata(adata, columns, subject)
    if key_added in {subject_key, age_key, sample_key, *columns}:
        raise ValueError(f"key_added={key_added!r} is a column that the split is made from; choose another name.")
    ages = subject_ages(by_sample, owner)
    n_test, n_validation = role_counts(int(ages.notna().sum()), test_size, validation_size)
    roles = assign_roles(
        ages.to_numpy(),
        None if strata is None else strata.loc[ages.index].to_numpy(),
        n_test=n_test,
        n_validation=n_validation,
        rng=rng,
    )
    of_cell = subject.map(pd.Series(roles, index=ages.index)).to_numpy()
    _log(roles, int(ages.isna().sum()), key_added)
    out = written_to(adata, copy=copy)
    out.obs[key_added] = pd.Categorical(of_cell, categories=list(_keys.SPLIT_ROLES))
    return out if copy else None


def _log(roles: np.ndarray, n_unlabelled: int, key_added: str) -> None:
    """Say how many subjects have which role."""
    numbers = ", ".join(f"{(roles == role).sum()} {role}" for role in _keys.SPLIT_ROLES)
    note = f" ({n_unlabelled} of the train subjects have no age)" if n_unlabelled else ""
    logger.info("obs[%r]: %s subjects%s.", key_added, numbers, note)
