from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import sem, spearmanr

import agevi
from agevi.model import EnsembleClock, MLPClock, NMFClock, PLSClock, PoissonVAE
from tests.conftest import QUIET
from tests.files import stored

SETUP = {"age_key": "age", "subject_key": "donor"}
PLAIN = {"age_transform": "none", "min_age": -1e6}
NET = {"n_hidden": [16], "n_latent": 5}


def fit(adata, cls, *, setup=None, **init):
    cls.setup_anndata(adata, **SETUP, **(setup or {}))
    model = cls(adata, **init)
    model.train(max_epochs=5, **QUIET)
    return model


@pytest.fixture(scope="module")
def fitted(_cohort):
    """A linear clock on plain ages, a network on sums, and the cohort."""
    adata = _cohort.copy()
    linear = fit(adata, PLSClock, setup=PLAIN)
    linear.module.age_scale.highest.fill_(1e6)  # nothing is cut off, so that the age is linear everywhere
    network = fit(adata, PoissonVAE, **NET)
    return adata, linear, network


@pytest.fixture
def linear(fitted):
    return fitted[1]


@pytest.fixture
def network(fitted):
    return fitted[2]


def sums(adata, keys):
    """Normalised sums per row of a table of ``keys``, and the table with numbers of cells."""
    table = adata.obs[keys].astype(str).reset_index(drop=True)
    code = table.groupby(keys).ngroup().to_numpy()
    x = sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code))))) @ adata.X
    x = np.asarray(x.todense())
    index = table.assign(n=1).groupby(keys)["n"].sum().reset_index()
    return np.log1p(x / x.sum(1, keepdims=True) * 1e4), index


def widened(adata):
    """The same cells with a gene more."""
    x = sp.hstack([adata.X, adata.X[:, :1]]).tocsr()
    return ad.AnnData(x, obs=adata.obs.copy(), var=pd.DataFrame(index=[*adata.var_names, "new"]))


def expected_linear(model, values, background):
    """Coefficient x (x - background mean) in years, from the clock's public coefficients."""
    per_sd = model.coefficients()[model.genes].to_numpy()
    return per_sd / model.module.input.sd.numpy() * (values - background.mean(0))


def trained(adata, table):
    role = adata.obs.groupby(adata.obs["donor"].astype(str))["agevi_split"].first().astype(str)
    return (role[table["donor"]] == "train").to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "linear", "expected_gradients", "integrated_gradients", "shap"])
def test_every_method_equals_coefficients_for_a_linear_clock(cohort, linear, method):
    values, table = sums(cohort, ["donor"])
    by_donor = expected_linear(linear, values, values[trained(cohort, table)])
    agevi.tl.attribute_genes(cohort, linear, method=method)
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], np.abs(by_donor).mean(0), atol=1e-4)
    np.testing.assert_allclose(cohort.varm["agevi_attribution_se"][:, 0], sem(np.abs(by_donor)), atol=1e-4)
    above = np.sign(values - values[trained(cohort, table)].mean(0))
    np.testing.assert_allclose(cohort.varm["agevi_attribution_signed"][:, 0], (above * by_donor).mean(0), atol=1e-4)
    info = cohort.uns["agevi_attribution"]
    assert info["completeness_error_max"] < 1e-3
    assert info["params"]["method"] == ("linear" if method == "auto" else method)


@pytest.mark.slow
def test_groups_that_divide_samples_have_sums_and_a_background_of_their_own(cohort, linear):
    whole, divided = sums(cohort, ["donor"])[0], sums(cohort, ["donor", "cell_type"])
    agevi.tl.attribute_genes(cohort, linear, groupby="cell_type")
    values, table = divided
    groups = cohort.uns["agevi_attribution"]["groups"].tolist()
    assert groups == ["all", *sorted(set(table["cell_type"]))]
    for i, group in enumerate(groups[1:], start=1):
        own = (table["cell_type"] == group).to_numpy()
        part = expected_linear(linear, values[own], values[own & trained(cohort, table)])
        np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, i], np.abs(part).mean(0), atol=1e-4)
        assert cohort.uns["agevi_attribution"]["n_subjects"][i] == own.sum()
    first = expected_linear(linear, whole, whole[trained(cohort, sums(cohort, ["donor"])[1])])
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], np.abs(first).mean(0), atol=1e-4)


