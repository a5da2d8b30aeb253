"""Samples of several modalities in one AnnData, with a record of what each data set measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi.pp.bulk import _values

logger = logging.getLogger(__name__)


def concat_modalities(
    adatas: Mapping[str, AnnData] | Sequence[AnnData],
    *,
    modality_key: str = "modality",
    modalities: Mapping[str, str] | None = None,
    subject_key: str | None = None,
    obs_keys: Sequence[str] | None = None,
    layer: str | Mapping[str, str] | None = None,
    prefix: bool = True,
    betas: Sequence[str] = ("methylation",),
    index_unique: str | None = None,
    min_samples: int = 2,
) -> AnnData:
    """One AnnData over the union of the features of several data sets, with a mask of what each of them measured.

    A feature that a data set lacks is 0 in X and False in the mask, so that a model can tell it from a measured 0. By
    default features belong to their modality: expression and methylation of one gene are two features. Names of
    subjects are kept, so **a subject that occurs in two data sets is one person**, who is held out as a whole. Give
    different persons different names first.

    Parameters
    ----------
    adatas
        Names of the data sets to AnnData, samples x features; a list names them "0", "1", ... None of them is changed.
    modality_key
        Column of ``obs`` with the modality, read from the data sets that ``modalities`` does not name, and written. A
        data set holds one modality.
    modalities
        Names of data sets to their modality.
    subject_key
        Column with the person or animal, to check that no sample lacks it.
    obs_keys
        Columns of ``obs`` to keep beside ``subject_key``, which each data set must have. Default: those that all have.
    layer
        Layer with the values, or names of data sets to theirs; default X.
    prefix
        Call features ``"<modality>:<feature>"``, so that only data sets of one modality share them. False shares
        features of one name between all data sets, which is right where they are on one scale.
    betas
        Modalities whose values are methylation betas and must lie in [0, 1]. Pass ``()`` for M values or values that
        were normalised.
    index_unique
        Text that joins the names of sample and data set, such as ``"@"``; needed where a name of a sample occurs in two
        data sets. Default: names stay as they are.
    min_samples
        Samples of a modality below which nothing can be learnt about it. Pass 1 to prepare samples for prediction.

    Returns
    -------
    A new AnnData, the samples of the first data set first

    - ``X``: float32, dense, 0 where a data set lacks a feature.
    - ``obs[modality_key]``, ``obs["agevi_feature_set"]``: categories, the modality and the data set.
    - ``var["feature"]``, ``var["modality"]``: the name without prefix, and the modalities that have it, joined by ";".
    - ``varm["agevi_measured"]``: bool, (n_features, n_sets), whether a data set has a feature.
    - ``uns["agevi_measured"]``: ``sets``, the names of its columns, and ``key``, the column of ``obs`` with them.

    Raises
    ------
    KeyError
        A column or layer is absent from a data set.
    TypeError
        A data set is not an AnnData.
    ValueError
        Values are missing or not betas, a data set has several modalities or a modality too few samples, or names of
        samples are repeated.

    Examples
    --------
    >>> import agevi
    >>> blood = agevi.datasets.simulate_cohort(n_subjects=6, n_cells=1, n_genes=50, rng=1)
    >>> brain = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=1, n_genes=80, rng=2)
    >>> sets = {"blood": blood, "brain": brain}
    >>> joined = agevi.pp.concat_modalities(sets, modalities=dict.fromkeys(sets, "expression"), index_unique="@")
    >>> joined.shape, joined.varm["agevi_measured"].sum(0).tolist()
    ((10, 80), [50, 80])
    """
    sets = _named(adatas)
    betas = [betas] if isinstance(betas, str) else list(betas)
    obs_keys = [obs_keys] if isinstance(obs_keys, str) else obs_keys
    layers = _of_sets(layer, sets, "layer") if isinstance(layer, Mapping) else dict.fromkeys(sets, layer)
    given = _of_sets(modalities or {}, sets, "modalities")
    _checks.count(min_samples, "min_samples")
    kinds, matrices = {}, {}
    for name, adata in sets.items():
        with _in_set(name):
            kinds[name] = given[name] if name in given else _modality(adata, modality_key)
            matrices[name] = _matrix(adata, layers.get(name), is_beta=kinds[name] in betas)
            if subject_key is not None:
                _checks.labels(adata, subject_key, "subject_key")
    n_of = pd.Series({name: adata.n_obs for name, adata in sets.items()}).groupby(pd.Series(kinds)).sum()
    few = n_of[n_of < min_samples]
    if len(few):
        raise ValueError(
            f"modality {few.index[0]!r} has {few.iloc[0]} sample{'' if few.iloc[0] == 1 else 's'}, and at least "
            f"{min_samples} are needed to learn about it and to hold some out; leave it out, or pass min_samples=1 to "
            "predict only."
        )
    obs = _joined_obs(sets, obs_keys, subject_key, index_unique, leave={modality_key, _keys.FEATURE_SET})
    var, position, measured = _union(sets, kinds, prefix=prefix)
    sizes = [adata.n_obs for adata in sets.values()]
    obs[modality_key] = pd.Categorical(np.repeat(list(kinds.values()), sizes))
    obs[_keys.FEATURE_SET] = pd.Categorical(np.repeat(list(sets), sizes), categories=list(sets))
    out = AnnData(_filled(matrices, position, len(var)), obs=obs, var=var)
    if subject_key is not None:
        n_sets = out.obs.groupby(subject_key, observed=True)[_keys.FEATURE_SET].nunique()
        logger.info("%d of %d subjects are in more than one data set.", (n_sets > 1).sum(), len(n_sets))
    out.varm[_keys.MEASURED] = measured
    out.uns[_keys.MEASURED] = _keys.to_uns({"sets": list(sets), "key": _keys.FEATURE_SET})
    return out


@contextmanager
def _in_set(name: str) -> Iterator[None]:
    """Name the data set in front of the error of a check."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"data set {name!r}: {error.args[0]}") from None


