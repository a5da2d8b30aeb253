"""Inputs as files and other tools leave them: types of values, names, data on disk, positions of cells, ages."""

from __future__ import annotations

import functools
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import _ages, _checks
from agevi.model.linear._base import FittedLinearClock
from tests.clocks import each_clock
from tests.test_contract import SETUP, fit
from tests.test_gates import check_message


@pytest.fixture(scope="module")
def _small():
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=6, n_genes=30, n_age_genes=10, rng=2)
    adata.X = np.minimum(np.asarray(sp.csr_matrix(adata.X).todense()) * 30, 120).astype(np.float32)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", rng=0)
    return adata


@pytest.fixture
def small(_small):
    """12 subjects x 6 cells x 30 genes with large counts, and a split."""
    return _small.copy()


@pytest.fixture(scope="module")
def fitted(_small):
    """A function that gives a clock of a class trained on these data, which tests must not change."""
    return functools.cache(lambda cls: fit(cls, _small.copy()))


def with_x(adata, x):
    out = adata.copy()
    out.X = x
    return out


# --- types of values -----------------------------------------------------------------------------------------------

REFUSED = {
    "float16": (lambda x: x.astype(np.float16), "adata.X holds float16; agevi reads"),
    "object": (lambda x: x.astype(object), "adata.X holds object; agevi reads"),
    "object with None": (lambda x: np.where(x == 0, None, x.astype(object)), "adata.X holds object; agevi reads"),
    "big-endian": (lambda x: x.astype(">f4"), "adata.X holds float32 of another byte order; agevi reads"),
    "text": (lambda x: x.astype(str), "Convert it first: adata.X = adata.X.astype('float32')."),
    "complex": (lambda x: x.astype(np.complex64), "adata.X = adata.X.real.astype('float32')."),
    "longdouble": (lambda x: x.astype(np.longdouble), "agevi reads bool, integers, float32 and float64"),
    "masked": (lambda x: np.ma.masked_array(x, x == 0), "adata.X is a masked array; fill it first"),
}


@each_clock
@pytest.mark.parametrize("kind", REFUSED)
def test_values_that_no_clock_can_sum_are_refused_at_the_gate(cls, small, kind):
    make, words = REFUSED[kind]
    with pytest.raises(TypeError) as raised:
        cls.setup_anndata(with_x(small, make(small.X)), **SETUP)
    check_message(raised, words)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_same_at_prediction_and_in_a_layer(cohort, trained, kind):
    values = REFUSED[kind][0](cohort.X.toarray())
    with pytest.raises(TypeError, match="adata.X"):
        agevi.tl.predict_age(with_x(cohort, values), trained)
    cohort.layers["odd"] = values
    calls = (
        lambda: agevi.model.PLSClock.setup_anndata(cohort, **SETUP, layer="odd"),
        lambda: agevi.pp.pseudocells(cohort, subject_key="donor", layer="odd"),
        lambda: agevi.pp.centre_genes(cohort, "batch", subject_key="donor", layer="odd"),
        lambda: agevi.pp.audit_leakage(cohort, **SETUP, layer="odd"),
        lambda: agevi.pp.align_genes(cohort, trained),
        lambda: agevi.pp.beta_to_m(cohort, layer="odd"),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"adata.layers\['odd'\]"):
            call()


