from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats

from agevi.tl import age_correlation
from agevi.tl.trends import _age_correlation as module
from agevi.tl.trends._permute import permuted
from tests.files import stored
from tests.test_gates import check_style

KEYS = {"age_key": "age", "subject_key": "donor"}
VISITS = {**KEYS, "sample_key": "visit"}


def cells(n_subjects=12, n_visits=1, n_components=6, n_cells=(3, 9), seed=0, *, unlabelled=1, planted=0.0):
    """Cells in random order whose components differ between subjects, visits and cells; component 0 may follow age."""
    rng = np.random.default_rng(seed)
    n_units = n_subjects * n_visits
    subject = np.repeat(np.arange(n_subjects), n_visits)
    age = np.repeat(rng.uniform(20, 90, n_subjects), n_visits) + np.tile(np.arange(n_visits) * 4.0, n_subjects)
    age[subject < unlabelled] = np.nan
    unit = rng.permutation(np.repeat(np.arange(n_units), rng.integers(*n_cells, n_units)))
    z = rng.normal(size=(n_subjects, n_components))[subject[unit]] + rng.normal(size=(n_units, n_components))[unit] / 2
    z += rng.normal(size=z.shape) + 5
    z[:, 0] += planted * np.nan_to_num(age[unit])
    obs = pd.DataFrame({"donor": [f"d{s}" for s in subject[unit]], "visit": [f"v{u}" for u in unit], "age": age[unit]})
    obs.index = [f"c{i}" for i in range(len(obs))]
    adata = ad.AnnData(np.zeros((len(obs), 1), dtype=np.float32), obs=obs)
    adata.obsm["X_pca"] = z.astype(np.float32)
    return adata


def run(adata, **arguments):
    age_correlation(adata, **{**KEYS, "n_permutations": 20, **arguments})
    return adata.uns["agevi_correlation"], adata.uns["agevi_correlation_params"]


def rows(adata, level, z=None, unit="donor"):
    """Ages and components over which a correlation is computed, one after the other."""
    frame = pd.DataFrame(np.asarray(adata.obsm["X_pca"] if z is None else z, dtype=np.float64), index=adata.obs_names)
    frame["age"] = adata.obs["age"]
    frame = frame[frame["age"].notna()]
    if level == "sample":
        frame = frame.groupby(adata.obs[unit].astype(str)).mean()
    return frame["age"].to_numpy(), frame.drop(columns="age").to_numpy()


FORMS = {
    "array": lambda z: z,
    "float64 columns": lambda z: np.asfortranarray(z, dtype=np.float64),
    "csr": lambda z: sp.csr_matrix(np.where(z > 5, z, 0)),
    "table": lambda z: pd.DataFrame(z, columns=[f"PC{i}" for i in range(z.shape[1])]),
    "whole numbers": lambda z: z.astype(np.int32),
}


@pytest.mark.parametrize("level", ["cell", "sample"])
@pytest.mark.parametrize("form", FORMS)
def test_correlations_equal_numpy_and_scipy(level, form):
    adata = cells()
    stored = FORMS[form](adata.obsm["X_pca"])
    if isinstance(stored, pd.DataFrame):
        stored.index = adata.obs_names
    adata.obsm["X_pca"] = stored
    table, _ = run(adata, level=level)
    age, z = rows(adata, level, stored.toarray() if sp.issparse(stored) else stored)
    np.testing.assert_allclose(table["r"], [np.corrcoef(age, c)[0, 1] for c in z.T], atol=1e-10)
    np.testing.assert_allclose(table["spearman"], [scipy.stats.spearmanr(age, c)[0] for c in z.T], atol=1e-10)
    assert table.index.tolist() == [f"PC{i}" if form == "table" else str(i) for i in range(6)]


