from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats

import agevi
from agevi.pp.audit import _copies as copies


def counts(n=400, n_genes=80, depth=150.0, seed=0):
    """Unrelated cells of three types."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.7, size=(3, n_genes))
    profiles /= profiles.sum(axis=1, keepdims=True)
    library = rng.lognormal(np.log(depth), 0.3, n)[:, None]
    return sp.csr_matrix(rng.poisson(library * profiles[rng.integers(3, size=n)]).astype(np.float32))


def thinned(x, p, seed=1):
    out = x.copy()
    out.data = np.random.default_rng(seed).binomial(out.data.astype(int), p).astype(np.float32)
    out.eliminate_zeros()
    return out


def with_copies(x, p, n=30):
    """The cells, and some of them again with a share ``p`` of their counts."""
    return sp.vstack([x, thinned(x[:n], p)]).tocsr(), {(i, x.shape[0] + i) for i in range(n)}


def pairs_of(pairs):
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_codes_are_equal_for_equal_rows_only():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 3, (5000, 8)).astype(np.float64)  # many rows are equal
    _, expected = np.unique(dense, axis=0, return_inverse=True)
    found = copies.read_rows(sp.csr_matrix(dense)).code
    assert len(set(zip(expected, found, strict=True))) == len(set(expected)) == len(set(found))


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda x: x.toarray(), id="dense"),
        pytest.param(lambda x: x.tocsc(), id="csc"),
        pytest.param(lambda x: sp.csr_array(x), id="csr_array"),
        pytest.param(lambda x: x.astype(np.int64), id="integers"),
    ],
)
def test_rows_do_not_hang_on_their_format(form):
    x = counts(n=50)
    reference, found = copies.read_rows(x), copies.read_rows(form(x))
    np.testing.assert_array_equal(found.code, reference.code)
    dense = x.toarray()
    np.testing.assert_allclose(found.total, dense.sum(axis=1))
    np.testing.assert_array_equal(found.n_genes, (dense > 0).sum(axis=1))
    np.testing.assert_allclose(found.detected, (dense > 0).mean(axis=0))
    np.testing.assert_allclose(found.weight, reference.weight)


def test_codes_do_not_hang_on_the_order_and_the_zeros_that_are_stored():
    plain = sp.csr_matrix(np.array([[0.0, 1, 2], [0, 3, 0]]))
    odd = sp.csr_matrix(([2.0, 1.0, 0.0, 1.0, 2.0], [2, 1, 0, 1, 1], [0, 3, 5]), shape=(2, 3))
    assert not odd.has_sorted_indices or not odd.has_canonical_format
    np.testing.assert_array_equal(copies.read_rows(odd).code, copies.read_rows(plain).code)


def test_reading_changes_nothing():
    x = sp.csr_matrix(([2.0, 1.0, 0.0], [2, 1, 0], [0, 3]), shape=(1, 3))
    copies.read_rows(x)
    assert x.data.tolist() == [2.0, 1.0, 0.0]
    assert x.indices.tolist() == [2, 1, 0]


def test_exact_copies_are_chained():
    x = counts(n=60)
    rows = copies.read_rows(sp.vstack([x, x[:3], x[:1]]).tocsr())
    assert pairs_of(copies.exact_copies(rows)) == {(0, 60), (60, 63), (1, 61), (2, 62)}


def test_equal_cells_of_few_counts_are_no_copies():
    """Cells of two or three counts agree by chance, and empty ones always."""
    x = counts(n=2000, n_genes=40, depth=2.0)
    rows = copies.read_rows(x)
    kinds, sizes = np.unique(rows.code[rows.n_genes > 0], return_counts=True)
    assert sizes.max() > 5 and (rows.n_genes == 0).any()
    assert len(copies.exact_copies(rows)) == 0
    assert len(kinds) > 100


def test_equal_profiles_without_zeros_are_copies():
    x = np.random.default_rng(0).normal(5, 1, (40, 12))
    assert pairs_of(copies.exact_copies(copies.read_rows(np.vstack([x, x[4:6]])))) == {(4, 40), (5, 41)}


@pytest.mark.parametrize("seed", range(5))
def test_unrelated_cells_are_no_near_copies(seed):
    assert len(copies.near_copies(copies.read_rows(counts(n=3000, seed=seed)), np.random.default_rng(seed))) == 0


@pytest.mark.parametrize(
    ("p", "share"),
    [pytest.param(1.0, 1.0, id="all"), pytest.param(0.9, 1.0, id="90 %"), pytest.param(0.7, 0.95, id="70 %")],
)
def test_thinned_copies_are_found(p, share):
    x, planted = with_copies(counts(n=1000, n_genes=300), p)
    found = pairs_of(copies.near_copies(copies.read_rows(x), np.random.default_rng(0)))
    assert len(found & planted) >= share * len(planted)
    assert found <= planted


def test_near_copies_do_not_hang_on_the_scale():
    """The rule has no threshold on distances: logarithms of normalised values give the same pairs."""
    x, planted = with_copies(counts(n=1000, n_genes=300), 0.8)
    total = np.asarray(x.sum(axis=1)).ravel()
    scaled = x.astype(np.float64)
    scaled.data = np.log1p(scaled.data * np.repeat(1e4 / total, np.diff(scaled.indptr)))
    assert pairs_of(copies.near_copies(copies.read_rows(scaled), np.random.default_rng(0))) == planted


def test_noisy_copies_of_profiles_are_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 400)) + rng.normal(size=(300, 400))  # correlated genes
    x = np.vstack([x, x[:10] + rng.normal(0, 0.3, (10, 400))])
    found = pairs_of(copies.near_copies(copies.read_rows(x), rng))
    assert found == {(i, 300 + i) for i in range(10)}


@pytest.mark.slow
def test_cells_copied_many_times_are_found():
    x = counts(n=1000, n_genes=300)
    many = sp.vstack([x, *(thinned(x[:5], 0.9, seed=s) for s in range(4))]).tocsr()
    found = pairs_of(copies.near_copies(copies.read_rows(many), np.random.default_rng(0)))
    origin = [{cell if cell < 1000 else (cell - 1000) % 5 for cell in pair} for pair in found]
    assert all(len(cells) == 1 for cells in origin)
    assert set.union(*origin) == set(range(5))


@pytest.mark.parametrize("case", ["few cells", "one gene", "constant", "empty"])
def test_nothing_to_compare(case):
    x = {
        "few cells": counts(n=20),
        "one gene": np.arange(100.0)[:, None],
        "constant": np.ones((100, 5)),
        "empty": sp.csr_matrix((100, 5)),
    }[case]
    assert len(copies.near_copies(copies.read_rows(x), np.random.default_rng(0))) == 0


def test_whitening_leaves_unrelated_cells_at_right_angles_and_copies_near_root_p():
    x, planted = with_copies(counts(n=2000, n_genes=500, depth=400), 0.81, n=200)
    z = copies.whitened(copies.project(copies.read_rows(x), 128, np.random.default_rng(0)))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    unrelated = np.einsum("ij,ij->i", z[:1000], z[1000:2000])
    assert unrelated.std() == pytest.approx(1 / np.sqrt(128), rel=0.1)
    first, second = np.array(sorted(planted)).T
    assert np.einsum("ij,ij->i", z[first], z[second]).mean() == pytest.approx(0.9, abs=0.03)


def test_location_and_scale_are_those_of_a_gumbel():
    values = scipy.stats.gumbel_l.rvs(loc=-1.5, scale=0.2, size=(2000, 50), random_state=0)
    location, scale = copies._gumbel(values)
    np.testing.assert_allclose(location, -1.5, atol=0.05)
    np.testing.assert_allclose(scale, 0.2, atol=0.03)


def test_nearest_in_parts_equals_a_full_search():
    z = copies.whitened(np.random.default_rng(0).normal(size=(70, 6)).astype(np.float32))
    distance = np.square(z[:, None] - z[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    expected = np.log(np.stack([distance[:, k::5].min(axis=1) for k in range(5)]))
    np.testing.assert_allclose(copies._nearest_in_parts(z, 5), expected, atol=1e-4)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["sc_onek1k_bcells_100donors", "sc_covid_mild_severe_15donors"])
def test_real_cells_are_unrelated_and_their_thinned_copies_found(data_dir, name):
    adata = ad.read_h5ad(next((data_dir / name).glob("*.h5ad")))
    x = sp.csr_matrix(adata.X, dtype=np.float32)
    assert len(copies.near_copies(copies.read_rows(x), np.random.default_rng(0))) == 0
    both, planted = with_copies(x, 0.8, n=100)
    found = pairs_of(copies.near_copies(copies.read_rows(both), np.random.default_rng(0)))
    assert len(found & planted) >= 97
    assert found <= planted


@pytest.mark.realdata
def test_people_in_two_series_of_one_study_are_found(data_dir):
    """Healthy children of two published series of blood methylation are the same under other names."""
    adata = ad.read_h5ad(next((data_dir / "dnam_blood_horvath_cpgs").glob("*.h5ad")))
    found = copies.near_copies(copies.read_rows(adata.X), np.random.default_rng(0))
    first, second = adata.obs.iloc[found.first], adata.obs.iloc[found.second]
    shared = (first["batch"].to_numpy() == "GSE74432") & (second["batch"].to_numpy() == "GSE97362")
    assert shared.sum() >= 3
    for column in ("age", "sex"):
        assert (first[column].to_numpy() == second[column].to_numpy())[shared].all()


def test_cells_on_disk(tmp_path):
    adata = agevi.datasets.simulate_cohort(n_subjects=6, n_cells=10, n_genes=30)
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_array_equal(copies.read_rows(backed.X).code, copies.read_rows(adata.X).code)
    backed.file.close()