def test_groups_of_whole_samples_share_rows_and_background(cohort, linear):
    old = (cohort.obs["age"] > 55).to_numpy()
    cohort.obs["bin"] = np.where(old, "old", "young")
    values, table = sums(cohort, ["donor"])
    by_donor = np.abs(expected_linear(linear, values, values[trained(cohort, table)]))
    agevi.tl.attribute_genes(cohort, linear, groupby="bin")
    is_old = table["donor"].isin(set(cohort.obs["donor"][old].astype(str))).to_numpy()
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 1], by_donor[is_old].mean(0), atol=1e-4)
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 2], by_donor[~is_old].mean(0), atol=1e-4)
    assert cohort.uns["agevi_attribution"]["n_rows"] == 24


def test_subjects_weigh_equally_whatever_their_samples_and_cells(cohort, linear):
    """A donor's visits are averaged first, so that each visit of the others changes nothing about its weight."""
    donors = cohort.obs["donor"].astype(str)
    first = donors == donors.iloc[0]
    cohort.obs["visit"] = donors + np.where(first & (np.arange(cohort.n_obs) % 4 == 0), "b", "a")
    model = fit(cohort, PLSClock, setup=PLAIN | {"sample_key": "visit"})
    values, table = sums(cohort, ["donor", "visit"])
    use = trained(cohort, table)
    agevi.tl.attribute_genes(cohort, model)
    part = np.abs(expected_linear(model, values, values[use]))
    by_donor = pd.DataFrame(part).groupby(table["donor"].to_numpy()).mean()
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], by_donor.mean(), atol=1e-4)


def integrated(module, values, background, n=400):
    """Integrated gradients of the module's own age, by autograd over its standardised input."""
    genes, total = module.input, torch.zeros(values.shape)
    x, b = torch.tensor(values, dtype=torch.float32), torch.tensor(background.mean(0), dtype=torch.float32)
    for alpha in (np.arange(n) + 0.5) / n:
        point = (b + alpha * (x - b)).requires_grad_()
        age = module.age(module.head.stack((point - genes.sum_mean) * genes.sum_scale))
        total += torch.autograd.grad(age.sum(), point)[0] / n
    return (total * (x - b)).numpy()


@pytest.mark.slow
def test_groups_that_a_clock_sums_apart_are_compared_among_themselves(cohort):
    model = fit(cohort, MLPClock, n_hidden=[8], pseudocell_groupby="cell_type")
    agevi.tl.attribute_genes(cohort, model, groupby="cell_type", method="integrated_gradients")
    values, table = sums(cohort, ["donor", "cell_type"])
    assert cohort.uns["agevi_attribution"]["n_rows"] == len(table)
    found, use = np.zeros(values.shape), trained(cohort, table)
    for i, group in enumerate(sorted(set(table["cell_type"])), start=1):
        own = (table["cell_type"] == group).to_numpy()
        found[own] = np.abs(integrated(model.module.eval(), values[own], values[own & use]))
        np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, i], found[own].mean(0), atol=2e-3)
    weight = (table["n"] / table.groupby("donor")["n"].transform("sum")).to_numpy()
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], weight @ found / 24, atol=2e-3)


def test_single_cells_for_a_clock_of_single_cells(cohort, trained_on_cells):
    agevi.tl.attribute_genes(cohort, trained_on_cells, n_samples=20)
    info = cohort.uns["agevi_attribution"]
    assert (info["params"]["unit"], info["n_rows"]) == ("cell", cohort.n_obs)
    agevi.tl.attribute_genes(cohort, trained_on_cells, n_samples=20, n_cells_per_subject=5)
    assert cohort.uns["agevi_attribution"]["n_rows"] == 24 * 5


@pytest.fixture
def trained_on_cells(trained):
    return trained


