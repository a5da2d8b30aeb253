"""Classifiers from clocks: what is frozen, what is learnt, roles, bundles and bad input."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit

import agevi
from agevi.model import (
    CaseControlClassifier,
    DenoisingVAE,
    GaussianVAE,
    MLPClock,
    NMFClock,
    PLSClock,
    PoissonVAE,
    TransformerClock,
)
from agevi.model.transfer import _condition, _draws
from tests.clocks import params
from tests.conftest import QUIET
from tests.test_gates import snapshot

SETUP = {"age_key": "age", "subject_key": "donor"}
CONDITION = {"condition_key": "condition", "control": "control"}
TOKENS = {"n_tokens": 6, "n_token": 8, "n_heads": 2}
VAE = {"n_hidden": [12, 8], "n_latent": 4, "n_head": [6]}
CLOCKS = {
    "PoissonVAE": (PoissonVAE, VAE),
    "PoissonVAE of cells": (PoissonVAE, VAE | {"train_unit": "cell"}),
    "GaussianVAE": (GaussianVAE, VAE | {"n_head": []}),
    "DenoisingVAE of groups": (DenoisingVAE, VAE | {"pseudocell_groupby": "cell_type"}),
    "MLPClock": (MLPClock, {"n_hidden": [12, 8]}),
    "MLPClock of cells": (MLPClock, {"n_hidden": [12, 8], "train_unit": "cell"}),
    "NMFClock": (NMFClock, {"n_components": 4, "n_hidden": [8]}),
    "TransformerClock": (TransformerClock, TOKENS),
    "TransformerClock tab": (TransformerClock, TOKENS | {"architecture": "tab", "n_hidden": [12, 8]}),
}
each_clock = pytest.mark.parametrize("name", params(CLOCKS, fast=("MLPClock",)))


@pytest.fixture(scope="module")
def _data():
    adata = agevi.datasets.simulate_cohort(
        n_subjects=24, n_cells=12, n_genes=40, n_age_genes=20, case_fraction=0.5, acceleration=60, rng=2
    )
    agevi.pp.split_subjects(adata, **SETUP, stratify_by=["condition"], rng=0)
    return adata


@pytest.fixture
def data(_data):
    """Cases are biologically 60 years older."""
    return _data.copy()


@pytest.fixture(scope="module")
def clocks(_data):
    made = {}

    def make(name):
        if name not in made:
            cls, arguments = CLOCKS[name]
            adata = _data.copy()
            cls.setup_anndata(adata, **SETUP)
            made[name] = cls(adata, **arguments)
            made[name].train(max_epochs=2, **QUIET)
        return made[name]

    return make


@pytest.fixture(scope="module")
def classifiers(clocks, _data):
    """Trained classifiers by the name of the clock and their arguments; tests must not change them."""
    made = {}

    def make(name, **arguments):
        key = (name, *arguments.items())
        if key not in made:
            made[key] = of(clocks(name), _data, **arguments)
            made[key].train(max_epochs=5)
        return made[key]

    return make


def state(model):
    return {k: v.clone() for k, v in model.module.state_dict().items()}


def changed(before, after):
    return {k for k in before if not torch.equal(before[k], after[k])}


def of(clock, adata, **arguments):
    return CaseControlClassifier.from_clock(clock, adata, **CONDITION, **arguments)


# --- what is frozen ----------------------------------------------------------------------------------------------

FIRST = {
    "PoissonVAE": "encoder.stack.blocks.0.0.weight",
    "MLPClock": "head.stack.blocks.0.0.weight",
    "TransformerClock": "net.features.weight",
    "TransformerClock tab": "net.of_features.weight",
}
FIXED = ("input.", "age_scale.", "components", "decoder.", "mean", "scale", "coef", "intercept", "measured")
HEAD = {"PoissonVAE": "head.", "GaussianVAE": ("encoder.mean.", "head."), "DenoisingVAE": "head.", "MLPClock": ("head.stack.blocks.1.", "head.output."), "NMFClock": "head.", "TransformerClock": ("net.attention.1.", "net.stack.0.", "output.")}  # fmt: skip


@pytest.mark.slow
@each_clock
@pytest.mark.parametrize("freeze", ["all_but_last", "encoder", "none"])
def test_frozen_parts_stay_bit_identical_over_5_epochs(clocks, classifiers, data, name, freeze):
    clock = clocks(name)
    before, ages, latent = state(clock), clock.predict_age(data), clock.predict_rows(data).latent
    model = classifiers(name, freeze=freeze)
    moved = changed(before, state(model))
    last = {("output." if name.startswith("Transformer") else "head.output.") + part for part in ("weight", "bias")}
    if freeze == "all_but_last":
        assert moved == last
        if name.startswith(("MLP", "Transformer")):
            np.testing.assert_array_equal(model.predict_rows(data).latent, latent)
    elif freeze == "encoder":
        assert last < moved
        assert all(key.startswith(HEAD[name.split()[0]]) for key in moved)
    else:
        assert FIRST.get(name, "head.output.weight") in moved
        assert not any(key.startswith(FIXED) for key in moved)
    assert changed(before, state(clock)) == set()  # the clock itself
    np.testing.assert_array_equal(clock.predict_age(data), ages)


@each_clock
def test_dropout_of_frozen_parts_is_off(clocks, data, name):
    """With dropout on, two passes of one batch would differ."""
    model = of(clocks(name), data)
    seen = []
    for layer in model.module.modules():
        if isinstance(layer, torch.nn.Dropout | torch.nn.BatchNorm1d):
            layer.register_forward_hook(lambda m, _, __: seen.append(m.training))
    model.train(max_epochs=1)
    assert not any(seen)


@pytest.mark.parametrize("name", ["PoissonVAE", "MLPClock", "NMFClock"])
def test_the_last_layer_is_a_logistic_regression_of_the_latent(clocks, data, name):
    """Log-odds are the linear map of what the clock's last hidden layer gives, by numpy."""
    model = of(clocks(name), data)
    model.train(max_epochs=3)
    hidden = []
    output = model.module.head.output
    handle = output.register_forward_hook(lambda _, inputs, __: hidden.append(inputs[0].numpy().copy()))
    odds = model.predict_rows(data).value
    handle.remove()
    expected = np.concatenate(hidden) @ output.weight.detach().numpy()[0] + output.bias.detach().numpy()
    np.testing.assert_allclose(odds, expected, rtol=1e-4, atol=1e-5)