@pytest.mark.parametrize("level", ["cell", "sample"])
def test_samples_within_subjects_count_on_their_own(level):
    adata = cells(n_visits=3)
    table, params = run(adata, level=level, sample_key="visit")
    age, z = rows(adata, level, unit="visit")
    np.testing.assert_allclose(table["r"], [np.corrcoef(age, c)[0, 1] for c in z.T], atol=1e-10)
    np.testing.assert_allclose(table["spearman"], [scipy.stats.spearmanr(age, c)[0] for c in z.T], atol=1e-10)
    assert (params["n_subjects"], params["n_samples"]) == (11, 33)
    assert params["n_cells"] == adata.obs["age"].notna().sum()


@pytest.mark.parametrize("level", ["cell", "sample"])
@pytest.mark.parametrize("n_visits", [1, 3])
def test_permutations_equal_a_loop_over_expanded_cells(level, n_visits):
    adata = cells(n_visits=n_visits)
    arguments = VISITS if n_visits > 1 else KEYS
    _, params = run(adata, level=level, rng=3, **arguments)
    units = module.labelled_units(adata, arguments["age_key"], "donor", arguments.get("sample_key"))
    ages = permuted(units.age, units.subject, 20, np.random.default_rng(3))
    names = adata.obs["visit" if n_visits > 1 else "donor"][units.labelled].to_numpy()
    of_unit = dict(zip(names, units.of_cell, strict=True))
    best = []
    for drawn in ages:
        moved = adata[units.labelled].copy()
        moved.obs["age"] = [drawn[of_unit[name]] for name in names]
        age, z = rows(moved, level, unit="visit" if n_visits > 1 else "donor")
        best.append(max(abs(np.corrcoef(age, c)[0, 1]) for c in z.T))
    np.testing.assert_allclose(params["best_permuted"], best, atol=1e-10)
    expected = np.quantile(best, [0.05, 0.5, 0.95])
    np.testing.assert_allclose([params[f"band_{k}"] for k in ("low", "median", "high")], expected)


@pytest.mark.parametrize("level", ["cell", "sample"])
def test_p_counts_the_permutations_that_reach_r(level):
    adata = cells(planted=0.02)
    table, params = run(adata, level=level, n_permutations=99)
    expected = [(1 + sum(b >= abs(r) for b in params["best_permuted"])) / 100 for r in table["r"]]
    np.testing.assert_allclose(table["p"], expected)
    assert 0.01 <= table["p"].min() < table["p"].max() <= 1
    assert params["best"] == table["r"].abs().idxmax()


def test_band_equals_that_of_ages_shuffled_between_donors():
    """Another program, with other random numbers, for the same distribution."""
    adata = cells(n_subjects=15, n_components=20, unlabelled=0)
    _, params = run(adata, n_permutations=4000)
    rng = np.random.default_rng(99)
    donors = adata.obs.drop_duplicates("donor").set_index("donor")["age"]
    codes = pd.Categorical(adata.obs["donor"], categories=donors.index).codes
    z = scipy.stats.zscore(adata.obsm["X_pca"].astype(np.float64))
    shuffled = np.array([rng.permutation(donors.to_numpy())[codes] for _ in range(4000)])
    best = np.abs(scipy.stats.zscore(shuffled, axis=1) @ z / len(z)).max(axis=1)
    for name, q in (("low", 0.05), ("median", 0.5), ("high", 0.95)):
        assert params[f"band_{name}"] == pytest.approx(np.quantile(best, q), abs=0.012)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_visits", "level"),
    [pytest.param(1, "cell", id="one visit"), pytest.param(3, "sample", id="three visits")],
)
def test_chance_alone_is_significant_as_often_as_it_says(n_visits, level):
    """Without ageing the best component has p below 0.1 in a tenth of the cohorts, though cells are not independent."""
    n = 300
    smallest = []
    for seed in range(n):
        adata = cells(10, n_visits, 4, (2, 6), seed, unlabelled=0)
        table, _ = run(adata, level=level, n_permutations=49, rng=seed, **(VISITS if n_visits > 1 else KEYS))
        smallest.append(table["p"].min())
    found = int((np.array(smallest) <= 0.1).sum())
    assert scipy.stats.binomtest(found, n, 0.1).pvalue > 0.005


