from __future__ import annotations

import copy
import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import agevi
from agevi.model import TransformerClock
from tests.conftest import QUIET
from tests.model.transformer.masked import SETS, SETUP, SMALL, one, samples
from tests.test_gates import check_message, check_style, snapshot

TAB = {"architecture": "tab", "n_hidden": [16], "n_token": 8, "n_heads": 2, "n_layers": 2}


@pytest.fixture(scope="module")
def _data():
    adata = samples(100)
    agevi.pp.split_subjects(
        adata, subject_key="donor", sample_key="sample", age_key="age", stratify_by=["modality", "tissue"]
    )
    return adata


@pytest.fixture
def data(_data):
    """About 130 samples of 100 subjects in two modalities."""
    return _data.copy()


def fit(adata, epochs=2, setup=None, **init):
    TransformerClock.setup_anndata(adata, **(SETUP | (setup or {})))
    model = TransformerClock(adata, **(init or SMALL))
    model.train(max_epochs=epochs, **QUIET)
    return model


@pytest.fixture(scope="module")
def _ft(_data):
    return fit(_data.copy())


@pytest.fixture(scope="module")
def _tab(_data):
    return fit(_data.copy(), **TAB)


# --- what enters ---------------------------------------------------------------------------------------------------


def test_values_are_standardised_over_measured_training_samples(_ft, data):
    """Per tissue and modality; those of a tissue with few training samples per modality."""
    train = (data.obs["agevi_split"] == "train").to_numpy()
    kind = data.obs["modality"].to_numpy() + data.obs["tissue"].to_numpy()
    z = _ft._standardized(np.arange(data.n_obs), _ft._groups()[0])
    for modality, columns in SETS.items():
        for tissue in ("blood", "brain"):
            of = kind == modality + tissue
            assert (of & train).sum() >= 10
            expected = StandardScaler().fit(data.X[of & train][:, columns]).transform(data.X[of][:, columns])
            np.testing.assert_allclose(z[of][:, columns], expected, rtol=1e-3, atol=1e-3)
            others = np.setdiff1d(np.arange(30), np.arange(30)[columns])
            assert (z[of][:, others] == 0).all()


