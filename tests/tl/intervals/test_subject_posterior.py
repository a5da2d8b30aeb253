from __future__ import annotations

import logging
import runpy
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import get
from agevi.tl import subject_posterior
from tests.files import stored
from tests.test_gates import check_message, snapshot
from tests.tl.intervals import simulated

COLUMNS = ["sample", "type", "subject", "age", "predicted", "n_cells", "mean", "sd", "lower", "upper", "prior"]


def years(standardised):
    return np.exp(3.8 + 0.4 * standardised) - 2  # on a log scale, as of a PLSClock


def of_samples(n=60, seed=0, *, noise=1.0, roles=("out_of_fold",)):
    """What tl.aggregate_subjects leaves, for a clock on the logarithmic scale."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(n)
    names = [f"s{i:03d}" for i in range(n)]
    table = pd.DataFrame(
        {
            "subject": names,
            "age": years(z),
            "predicted": years(0.7 * z + 0.4 * noise * rng.standard_normal(n)),
            "n_cells": rng.integers(20, 200, n),
            "sd_cells": np.nan,
            "role": np.resize(np.array(roles, dtype=object), n),
        },
        index=pd.Index(names, name="sample", dtype=object),
    )
    return with_record(agevi_subjects=table)


def with_record(**tables):
    adata = ad.AnnData(np.ones((2, 2), dtype=np.float32))
    record = {"age_unit": "years", "age_transform": "log", "min_age": -1.0, "params": {"groupby": "cell_type"}}
    adata.uns = {"agevi": record, **tables}
    return adata


def of_types(n=60, n_types=3, seed=0, *, missing=0.2):
    """The same for one clock per type."""
    values, cells, z = simulated.predictions(n, n_types, np.random.default_rng(seed), missing=missing)
    samples = np.array([f"s{i:03d}" for i in range(n)], dtype=object)
    row, column = np.nonzero(np.ones_like(values, dtype=bool))
    table = pd.DataFrame(
        {
            "sample": samples[row],
            "group": np.array(["CD4/CD8", "", "b cell", "4", "5"], dtype=object)[column],
            "subject": samples[row],
            "age": years(z)[row],
            "predicted": years(values).ravel(),
            "n_cells": np.ceil(40 * cells).astype(np.int64).ravel(),
            "combined": years(np.nanmean(values, axis=1))[row],
        }
    )
    return with_record(agevi_by_group=table)


def table_of(adata, **arguments):
    subject_posterior(adata, **arguments)
    return get.posterior_df(adata)


def inside(table):
    return ((table["lower"] <= table["age"]) & (table["age"] <= table["upper"])).mean()


@pytest.mark.slow
def test_table():
    adata = of_samples(200)
    table = table_of(adata)
    assert list(table) == COLUMNS
    assert (table["sample"] == adata.uns["agevi_subjects"].index).all()
    assert set(table["type"]) == {"all"}
    assert set(table["prior"]) == {"cohort"}
    assert 0.85 <= inside(table) <= 0.95
    assert ((table["lower"] < table["mean"]) & (table["mean"] < table["upper"])).all()
    params = adata.uns["agevi_posterior_params"]
    assert (params["n"], params["level"], params["age_unit"], params["age_transform"]) == (200, 0.9, "years", "log")
    assert inside(table_of(adata, level=0.5)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.slow
def test_scale_of_ages_of_the_clock_is_used():
    """On the logarithmic scale intervals of the old are wider by the ratio of ages; predictions have equal spread there."""
    adata = of_samples(300)
    table = table_of(adata, prior="flat")
    width = table["upper"] - table["lower"]
    assert np.corrcoef(width, table["mean"])[0, 1] > 0.95
    parameters = adata.uns["agevi_posterior_params"]["parameters"].set_index("parameter")
    assert parameters.loc["slope", "mean"] == pytest.approx(0.7, abs=0.05)
    assert parameters.loc["scale", "mean"] == pytest.approx(0.4, abs=0.05)
    del adata.uns["agevi"]["age_transform"]
    table = table_of(adata, prior="flat")
    assert adata.uns["agevi_posterior_params"]["age_transform"] == "none"
    assert (table["upper"] - table["lower"]).std() < 0.5 * width.std()


@pytest.mark.slow
def test_samples_without_an_age_get_the_posterior_of_those_with_one():
    adata = of_samples(80)
    with_age = table_of(adata, prior="flat")
    table = adata.uns["agevi_subjects"]
    adata.uns["agevi_subjects"] = pd.concat(
        [table, table.iloc[:20].assign(age=np.nan, role="new").rename("n{}".format)]
    )
    both = table_of(adata, prior="flat")
    assert len(both) == 100
    for column in ("mean", "sd", "lower", "upper"):
        np.testing.assert_allclose(both[column][80:], with_age[column][:20], rtol=1e-9)


@pytest.mark.slow
def test_age_of_a_sample_enters_by_the_shared_parameters_alone():
    adata = of_samples(40)
    before = table_of(adata)
    adata.uns["agevi_subjects"].loc["s000", "age"] += 30
    parameters = adata.uns["agevi_posterior_params"]["parameters"]
    after = table_of(adata)
    assert adata.uns["agevi_posterior_params"]["parameters"]["mean"].ne(parameters["mean"]).any()
    assert abs(after["mean"] - before["mean"])[0] < 3
    assert table_of(adata)["prior"].eq("cohort").all()


@pytest.mark.slow
def test_own_age_is_not_in_the_prior():
    """With the ages of 20 samples in their own priors the intervals would cover more of them, and estimates be closer."""
    own, others = [], []
    for seed in range(6):
        adata = of_samples(20, seed)
        others.append(table_of(adata))
        params = adata.uns["agevi_posterior_params"]
        own.append(table_of(adata, prior=np.column_stack([params["grid"], params["prior_density"]])))
    error = [abs(t["mean"] - t["age"]).mean() for t in map(pd.concat, (own, others))]
    assert error[0] < 0.97 * error[1]


def test_samples_of_one_subject_keep_its_prior():
    adata = of_samples(40)
    adata.uns["agevi_subjects"]["subject"] = "alone"
    assert np.isfinite(table_of(adata)["mean"]).all()


@pytest.mark.slow
def test_fitted_samples_are_left_out():
    adata = of_samples(60, roles=("out_of_fold", "train", "test"))
    table = table_of(adata)
    assert len(table) == 40
    assert adata.uns["agevi_posterior_params"]["n_left_out"] == 20
    alone = adata.copy()
    alone.uns["agevi_subjects"] = alone.uns["agevi_subjects"].query("role != 'train'")
    pd.testing.assert_frame_equal(table, table_of(alone))


@pytest.mark.slow
def test_types_are_combined_by_their_information():
    adata = of_types(200)
    table = table_of(adata, cell_type_key="cell_type")
    assert set(table["type"]) == {"all", "CD4/CD8", "", "b cell"}
    width = (table["upper"] - table["lower"]).groupby(table["type"]).mean()
    assert width["all"] < width.drop("all").min()
    assert width["CD4/CD8"] < width["b cell"]  # the best clock and the worst
    for _, part in table.groupby("type"):
        assert 0.82 <= inside(part) <= 0.97
    both = table[table["type"] == "all"].set_index("sample")
    assert (both["n_cells"] == table[table["type"] != "all"].groupby("sample")["n_cells"].sum()).all()


def test_types_may_be_missing_and_rare_ones_are_left_out(caplog):
    adata = of_types(60, missing=0.5)
    long = adata.uns["agevi_by_group"]
    rare = (long["group"] == "b cell") & ~long["sample"].isin(long["sample"].unique()[:9])
    long.loc[rare, "predicted"] = np.nan
    with caplog.at_level(logging.WARNING, "agevi"):
        table = table_of(adata, cell_type_key="cell_type")
    assert set(table["type"]) == {"all", "CD4/CD8", ""}
    assert any(
        "fewer than 10 labelled samples are left out of the posterior: 'b cell (" in r.getMessage()
        for r in caplog.records
    )
    seen = long[long["predicted"].notna() & (long["group"] != "b cell")]
    assert set(table["sample"]) == set(seen["sample"])
    assert len(table) == len(seen) + seen["sample"].nunique()


@pytest.mark.slow
def test_ages_that_are_shuffled_leave_the_prior(caplog):
    """Null: predictions say nothing, so the posterior is the prior and covers as it does."""
    adata = of_samples(150)
    table = adata.uns["agevi_subjects"]
    table["age"] = np.random.default_rng(3).permutation(table["age"])
    with caplog.at_level(logging.WARNING, "agevi"):
        found = table_of(adata)
    assert any("the posterior says little more than its prior" in r.getMessage() for r in caplog.records)
    params = adata.uns["agevi_posterior_params"]
    below = np.cumsum(params["prior_density"]) / params["prior_density"].sum()
    low, high = np.interp([0.05, 0.95], below, params["grid"])
    assert (found["upper"] - found["lower"]).mean() == pytest.approx(high - low, rel=0.05)
    assert found["mean"].std() < 0.2 * table["age"].std()
    assert inside(found) == pytest.approx(0.9, abs=0.05)


@pytest.mark.slow
def test_few_labelled_samples_are_announced(caplog):
    with caplog.at_level(logging.WARNING, "agevi"):
        subject_posterior(of_samples(20))
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("The posterior is fitted to 20 labelled samples; below 30")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "agevi"):
        subject_posterior(of_samples(40))
    assert not caplog.records


PRIORS = {
    "cohort": "cohort",
    "flat": "flat",
    "table": np.array([[20.0, 1], [40, 2], [60, 0]]),
    "function": lambda age: np.exp(-(((age - 50) / 10) ** 2)),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_priors(prior):
    adata = of_samples(60)
    table = table_of(adata, prior=prior)
    assert set(table["prior"]) == {prior if isinstance(prior, str) else "given"}
    params = adata.uns["agevi_posterior_params"]
    assert params["prior"] == table["prior"][0]
    assert len(params["grid"]) == len(params["prior_density"])
    if isinstance(prior, np.ndarray):
        assert table["lower"].min() > 20
        assert table["upper"].max() < 60


@pytest.mark.slow
@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_a_file(tmp_path, store):
    adata = of_types(40)
    subject_posterior(adata, cell_type_key="cell_type", rng=np.random.default_rng(0))
    back = stored(adata, store, tmp_path)
    pd.testing.assert_frame_equal(
        get.posterior_df(back), get.posterior_df(adata), check_dtype=False, check_column_type=False
    )
    params = back.uns["agevi_posterior_params"]
    assert set(params) == set(adata.uns["agevi_posterior_params"])
    assert params["parameters"].shape == (13, 5)


@pytest.mark.slow
def test_copy_and_key():
    adata = of_samples(40)
    adata.uns["other"], adata.uns["other_subjects"] = adata.uns["agevi"], adata.uns["agevi_subjects"]
    before = snapshot(adata)
    out = subject_posterior(adata, key_added="other", copy=True)
    assert snapshot(adata) == before
    assert get.posterior_df(out, key_added="other").shape == (40, 11)
    assert subject_posterior(adata, rng=None) is None


def exact(adata):
    adata.uns["agevi"]["age_transform"] = "none"
    predicted(adata, adata.uns["agevi_subjects"]["age"] + 2)


def predicted(adata, value):
    adata.uns["agevi_subjects"]["predicted"] = value


def infinite(adata):
    adata.uns["agevi_subjects"].loc[adata.uns["agevi_subjects"].index[:2], "predicted"] = np.inf


ERRORS = {
    "table": (lambda a: a.uns.pop("agevi_subjects"), {}, KeyError, "run agevi.tl.aggregate_subjects(adata) first"),
    "method": (None, {"method": "advi"}, ValueError, "method='advi' is not known"),
    "level": (None, {"level": 90}, ValueError, "level=90 is not a coverage"),
    "rng": (None, {"rng": "a"}, TypeError, "rng='a' is a str"),
    "prior name": (None, {"prior": "jeffreys"}, ValueError, "prior='jeffreys' is not known"),
    "prior kind": (None, {"prior": object()}, TypeError, "prior is a object; pass 'cohort', 'flat'"),
    "prior shape": (None, {"prior": np.ones(5)}, ValueError, "prior has shape (5,); pass one row for each age"),
    "prior order": (None, {"prior": [[2, 1], [1, 1]]}, ValueError, "the ages in prior[:, 0] do not rise"),
    "prior sign": (None, {"prior": [[1, 1], [2, -1]]}, ValueError, "not a density: the lowest value is -1"),
    "prior NaN": (None, {"prior": [[1, 1], [2, np.nan]]}, ValueError, "not a density: 1 values are missing"),
    "prior zero": (None, {"prior": lambda age: 0 * age}, ValueError, "not a density: all values are 0"),
    "prior length": (None, {"prior": lambda age: 1.0}, ValueError, "prior(ages) has shape () for 400 ages"),
    "few": (lambda a: keep(a, 9), {}, ValueError, "only 9 held-out samples have an age and a prediction"),
    "train": (lambda a: role(a, "train"), {}, ValueError, "40 more are of role train or validation"),
    "one age": (lambda a: age(a, 40.0), {}, ValueError, "all 40 held-out samples with an age have the same, 40;"),
    "exact": (exact, {}, ValueError, "the predictions of 40 labelled samples (type 'all') lie on a line over age"),
    "constant": (lambda a: predicted(a, 40.0), {}, ValueError, "they are constant, or were made from the ages"),
    "level kind": (None, {"level": "0.9"}, TypeError, "level='0.9' is a str; pass a number"),
    "infinite": (infinite, {}, ValueError, "2 samples under key_added='agevi' have an infinite prediction (first:"),
    "types": (None, {"cell_type_key": "cell_type"}, KeyError, "run agevi.tl.cross_validate(adata, model_cls, groupby="),
}  # fmt: skip


def keep(adata, n):
    adata.uns["agevi_subjects"] = adata.uns["agevi_subjects"].iloc[:n]


def role(adata, name):
    adata.uns["agevi_subjects"]["role"] = name


def age(adata, value):
    adata.uns["agevi_subjects"]["age"] = value


@pytest.mark.parametrize(("change", "arguments", "error", "words"), ERRORS.values(), ids=ERRORS)
def test_errors(change, arguments, error, words):
    adata = of_samples(40)
    if change:
        change(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        subject_posterior(adata, **arguments)
    check_message(raised, words)
    assert snapshot(adata) == before


TYPE_ERRORS = {
    "other column": ({"cell_type_key": "leiden"}, None, "cell_type_key='leiden' is not the column by whose types"),
    "name": ({"cell_type_key": "cell_type"}, lambda t: t.replace({"group": {"": "all"}}), "has a type 'all'"),
    "rare": (
        {"cell_type_key": "cell_type"},
        lambda t: t.assign(predicted=t["predicted"].where(t["group"] == [["CD4/CD8", "", "b cell"][i // 3 % 3] for i in range(len(t))])).iloc[:81],
        "no type has 10 samples with an age and a prediction",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "change", "words"), TYPE_ERRORS.values(), ids=TYPE_ERRORS)
def test_errors_of_types(arguments, change, words):
    adata = of_types(40, missing=0.0)
    if change:
        adata.uns["agevi_by_group"] = change(adata.uns["agevi_by_group"])
    with pytest.raises(ValueError, match="type") as raised:
        subject_posterior(adata, **arguments)
    check_message(raised, words)


def test_posterior_df_needs_the_table():
    with pytest.raises(KeyError) as raised:
        get.posterior_df(of_samples(10))
    check_message(raised, "adata.uns['agevi_posterior'] is absent; run agevi.tl.subject_posterior(adata) first")


@pytest.mark.slow
def test_pyro_is_read_when_it_is_used(monkeypatch):
    """Also where scvi-tools does not load it: without it agevi loads all the same."""
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(ImportError):
        import pyro  # noqa: F401
    folder = Path(agevi.tl.__file__).parent / "intervals"
    for file in folder.glob("_*.py"):
        runpy.run_path(str(file), run_name=f"agevi.tl.intervals.{file.stem}")


@pytest.mark.slow
def test_clocks_by_type_end_to_end(cohort):
    agevi.tl.cross_validate(
        cohort, agevi.model.PLSClock, age_key="age", subject_key="donor", n_folds=3, groupby="cell_type", min_cells=2
    )
    table = table_of(cohort, cell_type_key="cell_type")
    assert set(table["type"]) == {"all", *cohort.obs["cell_type"].unique()}
    assert cohort.uns["agevi_posterior_params"]["age_transform"] == "log"
    agevi.tl.aggregate_subjects(cohort)
    assert len(table_of(cohort)) == 24
