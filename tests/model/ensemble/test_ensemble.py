from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import agevi
from agevi.io._bundle import BundleError, read_bundle, write_bundle
from agevi.model import ElasticNetClock, EnsembleClock, GaussianVAE, MLPClock, PLSClock, PoissonVAE
from tests.conftest import QUIET
from tests.test_gates import check_message

SETUP = {"age_key": "age", "subject_key": "donor"}
INIT = {
    PoissonVAE: {"n_hidden": [8], "n_latent": 3, "n_head": [4]},
    GaussianVAE: {"n_hidden": [8], "n_latent": 3, "n_head": [4]},
    MLPClock: {"n_hidden": [8], "train_unit": "cell"},
    ElasticNetClock: {"alphas": 10, "l1_ratios": 0.2},
}


def fit(cls, adata, setup=None, train=None, **init):
    cls.setup_anndata(adata, **(SETUP | (setup or {})))
    model = cls(adata, **(INIT.get(cls, {}) | init))
    model.train(**({} if cls in (PLSClock, ElasticNetClock) else {"max_epochs": 2, **QUIET}), **(train or {}))
    return model


@pytest.fixture(scope="module")
def data(_cohort):
    return _cohort.copy()


@pytest.fixture(scope="module")
def members(data):
    """A clock of sums, a network of sums and a network of single cells on one AnnData; tests must not change them."""
    return [fit(PLSClock, data), fit(PoissonVAE, data), fit(MLPClock, data)]


@pytest.fixture
def ensemble(members):
    return EnsembleClock(members)


def log_mean(ages, weights=None, min_age=-1.0):
    logs = np.log(np.maximum(np.asarray(ages, dtype=np.float64), min_age) - min_age + 1)
    return np.exp(np.average(logs, axis=0, weights=weights)) + min_age - 1


def sample_ages(clock, adata):
    """From the sum of a sample, or the mean of its cells."""
    if clock.predicts_sums:
        return clock.predict_age(adata, level="sample")
    donors = adata.obs["donor"].astype(str).to_numpy()
    return pd.Series(clock.predict_age(adata)).groupby(donors).transform("mean").to_numpy()