def _named(adatas: Any) -> dict[str, AnnData]:
    """The data sets by name, each a non-empty AnnData in memory with unique names."""
    if isinstance(adatas, AnnData) or not isinstance(adatas, Mapping | Sequence) or isinstance(adatas, str):
        raise TypeError(
            f"adatas is a {type(adatas).__name__}; pass the data sets by name: {{'blood': adata1, 'brain': adata2}}."
        )
    pairs = adatas.items() if isinstance(adatas, Mapping) else enumerate(adatas)
    sets = {str(name): adata for name, adata in pairs}
    if not sets:
        raise ValueError("adatas is empty; pass the data sets by name: {'blood': adata1, 'brain': adata2}.")
    for name, adata in sets.items():
        with _in_set(name):
            _checks.anndata(adata)
            _checks.in_memory(adata, "pp.concat_modalities reads", "")
            _checks.unique_names(adata)
    return sets


def _of_sets(values: Mapping[str, str], sets: Mapping[str, AnnData], argument: str) -> dict[str, Any]:
    """``values`` when each of its keys names a data set."""
    unknown = [k for k in values if k not in sets]
    if unknown:
        raise ValueError(
            f"{argument} names {unknown[0]!r}, which is not a data set of adatas ({_checks.listed(sets)}); correct the "
            "name."
        )
    return {str(k): v for k, v in values.items()}


def _modality(adata: AnnData, key: str) -> str:
    """The one modality of a data set."""
    found = _checks.labels(adata, key, "modality_key").unique()
    if len(found) > 1:
        raise ValueError(
            f"adata.obs[{key!r}] holds {len(found)} modalities ({_checks.listed(found)}); pass one data set for each."
        )
    return str(found[0])


def _matrix(adata: AnnData, layer: str | None, *, is_beta: bool) -> Any:
    """The values of a data set, checked, CSR where they are sparse."""
    x = _checks.matrix(adata, layer)
    place = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    missing = next((b for b in _checks.value_blocks(x) if b.dtype.kind == "f" and not np.isfinite(b).all()), None)
    if missing is not None:
        raise ValueError(
            f"{place} has missing or infinite values (first: {missing[~np.isfinite(missing)].flat[0]}), and the mask "
            "shows only features that a whole data set lacks; fill them, or drop those features from the data set."
        )
    if is_beta:
        _values.betas(x, place, advice="convert them with agevi.pp.m_to_beta, or pass betas=()")
    return sp.csr_matrix(x) if sp.issparse(x) else x