def test_few_samples_of_a_tissue_take_the_moments_of_the_modality(data):
    data.obs["tissue"] = data.obs["tissue"].astype(object)
    rows = np.flatnonzero((data.obs["modality"] == "expression").to_numpy())[:3]
    data.obs.iloc[rows, data.obs.columns.get_loc("tissue")] = "lung"
    model = fit(data)
    train = (data.obs["agevi_split"] == "train").to_numpy() & (data.obs["modality"] == "expression").to_numpy()
    expected = StandardScaler().fit(data.X[train][:, :20]).transform(data.X[rows][:, :20])
    z = model._standardized(rows, model._groups()[0][rows])[:, :20]
    np.testing.assert_allclose(z, np.clip(expected, -8, 8), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("init", [SMALL, TAB], ids=["ft", "tab"])
def test_what_was_not_measured_says_nothing(data, init):
    model = fit(data.copy(), **init)
    garbage = data.copy()
    masks = data.varm["agevi_measured"].T[(data.obs["modality"] == "methylation").to_numpy().astype(int)]
    garbage.X = np.where(masks, data.X, 77).astype(np.float32)
    np.testing.assert_array_equal(model.predict_age(garbage), model.predict_age(data))
    np.testing.assert_array_equal(fit(garbage, **init).predict_age(data), model.predict_age(data))


@pytest.mark.slow
@pytest.mark.parametrize("init", [SMALL, TAB], ids=["ft", "tab"])
def test_held_out_samples_shape_nothing(data, init):
    other = data.copy()
    held = (data.obs["agevi_split"] == "test").to_numpy()
    other.X[held] = other.X[held] * 3 + 1
    before, after = fit(data, **init), fit(other, **init)
    for name, value in before.module.state_dict().items():
        torch.testing.assert_close(value, after.module.state_dict()[name], msg=name)


def test_tokens_do_not_mix_blocks_and_cover_all_features(_ft):
    modules = _ft.modules()
    block = np.array(["a"] * 12 + ["both"] * 8 + ["b"] * 10)
    assert modules.nunique() == 9
    assert (pd.Series(block).groupby(modules.to_numpy()).nunique() == 1).all()


def test_learned_modules_find_correlated_features():
    rng = np.random.default_rng(0)
    of = rng.permutation(np.repeat(np.arange(4), 10))
    z = rng.normal(size=(300, 4))[:, of] + 0.1 * rng.normal(size=(300, 40))
    from agevi.model.transformer._fit import learn_modules

    token, _ = learn_modules(z.astype(np.float32), np.ones((1, 40), dtype=bool), 4, rng)
    assert (pd.Series(of).groupby(token).nunique() == 1).all()


def test_given_modules(data):
    modules = {"first": ["g00", "g12"], "second": ["g12", "g20"]}
    model = fit(data, **(SMALL | {"modules": modules}))
    found = model.modules()
    assert found[["g00", "g12", "g20", "g01"]].tolist() == ["first", "first", "second", "other"]
    assert model.get_attention(indices=[0]).tokens[-3:] == ["first", "second", "other"]


# --- attention -----------------------------------------------------------------------------------------------------


def permuted(adata):
    """The columns of measured features, permuted within each modality."""
    out, rng = adata.copy(), np.random.default_rng(1)
    for modality, columns in SETS.items():
        rows = np.flatnonzero((adata.obs["modality"] == modality).to_numpy())
        order = np.arange(30)[columns]
        out.X[np.ix_(rows, order)] = adata.X[np.ix_(rows, rng.permutation(order))]
    return out


def test_features_never_reach_the_attention_of_tab(_tab, data):
    """The flaw of the published architecture."""
    before, after = _tab.get_attention(data), _tab.get_attention(permuted(data))
    assert before.tokens == ["modality", "tissue"]
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.embeddings, before.embeddings)
    assert not np.allclose(_tab.predict_age(permuted(data)), _tab.predict_age(data))


def test_features_reach_the_attention_of_ft(_ft, data):
    before, after = _ft.get_attention(data), _ft.get_attention(permuted(data))
    assert before.tokens[:3] == ["readout", "modality", "tissue"]
    assert np.abs(after.weights - before.weights).max() > 1e-3
    assert np.abs(after.embeddings - before.embeddings).max() > 1e-3


def test_attention_is_shared_among_visible_tokens(_ft, data):
    found = _ft.get_attention(data, indices=[0, 5, 60])
    assert found.weights.shape == (3, 2, 2, 12, 12)
    np.testing.assert_allclose(found.weights.sum(-1), 1, rtol=1e-5)
    modules = _ft.modules().to_numpy()
    for row, weights in zip([0, 5, 60], found.weights, strict=True):
        seen = set(modules[SETS[data.obs["modality"].iloc[row]]])
        hidden = np.array([t.startswith("module") and t not in seen for t in found.tokens])
        assert hidden.any()
        assert (weights[..., hidden] == 0).all()
        assert (weights[..., ~hidden] > 0).all()


def test_asked_for_weights_change_no_age(_ft, data):
    row = np.arange(7)
    whole = _ft.get_attention(data, indices=row).embeddings[:, 0]
    latent = _ft.module.net.stack(torch.from_numpy(whole)).detach().numpy()
    np.testing.assert_allclose(latent, _ft.get_latent_representation(data)[row], rtol=1e-4, atol=1e-5)


def test_modules_of_tab_are_refused(_tab):
    with pytest.raises(ValueError) as raised:
        _tab.modules()
    check_message(raised, "architecture='tab' makes no tokens of features")


