from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.dataloaders import _assign


def counts(roles):
    return tuple(int((roles == r).sum()) for r in ("train", "validation", "test"))


@pytest.mark.parametrize(
    ("n", "test", "validation", "expected"),
    [
        pytest.param(3, 0.15, 0.15, (1, 1), id="at least one each"),
        pytest.param(10, 0.15, 0.15, (2, 2), id="half rounds up"),
        pytest.param(69, 0.15, 0.13, (10, 9), id="shares"),
        pytest.param(69, 10, 9, (10, 9), id="numbers"),
        pytest.param(10, 0, 0.0, (0, 0), id="none"),
        pytest.param(10, np.int64(3), np.float32(0.25), (3, 3), id="numpy numbers"),
    ],
)
def test_role_counts(n, test, validation, expected):
    assert _assign.role_counts(n, test, validation) == expected


@pytest.mark.parametrize(
    ("n", "test", "validation", "error", "message"),
    [
        pytest.param(2, 0.15, 0.15, ValueError, r"of 2 labelled subjects hold out 1 \+ 1 and leave none", id="two"),
        pytest.param(10, 0.5, 0.5, ValueError, r"hold out 5 \+ 5 and leave none to train on; lower them", id="sum"),
        pytest.param(10, 8, 2, ValueError, r"test_size=8 and validation_size=2 of 10 labelled", id="numbers"),
        pytest.param(10, 1.0, 0, ValueError, r"test_size=1.0 is not a share in \[0, 1\); for a number", id="share 1"),
        pytest.param(10, 0.1, -0.1, ValueError, r"validation_size=-0.1 is not a share", id="negative share"),
        pytest.param(10, float("nan"), 0, ValueError, r"test_size=nan is not a share", id="NaN"),
        pytest.param(10, -1, 0, ValueError, "test_size=-1 is negative; pass a share", id="negative number"),
        pytest.param(10, "a", 0, TypeError, r"test_size='a' is a str; pass a share \(0.15\) or a number", id="text"),
        pytest.param(10, True, 0, TypeError, "test_size=True is a bool", id="bool"),
    ],
)
def test_role_counts_refuse(n, test, validation, error, message):
    with pytest.raises(error, match=message):
        _assign.role_counts(n, test, validation)


@pytest.mark.parametrize("n", [3, 4, 5, 8, 10, 23, 100])
@pytest.mark.parametrize("with_strata", [False, True], ids=["ages only", "strata"])
def test_numbers_are_exact(n, with_strata):
    rng = np.random.default_rng(n)
    age = rng.uniform(20, 90, n)
    strata = rng.choice(["a", "b", "c"], n) if with_strata else None
    n_test, n_validation = _assign.role_counts(n, 0.2, 0.15)
    for seed in range(20):
        roles = _assign.assign_roles(age, strata, n_test=n_test, n_validation=n_validation, rng=seed)
        assert counts(roles) == (n - n_test - n_validation, n_validation, n_test)


@pytest.mark.parametrize("n", [8, 10, 20])
def test_held_out_ages_span_the_range(n):
    """With two of each role, one test subject is in the lower half of ages and one in the upper, in every draw."""
    age = np.random.default_rng(0).permutation(np.linspace(20, 90, n))
    for seed in range(100):
        roles = _assign.assign_roles(age, None, n_test=2, n_validation=2, rng=seed)
        for role in ("test", "validation"):
            assert sorted(age[roles == role] > 55) == [False, True]


def test_age_balance_is_far_better_than_at_random():
    rng = np.random.default_rng(3)
    age = rng.uniform(20, 90, 40)
    gap, random_gap = [], []
    for seed in range(100):
        roles = _assign.assign_roles(age, None, n_test=6, n_validation=6, rng=seed)
        gap.append(abs(age[roles == "test"].mean() - age.mean()))
        random_gap.append(abs(rng.choice(age, 6, replace=False).mean() - age.mean()))
    assert np.mean(gap) < 0.4 * np.mean(random_gap)


def test_strata_are_proportional():
    rng = np.random.default_rng(0)
    age, sex = rng.uniform(20, 90, 60), np.repeat(["f", "m", "m"], 20)
    for seed in range(50):
        roles = _assign.assign_roles(age, sex, n_test=9, n_validation=9, rng=seed)
        assert ((roles != "train") & (sex == "f")).sum() == 6  # a third of 18
        assert ((roles == "test") & (sex == "f")).sum() == 3