def test_visits_shuffled_as_if_they_were_subjects_would_deceive():
    """The reason for the scheme: visits of one subject resemble each other."""
    adata = cells(10, 6, 30, seed=1, unlabelled=0)
    _, honest = run(adata, level="sample", sample_key="visit", n_permutations=300)
    _, naive = run(adata, level="sample", subject_key="visit", n_permutations=300)
    assert honest["band_median"] > 1.5 * naive["band_median"]


def test_ageing_within_subjects_alone_is_found():
    """A cohort followed over time in which all subjects start at one age."""
    adata = cells(8, 5, unlabelled=0)
    adata.obs["age"] = adata.obs["visit"].str[1:].astype(int) % 5 + 50.0
    adata.obsm["X_pca"][:, 2] += 2 * adata.obs["age"].to_numpy()
    table, params = run(adata, level="sample", sample_key="visit", n_permutations=199)
    assert params["best"] == "2"
    assert table.loc["2", "p"] == 1 / 200


def test_planted_component_is_found():
    adata = cells(n_subjects=40, planted=0.1)
    for level in ("cell", "sample"):
        table, params = run(adata, level=level, n_permutations=199)
        assert params["best"] == "0"
        assert table.loc["0", "p"] == 1 / 200
        assert table["p"].iloc[1:].min() > 0.01


def test_order_of_cells_does_not_matter():
    adata = cells()
    shuffled = adata[np.random.default_rng(3).permutation(adata.n_obs)].copy()
    for level in ("cell", "sample"):
        pd.testing.assert_frame_equal(run(adata, level=level)[0], run(shuffled, level=level)[0])


def test_permutations_in_blocks_are_the_same(monkeypatch):
    adata = cells()
    _, expected = run(adata)
    monkeypatch.setattr(module, "_VALUES", 50)
    np.testing.assert_allclose(run(adata)[1]["best_permuted"], expected["best_permuted"], atol=1e-12)


@pytest.mark.parametrize("level", ["cell", "sample"])
def test_components_that_do_not_vary_are_nan(level):
    adata = cells()
    expected, params = run(adata, level=level)
    adata.obsm["X_pca"] = np.insert(adata.obsm["X_pca"], 1, 0.1, axis=1)
    table, widened = run(adata, level=level)
    assert table.loc["1"].isna().all()
    np.testing.assert_allclose(table.drop("1"), expected)
    np.testing.assert_allclose(widened["best_permuted"], params["best_permuted"])