# --- the linear path -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1.0, 6.0], ids=["clear", "noisy"])
def test_the_linear_path_is_a_ridge_per_tissue_and_modality(noise):
    """One tissue, one modality: as scikit-learn's, whose leave-one-out chooses the penalty among as many."""
    data = samples(90, paired=0, noise=noise)
    data = one(data, "expression")
    data.obs["agevi_split"] = np.where(np.arange(data.n_obs) < 35, "train", "test")
    model = fit(data, epochs=1, setup={"tissue_key": None})
    model.module.output.weight.data.zero_()
    model.module.output.bias.data.zero_()
    train = (data.obs["agevi_split"] == "train").to_numpy()
    age = data.obs["age"].to_numpy()
    scaler = StandardScaler().fit(data.X[train])
    ridge = RidgeCV(np.logspace(0, 6, 19)).fit(scaler.transform(data.X[train]), age[train])
    expected = ridge.predict(scaler.transform(data.X))
    assert np.abs(model.predict_age() - expected).mean() < 0.1 * age.std()


def test_exact_ridge_and_held_out_predictions():
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    from agevi.model.transformer._ridge import ALPHAS, fit_ridge

    rng = np.random.default_rng(0)
    z, fold = rng.normal(size=(60, 80)), np.repeat(np.arange(6), 10)
    y = z[:, :5].sum(1) + rng.normal(size=60) + 3
    found = fit_ridge(z, y, fold)
    held = {a: cross_val_predict(Ridge(alpha=a), z, y, groups=fold, cv=LeaveOneGroupOut()) for a in ALPHAS}
    best = min(held, key=lambda a: ((held[a] - y) ** 2).mean())
    reference = Ridge(alpha=best).fit(z, y)
    np.testing.assert_allclose(found.held_out, held[best], rtol=1e-6)
    np.testing.assert_allclose(found.coef, reference.coef_, rtol=1e-6, atol=1e-9)
    assert found.intercept == pytest.approx(reference.intercept_)


def test_training_rows_see_the_path_of_other_subjects(_ft):
    """The path that training sees errs about as much on training rows as on others."""
    module, age = _ft.module, _ft._cell_ages()
    train = (_ft.adata.obs["agevi_split"] == "train").to_numpy()
    held_out = module.age_scale.to_target(module.held_out[:, 0]).numpy()
    assert np.isfinite(held_out[train]).all()
    fitted = np.abs(_ft.predict_age() - age)[train].mean()
    assert np.abs(held_out - age)[train].mean() > fitted


def test_a_tissue_of_few_subjects_gets_the_line_of_its_modality(data):
    data.obs["tissue"] = data.obs["tissue"].astype(object)
    data.obs.iloc[:3, data.obs.columns.get_loc("tissue")] = "lung"
    module = fit(data).module
    first = list(SETS).index(data.obs["modality"].iloc[0]) * 4
    torch.testing.assert_close(module.coef[first + 3], module.coef[first])  # lung is the third in the alphabet
    assert not torch.allclose(module.coef[first + 1], module.coef[first])


def test_a_modality_without_ages_gets_no_other_modalitys_line(data):
    data.obs.loc[data.obs["modality"] == "methylation", "age"] = np.nan
    data.obs["donor"] = data.obs["sample"]  # so that no subject has an age in part of its samples
    del data.obs["agevi_split"]
    model = fit(data)
    assert model.module.coef[:3].any()
    assert not model.module.coef[3:].any()
    assert np.isfinite(model.predict_age()).all()


@pytest.mark.parametrize("init", [{"skip": "none"}, {"architecture": "tab", "n_hidden": [16]}], ids=["none", "tab"])
def test_there_may_be_no_linear_path(data, init):
    module = fit(data, **(SMALL | init)).module
    assert not module.coef.any()
    assert not module.intercept.any()