def test_many_held_out_subjects_keep_numbers_and_rough_proportions(monkeypatch):
    monkeypatch.setattr(_assign, "MAX_MATCHED", 10)
    rng = np.random.default_rng(0)
    age, strata = rng.uniform(20, 90, 400), np.tile(["a", "b"], 200)
    roles = _assign.assign_roles(age, strata, n_test=60, n_validation=60, rng=0)
    assert counts(roles) == (280, 60, 60)
    assert abs(((roles != "train") & (strata == "a")).sum() - 60) < 20


@pytest.mark.slow
@pytest.mark.parametrize("n_strata", [1, 3])
def test_every_subject_is_as_likely_to_be_held_out(n_strata):
    n, draws = 24, 1500
    age, strata = np.linspace(20, 90, n), np.arange(n) % n_strata
    held = np.zeros(n)
    for seed in range(draws):
        held += _assign.assign_roles(age, strata, n_test=4, n_validation=4, rng=seed) != "train"
    # Binomial: mean 1/3, standard error 0.012; the blocks' and the strata's rounding may add a little.
    np.testing.assert_allclose(held / draws, 1 / 3, atol=0.08)


def test_unlabelled_subjects_train():
    age = np.array([20.0, np.nan, 40.0, 60.0, np.nan, 80.0])
    for seed in range(20):
        roles = _assign.assign_roles(age, None, n_test=1, n_validation=1, rng=seed)
        assert (roles[np.isnan(age)] == "train").all()
        assert counts(roles) == (4, 1, 1)


def test_training_keeps_two_ages_where_possible():
    age = np.array([20.0, 20.0, 20.0, 80.0])
    for seed in range(50):
        roles = _assign.assign_roles(age, None, n_test=1, n_validation=1, rng=seed)
        assert len(set(age[roles == "train"])) == 2
        assert counts(roles) == (2, 1, 1)


def test_one_age_for_all_still_splits():
    assert counts(_assign.assign_roles(np.full(6, 50.0), None, n_test=1, n_validation=1)) == (4, 1, 1)


def test_equal_seeds_give_equal_roles_and_other_seeds_do_not():
    age = np.random.default_rng(0).integers(20, 30, 50).astype(float)
    draws = [
        _assign.assign_roles(age, None, n_test=8, n_validation=8, rng=rng)
        for rng in (1, 1, np.random.default_rng(1), 2)
    ]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] == draws[2]).all()
    assert (draws[0] != draws[3]).any()


def test_too_many_held_out_is_refused():
    with pytest.raises(ValueError, match=r"2 \+ 1 of 3 labelled subjects leave none to train on"):
        _assign.assign_roles(np.array([1.0, 2.0, 3.0, np.nan]), None, n_test=2, n_validation=1)


def test_subject_ages_average_labelled_samples():
    age = pd.Series({"v1": 40.0, "v2": 44.0, "v3": np.nan, "w": 20.0, "u": np.nan})
    owner = pd.Series({"v1": "d2", "v2": "d2", "v3": "d2", "w": "d1", "u": "d3"})
    out = _assign.subject_ages(age, owner)
    assert out.index.tolist() == ["d1", "d2", "d3"]
    np.testing.assert_array_equal(out, [20.0, 42.0, np.nan])


def test_subjects_with_samples_in_several_strata():
    """The most common value, and a stratum of its own where there are several: held-out shares hold for these too."""
    subject = pd.Series(["a", "a", "a", "b", "b", "c"])
    obs = pd.DataFrame({"tissue": ["blood", "skin", "skin", "skin", "blood", "blood"]}, index=list("123456"))
    adata = ad.AnnData(np.zeros((6, 1), dtype=np.float32), obs=obs)
    strata = _assign.subject_strata(adata, ["tissue"], subject)
    assert strata["a"] == "skin"
    assert strata["c"] == "blood"
    assert strata["b"] not in ("skin", "blood")
    obs = pd.DataFrame(
        {"modality": ["x"] * 100 + ["y"] * 100, "donor": [f"d{i % 150}" for i in range(200)]},
        index=[str(i) for i in range(200)],
    )
    obs["age"] = obs["donor"].str[1:].astype(float) % 50 + 20
    adata = ad.AnnData(np.zeros((200, 1), dtype=np.float32), obs=obs)
    agevi.pp.split_subjects(
        adata, subject_key="donor", age_key="age", stratify_by="modality", test_size=0.3, validation_size=0
    )
    both = adata.obs.groupby("donor")["modality"].nunique() == 2
    test = adata.obs.groupby("donor")["agevi_split"].first() == "test"
    assert both.sum() == 50
    assert 14 <= test[both].sum() <= 16