def twice(x):
    """Every value stored as two halves, each of which fits into a byte although their sum may not."""
    half = sp.csr_matrix(np.floor(x / 2).astype(np.uint8)), sp.csr_matrix(np.ceil(x / 2).astype(np.uint8))
    parts = [(np.repeat(np.arange(x.shape[0]), np.diff(m.indptr)), m.indices, m.data) for m in half]
    row, column, data = (np.concatenate(v) for v in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    indptr = np.r_[0, np.cumsum(np.bincount(row, minlength=x.shape[0]))]
    return sp.csr_matrix((data[order], column[order], indptr), shape=x.shape)


FORMS = {
    "int8": lambda x: x.astype(np.int8),
    "uint16": lambda x: sp.csr_matrix(x.astype(np.uint16)),
    "int64": lambda x: sp.csc_array(x.astype(np.int64)),
    "bytes stored twice": lambda x: twice(2 * x),
}


@pytest.mark.slow
@each_clock
@pytest.mark.parametrize("form", FORMS)
def test_every_type_of_counts_gives_the_same_clock(cls, fitted, small, form):
    other, plain, expected = with_x(small, FORMS[form](small.X)), small, fitted(cls)
    if form == "bytes stored twice":
        plain = with_x(small, 2 * small.X)
        expected = fit(cls, plain)
    got = fit(cls, other)
    np.testing.assert_allclose(got.predict_age(other), expected.predict_age(plain), rtol=1e-3)
    np.testing.assert_allclose(expected.predict_age(other), expected.predict_age(plain), rtol=1e-4)
    assert other.X.dtype == FORMS[form](small.X).dtype


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "bool", "float32", "float64"])
@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix, sp.csc_array], ids=lambda f: f.__name__)
def test_sums_of_columns_fit(dtype, convert):
    kind = np.dtype(dtype).kind
    value = 1 if kind == "b" else (np.iinfo(dtype).max if kind in "iu" else 2.0**20)
    x = np.full((3, 3), value, dtype=dtype)
    var = pd.DataFrame({"symbol": ["A", "A", "B"]}, index=["E1", "E2", "E3"])
    adata = ad.AnnData(convert(x), var=var, layers={"more": convert(x)})
    out = agevi.pp.align_genes(adata, ["B", "A"])
    for got in (out.X, out.layers["more"]):
        dense = got.toarray() if sp.issparse(got) else got
        np.testing.assert_array_equal(dense.astype(np.float64), np.tile([float(value), 2.0 * value], (3, 1)))
    single = agevi.pp.align_genes(adata, ["B"])  # nothing is summed
    assert single.X.dtype == np.dtype(dtype)


def test_bytes_of_log_profiles():
    profiles = ad.AnnData(np.full((2, 3), 12, dtype=np.uint8))
    expected = ad.AnnData(np.full((2, 3), 12, dtype=np.float32))
    got, wanted = (agevi.datasets.sample_cells(p, n_cells=4, rng=0).X.toarray() for p in (profiles, expected))
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("cls", [agevi.model.PLSClock, agevi.model.PoissonVAE], ids=lambda c: c.__name__)
def test_counts_that_are_whole_but_for_rounding(cls, cohort):
    cohort.X = sp.csr_matrix(cohort.X) * (1 + 1e-6)
    with pytest.raises(ValueError) as raised:
        cls.setup_anndata(cohort, **SETUP)
    check_message(raised, "so round them: adata.X = np.rint(adata.X).")
    first = str(raised.value).partition("first: ")[2].partition(")")[0]
    assert not float(first).is_integer()
    cohort.X = np.rint(cohort.X)
    cls.setup_anndata(cohort, **SETUP)


@pytest.mark.parametrize(
    ("values", "rounding"),
    [([13.000001, 2.0], True), ([1000.05, 3.0], True), ([0.5, 2.0], False), ([13.000001, 2.4], False)],
)
def test_only_counts_with_little_rounding_are_to_be_rounded(values, rounding):
    with pytest.raises(ValueError, match=r"first: \d+\.\d*[1-9]") as raised:
        _checks.counts(np.array([values]), "adata.X", "why", advice="what")
    assert ("np.rint" in str(raised.value)) is rounding


def test_a_value_just_outside_shows_that_it_is():
    with pytest.raises(ValueError, match=r"e\.g\. 1\.00001\)"):
        _checks.within(np.array([[1.00001]]), "adata.X", 0, 1, "what")


# --- names ---------------------------------------------------------------------------------------------------------