@pytest.mark.slow
def test_both_architectures_learn():
    data = samples(150, noise=0.5, seed=3)
    agevi.pp.split_subjects(data, subject_key="donor", sample_key="sample", age_key="age", stratify_by="modality")
    held = (data.obs["agevi_split"] == "test").to_numpy()
    age = data.obs["age"].to_numpy()
    for init in (SMALL, SMALL | {"skip": "none"}, TAB):
        TransformerClock.setup_anndata(data, **SETUP)
        model = TransformerClock(data, **init)
        model.train(max_epochs=60, plan_kwargs={"lr": 3e-3}, **QUIET)
        assert np.abs(model.predict_age() - age)[held].mean() < 0.5 * np.abs(age - np.median(age))[held].mean()


# --- other data ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("modality", list(SETS))
@pytest.mark.parametrize("init", [SMALL, TAB], ids=["ft", "tab"])
def test_data_of_one_modality_pass_without_a_mask(data, modality, init):
    model = fit(data, **init)
    own = one(data, modality)
    of = (data.obs["modality"] == modality).to_numpy()
    agevi.tl.predict_age(own, model)
    np.testing.assert_allclose(own.obs["agevi_predicted"], model.predict_age(data)[of], rtol=1e-5)
    assert own.uns["agevi"]["gene_coverage"] == 1.0
    fewer = own[:, 2:].copy()
    agevi.tl.predict_age(fewer, model)
    assert fewer.uns["agevi"]["gene_coverage"] == pytest.approx(1 - 2 / own.n_vars)


def test_absent_features_are_unmeasured(_ft, data):
    masked = one(data, "expression")
    fewer = masked[:, 3:].copy()
    full = data[masked.obs_names].copy()
    full.varm["agevi_measured"][:3, 0] = False
    np.testing.assert_allclose(_ft.predict_age(fewer), _ft.predict_age(full), rtol=1e-5)


def test_coverage_counts_per_feature_set(_ft, data):
    with pytest.raises(ValueError) as raised:
        _ft.predict_age(one(data, "expression")[:, :15].copy())
    check_message(raised, "adata has 75% of the 20 features of 'expression', the nearest of the clock's feature sets")
    few = data.copy()
    few.varm["agevi_measured"][14:, 1] = False
    with pytest.raises(ValueError) as raised:
        _ft.predict_age(few)
    check_message(raised, "feature set 'methylation' of adata has 11% of the 18 features of 'methylation'")


def test_an_unknown_tissue_is_read_as_unknown(_ft, data):
    data.obs["tissue"] = "skin"
    with pytest.warns(UserWarning, match="holds 'skin' in .* samples, which the clock never saw") as warned:
        ages = _ft.predict_age(data)
    check_style(str(warned[0].message))
    levels = torch.tensor([[1, 0], [2, 0]])
    assert _ft.module.group(levels).tolist() == [0, 3]
    assert np.isfinite(ages).all()


def test_a_tissue_that_is_unknown_for_its_case_is_named(_ft, data):
    data.obs["tissue"] = data.obs["tissue"].astype(str).str.upper()
    with pytest.warns(UserWarning, match=r"only zeros, spaces, case or '\.0' differ in 'BLOOD' for 'blood'") as warned:
        _ft.predict_age(data)
    assert warned[0].filename == __file__
    data.obs["modality"] = " " + data.obs["modality"].astype(str)
    with pytest.raises(ValueError, match=r"case or '\.0' differ in ' \w+' for '\w+'"):
        _ft.predict_age(data)


@pytest.mark.slow
def test_the_unknown_tissue_is_trained(data):
    TransformerClock.setup_anndata(data, **SETUP)
    for share, moves in ((0.5, True), (0.0, False)):
        model = TransformerClock(data, **SMALL, category_dropout=share, modality_dropout=0.0)
        before = model.module.net.categories.table.detach().clone()
        model.train(max_epochs=3, plan_kwargs={"weight_decay": 0.0}, early_stopping=False, **QUIET)
        moved = (model.module.net.categories.table.detach() - before).abs().sum(1)
        assert (moved > 0).tolist() == [False, True, True, moves, True, True]