# --- prediction ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["equal", [3, 1, 2]], ids=str)
def test_cells_and_samples_are_means_on_the_log_scale(data, members, weights):
    model = EnsembleClock(members, weights=weights)
    own = None if weights == "equal" else weights
    got = model.predict_age(data)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, log_mean([c.predict_age(data) for c in members], own), rtol=1e-5)
    expected = log_mean([sample_ages(c, data) for c in members], own)
    np.testing.assert_allclose(model.predict_age(data, level="sample"), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_age_scale(data, members):
    model = EnsembleClock(members, scale="age")
    expected = np.mean([c.predict_age(data) for c in members], axis=0)
    np.testing.assert_allclose(model.predict_age(data), expected, rtol=1e-5)
    assert model.age_transform == "none"


@pytest.mark.slow
def test_indices_new_order_and_data_of_the_members(data, ensemble):
    whole = ensemble.predict_age(data)
    np.testing.assert_array_equal(ensemble.predict_age(), whole)
    np.testing.assert_allclose(ensemble.predict_age(indices=[7, 3]), whole[[7, 3]], rtol=1e-5)
    np.testing.assert_allclose(ensemble.predict_age(data[:, ::-1].copy()), whole, rtol=1e-4)
    rows = np.flatnonzero((data.obs["donor"] == data.obs["donor"].iloc[0]).to_numpy())
    some = ensemble.predict_age(indices=rows, level="sample")
    np.testing.assert_allclose(some, ensemble.predict_age(level="sample")[rows], rtol=1e-5)


@pytest.mark.slow
def test_members_match_genes_by_themselves(data):
    first, second = data[:, :50].copy(), data[:, :9:-1].copy()
    members = [fit(PLSClock, first), fit(PLSClock, second)]
    model = EnsembleClock(members)
    assert list(model.genes) == [*first.var_names, *[g for g in second.var_names if g not in set(first.var_names)]]
    expected = log_mean([members[0].predict_age(first), members[1].predict_age(second)])
    np.testing.assert_allclose(model.predict_age(data), expected, rtol=1e-5)
    with pytest.raises(RuntimeError, match="this EnsembleClock has no data"):
        model.predict_age()
    with pytest.raises(ValueError, match="15 of the clock's 50 genes are absent"):
        model.predict_age(first[:, 15:].copy())
    lacking = data[:, 12:].copy()  # 12 of 50 genes are absent from the first, 2 from the second
    agevi.tl.predict_age(lacking, model, min_gene_coverage=0.7)
    assert lacking.uns["agevi"]["gene_coverage"] == pytest.approx(38 / 50)


def test_tl_predict_age(data, members, ensemble):
    adata = data.copy()
    agevi.tl.predict_age(adata, ensemble)
    expected = ensemble.predict_age(level="sample")
    for column in ("agevi_predicted", "agevi_predicted_sample"):
        np.testing.assert_array_equal(adata.obs[column], expected)
    agevi.tl.predict_age(adata, ensemble, cell_type_key="cell_type")
    cells = pd.Series(log_mean([c.predict_age(data) for c in members]), data.obs_names)
    expected = cells - cells.groupby(data.obs["cell_type"], observed=True).transform("mean")
    np.testing.assert_allclose(adata.obs["agevi_cell_deviation"], expected, atol=1e-3)
    assert "X_agevi" not in adata.obsm
    assert adata.uns["agevi"]["model"] == "EnsembleClock"
    agevi.tl.aggregate_subjects(adata)
    assert len(adata.uns["agevi_subjects"]) == 24


def test_without_ages_and_for_new_subjects(data, ensemble):
    new = data.copy()
    del new.obs["age"]
    new.obs["donor"] = "new " + new.obs["donor"].astype(str)
    agevi.tl.predict_age(new, ensemble)
    assert (new.obs["agevi_role"] == "new").all()
    np.testing.assert_array_equal(new.obs["agevi_predicted"], ensemble.predict_age(data, level="sample"))


@pytest.mark.slow
def test_backed_data(data, ensemble, tmp_path):
    plain = data[:, :].copy()
    plain.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for level in ("cell", "sample"):
        np.testing.assert_allclose(
            ensemble.predict_age(backed, level=level), ensemble.predict_age(level=level), rtol=1e-5
        )
    backed.file.close()


def test_clocks_of_single_cells_alone_predict_no_sums(data, members):
    model = EnsembleClock([members[2]])
    assert not model.predicts_sums
    np.testing.assert_allclose(model.predict_age(data), members[2].predict_age(data), rtol=1e-5)
    with pytest.raises(ValueError, match="level='sample' needs a clock that was trained on sums"):
        model.predict_age(data, level="sample")


@pytest.mark.slow
def test_samples_by_visit(data):
    adata = data.copy()
    adata.obs["visit"] = adata.obs["donor"].astype(str) + np.where(np.arange(adata.n_obs) % 2, "a", "b")
    setup = {"sample_key": "visit"}
    clocks = [fit(PLSClock, adata, setup), fit(MLPClock, adata, setup)]
    cells = pd.Series(clocks[1].predict_age(adata)).groupby(adata.obs["visit"].to_numpy()).transform("mean")
    expected = log_mean([clocks[0].predict_age(adata, level="sample"), cells])
    np.testing.assert_allclose(EnsembleClock(clocks).predict_age(adata, level="sample"), expected, rtol=1e-5)


# --- roles and weights ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_use_of_a_subject_counts(data):
    adata = data.copy()
    donors = adata.obs["donor"].astype(str)
    roles = adata.obs.groupby(donors)["agevi_split"].first().astype(str)
    other = roles.copy()
    train, test = roles.index[roles == "train"], roles.index[roles == "test"]
    validation = roles.index[roles == "validation"]
    other[train[0]], other[test[0]], other[test[1]], other[validation[0]] = "test", "train", "validation", "test"
    adata.obs["other"] = donors.map(other).to_numpy()
    part = adata[donors != test[2]].copy()  # the second clock never saw test[2]
    model = EnsembleClock([fit(PLSClock, adata), fit(ElasticNetClock, part, train={"split_key": "other"})])
    expected = roles.copy()
    expected[test[0]], expected[test[1]] = "train", "validation"
    assert model.split_ == expected.to_dict()
    agevi.tl.predict_age(adata, model)
    got = adata.obs.groupby(donors)["agevi_role"].first().astype(str)
    assert (got == expected).all()


def test_inner_weights_are_one_over_the_validation_error(data, members):
    validation = (data.obs["agevi_split"] == "validation").to_numpy()
    donors = data.obs["donor"].astype(str).to_numpy()
    chosen = [members[0], members[2]]
    errors = []
    for clock in chosen:
        frame = pd.DataFrame({"p": sample_ages(clock, data), "a": data.obs["age"].to_numpy()})[validation]
        means = frame.groupby(donors[validation]).mean()
        errors.append((means["p"] - means["a"]).abs().mean())
    expected = (1 / np.array(errors)) / (1 / np.array(errors)).sum()
    np.testing.assert_allclose(EnsembleClock(chosen, weights="inner").weights_, expected, rtol=1e-3)


@pytest.mark.slow
def test_test_subjects_do_not_reach_the_weights(data):
    other = data.copy()
    test = (other.obs["agevi_split"] == "test").to_numpy()
    other.obs["age"] = np.where(test, 120 - other.obs["age"], other.obs["age"])
    both = [EnsembleClock([fit(PLSClock, a), fit(ElasticNetClock, a)], weights="inner") for a in (data.copy(), other)]
    np.testing.assert_array_equal(both[0].weights_, both[1].weights_)
    assert both[0].weights_[0] != 0.5


@pytest.mark.slow
def test_inner_weights_need_the_same_validation_subjects(data, members):
    final = fit(PLSClock, data.copy(), train={"train_roles": ("train", "validation")})
    with pytest.raises(ValueError, match="needs the error") as raised:
        EnsembleClock([members[0], final], weights="inner")
    check_message(
        raised, "weights='inner' needs the error on validation subjects, and clocks[1], a PLSClock, held none out"
    )
    other = data.copy()
    agevi.pp.split_subjects(other, subject_key="donor", age_key="age", rng=5)
    with pytest.raises(ValueError, match="differ") as raised:
        EnsembleClock([members[0], fit(PLSClock, other)], weights="inner")
    check_message(
        raised, "weights='inner' compares errors on the same validation subjects; those of clocks[0] and clocks[1]"
    )
    # the weights of an ensemble made before the final training serve the final clocks
    before = EnsembleClock(members[:2], weights="inner")
    after = EnsembleClock([final, members[1]], weights=before.weights_)
    np.testing.assert_array_equal(after.weights_, before.weights_)


@pytest.mark.slow
def test_members_are_copies(data):
    adata = data.copy()
    member = fit(PLSClock, adata)
    model = EnsembleClock([member])
    before, split = model.predict_age(data), dict(model.split_)
    member.train(train_roles=("train", "validation", "test"))
    assert not np.array_equal(member.predict_age(data), before)
    np.testing.assert_array_equal(model.predict_age(data), before)
    assert model.split_ == split


# --- what it is ----------------------------------------------------------------------------------------------


def test_it_is_no_clock_to_train(ensemble):
    assert not EnsembleClock.trainable
    for verb in ("setup_anndata", "train", "history", "get_latent_representation"):
        assert not hasattr(ensemble, verb)
    with pytest.raises(AttributeError, match="EnsembleClock has no train: train its members"):
        ensemble.train()
    assert ensemble.is_trained
    assert str(ensemble.summary_string).startswith(
        "EnsembleClock: mean on the log scale of PLSClock 0.33, PoissonVAE 0.33"
    )


def test_the_strictest_member_decides(data, members):
    loose = EnsembleClock([members[0], members[2]])
    assert (members[1].expects, loose.expects, EnsembleClock(members).expects) == ("counts", "any", "counts")
    floats = data.copy()
    floats.X = floats.X.astype(np.float32) * 0.5
    with pytest.raises(ValueError, match="raw counts"):
        EnsembleClock(members).predict_age(floats)


@pytest.mark.slow
def test_clocks_that_read_different_layers(data):
    adata = data.copy()
    adata.layers["log"] = np.log1p(np.asarray(adata.X.todense()))
    clocks = [fit(PLSClock, adata), fit(GaussianVAE, adata, {"layer": "log", "normalize": "none"})]
    model = EnsembleClock(clocks)
    assert model.setup_args["layer"] is None
    np.testing.assert_allclose(model.predict_age(adata), log_mean([c.predict_age(adata) for c in clocks]), rtol=1e-5)


@pytest.mark.slow
def test_the_lowest_age_is_that_of_the_members(data):
    clocks = [fit(PLSClock, data.copy(), {"min_age": low}) for low in (0.0, -5.0)]
    got = EnsembleClock(clocks).predict_age(data)
    np.testing.assert_allclose(got, log_mean([c.predict_age(data) for c in clocks], min_age=-5.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("clocks", "error", "message"),
    [
        pytest.param(lambda m: m[0], TypeError, "clocks is a PLSClock; pass a list of trained clocks.", id="one clock"),
        pytest.param(lambda m: [], TypeError, "clocks is empty; pass a list of trained clocks.", id="none"),
        pytest.param(lambda m: [m[0], "x"], TypeError, "clocks[1] is a str; pass trained clocks", id="text"),
        pytest.param(
            lambda m: [PLSClock], TypeError, "clocks[0] is the class PLSClock; pass trained clocks", id="class"
        ),
    ],
)
def test_what_is_no_clock_is_refused(members, clocks, error, message):
    with pytest.raises(error) as raised:
        EnsembleClock(clocks(members))
    check_message(raised, message)


@pytest.mark.slow
def test_bad_arguments(data, members):
    adata = data.copy()
    PLSClock.setup_anndata(adata, **SETUP)
    with pytest.raises(RuntimeError) as raised:
        EnsembleClock([members[0], PLSClock(adata)])
    check_message(raised, "EnsembleClock, for clocks[1], needs a trained model; call model.train()")
    months = fit(PLSClock, data.copy(), {"age_unit": "months"})
    with pytest.raises(ValueError, match="clocks differ") as raised:
        EnsembleClock([members[0], months])
    check_message(raised, "clocks differ in age_unit: 'years' (PLSClock), 'months' (PLSClock);")
    adata.obs["person"] = adata.obs["donor"]
    with pytest.raises(ValueError, match="clocks differ in subject_key: 'donor'"):
        EnsembleClock([members[0], fit(PLSClock, adata, {"subject_key": "person"})])
    with pytest.raises(ValueError, match="scale='sqrt' is not known; choose one of 'log', 'age'"):
        EnsembleClock(members, scale="sqrt")


# --- saving and loading --------------------------------------------------------------------------------------


@pytest.fixture
def bundle(members, tmp_path):
    EnsembleClock(members, weights=[0.5, 0.2, 0.3]).save(tmp_path / "clock")
    return tmp_path / "clock"


@pytest.mark.slow
@pytest.mark.parametrize("load", [agevi.io.load_clock, EnsembleClock.load], ids=["load_clock", "load"])
def test_a_loaded_ensemble_is_the_same(data, members, bundle, load, tmp_path):
    model, clock = EnsembleClock(members, weights=[0.5, 0.2, 0.3]), load(bundle)
    assert type(clock) is EnsembleClock
    for level in ("cell", "sample"):
        np.testing.assert_array_equal(clock.predict_age(data, level=level), model.predict_age(data, level=level))
    np.testing.assert_array_equal(clock.weights_, model.weights_)
    assert (clock.split_, clock.scale, clock.age_summary_) == (model.split_, model.scale, model.age_summary_)
    assert [type(c) for c in clock.clocks] == [type(c) for c in members]
    assert list(clock.clocks[0].history) == list(members[0].history)
    clock.save(tmp_path / "again")
    for file in bundle.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(RuntimeError, match="this EnsembleClock has no data"):
        clock.predict_age()
    np.testing.assert_array_equal(agevi.io.load_clock(bundle, data).predict_age(), model.predict_age(data))


@pytest.mark.slow
def test_an_ensemble_in_an_ensemble(data, members, tmp_path):
    inner = EnsembleClock(members[:2])
    model = EnsembleClock([inner, members[2]])
    np.testing.assert_allclose(
        model.predict_age(data), log_mean([inner.predict_age(data), members[2].predict_age(data)]), rtol=1e-5
    )
    model.save(tmp_path / "clock")
    np.testing.assert_array_equal(agevi.io.load_clock(tmp_path / "clock").predict_age(data), model.predict_age(data))


def test_one_bundle_of_three_files(bundle):
    assert sorted(f.name for f in bundle.iterdir()) == ["README.md", "clock.json", "weights.safetensors"]
    meta = json.loads((bundle / "clock.json").read_text())
    assert [m["class"] for m in meta["members"]] == ["PLSClock", "PoissonVAE", "MLPClock"]
    card = (bundle / "README.md").read_text()
    for text in ("EnsembleClock of 3", "| PLSClock | 0.500 | 16 subjects", "60 genes", "load_clock", "log(age"):
        assert text in card


def test_files_that_were_edited_are_refused(bundle):
    document = bundle / "clock.json"
    document.write_text(document.read_text().replace('"scale": "log"', '"scale": "age"'))
    with pytest.raises(BundleError, match="was edited or damaged"):
        agevi.io.load_clock(bundle)


def test_a_planted_pickle_is_refused(bundle):
    (bundle / "model.pt").write_bytes(b"\x80\x04planted")
    with pytest.raises(BundleError, match="a pickle, which agevi neither writes nor opens"):
        agevi.io.load_clock(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda m, t: t.update({"clocks.7.x": torch.zeros(1)}), "do not fit a EnsembleClock", id="no member's"
        ),
        pytest.param(lambda m, t: t.pop("clocks.0.intercept"), "do not fit a PLSClock", id="tensor missing"),
        pytest.param(lambda m, t: m["members"][1].update({"class": "os"}), "holds a clock of class 'os'", id="class"),
        pytest.param(lambda m, t: m.update({"members": []}), "holds an ensemble without members", id="no members"),
        pytest.param(lambda m, t: m.update({"members": ["x"]}), "holds an ensemble without members", id="text"),
    ],
)
def test_valid_bundles_of_something_else_are_refused(bundle, change, message):
    found = read_bundle(bundle)
    change(found.meta, found.tensors)
    write_bundle(bundle, found.meta, found.tensors, found.card, overwrite=True)
    with pytest.raises(BundleError, match=message):
        agevi.io.load_clock(bundle)


def test_another_class_is_refused(bundle):
    with pytest.raises(ValueError, match="holds a EnsembleClock, not a PLSClock; use EnsembleClock.load"):
        PLSClock.load(bundle)


def test_devices(ensemble):
    ensemble.to_device("cpu")
    assert str(ensemble.device) == "cpu"
    assert ensemble.module.clocks[0] is ensemble.clocks[0].module