NAMES = {
    "a gene without a name": ("var", lambda n: pd.Index([*n[:3], np.nan, *n[4:]], dtype=object), ValueError, "adata.var_names is missing in 1 of 60 places (first: position 3)"),
    "None": ("var", lambda n: pd.Index([None, *n[1:]], dtype=object), ValueError, "adata.var_names is missing in 1 of"),
    "a cell without a name": ("obs", lambda n: pd.Index([*n[:-1], np.nan], dtype=object), ValueError, "adata.obs_names is missing in 1 of"),
    "positions": ("var", lambda n: pd.RangeIndex(len(n)), TypeError, "adata.var_names holds integer values (e.g. '0', '1', ...)"),
    "bytes": ("var", lambda n: pd.Index([name.encode() for name in n], dtype=object), TypeError, "adata.var_names = adata.var_names.str.decode('utf-8')"),
    "mixed": ("var", lambda n: pd.Index([*n[:-1], 7], dtype=object), TypeError, "adata.var_names = adata.var_names.astype(str)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_cannot_be_found_again(cohort, trained, kind):
    axis, make, error, words = NAMES[kind]
    table = getattr(cohort, axis)
    table.index = make(list(table.index))
    calls = (
        lambda: agevi.model.PoissonVAE.setup_anndata(cohort, **SETUP),
        lambda: agevi.model.PLSClock.setup_anndata(cohort, **SETUP, features=["gene01", "gene02"]),
        lambda: agevi.tl.predict_age(cohort, trained),
        lambda: trained.get_latent_representation(cohort),
        lambda: agevi.tl.cross_validate(cohort, agevi.model.PLSClock, subject_key="donor", age_key="age"),
    )
    for call in calls:
        with pytest.raises(error) as raised:
            call()
        check_message(raised, words)


@pytest.mark.slow
@each_clock
def test_names_of_cells_may_be_positions(cls, fitted, small):
    expected = fitted(cls).predict_age(small)
    small.obs.index = pd.RangeIndex(small.n_obs)
    model = fit(cls, small)
    np.testing.assert_allclose(model.predict_age(), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict_age(small), expected, rtol=1e-5)


@pytest.mark.parametrize("names", [[np.nan, "b", "c"], [7, "b", "c"], [5, 6, 7]], ids=["missing", "mixed", "integers"])
def test_align_genes_reads_names_that_are_not_text(names):
    adata = ad.AnnData(np.eye(3, dtype=np.float32), var=pd.DataFrame({"symbol": ["A", "B", "C"]}))
    adata.var.index = pd.Index(names, dtype=object)
    out = agevi.pp.align_genes(adata, ["C", "A"])
    np.testing.assert_array_equal(out.X, np.eye(3)[:, [2, 0]])
    assert list(out.var["original_name"]) == [
        "c" if names[2] == "c" else "7",
        "" if names[0] != names[0] else str(names[0]),
    ]


# --- data on disk ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[sp.csr_matrix, np.asarray], ids=["sparse", "dense"])
def backed(request, small, tmp_path):
    """A view of backed data, cells and genes in another order, and the same in memory."""
    small.X = request.param(small.X)
    small.write_h5ad(tmp_path / "x.h5ad")
    data = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    rows, columns = np.r_[40:60, 10:30], np.arange(small.n_vars)[::-1]
    yield data[rows, columns], small[rows, columns].copy()
    data.file.close()


VIEW_CALLS = {
    "predict_age": lambda a, m: agevi.tl.predict_age(a, m),
    "attribute_genes": lambda a, m: agevi.tl.attribute_genes(a, m, n_boot=2),
    "perturb_genes": lambda a, m: agevi.tl.perturb_genes(a, m, list(a.var_names[:2]), n_boot=2),
    "split_subjects": lambda a, m: agevi.pp.split_subjects(a, subject_key="donor", age_key="age", key_added="s"),
    "audit_leakage": lambda a, m: agevi.pp.audit_leakage(a, subject_key="donor", age_key="age", key_added="twin"),
    "aggregate_subjects": lambda a, m: (agevi.tl.predict_age(a, m), agevi.tl.aggregate_subjects(a)),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", VIEW_CALLS)
def test_views_of_backed_data_are_read_through_their_parent(backed, fitted, call):
    view, memory = backed
    model = fitted(agevi.model.PLSClock)
    for data in (view, memory):
        VIEW_CALLS[call](data, model)
    pd.testing.assert_frame_equal(view.obs, memory.obs)
    assert set(view.uns) == set(memory.uns)
    for part in set(memory.varm):
        np.testing.assert_allclose(view.varm[part], memory.varm[part], rtol=1e-4)


@pytest.mark.slow
@each_clock
def test_views_of_backed_data_are_predicted_without_change(cls, backed, fitted, monkeypatch):
    view, memory = backed
    monkeypatch.setattr(agevi.dataloaders._query, "_BACKED_BLOCK", 17)
    model = fitted(cls)
    np.testing.assert_allclose(model.predict_age(view), model.predict_age(memory), rtol=1e-3)
    if model.predicts_sums:
        summed = [model.predict_age(a, indices=[-1, 3, 3, 0], level="sample") for a in (view, memory)]
        np.testing.assert_allclose(*summed, rtol=1e-5)
    copy = agevi.tl.predict_age(view, model, copy=True)
    assert view.is_view
    assert view.isbacked
    assert not copy.isbacked
    agevi.tl.predict_age(memory, model)
    np.testing.assert_allclose(copy.obs["agevi_predicted"], memory.obs["agevi_predicted"], rtol=1e-3)


def test_backed_data_are_aligned_block_by_block(backed, monkeypatch):
    view, memory = backed
    monkeypatch.setattr(agevi.dataloaders._query, "_BACKED_BLOCK", 7)
    mapping = dict.fromkeys(memory.var_names[:3], "A") | dict.fromkeys(memory.var_names[3:5], "B")
    got, expected = (agevi.pp.align_genes(a, ["B", "A"], mapping=mapping) for a in (view, memory))
    np.testing.assert_array_equal(got.to_df(), expected.to_df())
    np.testing.assert_array_equal(expected.to_df()["A"], memory.to_df().iloc[:, :3].sum(axis=1))
    assert view.is_view


def test_a_view_of_backed_data_cannot_be_trained_on(backed):
    with pytest.raises(ValueError) as raised:
        agevi.model.PLSClock.setup_anndata(backed[0], **SETUP)
    check_message(raised, "Call adata = adata.to_memory() first")


def test_dask_and_lazy_data_are_to_be_read_first(cohort, trained, tmp_path):
    dask_array = pytest.importorskip("dask.array")
    lazy = with_x(cohort, dask_array.from_array(cohort.X.toarray()))
    with pytest.raises(TypeError) as raised:
        agevi.tl.predict_age(lazy, trained)
    check_message(raised, "for example with adata = adata.to_memory()")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lazy_tables_are_to_be_read_first(cohort, trained, tmp_path):
    pytest.importorskip("xarray")
    cohort.write_zarr(tmp_path / "x.zarr")
    lazy = ad.experimental.read_lazy(tmp_path / "x.zarr")
    calls = (
        lambda: agevi.model.PLSClock.setup_anndata(lazy, **SETUP),
        lambda: agevi.tl.predict_age(lazy, trained),
        lambda: trained.predict_age(lazy),
        lambda: agevi.pp.split_subjects(lazy, subject_key="donor", age_key="age"),
        lambda: agevi.pp.audit_leakage(lazy, **SETUP),
        lambda: agevi.pp.align_genes(lazy, trained),
        lambda: agevi.tl.aggregate_subjects(lazy),
    )
    for call in calls:
        with pytest.raises(TypeError) as raised:
            call()
        check_message(raised, "call adata = adata.to_memory() first")


# --- positions ------------------------------------------------------------------------------------------------------

PLACES = {"repeated": [5, 5, 0, 31], "negative": [-1, -40, 2], "unsigned": np.array([3, 1], dtype=np.uint8)}


@pytest.mark.slow
@each_clock
def test_positions_are_those_of_numpy(cls, fitted, small):
    model = fitted(cls)
    every = np.asarray(model.predict_age())
    latent = None if issubclass(cls, FittedLinearClock) else model.get_latent_representation()
    for chosen in PLACES.values():
        np.testing.assert_allclose(model.predict_age(indices=chosen), every[chosen], rtol=1e-3)
        if latent is not None:
            found = model.get_latent_representation(indices=chosen)
            np.testing.assert_allclose(found, latent[chosen], rtol=1e-3, atol=1e-3)
        if model.predicts_sums:
            cells = np.asarray(chosen, dtype=int) % small.n_obs
            once = np.unique(cells)
            summed = pd.Series(model.predict_age(indices=once, level="sample"), index=once)
            np.testing.assert_allclose(model.predict_age(indices=chosen, level="sample"), summed[cells], rtol=1e-3)
    with pytest.raises(IndexError, match="with 72 cells"):
        model.predict_age(indices=[72])


@pytest.mark.slow
def test_positions_in_other_verbs(small):
    vae, nmf = fit(agevi.model.PoissonVAE, small), fit(agevi.model.NMFClock, small)
    for chosen in PLACES.values():
        assert list(vae.get_normalized_expression(indices=chosen).index) == list(small.obs_names[chosen])
        assert np.isfinite(float(vae.get_elbo(indices=chosen)))
        each = [nmf.get_reconstruction_error(indices=[i]) ** 2 for i in chosen]
        np.testing.assert_allclose(nmf.get_reconstruction_error(indices=chosen) ** 2, sum(each), rtol=1e-4)
    for verb in (
        vae.get_elbo,
        vae.get_latent_representation,
        vae.get_likelihood_parameters,
        nmf.get_reconstruction_error,
    ):
        with pytest.raises(IndexError) as raised:
            verb(indices=[0, 72])
        check_message(raised, "indices is from 0 to 72 with 72 cells; pass valid positions")


# --- where counts are ------------------------------------------------------------------------------------------------


def normalised(adata, **layers):
    """The same cells with logarithms in X."""
    out = adata.copy()
    out.X = sp.csr_matrix(adata.X).log1p()
    for name, x in layers.items():
        out.layers[name] = x
    return out


VERBS = {
    "predict_age": lambda a, m: agevi.tl.predict_age(a, m),
    "sample": lambda a, m: m.predict_age(a, level="sample"),
    "attribute_genes": lambda a, m: agevi.tl.attribute_genes(a, m, n_boot=2),
    "perturb_genes": lambda a, m: agevi.tl.perturb_genes(a, m, list(a.var_names[:2]), n_boot=2),
    "latent": lambda a, m: m.get_latent_representation(a),
    "expression": lambda a, m: m.get_normalized_expression(a, n_samples=1),
    "differential expression": lambda a, m: m.differential_expression(a, groupby="sex", silent=True),
}


@pytest.fixture(scope="module")
def of_layer():
    """A cohort with counts in a layer, and a clock of that layer and one of X."""
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=6, n_genes=30, n_age_genes=10, rng=2)
    counts = adata.X.copy()
    clock_of_x = fit(agevi.model.PoissonVAE, adata.copy())
    in_layer = normalised(adata, counts=counts)
    return adata, fit(agevi.model.PoissonVAE, in_layer, layer="counts"), clock_of_x


@pytest.mark.parametrize("verb", VERBS)
def test_a_clock_of_a_layer_reads_counts_in_x_or_says_where_they_are(of_layer, verb, caplog):
    adata, clock, _ = of_layer
    with caplog.at_level("INFO", logger="agevi"):
        VERBS[verb](adata.copy(), clock)
    assert "adata.layers has no 'counts', on which the clock was trained; adata.X holds such values" in caplog.text
    nowhere, elsewhere = normalised(adata), normalised(adata, raw_counts=adata.X)
    in_raw = normalised(adata)
    in_raw.raw = adata
    for data, words in (
        (nowhere, "put the counts of these cells and genes into adata.layers['counts']."),
        (elsewhere, "adata.layers['raw_counts'] does: adata.layers['counts'] = adata.layers['raw_counts']."),
        (in_raw, "adata.raw does: adata = adata.raw.to_adata()."),
    ):
        with pytest.raises(KeyError) as raised:
            VERBS[verb](data, clock)
        check_message(raised, words)


@pytest.mark.parametrize("verb", VERBS)
def test_a_clock_of_x_names_the_layer_with_counts(of_layer, verb):
    adata, _, clock = of_layer
    with pytest.raises(ValueError) as raised:
        VERBS[verb](normalised(adata, counts=adata.X), clock)
    check_message(raised, "adata.layers['counts'] holds counts; predict from them: adata.X = adata.layers['counts'].")


def test_a_clock_of_x_names_the_layer_where_there_is_no_x(of_layer):
    adata, _, clock = of_layer
    data = normalised(adata, counts=adata.X)
    data.X = None
    with pytest.raises(ValueError) as raised:
        clock.predict_age(data)
    check_message(raised, "adata.layers['counts'] holds counts: adata.X = adata.layers['counts'].")


def test_setup_names_the_place_with_counts(cohort):
    in_raw = normalised(cohort)
    in_raw.raw = cohort
    cases = (
        (normalised(cohort, umis=cohort.X), {}, "adata.layers['umis'] holds counts; pass layer='umis'."),
        (with_layer(cohort, "odd"), {"layer": "odd"}, "adata.X holds counts; pass layer=None."),
        (in_raw, {}, "adata.raw holds counts: adata = adata.raw.to_adata()."),
    )
    for data, setup, words in cases:
        with pytest.raises(ValueError) as raised:
            agevi.model.PLSClock.setup_anndata(data, **SETUP, **setup)
        check_message(raised, words)


def with_layer(adata, name):
    out = adata.copy()
    out.layers[name] = sp.csr_matrix(adata.X).log1p()
    return out


def test_normalised_values_are_not_taken_from_x_unseen(cohort):
    data = with_layer(cohort, "lognorm")
    model = fit(agevi.model.PLSClock, data, layer="lognorm", normalize="none")
    expected = model.predict_age()
    data.X = data.layers.pop("lognorm")
    with pytest.raises(KeyError) as raised:
        model.predict_age(data)
    check_message(raised, "if it does: adata.layers['lognorm'] = adata.X.")
    data.layers["lognorm"] = data.X
    np.testing.assert_allclose(model.predict_age(data), expected, rtol=1e-5)


def test_a_published_clock_of_a_layer_reads_beta_values_in_x():
    x = np.random.default_rng(0).uniform(size=(3, 3))
    table = pd.Series([1.0, 2.0, 3.0], index=["cg01", "cg02", "cg03"])
    clock = agevi.model.LinearClock.from_coefficients(table, 0.0, layer="beta")
    data = ad.AnnData(x, var=pd.DataFrame(index=table.index))
    np.testing.assert_allclose(clock.predict_age(data), x @ table.to_numpy(), rtol=1e-5)
    with pytest.raises(KeyError, match=r"if it does: adata.layers\['beta'\] = adata.X"):
        clock.predict_age(ad.AnnData(8 * x - 4, var=pd.DataFrame(index=table.index)))


# --- ages -----------------------------------------------------------------------------------------------------------


def years_of_birth(a):
    return 2024 - np.round(a.obs["age"].to_numpy())


AGES = {
    "years of birth": (years_of_birth, {}, "as years of birth do; turn them into ages: adata.obs['age'] = collection_year - adata.obs['age']."),
    "years of birth with a code": (lambda a: np.where(a.obs["donor"] == "d00", -1, years_of_birth(a)), {}, "as years of birth do;"),
    "years of birth and ages": (lambda a: np.where(a.obs["donor"] == "d00", a.obs["age"], years_of_birth(a)), {}, "as years of birth do;"),
    "dates of birth as fractions of years": (lambda a: 2024.5 - a.obs["age"], {}, "as years of birth do;"),
    "days as years": (lambda a: np.round(365.25 * a.obs["age"].to_numpy()), {}, "years, which nobody reaches; name their unit: age_unit='days'."),
    "days as months": (lambda a: np.round(365.25 * a.obs["age"].to_numpy()), {"age_unit": "months"}, "name their unit: age_unit='days'."),
    "weeks as years": (lambda a: np.round(365.25 / 7 * a.obs["age"].to_numpy()), {}, "name their unit: age_unit='days' or age_unit='weeks'."),
    "a code for unknown": (lambda a: np.where(a.obs["donor"] == "d00", 999.0, a.obs["age"]), {}, "has an age of 999 years, which nobody reaches, in 20 of 480 cells; if it is a code for an unknown age, set it to NaN"),
    "seconds": (lambda a: 1e6 * a.obs["age"].to_numpy(), {"age_unit": "days"}, "days, which nobody reaches; correct them."),
}  # fmt: skip


@pytest.mark.parametrize("kind", AGES)
def test_what_cannot_be_an_age(cohort, kind):
    make, setup, words = AGES[kind]
    cohort.obs["age"] = make(cohort)
    calls = (
        lambda: agevi.model.PLSClock.setup_anndata(cohort, **SETUP, **setup),
        lambda: agevi.tl.cross_validate(cohort, agevi.model.PLSClock, **SETUP, setup_kwargs=setup),
        lambda: agevi.tl.compare_models(cohort, {"a": agevi.model.PLSClock}, **SETUP, setup_kwargs=setup),
    )
    in_tools = re.sub(r"(age_unit)=('\w+')", r"setup_kwargs={'\1': \2}", words)  # as the called function takes it
    for call, wanted in zip(calls, (words, in_tools, in_tools), strict=True):
        with pytest.raises(ValueError) as raised:
            call()
        check_message(raised, wanted)


@pytest.mark.parametrize("unknown", [None, -1.0, 50.0], ids=str)
def test_tools_without_a_unit_refuse_years_of_birth(cohort, unknown):
    cohort.obs["born"] = years_of_birth(cohort)
    if unknown is not None:
        cohort.obs.loc[cohort.obs["donor"] == "d00", "born"] = unknown
    calls = (
        lambda: agevi.pp.split_subjects(cohort, subject_key="donor", age_key="born"),
        lambda: agevi.pp.audit_leakage(cohort, subject_key="donor", age_key="born"),
    )
    for call in calls:
        with pytest.raises(ValueError) as raised:
            call()
        check_message(raised, "adata.obs['age'] = collection_year - adata.obs['born'].")


@pytest.mark.slow
def test_ages_in_days_for_a_clock_in_years(cohort):
    """Tools without an argument for the unit go by what the clock recorded."""
    agevi.tl.cross_validate(cohort, agevi.model.PLSClock, **SETUP, n_folds=2)
    cohort.obsm["X_pca"] = np.random.default_rng(0).normal(size=(cohort.n_obs, 2))
    given = {"subject_key": "donor", "age_key": "age"}
    calls = (
        lambda: agevi.tl.aggregate_subjects(cohort, **given),
        lambda: agevi.pp.split_subjects(cohort, **given, key_added="other"),
        lambda: agevi.pp.audit_leakage(cohort, **given, random_split=False),
        lambda: agevi.tl.age_correlation(cohort, **given, n_permutations=9),
    )
    years = cohort.obs["age"].copy()
    cohort.obs["age"] = np.round(365.25 * years)
    words = (
        "years, which nobody reaches; the clock's ages are in years (adata.uns['agevi']['age_unit']), so pass a column with "
        "ages in years."
    )
    for call in calls:
        with pytest.raises(ValueError) as raised:
            call()
        check_message(raised, words)
    cohort.uns["agevi"]["age_unit"] = "days"  # of a clock in days
    for call in calls:
        call()
    cohort.obs["age"], cohort.obs["days"] = years, np.round(365.25 * years)
    agevi.pp.split_subjects(cohort, subject_key="donor", age_key="days", key_added="another")  # ages of its own


DATES = {
    "dates of birth": (lambda age: pd.Timestamp("2024-01-01") - pd.to_timedelta(365.25 * age, unit="D"), "adata.obs['age'] = (collection_date - adata.obs['age']).dt.days / 365.25."),
    "spans of time": (lambda age: pd.to_timedelta(365.25 * age, unit="D"), "adata.obs['age'] = (adata.obs['age']).dt.days / 365.25."),
    "complex numbers": (lambda age: age.astype(complex), "not numbers; turn text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DATES)
def test_dates_and_complex_numbers_are_refused(cohort, kind):
    make, words = DATES[kind]
    cohort.obs["age"] = make(cohort.obs["age"])
    with pytest.raises(TypeError) as raised:
        agevi.model.PLSClock.setup_anndata(cohort, **SETUP)
    check_message(raised, words)


@pytest.mark.parametrize(
    ("ages", "unit"),
    [
        ([-0.7, 0.1, 110.0], "years"),
        ([-9.0, 3.0, 30.0], "months"),  # mice, before and after birth
        ([-20.0, 10.0, 130.0], "weeks"),
        ([1900.0, 1950.0, 2100.0], "days"),  # about five years
        ([7300.0, 29200.0], "days"),
        ([7300.0, 29200.0], None),  # the tool does not know the unit
        ([1890.5, 2500.0], None),  # days
        ([1200.0, 1800.0], "months"),
    ],
)
def test_what_can_be_an_age(ages, unit):
    _ages.check(np.array([*ages, np.nan]), "age", unit)


@pytest.mark.parametrize("unit", ["year", "Years", "passages", None, 1])
def test_units_of_age_are_known(cohort, unit):
    with pytest.raises(ValueError) as raised:
        agevi.model.PLSClock.setup_anndata(cohort, **SETUP, age_unit=unit)
    check_message(raised, "is not known; choose one of 'years', 'months', 'weeks', 'days'.")
