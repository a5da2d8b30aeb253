from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import _names
from agevi.dataloaders._folds import assign_folds, folds_from_column


def subjects(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(20, 90, n), np.ones(n, dtype=bool)


@pytest.mark.parametrize(("n", "k"), [(20, 5), (23, 5), (7, 3), (300, 10), (5, 5)])
def test_each_block_of_ages_gives_one_subject_to_every_fold(n, k):
    age, trains = subjects(n)
    folds = assign_folds(age, trains, None, k, rng=1)
    by_age = folds[np.argsort(age)]
    for start in range(0, n - k + 1, k):
        assert sorted(by_age[start : start + k]) == list(range(k))
    sizes = np.bincount(folds, minlength=k)
    assert sizes.max() - sizes.min() <= 1


def test_every_kind_of_subject_is_spread_over_the_folds():
    age, trains = subjects(50)
    age[40:] = np.nan
    trains[25:45] = False
    folds = assign_folds(age, trains, None, 4, rng=0)
    assert sorted(np.bincount(folds)) == [12, 12, 13, 13]
    for kind in (trains & ~np.isnan(age), ~trains & ~np.isnan(age), np.isnan(age)):
        sizes = np.bincount(folds[kind], minlength=4)
        assert sizes.max() - sizes.min() <= 1


def test_strata_are_balanced_within_ages():
    age = np.linspace(20, 90, 60)
    strata = np.where(np.arange(60) % 3 == 0, "b", "a")
    folds = assign_folds(age, np.ones(60, dtype=bool), strata, 5, rng=0)
    for stratum, wanted in (("a", 8), ("b", 4)):
        assert np.bincount(folds[strata == stratum], minlength=5).tolist() == [wanted] * 5


def test_strata_are_closer_to_proportion_than_chance():
    rng = np.random.default_rng(0)
    age, trains = subjects(100)
    strata = rng.choice(["a", "b", "c", "d"], 100)
    spread = lambda folds: sum(np.bincount(folds[strata == s], minlength=5).std() for s in np.unique(strata))  # noqa: E731
    balanced = [spread(assign_folds(age, trains, strata, 5, rng=seed)) for seed in range(5)]
    chance = [spread(assign_folds(age, trains, None, 5, rng=seed)) for seed in range(20)]
    assert max(balanced) < np.quantile(chance, 0.05)


def test_seed():
    age, trains = subjects(40)
    first, same, other = (assign_folds(age, trains, None, 5, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def cells(folds, donors=("d0", "d0", "d1", "d2")):
    obs = pd.DataFrame({"fold": list(folds), "donor": list(donors)}, index=[f"c{i}" for i in range(len(folds))])
    return ad.AnnData(np.ones((len(folds), 2), dtype=np.float32), obs=obs)


def test_folds_of_a_column():
    adata = cells(["b", "b", "a", "b"])
    assert folds_from_column(adata, "fold", adata.obs["donor"]).to_dict() == {"d0": "b", "d1": "a", "d2": "b"}
    adata = cells([1, 1, 2, 1])
    assert folds_from_column(adata, "fold", adata.obs["donor"]).to_dict() == {"d0": "1", "d1": "2", "d2": "1"}


def test_a_subject_in_several_folds_is_in_that_of_most_of_its_cells():
    adata = cells(["b", "a", "b", "b", "a"], ["d0", "d0", "d0", "d1", "d2"])
    with pytest.warns(UserWarning, match=r"1 of 3 subjects have cells in several folds .*'d0' in 'b', 'a'.*\('b'\)"):
        found = folds_from_column(adata, "fold", adata.obs["donor"])
    assert found.to_dict() == {"d0": "b", "d1": "b", "d2": "a"}


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        pytest.param(
            ["a", "b", "a", "b", "a"], "subject 'd0' is in 'a' and 'b' of adata.obs\\['fold'\\]", id="two folds"
        ),
        pytest.param(["a"] * 4, "has one fold, 'a'; cross-validation needs two or more", id="one fold"),
        pytest.param(["a", "a", None, "b"], "fold_key must name every cell's unit", id="missing"),
    ],
)
def test_unusable_columns(folds, message):
    adata = cells(folds, ["d0", "d0", "d1", "d1", "d2"][: len(folds)])
    with pytest.raises(ValueError, match=message):
        folds_from_column(adata, "fold", adata.obs["donor"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["10", "9", "1", "9"], ["1", "9", "10"], id="numbers"),
        pytest.param(["10", "9", "x"], ["10", "9", "x"], id="text"),
        pytest.param(["perez", "aida"], ["aida", "perez"], id="names"),
    ],
)
def test_order(names, expected):
    assert _names.in_order(pd.Series(names)) == expected
