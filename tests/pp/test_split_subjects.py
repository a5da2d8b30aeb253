from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import pp
from tests.files import stored

KEYS = {"subject_key": "donor", "age_key": "age"}


def cohort(n_subjects=40, n_cells=3, seed=0):
    """Cells of a cohort with sex and tissue, in random order."""
    rng = np.random.default_rng(seed)
    subjects = pd.DataFrame(
        {
            "donor": [f"d{i:03d}" for i in range(n_subjects)],
            "age": rng.uniform(20, 90, n_subjects),
            "sex": rng.permutation(np.arange(n_subjects) % 2).astype(str),
            "tissue": rng.choice(["a", "b", "c"], n_subjects),
        }
    )
    obs = subjects.loc[np.repeat(subjects.index, n_cells)].sample(frac=1, random_state=seed)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    return ad.AnnData(np.ones((len(obs), 2), dtype=np.float32), obs=obs)


def roles_of(adata, key="agevi_split"):
    """Role per subject; fails where a subject has two."""
    pairs = adata.obs[["donor", key]].astype(str).drop_duplicates()
    assert pairs["donor"].is_unique
    return pairs.set_index("donor")[key].sort_index()


def test_writes_one_categorical_column_and_returns_none():
    adata = cohort()
    before = adata.copy()
    assert pp.split_subjects(adata, **KEYS) is None
    split = adata.obs.pop("agevi_split")
    assert split.cat.categories.tolist() == ["train", "validation", "test"]
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_copy_leaves_the_original_alone():
    adata = cohort()
    out = pp.split_subjects(adata, **KEYS, key_added="mine", copy=True)
    assert "mine" in out.obs
    assert list(adata.obs) == ["donor", "age", "sex", "tissue"]


@pytest.mark.parametrize(
    ("n", "sizes", "expected"),
    [
        pytest.param(3, {}, (1, 1, 1), id="three subjects"),
        pytest.param(8, {}, (6, 1, 1), id="eight subjects"),
        pytest.param(10, {}, (6, 2, 2), id="ten subjects"),
        pytest.param(69, {"test_size": 10, "validation_size": 9}, (50, 9, 10), id="as the neuron clock"),
        pytest.param(10, {"test_size": 0}, (8, 2, 0), id="no test"),
        pytest.param(10, {"test_size": 0.3, "validation_size": 0}, (7, 0, 3), id="no validation"),
        pytest.param(10, {"test_size": 0, "validation_size": 0}, (10, 0, 0), id="train only"),
    ],
)
def test_numbers_of_subjects(n, sizes, expected):
    adata = cohort(n)
    pp.split_subjects(adata, **KEYS, **sizes)
    counts = roles_of(adata).value_counts()
    assert tuple(counts.get(r, 0) for r in ("train", "validation", "test")) == expected
    assert adata.obs["agevi_split"].cat.categories.tolist() == ["train", "validation", "test"]


def test_split_depends_on_names_and_seed_only():
    adata = cohort()
    shuffled = adata[np.random.default_rng(9).permutation(adata.n_obs)].copy()
    shuffled.obs["donor"] = pd.Categorical(shuffled.obs["donor"], categories=shuffled.obs["donor"].unique()[::-1])
    thinned = adata[~adata.obs["donor"].duplicated()].copy()  # one cell per subject
    splits = []
    for a in (adata, shuffled, thinned):
        pp.split_subjects(a, **KEYS, stratify_by=["sex", "tissue"], rng=4)
        splits.append(roles_of(a))
    pd.testing.assert_series_equal(splits[0], splits[1])
    pd.testing.assert_series_equal(splits[0], splits[2])
    pp.split_subjects(adata, **KEYS, stratify_by=["sex", "tissue"], rng=5)
    assert (roles_of(adata) != splits[0]).any()


@pytest.mark.parametrize("stratify_by", ["sex", ["sex"], ("sex", "tissue")], ids=["name", "list", "two columns"])
def test_strata_are_balanced(stratify_by):
    adata = cohort(60)
    by_subject = adata.obs.drop_duplicates("donor").set_index("donor")
    for seed in range(10):
        pp.split_subjects(adata, **KEYS, stratify_by=stratify_by, rng=seed)
        held = by_subject.loc[roles_of(adata)[lambda r: r != "train"].index]
        assert len(held) == 18
        assert abs((held["sex"] == "1").sum() - 9) <= (0 if stratify_by != ("sex", "tissue") else 2)


def test_ages_of_held_out_subjects_are_balanced():
    adata = cohort(40)
    age = adata.obs.drop_duplicates("donor").set_index("donor")["age"]
    for seed in range(10):
        pp.split_subjects(adata, **KEYS, stratify_by="sex", rng=seed)
        roles = roles_of(adata)
        for role in ("test", "validation"):
            held = age.loc[roles.index[roles == role]]
            assert abs(held.median() - age.median()) < 15
            assert held.min() < age.quantile(0.34)
            assert held.max() > age.quantile(0.66)