# --- what is learnt ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@each_clock
@pytest.mark.parametrize(
    "arguments",
    [
        {"freeze": "all_but_last"},
        {"freeze": "encoder"},
        {"freeze": "none"},
        {"freeze": "none", "from_scratch": True},
    ],
    ids=["frozen", "encoder", "none", "scratch"],
)
def test_probabilities(clocks, classifiers, data, name, arguments):
    first, second = classifiers(name, **arguments), of(clocks(name), data, **arguments)
    second.train(max_epochs=5)
    found = first.predict_proba()
    assert found.shape == (data.n_obs,)
    assert found.dtype == np.float32
    assert ((found > 0) & (found < 1)).all()
    np.testing.assert_array_equal(found, second.predict_proba())
    by_donor = pd.Series(found).groupby(data.obs["donor"].to_numpy())
    assert (by_donor.nunique() == 1).all()
    cells = first.predict_proba(level="cell")
    assert (pd.Series(cells).groupby(data.obs["donor"].to_numpy()).nunique() > 1).all()
    if "of cells" in name:  # the mean of log-odds, by numpy
        expected = expit(pd.Series(logit(cells)).groupby(data.obs["donor"].to_numpy()).transform("mean"))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(first.predict_proba(indices=[5, 3]).shape, (2,))


@pytest.mark.slow
@pytest.mark.usefixtures("usual_fits")
def test_it_learns_what_sets_cases_apart(data):
    x = data.X.toarray()
    x[(data.obs["condition"] == "case").to_numpy(), :5] = 0
    data.X = x
    MLPClock.setup_anndata(data, **SETUP)
    clock = MLPClock(data, n_hidden=[12])
    clock.train(max_epochs=2, **QUIET)
    model = of(clock, data, freeze="none")
    model.train()
    test = (data.obs["agevi_split"] == "test").to_numpy()
    case = (data.obs["condition"] == "case").to_numpy()
    assert agevi.metrics.auroc(case[test], model.predict_proba()[test]) == 1
    assert model.history["log_loss_train"].iloc[-1, 0] < 0.5 * model.history["log_loss_train"].iloc[0, 0]
    agevi.tl.attribute_genes(data, model)
    record = data.uns["agevi_attribution"]
    assert record["age_unit"] == "log-odds"
    assert record["completeness_error"] < 0.02 * record["predicted_range"]
    top = agevi.get.attribution_df(data)["gene"].head(5)
    assert len(set(top) & set(data.var_names[:5])) >= 4


