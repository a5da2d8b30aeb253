"""What is compared in a transfer: the networks, and linear models of the same samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.special import expit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from agevi import _checks, _names, _source, _units
from agevi.dataloaders._measured import feature_sets, has_sets, write_sets
from agevi.dataloaders._sums import UnitSums
from agevi.model.transfer import CaseControlClassifier
from agevi.model.transfer._condition import case_by_subject

logger = logging.getLogger(__name__)

NETWORKS: dict[str, dict[str, Any]] = {
    "frozen transfer": {"freeze": "all_but_last"},
    "encoder frozen": {"freeze": "encoder"},
    "fine-tuned": {"freeze": "none"},
    "from scratch": {"freeze": "none", "from_scratch": True},
}
"""Arguments of the classifier of every network, by the name of its row."""
FEATURES = "logistic regression"
PENALTIES = tuple(float(c) for c in np.logspace(-5, 1, 7))
"""Inverse strengths of the penalty among which the row of features chooses."""
_INNER_FOLDS = 5
_WEAK = 1e4  # age and sex are a few columns, which need no penalty
_MOST_CATEGORIES = 10
_FEWEST = 10  # rows of a kind from which its own mean and standard deviation are taken


@dataclass(frozen=True)
class Table:
    """What a linear model reads: one row of features for each sample, or for each kind of measurement of a sample."""

    values: np.ndarray  # (n_rows, n_features)
    sample: np.ndarray  # (n_rows,) code
    kind: np.ndarray  # (n_rows,) code of the modality and of the features that were measured

    def part(self, used: np.ndarray) -> Table:
        """Some of the rows."""
        return Table(self.values[used], self.sample[used], self.kind[used])


@dataclass(frozen=True)
class Samples:
    """Labelled samples."""

    data: AnnData  # cells, their matrix shared with the user's data
    cell_subject: pd.Series  # subject of every cell
    cell_sample: np.ndarray  # (n_cells,) code of the sample, -1 where unlabelled
    case: np.ndarray  # (n_samples,) 1 for cases
    subject: np.ndarray  # (n_samples,) name
    case_of: pd.Series  # of every labelled subject
    features: dict[str, Table] = field(default_factory=dict)  # of the linear rows

    @property
    def rows(self) -> list[str]:
        """Names of all rows."""
        return [*NETWORKS, *self.features]


def samples_of(
    adata: AnnData, clock: Any, model: CaseControlClassifier, condition_key: str, sex_key: str | None
) -> Samples:
    """Labelled samples of ``adata`` and what linear models read of them."""
    setup = clock.setup_args
    subject, sample = _units.units(adata, setup["subject_key"], setup["sample_key"])
    case = case_by_subject(adata, condition_key, (model.control, model.case), subject)
    case_of = case.dropna()
    labelled = subject.isin(case_of.index).to_numpy()
    names = sample.where(pd.Series(labelled, index=sample.index))
    code = pd.factorize(names, sort=True)[0]
    first = np.unique(code[labelled], return_index=True)[1]
    cells = np.flatnonzero(labelled)[first]
    owner = subject.to_numpy()[cells]
    age = _ages(adata, setup["age_key"], code, len(cells))
    shell, match = clock.query(adata, min_gene_coverage=0.8, conditioned=False)
    # The matrix is shared, in the order of the clock's genes if all of them are there.
    source, layer = (shell, setup["layer"]) if match.present.all() else (adata, clock.layer_of(adata))
    x = _checks.matrix(source, layer)
    features = {FEATURES: _table(adata, clock, shell, code)} | _covariates(adata, age, sex_key, names)
    return Samples(
        data=_sharing(x, source, adata.obs, setup),
        cell_subject=subject.reset_index(drop=True),
        cell_sample=code,
        case=case_of[owner].to_numpy(),
        subject=owner,
        case_of=case_of,
        features=features,
    )


def reading(adata: AnnData, clock: Any, layer: str | None, obsm_key: str | None) -> AnnData:
    """The same cells with the values of a layer, or of a table of ``obsm``, where a clock reads them."""
    if layer is None and obsm_key is None:
        return adata
    _checks.anndata(adata)
    setup = getattr(clock, "setup_args", {"layer": None})
    given = _source.resolved({"layer": layer, "obsm_key": obsm_key, "normalize": "none"})
    of_table = setup.get("obsm_key")
    if (of_table is None) != (obsm_key is None):
        name, value = ("layer", layer) if obsm_key is None else ("obsm_key", obsm_key)
        raise ValueError(f"{name}={value!r}, but the clock reads {_source.place(setup)}; leave {name} out.")
    source = _source.read(adata, given)
    out = _sharing(_checks.matrix(source, layer), source, adata.obs, {**setup, "normalize": "none"})
    if of_table is not None and not isinstance(adata.obsm.get(obsm_key), pd.DataFrame):
        out.var_names = [f"{of_table}_{i}" for i in range(out.n_vars)]
    return out


def _sharing(x: Any, source: AnnData, obs: pd.DataFrame, setup: Mapping[str, Any]) -> AnnData:
    """Cells with a table of their own, and ``x``, of the features of ``source``, where a clock reads it."""
    layer = setup["layer"]
    kept = obs.loc[:, [c for c in obs if not str(c).startswith("_scvi")]].copy()
    var, layers = source.var.copy(), None if layer is None else {layer: x}
    out = AnnData(X=x if layer is None else None, obs=kept, var=var, layers=layers)
    if has_sets(source):
        write_sets(out, feature_sets(source))
    return _source.mark(out, setup)


def _table(adata: AnnData, clock: Any, shell: AnnData, code: np.ndarray) -> Table:
    """The features that the clock reads, of every sample and, for clocks of several modalities, kind of measurement."""
    setup = clock.setup_args
    kind = feature_sets(shell).codes
    if clock.compared_within is not None:
        modality, names = pd.factorize(_checks.labels(adata, clock.compared_within, "modality_key"))
        kind = kind * len(names) + modality
    used, n_kinds = code >= 0, int(kind.max()) + 1
    pairs, row_of = np.unique(code[used] * n_kinds + kind[used], return_inverse=True)
    row = np.full(len(code), -1)
    row[used] = row_of
    values = UnitSums(_checks.matrix(shell, setup["layer"]), row, len(pairs), clock.normalize).values()
    return Table(values, pairs // n_kinds, pairs % n_kinds)


def _ages(adata: AnnData, age_key: str, code: np.ndarray, n_samples: int) -> np.ndarray:
    """Mean age of the cells of every sample, NaN where there is none."""
    out = np.full(n_samples, np.nan)
    values = adata.obs.get(age_key)
    if values is None or values.isna().all():
        return out
    if not pd.api.types.is_numeric_dtype(values):
        _units.ages(adata, age_key)  # which says what to do
    used = code >= 0
    means = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan)[used]).groupby(code[used]).mean()
    out[means.index] = means.to_numpy()
    return out


def _covariates(adata: AnnData, age: np.ndarray, sex_key: str | None, sample: pd.Series) -> dict[str, Table]:
    """The row without genes; none without ages and a column. A missing value is a category of its own."""
    parts, names, known = [], [], np.isfinite(age)
    if known.any():
        parts.append(age[:, None])
        names.append("age")
    if known.any() and not known.all():
        parts.append(~known[:, None])
        logger.info(
            "%d of %d samples have no age; they enter at the mean age, with a column that marks them.",
            (~known).sum(),
            len(age),
        )
    if sex_key is not None:
        values, labelled = _checks.column(adata, sex_key, "sex_key"), sample.notna().to_numpy()
        of_sample = _units.one_per_unit(
            values[labelled], sample[labelled], sex_key, "pass a column that describes samples."
        )
        text = _names.names(of_sample, f"adata.obs[{sex_key!r}]").fillna("")
        if pd.api.types.is_numeric_dtype(values) and text.nunique() > _MOST_CATEGORIES:
            raise ValueError(
                f"sex_key={sex_key!r} is a column of {text.nunique()} numbers (e.g. "
                f"{_checks.listed(text.unique(), 3)}); pass one of categories, such as the sex. pandas.cut "
                "makes categories of numbers."
            )
        parts.append(pd.get_dummies(text).to_numpy()[:, 1:])
        names.append("sex" if sex_key.lower() in ("sex", "gender") else sex_key)
    if not parts:
        return {}
    rows = np.arange(len(age))
    return {" + ".join(names): Table(np.concatenate(parts, axis=1).astype(np.float64), rows, np.zeros_like(rows))}


def linear_probabilities(samples: Samples, row: str, held_out: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities of the held-out samples from a logistic regression, (n_held_out,)."""
    table = samples.features[row]
    new = held_out[table.sample]
    train, case, subject = table.part(~new), samples.case[table.sample[~new]], samples.subject[table.sample[~new]]
    if row == FEATURES:
        log_odds = _fitted(
            train, case, _weights(case, subject), table.part(new), [_penalty(train, case, subject, seed)]
        )
    else:
        fill = SimpleImputer(keep_empty_features=True).fit(train.values)  # the mean for a missing age
        full, rest = (replace(part, values=fill.transform(part.values)) for part in (train, table.part(new)))
        log_odds = _fitted(full, case, _weights(case, subject), rest, [_WEAK])
    return expit(pd.Series(log_odds[0]).groupby(table.sample[new]).mean().to_numpy())


