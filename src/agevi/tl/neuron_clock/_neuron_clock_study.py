"""The tables of the neuron-clock paper, from any cohort."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.std import tqdm

from agevi import _checks, _keys, _units
from agevi._docs import shared
from agevi._progress import Bar, progress
from agevi._settings import settings
from agevi.dataloaders._assign import assign_roles
from agevi.dataloaders._folds import MIN_FOLDS
from agevi.dataloaders._splitter import roles_from_column
from agevi.io._folder import plain
from agevi.metrics._rows import metrics_row
from agevi.tl.neuron_clock._study_rows import (
    DEFAULTS,
    FAMILIES,
    LAYOUT,
    OTHERS,
    SIZES,
    TABLES,
    TEST,
    StudyRow,
    make_rows,
)
from agevi.tl.validate._baselines import make_units, median_ages, profiles, ridge_ages
from agevi.tl.validate._checkpoint import seed_of
from agevi.tl.validate._cohort import Cohort, make_cohort
from agevi.tl.validate._fit_fold import FoldJob
from agevi.tl.validate._jobs import FITS, FOLDS, check_data, open_checkpoint, read_data, stream
from agevi.tl.validate._run_jobs import run_jobs

_METRICS = ("n", "mae", "mae_low", "mae_high", "pearson", "slope")


@shared
def neuron_clock_study(  # noqa: PLR0913
    adata: AnnData,
    *,
    age_key: str,
    subject_key: str,
    sample_key: str | None = None,
    layer: str | None = None,
    split_key: str | None = None,
    stratify_by: str | Sequence[str] | None = None,
    epochs: float = 1.0,
    widths: float = 1.0,
    rows: Sequence[str] | None = None,
    defaults: bool = False,
    checkpoint_dir: str | Path | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    rng: int | np.random.Generator | None = 0,
    copy: bool = False,
) -> AnnData | None:
    """The tables of Su and Mukundan's neuron clock on your cells: errors of subjects, in the unit of the age column.

    Every row of the paper's tables 1 to 4 (multilayer perceptrons, Gaussian, Poisson and denoising autoencoders), its
    elastic net and its NMF are trained on the training subjects and scored on the validation subjects. The best row of
    each model is then refitted on both, and the test subjects are scored once. Recipes are those of
    :data:`agevi.model.presets.ROWS`; a subject's age is the mean over its cells, as published. Every row is printed as
    soon as it is there. At the published size a run takes days of GPU time: ``epochs`` and ``widths`` make it smaller.
    With nine validation subjects, differences of a year or two are noise. Compare models on your own data with
    :func:`agevi.tl.compare_models`, whose error is over all subjects. ``agevi.settings.verbosity = 0`` prints nothing.

    Parameters
    ----------
    adata
        Cells x genes, raw counts.
    age_key
        Column of ``adata.obs`` with the age; NaN is unlabelled.
    %(subject_key)s
    %(sample_key)s
    layer
        Layer that holds the counts; default X.
    split_key
        Column with the roles train, validation and test, one for all cells of a subject. Default: the paper's split, 50
        to 9 to 10 subjects of 69, spread evenly over ages.
    stratify_by
        Column or columns that the split is balanced over as well; the paper takes sex.
    epochs
        Share of the published epochs. The phases of the KL weight and of the learning rate shrink with them, so that a
        training has as many cycles. Batches shrink with the number of training cells, so that an epoch has as many
        steps as theirs.
    widths
        Share of the published hidden units.
    rows
        Names in :data:`agevi.model.presets.ROWS`; all by default.
    defaults
        Also each class with the defaults of agevi, which learn ages from sums of cells.
    checkpoint_dir
        Directory that keeps every finished row; the same call resumes from there.
    %(key_added)s
    rng
        Seed or generator of split and weights.
    %(copy)s

    Returns
    -------
    None, or the copy. Sets:

    ``adata.uns[f"{key_added}_neuron_clock_study"]``
        DataFrame, one row per fit: ``table`` (1 to 4, ``"others"``, ``"defaults"``, ``"test"``), ``row``, ``model``,
        what the paper's tables say of it (``n_hidden``, ``n_latent``, ``n_head``, ``noise``, ``learning_rate``,
        ``dropout``, ``epochs``, all as published), ``published`` (their error, NaN where there is none), ``n``
        (subjects), ``mae`` with a 95 % bootstrap interval, ``pearson``, ``slope`` and ``seconds``. Median age and ridge
        regression on summed counts are in it as ``"others"`` and ``"test"``.
    ``adata.uns[f"{key_added}_neuron_clock_study_predictions"]``
        DataFrame of ``row``, ``role``, ``sample``, ``subject``, ``age`` and ``predicted``.
    ``adata.uns[f"{key_added}_neuron_clock_study_params"]``
        Arguments, and ``roles``, a DataFrame of subject and role.

    Raises
    ------
    KeyError
        If a column or the layer does not exist.
    TypeError
        If ages are not numeric, or ``epochs`` or ``widths`` is not a number.
    ValueError
        If values are not counts, a row does not exist, a share is not above 0, or too few subjects have a role.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=8, n_genes=30)
    >>> agevi.tl.neuron_clock_study(
    ...     adata, age_key="age", subject_key="donor", epochs=0.04, widths=0.02, rows=["mlp [500, 500]"]
    ... )  # doctest: +ELLIPSIS
    Table 1: multilayer perceptrons, validation subjects
      mlp [500, 500]                                     paper   8.44  here ...
    baselines, validation subjects
      median age                                         paper         here ...
      pseudobulk ridge                                   paper         here ...
    Test: the best row of each model, refitted with the validation subjects
      mlp [500, 500]                                     paper  15.97  here ...
      median age                                         paper         here ...
      pseudobulk ridge                                   paper         here ...
    """
    arguments = {k: v for k, v in locals().items() if k not in ("adata", "copy")}
    keys = _keys.Keys(key_added)
    epochs, widths = _share(epochs, "epochs"), _share(widths, "widths")
    setup = {"age_key": age_key, "subject_key": subject_key, "sample_key": sample_key}
    seed = seed_of(rng, checkpoint_dir)
    _checks.in_memory(_checks.anndata(adata), "tl.neuron_clock_study reads", "")
    cohort = _with_roles(adata, setup, split_key, stratify_by, seed)
    study_rows = make_rows(
        setup | {"layer": layer},
        n_train=int(_cells(cohort, "train").sum()),
        n_genes=adata.n_vars,
        epochs=epochs,
        widths=widths,
        rows=rows,
        defaults=defaults,
    )
    for row in study_rows:
        check_data(adata, row.recipe)
    study = _Study(adata, layer, cohort, study_rows, seed, checkpoint_dir)
    study.run()
    out = adata.copy() if copy else adata
    out.uns[keys.neuron_clock_study] = _keys.to_uns(pd.DataFrame(study.results))
    out.uns[keys.neuron_clock_study_predictions] = _keys.to_uns(pd.concat(study.predictions, ignore_index=True))
    of_subject = pd.Series(cohort.fold).groupby(cohort.subject).first()
    roles = pd.DataFrame({"subject": cohort.subjects, "role": np.asarray(cohort.folds, dtype=object)[of_subject]})
    out.uns[keys.neuron_clock_study_params] = _keys.to_uns(plain(arguments | {"seed": seed}) | {"roles": roles})
    return out if copy else None


def _share(value: Any, argument: str) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{argument}={value!r} is a {type(value).__name__}; pass a number such as 0.2.")
    if not 0 < value <= 10:
        raise ValueError(f"{argument}={value:g} is not a share of the published number; pass for example 0.2.")
    return float(value)


def _with_roles(
    adata: AnnData, setup: dict[str, Any], split_key: str | None, stratify_by: str | Sequence[str] | None, seed: int
) -> Cohort:
    """The cohort with the three roles as its folds."""
    cohort = make_cohort(
        adata, setup | {"min_age": -1.0, "age_unit": "years"}, n_folds=MIN_FOLDS, fold_key=None, train_on=None,
        stratify_by=stratify_by, seed=stream(seed, FOLDS),
    )  # fmt: skip
    if split_key is None:
        ages = cohort.subject_ages(np.arange(adata.n_obs)).reindex(np.arange(len(cohort.subjects)))
        n = int(ages.notna().sum())
        numbers = {role: max(1, round(share * n)) for role, share in SIZES.items()}
        roles = assign_roles(
            ages.to_numpy(), cohort.strata, n_test=numbers["test"], n_validation=numbers["validation"],
            rng=np.random.default_rng(stream(seed, FOLDS)),
        )  # fmt: skip
    else:
        subject = pd.Series(cohort.subjects[cohort.subject], index=adata.obs_names)
        roles = roles_from_column(adata, split_key, subject).loc[cohort.subjects].to_numpy()
    names = list(_keys.SPLIT_ROLES)
    cohort = replace(cohort, folds=names, fold=pd.Index(names).get_indexer(pd.Index(roles))[cohort.subject])
    for role in names:
        cells = np.flatnonzero(_cells(cohort, role))
        n = int(cohort.subject_ages(cells).notna().sum())
        if not (cohort.can_train(cells) if role == "train" else n):
            raise ValueError(
                f"{n} {role} subjects have an age in adata.obs[{setup['age_key']!r}]; the study needs "
                f"{_units.MIN_LABELLED_SUBJECTS} training subjects of 2 ages, and one for validation and one for "
                "testing."
            )
    return cohort


def _cells(cohort: Cohort, *roles: str) -> np.ndarray:
    """Mask of the cells of some roles, (n_cells,)."""
    return np.isin(cohort.fold, [cohort.folds.index(role) for role in roles])


class _Study:
    """The rows of a study, one after the other."""

    def __init__(
        self, adata: AnnData, layer: str | None, cohort: Cohort, rows: list[StudyRow], seed: int, directory: Any
    ) -> None:
        self.adata, self.layer, self.cohort, self.rows = adata, layer, cohort, rows
        self.seed, self.directory = seed, directory
        self.results: list[dict[str, Any]] = []
        self.predictions: list[pd.DataFrame] = []

    def run(self) -> None:
        """Validation of every row, then the test of the best of each model."""
        n_tested = len({(row.family, row.table == DEFAULTS) for row in self.rows})
        with progress(len(self.rows) + n_tested, "neuron clock study") as bar:
            for table, rows in itertools.groupby(self.rows, key=lambda row: row.table):
                _say(f"{'' if table in (OTHERS, DEFAULTS) else f'Table {table}: '}{TABLES[table]}, validation subjects")
                for row in rows:
                    self._fit(row, "validation", bar)
            _say("baselines, validation subjects")
            self._baselines("validation")
            _say(f"Test: {TABLES[TEST]}")
            for row in self._best():
                self._fit(row, TEST, bar)
            self._baselines(TEST)

    def _best(self) -> list[StudyRow]:
        """The row of each model with the lowest validation error, of published settings and of defaults."""
        error = {found["row"]: found["mae"] for found in self.results}
        out = []
        for family, of_defaults in itertools.product(FAMILIES.values(), (False, True)):
            mine = [r for r in self.rows if r.family == family and (r.table == DEFAULTS) == of_defaults]
            mine = [r for r in mine if np.isfinite(error[r.name])]
            out += [min(mine, key=lambda r: error[r.name])] if mine else []
        return out

    def _fit(self, row: StudyRow, scored_on: str, bar: Bar) -> None:
        """Train on who may train, predict who is scored."""
        bar.doing(f"{row.name}, {scored_on}")
        cohort, recipe = self.cohort, row.recipe
        train = _cells(cohort, "train", *(["validation"] if scored_on == TEST else []))
        job = FoldJob(
            name=scored_on,
            fold=cohort.folds.index(scored_on),
            recipe=recipe,
            train=np.flatnonzero(train),
            validation=_cells(cohort, "validation")[train] & recipe.selects_epochs,
            test=np.flatnonzero(_cells(cohort, scored_on)),
            seed=int(stream(self.seed, FITS).generate_state(1)[0] >> 1),
        )
        data = read_data(self.adata, recipe.full_setup, cohort)
        name = "".join(c if c.isalnum() else "_" for c in row.name)
        directory = None if self.directory is None else Path(self.directory) / name
        store = open_checkpoint(directory, data, cohort, recipe, seed=self.seed)
        result = run_jobs([(data, job)], checkpoints=[store])[0]
        self._add(row, scored_on, job.test, result.predicted, result.seconds)
        bar.step()

    def _baselines(self, scored_on: str) -> None:
        """The median age, and ridge regression on the summed counts of samples, from the same subjects."""
        cohort, held = self.cohort, _cells(self.cohort, scored_on)
        used = np.flatnonzero(_cells(cohort, "train", "validation", scored_on))
        units = make_units(
            replace(
                cohort,
                sample=cohort.sample[used],
                trains=cohort.trains[used],
                folds=["trains", "is scored"],
                fold=held[used].astype(np.int64),
            )
        )
        counts = _checks.matrix(self.adata, self.layer)[used]
        x = profiles(counts, units, cells=np.ones(len(used), dtype=bool), normalize="log1p_cp10k")
        targets = cohort.age[None]
        ages = {"median age": median_ages(units, targets), "pseudobulk ridge": ridge_ages(x, x, units, targets)}
        for name, of_unit in ages.items():
            predicted = of_unit[0][units.cell][held[used]]
            self._add(StudyRow(name, OTHERS, "Baseline"), scored_on, np.flatnonzero(held), predicted, np.nan)

    def _add(self, row: StudyRow, scored_on: str, cells: np.ndarray, predicted: np.ndarray, seconds: float) -> None:
        """Score, keep and print one row."""
        cohort = self.cohort
        ages = pd.Series(predicted, dtype=np.float64).groupby(cohort.sample[cells]).mean()
        ages = ages.astype(np.float32).astype(np.float64)  # so that equal ones stay equal
        code = ages.index.to_numpy()
        frame = pd.DataFrame(
            {
                "row": row.name,
                "role": scored_on,
                "sample": cohort.samples[code],
                "subject": cohort.subjects[cohort.owner[code]],
                "age": cohort.age[code],
                "predicted": ages.to_numpy(),
            }
        )
        self.predictions.append(frame)
        known = frame[frame["age"].notna() & frame["predicted"].notna()]
        age, predicted, nothing = known["age"].to_numpy(), known["predicted"].to_numpy(), np.full(len(known), np.nan)
        metrics = metrics_row(age, predicted, subject=known["subject"].to_numpy(), reference=nothing)
        found: dict[str, Any] = {metric: float(metrics.get(metric, np.nan)) for metric in _METRICS}
        found["n"] = len(age)
        if len(age) == 1:  # of one subject there is an error, but nothing else
            found["mae"] = float(abs(predicted[0] - age[0]))
        table, published = (TEST, row.published_test) if scored_on == TEST else (row.table, row.published)
        names = {"table": table, "row": row.name, "model": row.family}
        self.results.append(names | LAYOUT | row.layout | {"published": published} | found | {"seconds": seconds})
        paper = "" if np.isnan(published) else f"{published:.2f}"
        r = "" if np.isnan(found["pearson"]) else f"{found['pearson']:.2f}"
        took = "" if np.isnan(seconds) else f"{seconds:.0f} s"
        _say(f"  {row.name:<50} paper {paper:>6}  here {found['mae']:6.2f}  r {r:>5}  {took:>8}")


def _say(line: str) -> None:
    """Print a line of the table at once, above a progress bar where one is drawn."""
    if settings.verbosity:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