def test_modality_dropout_hides_a_block_of_those_that_were_measured(_ft):
    net = copy.deepcopy(_ft.module.net)
    shares = net.shares(_ft.module.measured)[[0] * 400]
    hidden = net.hidden_tokens(shares, 0.5)
    rows = hidden.any(1)
    assert 0.4 < rows.float().mean() < 0.6
    visible = shares > 0
    assert (visible & ~hidden).any(1).all()
    assert (hidden & visible)[rows].any(1).all()
    single = shares[:1].clone().expand(50, -1) * (net.block_of == net.block_of[shares[0].argmax()])
    assert not net.hidden_tokens(single, 1.0).any()


# --- storage and tools ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("init", [SMALL, TAB], ids=["ft", "tab"])
def test_a_saved_clock_is_the_same(data, tmp_path, init):
    data.obs["sex"] = np.where(np.arange(data.n_obs) % 2, "f", "m")
    model = fit(data, setup={"categorical_covariate_keys": ["sex"]}, **init)
    model.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock")
    for adata in (data, one(data, "methylation")):
        np.testing.assert_array_equal(clock.predict_age(adata), model.predict_age(adata))
    np.testing.assert_array_equal(clock.get_attention(data).weights, model.get_attention(data).weights)
    again = agevi.io.load_clock(tmp_path / "clock", data.copy())
    again.train(max_epochs=1, **QUIET)
    model.train(max_epochs=1, **QUIET)
    assert np.abs(again.predict_age() - model.predict_age()).max() < 1  # the same path, other random numbers


def test_a_clock_can_be_sent_to_another_process(_ft, data):
    back = pickle.loads(pickle.dumps(_ft))
    np.testing.assert_array_equal(back.predict_age(data), _ft.predict_age(data))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_mask_survives_a_file(data, tmp_path):
    expected = fit(data.copy()).predict_age(data)
    data.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_allclose(fit(back).predict_age(back), expected, rtol=1e-5)