@pytest.mark.slow
def test_labels_of_held_out_subjects_do_not_matter(clocks, data):
    first = of(clocks("MLPClock"), data)
    first.train(max_epochs=3)
    other = data.copy()
    held_out = other.obs["agevi_split"] != "train"
    swap = {"case": "control", "control": "case"}
    condition = other.obs["condition"].astype(str)
    other.obs["condition"] = condition.where(~held_out, condition.map(swap))
    second = of(clocks("MLPClock"), other)
    second.train(max_epochs=3)
    np.testing.assert_array_equal(first.predict_proba(), second.predict_proba())


@pytest.mark.slow
def test_cells_of_held_out_subjects_do_not_matter_from_scratch(clocks, data):
    """Nor for the scales of genes."""
    other = data.copy()
    held_out = (other.obs["agevi_split"] != "train").to_numpy()
    other.X = other.X.tocsr()
    other.X.data[np.repeat(held_out, np.diff(other.X.indptr))] += 3
    found = []
    for adata in (data, other):
        model = of(clocks("MLPClock"), adata, freeze="none", from_scratch=True)
        model.train(max_epochs=3)
        found.append(model.predict_proba(data))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "none"])
def test_class_weights(clocks, data, balanced):
    """With a constant feature the probability is one half, or the share of cases."""
    drop = data.obs["donor"].isin(data.obs.loc[data.obs["condition"] == "case", "donor"].unique()[:6])
    few = data[~drop].copy()
    few.X = np.ones(few.shape, dtype=np.float32)
    model = of(clocks("MLPClock"), few, class_weight="balanced" if balanced else "none")
    model.train(max_epochs=60, lr=0.05)
    train = few.obs[few.obs["agevi_split"] == "train"].drop_duplicates("donor")
    share = 0.5 if balanced else (train["condition"] == "case").mean()
    assert share == pytest.approx(model.predict_proba()[0], abs=0.02)


@pytest.mark.slow
def test_every_call_of_train_starts_anew(clocks, data):
    model = of(clocks("MLPClock"), data, freeze="none")
    model.train(max_epochs=3)
    first = model.predict_proba()
    model.train(max_epochs=3)
    np.testing.assert_array_equal(model.predict_proba(), first)


@pytest.mark.slow
def test_early_stopping_keeps_the_best_epoch(clocks, data):
    model = of(clocks("MLPClock"), data, freeze="none")
    model.train(max_epochs=40, early_stopping=True, lr=0.02)
    curve = model.history["log_loss_validation"].iloc[:, 0]
    assert model.best_epoch_ == curve.to_numpy().argmin() + 1
    assert len(curve) <= min(40, model.best_epoch_ + 10)
    validation = (data.obs["agevi_split"] == "validation").to_numpy()
    first = data.obs[validation].drop_duplicates("donor").index
    rows = data.obs_names.get_indexer(first)
    case, found = (data.obs["condition"] == "case").to_numpy()[rows], model.predict_proba()[rows]
    loss = -np.log(np.where(case, found, 1 - found))
    expected = (loss[case].mean() + loss[~case].mean()) / 2
    assert curve.min() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_genes_that_are_absent_or_in_another_order(clocks, data):
    model = of(clocks("PoissonVAE"), data)
    model.train(max_epochs=2)
    np.testing.assert_allclose(model.predict_proba(data[:, ::-1].copy()), model.predict_proba(), rtol=1e-5)
    fewer = data[:, :36].copy()
    for arguments in ({}, {"freeze": "none", "from_scratch": True}):
        model = of(clocks("PoissonVAE"), fewer, **arguments)
        model.train(max_epochs=2)
        assert np.isfinite(model.predict_proba()).all()


# --- roles and files -----------------------------------------------------------------------------------------------


def test_roles(clocks, data):
    model = of(clocks("MLPClock"), data)
    model.train(max_epochs=1)
    assert (model.roles(data) == data.obs["agevi_split"].astype(str)).all()
    model.train(max_epochs=1, train_roles=("train", "validation"))
    assert set(model.split_.values()) == {"train", "test"}
    new = data.copy()
    new.obs["donor"] = "new " + new.obs["donor"].astype(str)
    del new.obs["age"], new.obs["condition"]
    assert (model.roles(new) == "new").all()
    np.testing.assert_array_equal(model.predict_proba(new), model.predict_proba())