def test_strata_use_the_most_common_value_and_keep_missing_ones():
    adata = cohort(12, n_cells=5)
    adata.obs["batch"] = np.where(adata.obs["donor"].isin(["d000", "d001", "d002"]), None, "x")
    adata.obs["noisy"] = adata.obs["sex"].astype(object)
    first = ~adata.obs["donor"].duplicated()
    adata.obs.loc[first, "noisy"] = "other"  # one cell in five
    pp.split_subjects(adata, **KEYS, stratify_by="sex", key_added="clean")
    pp.split_subjects(adata, **KEYS, stratify_by="noisy")
    assert (adata.obs["clean"] == adata.obs["agevi_split"]).all()
    for seed in range(10):
        pp.split_subjects(adata, **KEYS, stratify_by="batch", test_size=2, validation_size=2, rng=seed)
        roles = roles_of(adata)
        assert (roles.loc[["d000", "d001", "d002"]] != "train").sum() == 1  # a quarter of four


def test_unlabelled_subjects_train_and_are_counted(caplog):
    adata = cohort(12)
    adata.obs.loc[adata.obs["donor"].isin(["d003", "d007"]), "age"] = np.nan
    with caplog.at_level(logging.INFO, logger="agevi"):
        pp.split_subjects(adata, **KEYS)
    roles = roles_of(adata)
    assert (roles.loc[["d003", "d007"]] == "train").all()
    assert roles.value_counts().to_dict() == {"train": 8, "validation": 2, "test": 2}
    assert "8 train, 2 validation, 2 test subjects (2 of the train subjects have no age)" in caplog.text


def test_visits_stay_with_their_subject():
    adata = cohort(20, n_cells=4)
    visit = adata.obs.groupby("donor").cumcount() % 2
    adata.obs["visit"] = adata.obs["donor"].astype(str) + "_" + visit.astype(str)
    adata.obs["age"] += 5.0 * visit
    pp.split_subjects(adata, **KEYS, sample_key="visit")
    assert roles_of(adata).value_counts().to_dict() == {"train": 14, "validation": 3, "test": 3}
    adata.obs["mean_age"] = adata.obs["age"] - 5.0 * visit + 2.5
    pp.split_subjects(adata, subject_key="donor", age_key="mean_age", key_added="by_mean")
    assert (adata.obs["by_mean"] == adata.obs["agevi_split"]).all()


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_split_survives_writing(tmp_path, store):
    adata = cohort(12)
    pp.split_subjects(adata, **KEYS, stratify_by="sex")
    back = stored(adata, store, tmp_path)
    assert back.obs["agevi_split"].tolist() == adata.obs["agevi_split"].tolist()
    assert back.obs["agevi_split"].cat.categories.tolist() == ["train", "validation", "test"]


def change(**columns):
    def apply(adata):
        for name, make in columns.items():
            adata.obs[name] = make(adata.obs)
        return adata

    return apply


@pytest.mark.parametrize(
    ("prepare", "arguments", "error", "message"),
    [
        pytest.param(lambda a: a[:0].copy(), {}, ValueError, "adata is empty", id="no cells"),
        pytest.param(lambda a: a.X, {}, TypeError, "pass an anndata.AnnData", id="array"),
        pytest.param(None, {"subject_key": "donr"}, KeyError, "subject_key='donr'.*closest: 'donor'", id="subject_key"),
        pytest.param(None, {"age_key": "Age"}, KeyError, "age_key='Age'.*closest: 'age'", id="age_key"),
        pytest.param(None, {"sample_key": "v"}, KeyError, "sample_key='v' is not a column", id="sample_key"),
        pytest.param(None, {"stratify_by": ["sex", "tissu"]}, KeyError, "stratify_by='tissu'.*'tissue'", id="stratify_by"),
        pytest.param(change(age=lambda o: "60-69"), {}, TypeError, "parse_age", id="binned ages"),
        pytest.param(change(age=lambda o: np.inf), {}, ValueError, "infinite", id="infinite ages"),
        pytest.param(change(age=lambda o: np.nan), {}, ValueError, "no ages", id="no ages"),
        pytest.param(change(age=lambda o: 50.0), {}, ValueError, "50 for every subject", id="one age"),
        pytest.param(change(age=lambda o: o["age"] - 60), {}, ValueError, "below min_age=-1", id="below min_age"),
        pytest.param(change(age=lambda o: np.arange(len(o))), {}, ValueError, "two ages.*sample_key", id="two ages"),
        pytest.param(
            change(age=lambda o: o["age"].where(o["donor"].isin(["d000", "d001"]))),
            {}, ValueError, "only 2 subjects have an age", id="two labelled subjects",
        ),
        pytest.param(change(visit=lambda o: "v"), {"sample_key": "visit"}, ValueError, "belongs to 12", id="sample"),
        pytest.param(None, {"test_size": 0.6, "validation_size": 0.4}, ValueError, "leave none to train", id="sizes"),
        pytest.param(None, {"test_size": 1.0}, ValueError, "not a share", id="test_size"),
        pytest.param(None, {"key_added": "age"}, ValueError, "key_added='age' is a column that the split", id="key_added"),
    ],
)  # fmt: skip
def test_refuses_and_writes_nothing(prepare, arguments, error, message):
    adata = cohort(12)
    given = prepare(adata) if prepare else adata
    before = adata.obs.copy()
    with pytest.raises(error, match=message):
        pp.split_subjects(given, **{**KEYS, **arguments})
    pd.testing.assert_frame_equal(adata.obs, before)


def test_min_age_may_be_lowered():
    adata = cohort(12)
    adata.obs["age"] -= 60
    pp.split_subjects(adata, **KEYS, min_age=-40)
    assert set(adata.obs["agevi_split"]) == {"train", "validation", "test"}