@pytest.mark.slow
def test_subjects_are_held_out_whole_and_strata_are_spread(data):
    """Samples of one subject in two modalities stay together, and every fold has its share of each stratum."""
    agevi.tl.cross_validate(
        data,
        TransformerClock,
        age_key="age",
        subject_key="donor",
        sample_key="sample",
        n_folds=3,
        stratify_by=["modality", "tissue"],
        setup_kwargs={"modality_key": "modality", "tissue_key": "tissue"},
        model_kwargs=SMALL,
        train_kwargs={"max_epochs": 2, "accelerator": "cpu"},
    )
    assert (data.obs.groupby("donor", observed=True)["agevi_fold"].nunique() == 1).all()
    assert data.obs["donor"].duplicated().any()
    counts = pd.crosstab(data.obs["agevi_fold"], [data.obs["modality"], data.obs["tissue"]])
    assert (counts.min() >= counts.max() / 2 - 1).all()
    agevi.tl.aggregate_subjects(data)
    agevi.tl.evaluate_by(data, ["modality", ("tissue", "modality")])
    table = agevi.get.metrics_by_df(data)
    assert table["groupby"].tolist() == ["overall", *["modality"] * 2, *["tissue;modality"] * 4]
    age, predicted = data.obs["age"].to_numpy(), data.obs["agevi_predicted"].to_numpy()
    of = (data.obs["modality"] == "methylation").to_numpy()
    row = table[table["group"] == "methylation"].iloc[0]
    assert row["mae"] == pytest.approx(np.abs(predicted - age)[of].mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("init", [SMALL, TAB, SMALL | {"skip": "none"}], ids=["ft", "tab", "no-line"])
def test_attributions_add_up_and_name_measured_features(data, init):
    model = fit(data, epochs=3, **init)
    agevi.tl.attribute_genes(data, model, groupby="modality", n_boot=10, n_samples=200)
    found, record = data.varm["agevi_attribution"], data.uns["agevi_attribution"]
    assert list(record["groups"]) == ["all", "expression", "methylation"]
    for i, columns in enumerate(SETS.values(), start=1):
        assert (np.delete(found[:, i], np.arange(30)[columns]) == 0).all()
        assert (found[columns, i] > 0).all()
    assert record["completeness_error"] < 0.02 * record["predicted_range"]


def test_penalties(data):
    TransformerClock.setup_anndata(data, **SETUP)
    model = TransformerClock(data, **SMALL, l1=0.5, l2=0.25)
    weights = [w for w in model.module.net.parameters() if w.dim() > 1]
    expected = sum(0.5 * w.abs().sum() + 0.25 * (w**2).sum() for w in weights)
    torch.testing.assert_close(model.module.penalty(), expected)
    model.train(max_epochs=2, **QUIET)
    assert model.history["train_loss"].iloc[0, 0] > 10


# --- bad input -----------------------------------------------------------------------------------------------------


def nan(a):
    a.X[0, 0] = np.nan


def lonely(a):
    a.obs["modality"] = ["protein", *a.obs["modality"].iloc[1:]]


def text_mask(a):
    a.varm["agevi_measured"] = a.varm["agevi_measured"].astype(float)


def no_names(a):
    del a.uns["agevi_measured"]


def other_set(a):
    a.obs["agevi_feature_set"] = "protein"


def empty_set(a):
    a.varm["agevi_measured"][:, 1] = False


SETUPS = {
    "NaN": (nan, {}, ValueError, "values that were not measured are 0 there, and False in adata.varm['agevi_measured']"),
    "a modality of one sample": (lonely, {}, ValueError, "modality 'protein' of adata.obs['modality'] has 1 sample"),
    "a mask of numbers": (text_mask, {}, ValueError, "is float64 of shape (30, 2); the mask is bool"),
    "a mask without names": (no_names, {}, KeyError, "adata.uns['agevi_measured']['sets'] with the names of its columns"),
    "a set that is none": (other_set, {}, ValueError, "holds 'protein', which is none of the feature sets"),
    "a set without features": (empty_set, {}, ValueError, "feature set 'methylation' of adata.varm['agevi_measured'] has rows"),
    "no tissue column": (None, {"tissue_key": "tisue"}, KeyError, "tissue_key='tisue' is not a column of adata.obs"),
    "counts": (None, {"normalize": "log1p_cp10k"}, ValueError, "which reads values that are normalised already"),
}  # fmt: skip


@pytest.mark.parametrize("case", SETUPS)
def test_setup_refuses(data, case):
    change, arguments, error, words = SETUPS[case]
    if change:
        change(data)
    before = snapshot(data)
    with pytest.raises(error) as raised:
        TransformerClock.setup_anndata(data, **(SETUP | arguments))
    check_message(raised, words)
    assert snapshot(data) == before


ARGUMENTS = {
    "architecture": ({"architecture": "tabnet"}, "architecture='tabnet' is not known"),
    "heads": ({"n_token": 10, "n_heads": 4}, "n_heads=4 does not divide n_token=10"),
    "widths of tab": ({"architecture": "tab", "n_hidden": []}, "n_hidden=[] is empty, and architecture='tab' needs a layer"),
    "modules": ({"modules": {"x": ["TP53"]}}, "module 'x' has no feature of its own among the 30 of adata.var_names"),
    "activation": ({"activation": "tanh"}, "activation='tanh' is not known"),
    "skip": ({"skip": "pls"}, "skip='pls' is not known"),
    "moments": ({"standardize_by": "batch"}, "standardize_by='batch' is not known"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_the_constructor_refuses(data, case):
    arguments, words = ARGUMENTS[case]
    TransformerClock.setup_anndata(data, **SETUP)
    with pytest.raises(ValueError) as raised:
        TransformerClock(data, **arguments)
    check_message(raised, words)


def test_an_unknown_modality_is_refused(_ft, data):
    data.obs["modality"] = "protein"
    with pytest.raises(ValueError) as raised:
        _ft.predict_age(data)
    check_message(
        raised, "holds the modality 'protein', which the clock never saw; it knows 'expression', 'methylation'"
    )