def test_roles_are_those_of_the_classifier_and_the_clock_has_its_own(clocks, data, caplog):
    swap = {"train": "test", "test": "train", "validation": "train"}
    data.obs["other"] = data.obs["agevi_split"].astype(str).map(swap)
    model = of(clocks("MLPClock"), data)
    with caplog.at_level("INFO", logger="agevi"):
        model.train(max_epochs=1, split_key="other")
    n = data.obs.drop_duplicates("donor")["other"].eq("test").sum()
    assert f"{n} of {n} test subjects trained the clock" in caplog.text
    assert (model.roles(data) == data.obs["other"]).all()
    assert (model.clock.roles(data) == data.obs["agevi_split"].astype(str)).all()


def test_a_split_of_its_own_has_both_classes_everywhere(clocks, data):
    del data.obs["agevi_split"]
    model = of(clocks("MLPClock"), data)
    model.train(max_epochs=1)
    found = pd.crosstab(data.obs["donor"].map(model.split_).astype(str), data.obs["condition"])
    assert found.shape == (3, 2)
    assert (found > 0).all(axis=None)


@pytest.mark.slow
def test_unlabelled_subjects_do_not_train(clocks, data):
    donors = data.obs.loc[data.obs["agevi_split"] == "train", "donor"].unique()[:3]
    unlabelled = data.obs["donor"].isin(donors).to_numpy()
    data.obs["condition"] = data.obs["condition"].astype(object).where(~unlabelled, np.nan)
    other = data.copy()
    other.X = other.X.tocsr()
    other.X.data[np.repeat(unlabelled, np.diff(other.X.indptr))] += 2
    found = []
    for adata in (data, other):
        model = of(clocks("MLPClock"), adata, freeze="none")
        model.train(max_epochs=3)
        found.append(model.predict_proba(data))
    np.testing.assert_array_equal(*found)
    assert model.age_summary_["n_subjects"] == (data.obs.drop_duplicates("donor")["agevi_split"] == "train").sum() - 3