def _joined_obs(
    sets: Mapping[str, AnnData],
    obs_keys: Sequence[str] | None,
    subject_key: str | None,
    index_unique: str | None,
    *,
    leave: set[str],
) -> pd.DataFrame:
    """The columns of all data sets one below the other, text as categories."""
    tables = {name: adata.obs for name, adata in sets.items()}
    if obs_keys is None:
        every = list(dict.fromkeys(c for table in tables.values() for c in table))
        kept = [c for c in every if all(c in table for table in tables.values())]
        dropped = [c for c in every if c not in kept and c not in leave]
        if dropped:
            logger.info("columns that not all data sets have are left out: %s.", _checks.listed(dropped))
    else:
        kept = list(dict.fromkeys([*obs_keys, *([] if subject_key is None else [subject_key])]))
        for name, adata in sets.items():
            with _in_set(name):
                for key in kept:
                    _checks.column(adata, key, "obs_keys")
    names = [f"{n}{index_unique}{k}" if index_unique else str(n) for k, t in tables.items() for n in t.index]
    index = pd.Index(names, dtype=object)
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise ValueError(
            f"{len(twice):,} names of samples occur in two data sets (e.g. {_checks.listed(twice, 3)}); pass "
            "index_unique='@' to append the name of the data set. The subject stays the one of subject_key."
        )
    columns = {key: _joined_column([t[key] for t in tables.values()]) for key in kept if key not in leave}
    return pd.DataFrame(columns).set_axis(index) if columns else pd.DataFrame(index=index)


def _joined_column(parts: list[pd.Series]) -> pd.Series:
    """Numbers where all data sets have numbers, else text as categories."""
    kinds = [pd.api.types.is_numeric_dtype(p) and not pd.api.types.is_bool_dtype(p) for p in parts]
    # Nullable integers without a missing value are plain ones, which every file format holds.
    if all(pd.api.types.is_integer_dtype(p) and p.notna().all() for p in parts):
        return pd.Series(np.concatenate([p.to_numpy() for p in parts]).astype(np.int64))
    if all(kinds):
        return pd.Series(np.concatenate([p.to_numpy(dtype=np.float64, na_value=np.nan) for p in parts]))
    if all(pd.api.types.is_bool_dtype(p) for p in parts):
        return pd.Series(np.concatenate([p.to_numpy(dtype=bool) for p in parts]))
    text = [_names.names(p, f"adata.obs[{p.name!r}]") for p in parts]
    return pd.concat(text, ignore_index=True).astype("category")


def _union(
    sets: Mapping[str, AnnData], kinds: Mapping[str, str], *, prefix: bool
) -> tuple[pd.DataFrame, dict[str, np.ndarray], np.ndarray]:
    """All features, the column of each data set's features among them, and the mask (n_features, n_sets)."""
    names = {
        k: adata.var_names.astype(str) if not prefix else kinds[k] + ":" + adata.var_names.astype(str)
        for k, adata in sets.items()
    }
    union = pd.Index([], dtype=object)
    for index in names.values():
        union = union.append(index[~index.isin(union)])
    position = {k: union.get_indexer(index) for k, index in names.items()}
    measured = np.zeros((len(union), len(sets)), dtype=bool)
    feature = np.empty(len(union), dtype=object)
    for j, (k, adata) in enumerate(sets.items()):
        measured[position[k], j] = True
        feature[position[k]] = adata.var_names.astype(str)
    order = list(dict.fromkeys(kinds.values()))
    has = np.stack([measured[:, [kinds[k] == kind for k in sets]].any(1) for kind in order], axis=1)
    # Of hundreds of thousands of features few patterns differ, so that text is joined once for each pattern.
    patterns, code = np.unique(has, axis=0, return_inverse=True)
    joined = np.array([";".join(np.array(order)[row]) for row in patterns], dtype=object)[code.ravel()]
    var = pd.DataFrame({"feature": feature, "modality": pd.Categorical(joined)}, index=union)
    return var, position, measured


def _filled(matrices: Mapping[str, Any], position: Mapping[str, np.ndarray], n_features: int) -> np.ndarray:
    """The values of all data sets, (n_samples, n_features), 0 where a data set lacks a feature."""
    out = np.zeros((sum(x.shape[0] for x in matrices.values()), n_features), dtype=np.float32)
    start = 0
    for name, x in matrices.items():
        for rows in _values.row_blocks(*x.shape):
            out[start + rows.start : start + rows.stop, position[name]] = _values.dense(x[rows], np.float32)
        start += x.shape[0]
    return out