def _weights(case: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Weights of rows in which subjects of a class have equal weight, and cases as much as controls, (n_rows,)."""
    weight = 1 / pd.Series(subject).groupby(subject).transform("size").to_numpy(dtype=np.float64)
    of_class = np.where(case == 1, weight[case == 1].sum(), weight[case == 0].sum())
    return weight / of_class * weight.sum() / 2


def _fitted(
    train: Table, case: np.ndarray, weight: np.ndarray, new: Table, strengths: Sequence[float]
) -> list[np.ndarray]:
    """Log-odds of ``new`` from logistic regressions on scaled features, one for each penalty."""
    x, z = _scaled(train, new)
    if x.shape[1] > len(x):  # the penalty keeps weights in the span of the rows, so that they can be found there
        axes = np.linalg.svd(x, full_matrices=False)[2]
        x, z = x @ axes.T, z @ axes.T
    models = (LogisticRegression(C=c, solver="newton-cholesky") for c in strengths)
    return [model.fit(x, case, weight).decision_function(z) for model in models]


def _scaled(train: Table, new: Table) -> tuple[np.ndarray, np.ndarray]:
    """Features of both with mean 0 and standard deviation 1 in the training rows, of each kind where it has enough."""
    scaler = StandardScaler().fit(train.values)
    x, z = scaler.transform(train.values), scaler.transform(new.values)
    kinds, number = np.unique(train.kind, return_counts=True)
    if len(kinds) > 1:
        for kind in kinds[number >= _FEWEST]:
            own = train.kind == kind
            scaler = StandardScaler().fit(train.values[own])
            x[own] = scaler.transform(train.values[own])
            if (new.kind == kind).any():
                z[new.kind == kind] = scaler.transform(new.values[new.kind == kind])
    return x, z


def _penalty(train: Table, case: np.ndarray, subject: np.ndarray, seed: int) -> float:
    """The penalty with the lowest balanced log-loss over folds of training subjects."""
    fewest = min(len(set(subject[case == label])) for label in (0, 1))
    n_folds = min(_INNER_FOLDS, fewest)
    if n_folds < 2:
        return PENALTIES[len(PENALTIES) // 2]
    losses = np.zeros(len(PENALTIES))
    sign, weight = np.where(case == 1, 1, -1), _weights(case, subject)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed % 2**32)
    for fitted, held_out in folds.split(train.values, case, subject):
        if np.ptp(case[fitted]) == 0:
            continue
        of_fitted = _weights(case[fitted], subject[fitted])
        found = _fitted(train.part(fitted), case[fitted], of_fitted, train.part(held_out), PENALTIES)
        for i, log_odds in enumerate(found):
            losses[i] += (weight[held_out] * np.logaddexp(0, -sign[held_out] * log_odds)).sum()
    return PENALTIES[int(losses.argmin())]