@pytest.mark.slow
def test_completeness_of_networks(cohort, network):
    nmf = fit(cohort, NMFClock, n_components=5, n_hidden=[8])
    # Loadings have kinks, which the points of a path straddle: 1.0 to 2.4 % in eleven fits, 0.2 to 0.7 % in nine without.
    for model, largest in ((network, 0.01), (nmf, 0.03), (EnsembleClock([network, nmf]), 0.03)):
        agevi.tl.attribute_genes(cohort, model)
        info = cohort.uns["agevi_attribution"]
        assert info["params"]["method"] == "expected_gradients"
        assert info["completeness_error"] < largest * info["predicted_range"]


@pytest.mark.slow
def test_a_network_agrees_with_shap(cohort, network):
    agevi.tl.attribute_genes(cohort, network)
    agevi.tl.attribute_genes(cohort, network, method="shap", key_added="shap", n_samples=800)
    ours, theirs = cohort.varm["agevi_attribution"][:, 0], cohort.varm["shap_attribution"][:, 0]
    assert spearmanr(ours, theirs)[0] > 0.97
    np.testing.assert_allclose(ours, theirs, atol=0.1 * theirs.max())
    state = np.random.get_state()[1].tolist()  # noqa: NPY002 - which shap would seed
    agevi.tl.attribute_genes(cohort, network, method="shap", n_samples=10)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.slow
def test_an_ensemble_of_one_scale_is_the_mean_of_its_members(cohort):
    first = fit(cohort, PLSClock, setup=PLAIN)
    second = fit(cohort, PLSClock, setup=PLAIN, weights="zscore")
    agevi.tl.attribute_genes(cohort, EnsembleClock([first, second], weights=[1, 3], scale="age"))
    values, table = sums(cohort, ["donor"])
    use = trained(cohort, table)
    parts = [expected_linear(model, values, values[use]) for model in (first, second)]
    expected = np.abs(0.25 * parts[0] + 0.75 * parts[1]).mean(0)
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], expected, atol=1e-3)


@pytest.mark.slow
def test_genes_that_the_clock_does_not_know_are_nan_and_order_does_not_matter(cohort, network):
    agevi.tl.attribute_genes(cohort, network)
    other = widened(cohort[:, ::-1].copy())
    agevi.tl.attribute_genes(other, network)
    np.testing.assert_allclose(
        other.varm["agevi_attribution"][:-1][::-1], cohort.varm["agevi_attribution"], rtol=1e-3, atol=1e-5
    )
    assert np.isnan(other.varm["agevi_attribution"][-1]).all()
    assert "new" not in set(agevi.get.attribution_df(other)["gene"])


def test_absent_genes_take_nothing(cohort, network):
    part = cohort[:, 6:].copy()
    agevi.tl.attribute_genes(part, network)
    info = part.uns["agevi_attribution"]
    assert part.varm["agevi_attribution"].shape == (54, 1)
    assert info["completeness_error"] < 0.02 * info["predicted_range"]  # what absent genes were given would be missing


def test_depth_is_not_attributed(cohort, linear):
    """Twice the counts of every other donor change nothing, since the library size is divided out."""
    agevi.tl.attribute_genes(cohort, linear)
    deeper = cohort.copy()
    factor = 1 + (pd.factorize(cohort.obs["donor"])[0] % 2)
    deeper.X = sp.diags(factor.astype(np.float32)) @ cohort.X
    agevi.tl.attribute_genes(deeper, linear)
    np.testing.assert_allclose(deeper.varm["agevi_attribution"], cohort.varm["agevi_attribution"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_batch_is_held_fixed(cohort):
    """With batches that shift the age, what is given to genes adds up within the batch of each row."""
    model = fit(cohort, PoissonVAE, setup={"batch_key": "batch"}, encode_covariates=True, **NET)
    agevi.tl.attribute_genes(cohort, model)
    info = cohort.uns["agevi_attribution"]
    assert info["completeness_error"] < 0.02 * info["predicted_range"]


def test_another_background(cohort, linear):
    young = cohort[(cohort.obs["age"] < 40).to_numpy()].copy()
    values = sums(cohort, ["donor"])[0]
    agevi.tl.attribute_genes(cohort, linear, background=young)
    part = expected_linear(linear, values, sums(young, ["donor"])[0])
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], np.abs(part).mean(0), atol=1e-4)