def test_seed_and_generator():
    adata = cells()
    draws = [run(adata, rng=rng)[1]["best_permuted"] for rng in (7, 7, np.random.default_rng(7), 8)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    assert (draws[0] != draws[3]).any()


def test_slots_and_copy():
    adata = cells()
    before = set(adata.obs), set(adata.obsm)
    out = age_correlation(adata, **KEYS, key_added="mine", n_permutations=5, copy=True)
    assert not adata.uns
    assert set(out.uns) == {"mine_correlation", "mine_correlation_params"}
    assert age_correlation(adata, **KEYS, n_permutations=5) is None
    assert (set(adata.obs), set(adata.obsm)) == before
    table, params = adata.uns["agevi_correlation"], adata.uns["agevi_correlation_params"]
    assert list(table) == ["r", "spearman", "p"]
    assert set(table.dtypes) == {np.dtype(np.float64)}
    assert params["sample_key"] == "donor"
    assert {k: params[k] for k in ("use_rep", "level", "n_permutations", "rng")} == {
        "use_rep": "X_pca", "level": "cell", "n_permutations": 5, "rng": 0,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_writing(tmp_path, store):
    adata = cells()
    names = ["CD4/CD8", "", "a b", "7", "8", "x"]
    adata.obsm["X_pca"] = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=names)
    table, params = run(adata, rng=np.random.default_rng(0))
    del adata.obsm["X_pca"]
    back = stored(adata, store, tmp_path).uns
    pd.testing.assert_frame_equal(
        back["agevi_correlation"], table, check_index_type=False, check_column_type=False, check_dtype=False
    )
    assert set(back["agevi_correlation_params"]) == set(params)
    np.testing.assert_allclose(back["agevi_correlation_params"]["best_permuted"], params["best_permuted"])


def set_age(value):
    def change(a):
        a.obs["age"] = value(a)

    return change


def set_rep(value):
    return lambda a: a.obsm.__setitem__("X_pca", value(a))


def with_nan(a):
    z = a.obsm["X_pca"].copy()
    z[3, 1] = np.nan
    return z


@pytest.mark.parametrize(
    ("prepare", "arguments", "error", "message"),
    [
        pytest.param(None, {"use_rep": "X_pcs"}, KeyError, "use_rep='X_pcs' is not in adata.obsm; closest: 'X_pca'", id="rep"),
        pytest.param(lambda a: a.obsm.clear(), {}, KeyError, r"adata.obsm is empty; run sc.pp.pca\(adata\) first", id="no rep"),
        pytest.param(
            set_rep(with_nan), {}, ValueError, r"adata.obsm\['X_pca'\] has missing or infinite values \(first: nan\)", id="nan"
        ),
        pytest.param(
            set_rep(lambda a: pd.DataFrame({"a": ["x"] * a.n_obs}, index=a.obs_names)), {}, TypeError,
            r"adata.obsm\['X_pca'\] holds .* of shape .*; pass a table of numbers, cells x components", id="text",
        ),
        pytest.param(
            set_rep(lambda a: np.ones((a.n_obs, 2, 2))), {}, TypeError, "pass a table of numbers, cells x comp", id="3-D"
        ),
        pytest.param(
            set_rep(lambda a: np.ones((a.n_obs, 2))), {}, ValueError,
            r"no component of adata.obsm\['X_pca'\] varies over the cells with an age", id="constant",
        ),
        pytest.param(None, {"level": "donor"}, ValueError, "level='donor' is not known; choose one of 'cell', 'sample'", id="level"),
        pytest.param(None, {"n_permutations": 0}, ValueError, "n_permutations=0 is out of range; pass a whole number, 1 or more", id="none"),
        pytest.param(None, {"n_permutations": 2.5}, TypeError, "n_permutations=2.5 is a float; pass a whole number", id="half"),
        pytest.param(None, {"rng": "x"}, TypeError, "rng='x' is a str; pass a non-negative integer seed", id="rng"),
        pytest.param(None, {"age_key": "ag"}, KeyError, "age_key='ag' is not a column.*closest: 'age'", id="age_key"),
        pytest.param(None, {"subject_key": "donr"}, KeyError, "closest: 'donor'", id="subject_key"),
        pytest.param(None, {"sample_key": "vis"}, KeyError, "sample_key='vis' is not a column", id="sample_key"),
        pytest.param(
            set_age(lambda a: np.where(a.obs["donor"].isin(["d1", "d2"]), a.obs["age"], np.nan)), {},
            ValueError, "only 2 subjects have an age in adata.obs.'age'.; a correlation with age needs at least 3", id="few",
        ),
        pytest.param(
            set_age(lambda a: 50.0), {}, ValueError,
            "is 50 for every subject; a correlation needs different ages", id="one age",
        ),
        pytest.param(
            set_age(lambda a: np.arange(a.n_obs) + 1.0), {}, ValueError, "has two ages.*sample_key", id="ages"
        ),
        pytest.param(set_age(lambda a: "60-69"), {}, TypeError, "parse_age", id="bins"),
    ],
)  # fmt: skip
def test_refuses_and_writes_nothing(prepare, arguments, error, message):
    adata = cells()
    if prepare:
        prepare(adata)
    with pytest.raises(error, match=message) as raised:
        age_correlation(adata, **{**KEYS, **arguments})
    check_style(raised.value.args[0])
    assert not adata.uns
