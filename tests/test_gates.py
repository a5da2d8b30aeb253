"""Every gate: the standard error in the right words, in the style of the house, and nothing changed."""

from __future__ import annotations

import hashlib
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi.model import DenoisingVAE, GaussianVAE, PoissonVAE
from tests.conftest import QUIET

NAMES = {"Reactome"}
"""With which a message may begin, beside names with a capital, a point or a bracket inside."""
COMMAND = '"agevi[tune]"'
"""With which a message may end, so that it can be copied."""
SETUP = {"age_key": "age", "subject_key": "donor"}


def bytes_of(value) -> str:
    """A digest of anything that AnnData holds, down to the byte."""
    if sp.issparse(value):
        parts = [type(value).__name__, bytes_of(value.data), bytes_of(value.indices), bytes_of(value.indptr)]
    elif isinstance(value, np.ndarray) and value.dtype != object:
        parts = [str(value.dtype), str(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    elif isinstance(value, pd.DataFrame):
        parts = [f"{c}:{value[c].dtype}:{value[c].tolist()!r}" for c in value] + [repr(list(value.index))]
    elif isinstance(value, dict):
        parts = [f"{k}={bytes_of(v)}" for k, v in value.items()]
    else:
        parts = [repr(value)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def snapshot(adata: ad.AnnData) -> dict[str, str]:
    """Every part of an AnnData."""
    parts = {"X": adata.X, "obs": adata.obs, "var": adata.var, "uns": dict(adata.uns)}
    for name in ("obsm", "varm", "layers", "obsp"):
        parts |= {f"{name}.{k}": v for k, v in getattr(adata, name).items()}
    return {k: bytes_of(v) for k, v in parts.items()} | {"is_view": str(adata.is_view)}


def first(a, column, value):
    """``column`` with ``value`` in the cells of the first donor."""
    values = a.obs[column].astype(object).to_numpy().copy()
    values[(a.obs["donor"] == a.obs["donor"].iloc[0]).to_numpy()] = value
    a.obs[column] = pd.Series(values, index=a.obs_names).infer_objects() if column == "age" else values


def set_obs(column, make):
    def change(a):
        a.obs[column] = make(a)

    return change


def set_x(make):
    def change(a):
        a.X = make(sp.csr_matrix(a.X))

    return change


def poison(value):
    def make(x):
        x = x.copy()
        x.data[0] = value
        return x

    return set_x(make)


def ages(a):
    return a.obs["age"].to_numpy(float)


def visits(a):
    a.obs["visit"] = "v" + pd.Series(np.arange(a.n_obs) % 2).astype(str).to_numpy()


def text(*values):
    return set_obs("age", lambda a: np.resize(list(values), a.n_obs))


# Cases of setup_anndata: a change to the data, arguments, the error, words of its message.
SETUP_CASES = {
    "subject column missing": (None, {"subject_key": "donr"}, KeyError, "is not a column of adata.obs; closest: 'donor'"),
    "age column missing": (None, {"age_key": "Age"}, KeyError, "age_key='Age' is not a column of adata.obs; closest: 'age'"),
    "sample column missing": (None, {"sample_key": "visit"}, KeyError, "sample_key='visit' is not a column of adata.obs"),
    "age as text": (text("old", "young"), {}, TypeError, "agevi.pp.parse_age"),
    "age in bins": (text("60-69", "70-79"), {}, TypeError, "agevi.pp.parse_age"),
    "age censored": (text("41", ">89"), {}, TypeError, "agevi.pp.parse_age"),
    "age as categories": (
        set_obs("age", lambda a: a.obs["age"].round().astype(int).astype(str).astype("category")), {}, TypeError,
        "agevi.pp.parse_age",
    ),
    "age infinite": (lambda a: first(a, "age", np.inf), {}, ValueError, "is infinite in"),
    "age below min_age": (lambda a: first(a, "age", -5.0), {}, ValueError, "below min_age=-1"),
    "no age at all": (set_obs("age", lambda a: np.nan), {}, ValueError, "has no ages: all"),
    "one age for all": (set_obs("age", lambda a: 50.0), {}, ValueError, "for every subject; a clock needs subjects of different ages"),
    "two ages in a subject": (
        set_obs("age", lambda a: np.r_[ages(a)[0] + 3, ages(a)[1:]]), {}, ValueError,
        "adata.obs['donor'].astype(str) + '_' + adata.obs['<visit>'].astype(str), and pass sample_key='sample'",
    ),
    "an age in some cells only": (
        set_obs("age", lambda a: np.r_[np.nan, ages(a)[1:]]), {}, ValueError, "give all its cells the age, or none",
    ),
    "two ages in a sample": (
        lambda a: (visits(a), set_obs("age", lambda a: np.r_[ages(a)[0] + 3, ages(a)[1:]])(a),
                   set_obs("visit", lambda a: a.obs["donor"].astype(str) + a.obs["visit"])(a)),
        {"sample_key": "visit"}, ValueError, "A sample has one age",
    ),
    "a sample in two subjects": (visits, {"sample_key": "visit"}, ValueError, "a sample is one visit or biopsy of one subject"),
    "subject missing": (lambda a: first(a, "donor", None), {}, ValueError, "must name every cell's unit"),
    "fewer than 3 labelled subjects": (
        set_obs("age", lambda a: np.where(a.obs["donor"].isin(a.obs["donor"].unique()[:2]), ages(a), np.nan)), {},
        ValueError, "a clock that holds subjects out needs at least 3",
    ),
    "no counts: fractions": (set_x(lambda x: x * 0.5), {}, ValueError, "has non-integer values (first:"),
    "no counts: logarithms": (set_x(lambda x: x.log1p()), {}, ValueError, "is fitted to raw counts. Pass them with layer=..."),
    "no counts: negative": (set_x(lambda x: -x), {}, ValueError, "has negative values (lowest:"),
    "NaN in X": (poison(np.nan), {}, ValueError, "has missing or infinite values (first: nan)"),
    "infinity in X": (poison(np.inf), {}, ValueError, "has missing or infinite values (first: inf)"),
    "only zeros in X": (set_x(lambda x: x * 0), {}, ValueError, "holds only zeros"),
    "layer unknown": (None, {"layer": "cnts"}, KeyError, "layer='cnts' is not in adata.layers"),
    "gene names repeated": (lambda a: setattr(a, "var_names", ["g"] * a.n_vars), {}, ValueError, "var_names_make_unique()"),
    "cell names repeated": (lambda a: setattr(a, "obs_names", ["c"] * a.n_obs), {}, ValueError, "obs_names_make_unique()"),
    "an age below -1 year on the scale of Horvath": (
        lambda a: first(a, "age", -1.2), {"age_transform": "horvath", "min_age": -2.0}, ValueError,
        "takes the logarithm of age + 1 year, so ages are above -1 years, prenatal ones too",
    ),
    "the same in months": (
        lambda a: first(a, "age", -12.0), {"age_transform": "horvath", "age_unit": "months"}, ValueError,
        "has an age of -12 months; age_transform='horvath' takes the logarithm of age + 1 year, so ages are above -12 months",
    ),
    "a unit without a length": (
        None, {"age_transform": "horvath", "age_unit": "passages"}, ValueError,
        "age_unit='passages' is not known; choose one of 'years', 'months', 'weeks', 'days'.",
    ),
    "covariate missing in cells": (
        lambda a: first(a, "batch", None), {"batch_key": "batch"}, ValueError, "batch_key needs a value in every cell",
    ),
    "covariate of text as a number": (
        None, {"continuous_covariate_keys": ["sex"]}, TypeError, "Pass it with categorical_covariate_keys=['sex']",
    ),
}  # fmt: skip

PREDICT_CASES = {
    "genes missing": (lambda a: a[:, :20].copy(), ValueError, "of the clock's 60 genes are absent from adata.var_names"),
    "genes with Ensembl ids": (
        lambda a: rename(a, [f"ENSG{i:011d}" for i in range(60)]), ValueError, "the data use Ensembl ids, the clock uses symbols",
    ),
    "genes of another species": (
        lambda a: rename(a, [n.upper() for n in a.var_names]), ValueError, "as mouse and human symbols do",
    ),
    "logarithms to a clock of counts": (lambda a: set_x(lambda x: x.log1p())(a), ValueError, "is fitted to raw counts"),
    "no AnnData": (lambda a: a.to_df(), TypeError, "pass an anndata.AnnData of cells x genes"),
    "no cells": (lambda a: a[:0].copy(), ValueError, "is empty (0 cells x 60 genes)"),
}  # fmt: skip


def check_style(message: str) -> None:
    """One line that begins in lower case or with a name, has two clauses (what is, what to do) and ends with a full stop."""
    first = message.split()[0]
    assert "\n" not in message
    assert not first[0].isupper() or first in NAMES or re.search(r"[a-z][A-Z.(]", first), f"a capital begins: {message}"
    assert re.search(r"[;:.,] | \(", message), f"it does not say what to do: {message}"
    assert message.endswith((".", COMMAND)), f"no full stop ends: {message}"


def check_message(raised, words) -> None:
    """The message holds ``words``, in the style of the house."""
    message = str(raised.value.args[0])
    assert words in message
    check_style(message)


def rename(a, names):
    a.var_names = names


def after(adata, change):
    """The changed data: what the change returns, or the AnnData that it changed."""
    out = change(adata) if change else None
    return adata if out is None or isinstance(out, tuple) else out


@pytest.mark.parametrize("case", SETUP_CASES)
@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_setup(cohort, case):
    change, arguments, error, words = SETUP_CASES[case]
    adata = after(cohort, change)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        PoissonVAE.setup_anndata(adata, **(SETUP | arguments))
    check_message(raised, words)
    assert snapshot(adata) == before


@pytest.mark.parametrize("values", [lambda x: x.log1p(), lambda x: -x], ids=["logarithms", "negative"])
def test_setup_of_a_clock_that_normalises(cohort, values):
    set_x(values)(cohort)
    before = snapshot(cohort)
    with pytest.raises(ValueError) as raised:
        GaussianVAE.setup_anndata(cohort, **SETUP)
    check_message(raised, "or set normalize='none' for values that are normalised already")
    assert snapshot(cohort) == before


CONSTRUCTORS = {
    "unknown noise": (
        {"noise": "uniform"},
        "noise='uniform' is not known; choose one of 'gaussian', 'binomial', 'poisson'",
    ),
    "unknown unit of noise": ({"noise_relative_to": "mean"}, "choose one of 'input_sd', 'max'"),
    "all counts lost": ({"noise_level": 1.0}, "the share of counts that are lost, at least 0 and below 1"),
    "negative noise": (
        {"noise": "gaussian", "noise_level": -1},
        "noise_level=-1 with noise='gaussian'; it is 0 or more",
    ),
    "no likelihood": ({"gene_likelihood": "gamma"}, "'poisson', 'zip', 'nb', 'zinb', 'normal'"),
}


@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_constructor(cohort, case):
    arguments, words = CONSTRUCTORS[case]
    DenoisingVAE.setup_anndata(cohort, **SETUP)
    with pytest.raises(ValueError) as raised:
        DenoisingVAE(cohort, **arguments)
    check_message(raised, words)


def test_constructor_needs_counts_for_noise_on_counts(cohort):
    set_x(lambda x: x.log1p())(cohort)
    DenoisingVAE.setup_anndata(cohort, **SETUP, normalize="none")
    with pytest.raises(ValueError) as raised:
        DenoisingVAE(cohort)
    check_message(raised, "DenoisingVAE is fitted to raw counts")


@pytest.mark.parametrize("case", PREDICT_CASES)
def test_predict(cohort, trained, case):
    change, error, words = PREDICT_CASES[case]
    adata = after(cohort, change)
    before = snapshot(adata) if isinstance(adata, ad.AnnData) else None
    with pytest.raises(error) as raised:
        agevi.tl.predict_age(adata, trained)
    check_message(raised, words)
    assert before is None or snapshot(adata) == before


SPLITS = {
    "a split of one role": ("test", "a clock needs two or more, of different ages"),
    "an unknown role": ("holdout", "the roles of a split are 'train', 'validation' and 'test'"),
    "a subject in two roles": (None, "a subject is held out as a whole"),
    "no role in a cell": (np.nan, "must name every cell's unit"),
}


@pytest.mark.parametrize("case", SPLITS)
def test_train(cohort, case):
    value, words = SPLITS[case]
    if isinstance(value, str):
        cohort.obs["agevi_split"] = value
    else:
        roles = cohort.obs["agevi_split"].astype(object).to_numpy().copy()
        roles[0] = value if value is not None else next(r for r in ("train", "test") if r != roles[0])
        cohort.obs["agevi_split"] = roles
    PoissonVAE.setup_anndata(cohort, **SETUP)
    model = PoissonVAE(cohort, n_hidden=[8], n_latent=3, n_head=[])
    before = snapshot(cohort)
    with pytest.raises(ValueError) as raised:
        model.train(max_epochs=1, **QUIET)
    check_message(raised, words)
    assert snapshot(cohort) == before
    assert not model.is_trained


OTHERS = {
    "aggregate before predicting": (lambda a, m: agevi.tl.aggregate_subjects(a), KeyError, "run agevi.tl.predict_age"),
    "split: column missing": (
        lambda a, m: agevi.pp.split_subjects(a, subject_key="donr", age_key="age"), KeyError, "closest: 'donor'",
    ),
    "split: nobody left to train": (
        lambda a, m: agevi.pp.split_subjects(a, **SETUP, test_size=0.6, validation_size=0.6), ValueError,
        "leave none to train on",
    ),
    "split: two ages": (
        lambda a, m: (set_obs("age", lambda a: np.arange(a.n_obs) * 1.0)(a), agevi.pp.split_subjects(a, **SETUP)),
        ValueError, "and pass sample_key='sample'",
    ),
    "untrained": (lambda a, m: agevi.tl.predict_age(a, untrained(a)), RuntimeError, "call model.train()"),
    "no clock": (lambda a, m: agevi.tl.predict_age(a, "clock"), TypeError, "pass a trained clock"),
    "nothing to load": (lambda a, m: agevi.io.load_clock("no-such-clock"), FileNotFoundError, "no-such-clock"),
}  # fmt: skip


def untrained(adata):
    data = adata.copy()
    PoissonVAE.setup_anndata(data, **SETUP)
    return PoissonVAE(data, n_hidden=[8], n_latent=3, n_head=[])


@pytest.mark.parametrize("case", OTHERS)
def test_others(cohort, trained, case):
    call, error, words = OTHERS[case]
    before = None if "two ages" in case else snapshot(cohort)
    with pytest.raises(error) as raised:
        call(cohort, trained)
    check_message(raised, words)
    assert before is None or snapshot(cohort) == before


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda a: a[:, ::-1].copy(), True, id="genes reordered"),
        pytest.param(lambda a: a[:, 2:].copy(), False, id="a few genes missing"),
        pytest.param(lambda a: a[a.obs["donor"] != "d00"], False, id="a view"),
        pytest.param(lambda a: a[[0]].copy(), False, id="one cell"),
        pytest.param(lambda a: set_x(lambda x: sp.csr_array(x))(a), True, id="csr_array"),
        pytest.param(lambda a: a.obs.__setitem__("batch", "unseen"), True, id="unseen batch"),
        pytest.param(lambda a: a.obs.__setitem__("donor", "unseen"), True, id="unseen subject"),
    ],
)
def test_what_works(cohort, trained, change, same):
    expected = trained.predict_age(cohort.copy())
    adata = after(cohort, change)
    ages_now = trained.predict_age(adata)
    assert np.isfinite(ages_now).all()
    assert len(ages_now) == adata.n_obs
    if same:
        np.testing.assert_allclose(ages_now, expected, rtol=1e-4)
