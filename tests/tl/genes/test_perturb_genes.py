from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import sem

import agevi
from agevi.model import EnsembleClock, GaussianVAE, MLPClock, PLSClock
from tests.conftest import QUIET
from tests.files import stored
from tests.tl.genes.test_attribute_genes import PLAIN, SETUP, fit, sums, widened


@pytest.fixture(scope="module")
def fitted(_cohort, usual_fits_of_module):
    adata = _cohort.copy()
    linear = fit(adata, PLSClock, setup=PLAIN)
    linear.module.age_scale.highest.fill_(1e6)
    MLPClock.setup_anndata(adata, **SETUP)
    network = MLPClock(adata, n_hidden=[8, 6])
    network.train(max_epochs=15, **QUIET)
    return linear, network


@pytest.fixture
def linear(fitted):
    return fitted[0]


@pytest.fixture
def network(fitted):
    return fitted[1]


def scaled(values, genes, factor):
    out = values.copy()
    out[:, genes] = np.log1p(np.expm1(values[:, genes]) * factor)
    return out


def network_ages(model, values):
    """Ages from normalised sums, by the module's own layers."""
    genes = model.module.eval().input
    x = (torch.tensor(values, dtype=torch.float32) - genes.sum_mean) * genes.sum_scale
    with torch.no_grad():
        return model.module.age(model.module.head.stack(x)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_a_linear_clock_changes_by_its_coefficient(cohort, linear, factor):
    values = sums(cohort, ["donor"])[0]
    slope = linear.coefficients()[linear.genes].to_numpy() / linear.module.input.sd.numpy()
    names = list(cohort.var_names[:20])
    agevi.tl.perturb_genes(cohort, linear, names, factor=factor)
    table = agevi.get.perturbation_df(cohort).set_index("gene").loc[names]
    expected = slope[:20] * (scaled(values, np.arange(20), factor) - values)[:, :20].mean(0)
    np.testing.assert_allclose(table["change"], expected, atol=1e-3)
    np.testing.assert_allclose(table["first_order"], expected, atol=1e-3)
    assert (table["n_genes"] == 1).all()
    assert (table["n_subjects"] == 24).all()


@pytest.mark.slow
def test_sets_and_groups_of_a_network(cohort, network):
    sets = {"few": list(cohort.var_names[[3, 8]]), "many": [*cohort.var_names[20:40], "absent"]}
    agevi.tl.perturb_genes(cohort, network, sets, groupby="cell_type")
    table = agevi.get.perturbation_df(cohort).set_index(["group", "gene"])
    for keys in (["donor"], ["donor", "cell_type"]):
        values, rows = sums(cohort, keys)
        for name, genes in (("few", [3, 8]), ("many", np.arange(20, 40))):
            change = network_ages(network, scaled(values, genes, 0.0)) - network_ages(network, values)
            group = rows["cell_type"] if len(keys) == 2 else pd.Series("all", index=rows.index)
            for label, part in pd.Series(change).groupby(group):
                assert table.loc[(label, name), "change"] == pytest.approx(part.mean(), abs=2e-3)
    assert table["n_genes"].loc["all"].to_dict() == {"few": 2, "many": 20}


def test_intervals_are_those_of_the_mean_over_subjects(cohort, network):
    values = sums(cohort, ["donor"])[0]
    change = network_ages(network, scaled(values, [5], 4.0)) - network_ages(network, values)
    agevi.tl.perturb_genes(cohort, network, cohort.var_names[5], factor=4.0, n_boot=4000)
    row = agevi.get.perturbation_df(cohort).iloc[0]
    reach = 1.96 * float(sem(change))
    assert row["low"] == pytest.approx(float(change.mean()) - reach, abs=0.15 * reach)
    assert row["high"] == pytest.approx(float(change.mean()) + reach, abs=0.15 * reach)


def test_the_screen_finds_the_genes_that_change_most(cohort, network):
    agevi.tl.perturb_genes(cohort, network, list(cohort.var_names), factor=0.8)
    every = agevi.get.perturbation_df(cohort)
    agevi.tl.perturb_genes(cohort, network, factor=0.8, n_exact=15, key_added="top")
    top = agevi.get.perturbation_df(cohort, key_added="top")
    assert len(top) == 15
    assert set(every["gene"][:10]) <= set(top["gene"])
    best = every.reindex(every["first_order"].abs().sort_values(ascending=False).index)["gene"][:15]
    assert set(best) == set(top["gene"])
    merged = top.merge(every, on="gene")
    np.testing.assert_allclose(merged["change_x"], merged["change_y"], rtol=1e-5)


def test_an_ensemble_and_clocks_that_lack_genes(cohort, linear, network):
    part = cohort[:, 5:].copy()
    joined = EnsembleClock([linear, network], scale="age")
    for key, model in (("a", linear), ("b", network), ("both", joined)):
        agevi.tl.perturb_genes(part, model, list(part.var_names[:5]), key_added=key)
    change = {
        key: agevi.get.perturbation_df(part, key_added=key).set_index("gene")["change"] for key in ("a", "b", "both")
    }
    np.testing.assert_allclose(change["both"], ((change["a"] + change["b"]) / 2)[change["both"].index], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_the_table_survives_a_file(cohort, linear, tmp_path, form):

    cohort.obs["kind"] = np.array(["CD4/CD8", "", "a b", "3"])[np.arange(cohort.n_obs) % 4]
    agevi.tl.perturb_genes(cohort, linear, list(cohort.var_names[:3]), groupby="kind")
    back = stored(cohort, form, tmp_path)
    before, after = agevi.get.perturbation_df(cohort, group=""), agevi.get.perturbation_df(back, group="")
    pd.testing.assert_frame_equal(after, before, check_dtype=False)
    assert back.uns["agevi_perturbation_params"]["factor"] == 0


def test_copy(cohort, linear):
    out = agevi.tl.perturb_genes(cohort, linear, cohort.var_names[0], copy=True)
    assert "agevi_perturbation" in out.uns
    assert "agevi_perturbation" not in cohort.uns


GATES = [
    pytest.param(["gene00", "nothing"], {}, KeyError, "gene 'nothing' is not in adata.var_names", id="gene"),
    pytest.param([], {}, ValueError, "genes is empty", id="no genes"),
    pytest.param({"x": ["ENSG00000000001"]}, {}, ValueError, "Symbols against Ensembl ids", id="no overlap"),
    pytest.param({"x": []}, {}, ValueError, "gene set 'x' has 0 genes", id="empty set"),
    pytest.param("gene00", {"factor": 1}, ValueError, "factor=1 is not a perturbation", id="factor 1"),
    pytest.param("gene00", {"factor": -1}, ValueError, "factor=-1 is not a perturbation", id="factor -1"),
    pytest.param("gene00", {"factor": "0"}, TypeError, "factor='0' is a str", id="factor text"),
    pytest.param("gene00", {"groupby": "cell_typ"}, KeyError, "closest: 'cell_type'", id="groupby"),
]


@pytest.mark.parametrize(("genes", "arguments", "error", "message"), GATES)
def test_bad_arguments_are_refused(cohort, linear, genes, arguments, error, message):
    with pytest.raises(error, match=message):
        agevi.tl.perturb_genes(cohort, linear, genes, **arguments)
    assert "agevi_perturbation" not in cohort.uns


def test_models_and_values_that_cannot_be_perturbed_are_refused(cohort, network):
    with pytest.raises(TypeError, match="model is a str"):
        agevi.tl.perturb_genes(cohort, "clock")
    wider = widened(cohort)
    with pytest.raises(KeyError, match="gene 'new' is in adata.var_names, but the clock was trained without it"):
        agevi.tl.perturb_genes(wider, network, "new")
    centred = cohort.copy()
    centred.X = np.asarray(cohort.X.todense()) - 1.0
    GaussianVAE.setup_anndata(centred, **SETUP, normalize="none")
    model = GaussianVAE(centred, n_hidden=[4], n_latent=2)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match="values are negative"):
        agevi.tl.perturb_genes(centred, model)


def test_the_table_refuses(cohort, linear):
    with pytest.raises(KeyError, match=r"run agevi\.tl\.perturb_genes"):
        agevi.get.perturbation_df(cohort)
    agevi.tl.perturb_genes(cohort, linear, "gene00")
    with pytest.raises(ValueError, match=r"group='type0' is not in adata\.uns\['agevi_perturbation'\]"):
        agevi.get.perturbation_df(cohort, group="type0")