def test_new_subjects_are_their_own_background(cohort, linear):
    new = cohort[(cohort.obs["agevi_split"] == "test").to_numpy()].copy()
    del new.obs["age"]
    values = sums(new, ["donor"])[0]
    agevi.tl.attribute_genes(new, linear)
    part = expected_linear(linear, values, values)
    np.testing.assert_allclose(new.varm["agevi_attribution"][:, 0], np.abs(part).mean(0), atol=1e-4)


def test_cells_on_request(cohort, linear):
    names = cohort.obs_names[[7, 3]]
    agevi.tl.attribute_genes(cohort, linear, cells=names, n_samples=4000)
    layer = cohort.layers["agevi_attribution"]
    x = np.asarray(cohort.X.todense())
    values = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    rows = values[[7, 3]]
    found = layer[[7, 3]].toarray()
    per_sd = linear.coefficients()[linear.genes].to_numpy() / linear.module.input.sd.numpy()
    np.testing.assert_allclose(found[0] - found[1], per_sd * (rows[0] - rows[1]), atol=1e-4)
    assert layer.nnz <= 2 * cohort.n_vars
    agevi.tl.attribute_genes(cohort, linear)
    assert "agevi_attribution" not in cohort.layers


def test_the_table_has_ranks_with_their_intervals(cohort, network):
    agevi.tl.attribute_genes(cohort, network, groupby="cell_type", n_top=10)
    table = agevi.get.attribution_df(cohort)
    assert list(table) == ["gene", "group", "rank", "attribution", "signed", "se", "rank_low", "rank_high", "selected"]
    assert table["attribution"].is_monotonic_decreasing
    assert (table["rank_low"] <= table["rank_high"]).all()
    assert table["selected"].sum() == pytest.approx(10)
    assert (table["signed"].abs() <= table["attribution"] + 1e-5).all()
    every = agevi.get.attribution_df(cohort, group=None, n_top=4)
    assert every.groupby("group", sort=False).size().to_dict() == dict.fromkeys(
        cohort.uns["agevi_attribution"]["groups"], 4
    )