@pytest.mark.slow
@each_clock
def test_save_and_load(clocks, data, name, tmp_path):
    model = of(clocks(name), data, freeze="none", from_scratch="Poisson" in name)
    model.train(max_epochs=2)
    model.save(tmp_path / "model")
    for back in (CaseControlClassifier.load(tmp_path / "model"), agevi.io.load_clock(tmp_path / "model")):
        np.testing.assert_array_equal(back.predict_proba(data), model.predict_proba())
        assert (back.split_, back.clock.split_) == (model.split_, model.clock.split_)
        assert (back.case, back.control, back.freeze) == ("case", "control", "none")
        pd.testing.assert_frame_equal(back.history["log_loss_train"], model.history["log_loss_train"])
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["README.md", "clock.json", "weights.safetensors"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "the probability of 'case' against 'control' (condition)" in card
    with pytest.raises(RuntimeError, match="was loaded, without the weights that its clock had"):
        back.train()
    with pytest.raises(RuntimeError, match="was loaded without data; pass adata"):
        back.predict_proba()
    back = CaseControlClassifier.load(tmp_path / "model", data)
    np.testing.assert_array_equal(back.predict_proba(), model.predict_proba())


@pytest.mark.slow
def test_the_data_are_left_alone(clocks, data):
    before = snapshot(data)
    model = of(clocks("PoissonVAE"), data, freeze="none", from_scratch=True)
    model.train(max_epochs=1)
    model.predict_proba()
    assert snapshot(data) == before
    view = data[data.obs["donor"] != "d00"]
    model = of(clocks("PoissonVAE"), view)
    model.train(max_epochs=1)
    assert view.is_view


@pytest.mark.slow
def test_attributions_add_up_to_log_odds(clocks, data):
    """For the classifier of every kind of clock, and the clock and the classifier under two keys."""
    for name in ("PoissonVAE", "PoissonVAE of cells", "DenoisingVAE of groups"):
        model = of(clocks(name), data)
        model.train(max_epochs=3)
        agevi.tl.attribute_genes(data, clocks(name), key_added="ageing")
        agevi.tl.attribute_genes(data, model, key_added="disease")
        assert data.uns["ageing_attribution"]["age_unit"] == "years"
        record = data.uns["disease_attribution"]
        assert record["age_unit"] == "log-odds"
        assert record["model"] == "CaseControlClassifier"
        assert record["completeness_error"] < 0.05 * record["predicted_range"]
        odds = logit(model.predict_proba(level="cell" if "of cells" in name else "sample"))
        assert record["predicted_range"] >= 0.5 * np.ptp(odds)


# --- bad input -------------------------------------------------------------------------------------------------------


def both(adata):
    values = adata.obs["condition"].astype(str).to_numpy().copy()
    values[0] = "case" if values[0] == "control" else "control"
    adata.obs["condition"] = values


def partly(adata):
    adata.obs["condition"] = adata.obs["condition"].astype(object)
    adata.obs.iloc[0, adata.obs.columns.get_loc("condition")] = np.nan


@pytest.mark.parametrize("dtype", ["float", "category", "bool", "empty"])
def test_conditions_of_any_dtype(clocks, data, dtype):
    """Whole numbers that became floats beside missing ones are told by the number, and missing is no level, not even ''."""
    case = (data.obs["condition"] == "case").to_numpy()
    unlabelled = data.obs["donor"].isin(["d00", "d01"]).to_numpy()
    if dtype == "empty":
        data.obs["sick"], control, names = (
            pd.Series(np.where(case, "case", ""), data.obs_names, dtype=object),
            "",
            ("", "case"),
        )
    elif dtype == "bool":
        data.obs["sick"], control, names = pd.Series(case, data.obs_names, dtype=object), 0, ("False", "True")
    else:
        data.obs["sick"], control, names = case.astype(float), 0, ("0", "1")
    data.obs.loc[unlabelled, "sick"] = np.nan
    if dtype == "category":
        data.obs["sick"] = data.obs["sick"].astype("category")
    model = CaseControlClassifier.from_clock(clocks("MLPClock"), data, condition_key="sick", control=control)
    assert (model.control, model.case) == names
    found = _condition.case_by_subject(data, "sick", names, data.obs["donor"].astype(str))
    expected = pd.Series(np.where(unlabelled, np.nan, case)).groupby(data.obs["donor"].astype(str).to_numpy()).first()
    pd.testing.assert_series_equal(found, expected, check_names=False)


def test_a_mask_stands_for_positions(clocks, data):
    model = of(clocks("MLPClock"), data)
    model.train(max_epochs=1)
    mask = (data.obs["condition"] == "case").to_numpy()
    rows = np.flatnonzero(mask)
    for level in ("sample", "cell"):
        expected = model.predict_proba(indices=rows, level=level)
        np.testing.assert_array_equal(model.predict_proba(indices=mask, level=level), expected)
    np.testing.assert_array_equal(
        model.clock.predict_age(data, indices=mask), model.clock.predict_age(data, indices=rows)
    )


def test_early_stopping_looks_at_cells_of_the_whole_sample(clocks, data):
    """Which may be sorted by cell type."""
    cells = [np.arange(1000), np.arange(1000, 1010)]
    units = _draws.Units(cells, torch.zeros(2), torch.ones(2))
    draws = _draws.Draws(None, units, size=None, rng=np.random.default_rng(0))
    seen = []
    draws.batch = lambda chosen, members: seen.append(members)
    list(draws.whole())
    long, short = seen[0]
    assert len(long) == 64 == len(set(long))
    assert (long[0], long[-1]) == (0, 999)
    assert np.diff(long).max() < 20
    np.testing.assert_array_equal(short, cells[1])


def levels(*names):
    def change(adata):
        codes = pd.factorize(adata.obs["donor"])[0] % len(names)
        adata.obs["condition"] = np.asarray(names)[codes]

    return change


def one_case(adata):
    first = adata.obs["donor"] == adata.obs["donor"].iloc[0]
    adata.obs["condition"] = np.where(first, "case", "control")


CASES = {
    "one level": (levels("control"), {}, ValueError, "has 1 level ('control'); a classifier tells two apart."),
    "three levels": (levels("control", "mild", "severe"), {}, ValueError, "has 3 levels ('control', 'mild', 'severe');"),
    "three by spelling": (levels("control", "Control", "case"), {}, ValueError, "of which only zeros, spaces, case or '.0' differ in 'control' for 'Control';"),
    "all missing": (lambda a: a.obs.__setitem__("condition", np.nan), {}, ValueError, "has 0 levels (none);"),
    "both": (both, {}, ValueError, "subject 'd00' is both 'case' and 'control' in adata.obs['condition']"),
    "part of the cells": (partly, {}, ValueError, "subject 'd00' has a condition in 11 of its 12 cells"),
    "one case": (one_case, {}, ValueError, "subjects in adata.obs['condition']: 1 of 'case' and 23 of 'control'; 2 or more of each"),
    "control unknown": (None, {"control": "controls"}, ValueError, "control='controls' is not in adata.obs['condition']; closest: 'control'."),
    "column missing": (None, {"condition_key": "disease"}, KeyError, "condition_key='disease' is not a column of adata.obs"),
    "freeze unknown": (None, {"freeze": "all"}, ValueError, "freeze='all' is not known; choose one of 'all_but_last', 'encoder', 'none'"),
    "weights unknown": (None, {"class_weight": "equal"}, ValueError, "class_weight='equal' is not known; choose one of"),
    "scratch and frozen": (None, {"from_scratch": True}, ValueError, "from_scratch=True with freeze='all_but_last'; new weights that stay"),
    "genes": (lambda a: setattr(a, "var_names", [f"x{i}" for i in range(a.n_vars)]), {}, ValueError, "of the clock's 40 genes are absent"),
    "values": (lambda a: setattr(a, "X", a.X.log1p()), {}, ValueError, "has non-integer values (first:"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(clocks, data, case):
    change, arguments, error, words = CASES[case]
    if change is not None:
        change(data)
    before = snapshot(data)
    with pytest.raises(error) as raised:
        CaseControlClassifier.from_clock(clocks("PoissonVAE"), data, **(CONDITION | arguments))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert snapshot(data) == before


def test_what_is_no_network_is_refused(clocks, data):
    PLSClock.setup_anndata(data, **SETUP)
    linear = PLSClock(data)
    linear.train()
    with pytest.raises(
        TypeError, match="clock is a PLSClock, which has no network of layers to freeze.* or TransformerClock"
    ):
        of(linear, data)
    with pytest.raises(TypeError, match="clock is a EnsembleClock, which has no network"):
        of(agevi.model.EnsembleClock([linear]), data)
    with pytest.raises(TypeError, match="clock is a str; pass a trained network clock"):
        of("clock", data)
    MLPClock.setup_anndata(data, **SETUP)
    with pytest.raises(RuntimeError, match=r"call model.train\(\) or MLPClock.load"):
        of(MLPClock(data, n_hidden=[4]), data)


def test_a_classifier_is_no_clock(clocks, data):
    model = of(clocks("MLPClock"), data)
    with pytest.raises(RuntimeError, match=r"call model.train\(\) or CaseControlClassifier.load"):
        model.predict_proba()
    model.train(max_epochs=1)
    with pytest.raises(TypeError, match=r"tl.predict_age needs .* log-odds; pass .* call model.predict_proba\(adata\)"):
        agevi.tl.predict_age(data, model)
    with pytest.raises(TypeError, match=r"for clocks\[0\], needs .* this CaseControlClassifier predicts log-odds"):
        agevi.model.EnsembleClock([model])
    with pytest.raises(TypeError, match="predicts log-odds; pass the clock that it was made from"):
        of(model, data)
    assert not hasattr(model, "predict_age")


def test_bad_training(clocks, data):
    model = of(clocks("MLPClock"), data)
    data.obs["other"] = np.where(data.obs["condition"] == "case", "train", "test")
    for arguments, error, words in (
        ({"split_key": "other"}, ValueError, "training subjects with a condition: 12 of 'case' and 0 of 'control'; 1 or more of each are needed."),
        ({"split_key": "nothing"}, KeyError, "split_key='nothing' is not a column"),
        ({"train_roles": ("all",)}, ValueError, "train_roles='all' is not known"),
        ({"train_roles": ()}, ValueError, "train_roles is empty; pass the roles that train"),
        ({"lr": -1}, ValueError, "lr=-1 is not a learning rate; pass a positive number, such as 2e-3."),
        ({"lr": 1e30, "max_epochs": 3}, RuntimeError, "lower the learning rate with train(lr=1e-4)"),
    ):  # fmt: skip
        with pytest.raises(error) as raised:
            model.train(**arguments)
        assert words in str(raised.value)
        assert not model.is_trained_
    with pytest.raises(ValueError, match="level='subject' is not known"):
        copy.copy(model).predict_proba(level="subject")


def test_conditions_of_another_spelling_are_named(clocks, data):
    """Cells whose condition is spelt otherwise than in training are unlabelled, which is said."""
    names, subject = ("control", "case"), data.obs["donor"].astype(str)
    data.obs["condition"] = data.obs["condition"].astype(str).replace("control", "Control ")
    with pytest.warns(UserWarning, match="are unlabelled to the classifier, .*'Control ' for 'control'"):
        found = _condition.case_by_subject(data, "condition", names, subject)
    assert set(found.dropna()) == {1.0}