def test_copy_and_seed(cohort, network):
    out = agevi.tl.attribute_genes(cohort, network, copy=True, n_samples=40)
    assert "agevi_attribution" not in cohort.varm
    again = agevi.tl.attribute_genes(cohort, network, copy=True, n_samples=40)
    np.testing.assert_array_equal(out.varm["agevi_attribution"], again.varm["agevi_attribution"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_everything_written_survives_a_file(cohort, linear, tmp_path, form):
    odd = np.array(["CD4/CD8", "", "a b", "3"])[np.arange(cohort.n_obs) % 4]
    cohort.obs["kind"] = odd
    agevi.tl.attribute_genes(cohort, linear, groupby="kind", cells=cohort.obs_names[:2])
    back = stored(cohort, form, tmp_path)
    assert list(back.uns["agevi_attribution"]["groups"]) == ["all", "", "3", "CD4/CD8", "a b"]
    pd.testing.assert_frame_equal(
        agevi.get.attribution_df(back, group=None), agevi.get.attribution_df(cohort, group=None)
    )
    np.testing.assert_array_equal(
        back.layers["agevi_attribution"].toarray(), cohort.layers["agevi_attribution"].toarray()
    )


def test_integer_groups(cohort, linear):
    cohort.obs["cluster"] = np.arange(cohort.n_obs) % 11
    agevi.tl.attribute_genes(cohort, linear, groupby="cluster")
    assert cohort.uns["agevi_attribution"]["groups"].tolist() == ["all", *map(str, range(11))]
    assert agevi.get.attribution_df(cohort, group="10", n_top=1)["group"].tolist() == ["10"]


def test_cells_without_group_count_for_all_cells_alone(cohort, linear):
    agevi.tl.attribute_genes(cohort, linear, copy=False)
    before = cohort.varm["agevi_attribution"][:, 0].copy()
    values = cohort.obs["cell_type"].astype(object).to_numpy().copy()
    values[::3] = np.nan
    cohort.obs["part"] = values
    agevi.tl.attribute_genes(cohort, linear, groupby="part")
    np.testing.assert_allclose(cohort.varm["agevi_attribution"][:, 0], before, rtol=1e-5)
    kept = cohort[cohort.obs["part"].notna()].copy()
    agevi.tl.attribute_genes(kept, linear, groupby="part")
    np.testing.assert_allclose(
        cohort.varm["agevi_attribution"][:, 1:], kept.varm["agevi_attribution"][:, 1:], rtol=1e-4
    )


GATES = [
    pytest.param({"method": "lime"}, ValueError, "method='lime' is not known", id="method"),
    pytest.param({"method": "linear"}, ValueError, "whose age is not a function of one weighted sum", id="not linear"),
    pytest.param({"groupby": "cell_typ"}, KeyError, "closest: 'cell_type'", id="groupby"),
    pytest.param({"background": "young"}, ValueError, "background='young' is not known", id="background"),
    pytest.param({"unit": "donor"}, ValueError, "unit='donor' is not known", id="unit"),
    pytest.param({"n_samples": 0}, ValueError, "n_samples=0 is out of range", id="n_samples"),
    pytest.param({"n_top": 61}, ValueError, "n_top=61 is out of range; pass a whole number, between 1 and 60", id="n_top"),
    pytest.param({"cells": ["cell0", "nobody"]}, KeyError, "cells holds 1 of 2 names that are not", id="cells"),
    pytest.param({"n_cells_per_subject": 0}, ValueError, "n_cells_per_subject=0 is out of range", id="cells per subject"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), GATES)
def test_bad_arguments_are_refused_and_nothing_is_written(cohort, network, arguments, error, message):
    with pytest.raises(error, match=message):
        agevi.tl.attribute_genes(cohort, network, **arguments)
    assert not [key for key in (*cohort.varm, *cohort.uns) if "attribution" in key]


@pytest.mark.slow
def test_models_that_cannot_be_attributed_are_refused(cohort, trained, linear):
    with pytest.raises(TypeError, match="model is a str; pass a trained clock"):
        agevi.tl.attribute_genes(cohort, "clock")
    PLSClock.setup_anndata(cohort, **SETUP)
    with pytest.raises(RuntimeError, match=r"tl\.attribute_genes needs a trained model"):
        agevi.tl.attribute_genes(cohort, PLSClock(cohort))
    with pytest.raises(ValueError, match="unit='sample' needs a clock that was trained on sums"):
        agevi.tl.attribute_genes(cohort, trained, unit="sample")
    with pytest.raises(ValueError, match="its member PoissonVAE was trained on single cells"):
        agevi.tl.attribute_genes(cohort, EnsembleClock([linear, trained]))
    apart = fit(cohort, MLPClock, n_hidden=[8], pseudocell_groupby="cell_type")
    with pytest.raises(ValueError, match="sum different cells"):
        agevi.tl.attribute_genes(cohort, EnsembleClock([linear, apart]))


def test_groups_that_cannot_be_used_are_refused(cohort, linear):
    cohort.obs["kind"] = np.where(np.arange(cohort.n_obs) % 2, "all", "some")
    with pytest.raises(ValueError, match="has a group 'all', the name of all cells together"):
        agevi.tl.attribute_genes(cohort, linear, groupby="kind")
    cohort.obs["kind"] = np.nan
    with pytest.raises(ValueError, match="is missing in all cells; groupby needs the group of each cell"):
        agevi.tl.attribute_genes(cohort, linear, groupby="kind")


def test_the_table_refuses(cohort, linear):
    with pytest.raises(KeyError, match=r"run agevi\.tl\.attribute_genes"):
        agevi.get.attribution_df(cohort)
    agevi.tl.attribute_genes(cohort, linear, groupby="cell_type")
    with pytest.raises(ValueError, match="group='type00' is not in .*; closest: 'type0'"):
        agevi.get.attribution_df(cohort, group="type00")
    with pytest.raises(ValueError, match="n_top=61 is out of range"):
        agevi.get.attribution_df(cohort, n_top=61)


@pytest.mark.slow
def test_several_clocks_give_their_mean_and_ranks_over_them(cohort):
    """Clocks of two halves of the subjects, as those of folds."""
    clocks = []
    for half in (0, 1):
        part = pd.factorize(cohort.obs["donor"])[0] % 2 == half
        cohort.obs["agevi_split"] = np.where(part, "train", "test")
        clocks.append(fit(cohort, PLSClock, setup=PLAIN))
    for key, model in (("a", clocks[0]), ("b", clocks[1]), ("both", clocks)):
        agevi.tl.attribute_genes(cohort, model, key_added=key, n_top=10)
    a, b, both = (cohort.varm[f"{key}_attribution"] for key in ("a", "b", "both"))
    np.testing.assert_allclose(both, (a + b) / 2, rtol=1e-5)
    assert cohort.uns["both_attribution"]["n_clocks"] == 2
    width = {
        key: cohort.varm[f"{key}_attribution_rank_high"] - cohort.varm[f"{key}_attribution_rank_low"]
        for key in ("a", "b", "both")
    }
    assert width["both"].mean() > 1.5 * max(width["a"].mean(), width["b"].mean())


@pytest.mark.slow
def test_the_cells_are_drawn_once_for_all_clocks(cohort, linear):
    """A clock twice is that clock alone, also for groups that divide samples; another one takes part in the same cells."""
    options = {"groupby": "cell_type", "n_cells_per_subject": 3, "n_boot": 5}
    for seed in range(3):
        agevi.tl.attribute_genes(cohort, linear, key_added="one", rng=seed, **options)
        agevi.tl.attribute_genes(cohort, [linear, linear], key_added="twice", rng=seed, **options)
        np.testing.assert_allclose(cohort.varm["twice_attribution"], cohort.varm["one_attribution"], rtol=1e-5)
        assert cohort.uns["twice_attribution"]["groups"].tolist() == cohort.uns["one_attribution"]["groups"].tolist()
        assert (
            cohort.uns["twice_attribution"]["n_subjects"].tolist()
            == cohort.uns["one_attribution"]["n_subjects"].tolist()
        )
    other = fit(cohort, PLSClock, setup=PLAIN, method="ridge")
    parts = []
    for key, model in (("one", linear), ("other", other), ("both", [linear, other])):
        agevi.tl.attribute_genes(cohort, model, key_added=key, rng=1, **options)
        parts.append(cohort.varm[f"{key}_attribution"])
    np.testing.assert_allclose(parts[2], (parts[0] + parts[1]) / 2, rtol=1e-4, atol=1e-6)


def test_methods_of_some_rows_take_the_same_for_all_clocks(cohort, linear, monkeypatch):
    monkeypatch.setattr(agevi.tl.genes._passes, "_SHAP_ROWS", 10)
    for key, model in (("one", linear), ("twice", [linear, linear])):
        agevi.tl.attribute_genes(cohort, model, method="shap", n_samples=8000, key_added=key)
        assert cohort.uns[f"{key}_attribution"]["n_subjects"].tolist() == [10]
    np.testing.assert_allclose(cohort.varm["twice_attribution"], cohort.varm["one_attribution"], rtol=1e-5)


@pytest.mark.slow
def test_settings_of_clocks_that_differ_are_all_recorded(cohort, linear, network):
    shared = fit(cohort, PoissonVAE, **NET)
    agevi.tl.attribute_genes(cohort, [linear, shared], n_boot=5)
    record = cohort.uns["agevi_attribution"]
    assert record["model"] == "PLSClock;PoissonVAE"
    assert record["params"]["method"].tolist() == ["linear", "expected_gradients"]


def test_clocks_that_do_not_belong_together_are_refused(cohort, linear, trained):
    other = fit(cohort[:, 5:].copy(), PLSClock)
    with pytest.raises(ValueError, match="differ in their genes, subject_key"):
        agevi.tl.attribute_genes(cohort, [linear, other])
    with pytest.raises(ValueError, match="some clocks in model predict sums"):
        agevi.tl.attribute_genes(cohort, [linear, trained])
    with pytest.raises(ValueError, match="model is an empty list"):
        agevi.tl.attribute_genes(cohort, [])
