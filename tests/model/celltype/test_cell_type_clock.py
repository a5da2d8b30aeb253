from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io._bundle import BundleError, read_bundle, write_bundle
from agevi.model import CellTypeClock, EnsembleClock, MLPClock, PLSClock
from tests.conftest import QUIET

pytestmark = pytest.mark.slow  # clocks of several types, each trained on held-out folds
SETUP = {"age_key": "age", "subject_key": "donor", "cell_type_key": "cell_type"}


def fit(adata, setup=None, train=None, **init):
    CellTypeClock.setup_anndata(adata, **(SETUP | (setup or {})))
    model = CellTypeClock(adata, **({"min_cells": 3, "n_folds": 3} | init))
    model.train(**(train or {}))
    return model


@pytest.fixture(scope="module")
def _data():
    adata = agevi.datasets.simulate_cohort(
        30, 30, 50, n_cell_types=2, ageing_rates=[1, -1], effect_range=(0.1, 0.3), composition_sd=0.8, rng=1
    )
    adata.obs["everybody"] = "train"
    return adata


@pytest.fixture(scope="module")
def _model(_data):
    return fit(_data.copy(), train={"split_key": "everybody"}, composition=True)


@pytest.fixture
def data(_data):
    return _data.copy()


@pytest.fixture
def model(_model):
    """Trained on all subjects; tests must not change it."""
    return _model


def test_members_are_the_clocks_of_the_types(model, data):
    """One alone, trained on the same cells with the same seed."""
    name, clock = next(iter(model.type_clocks.items()))
    own = data[data.obs["cell_type"] == name].copy()
    n = own.obs.groupby("donor", observed=True)["age"].transform("size")
    own = own[(n >= 3).to_numpy()].copy()
    PLSClock.setup_anndata(own, age_key="age", subject_key="donor")
    alone = PLSClock(own, rng=clock.init_args["rng"])
    alone.train(split_key="everybody")
    expected = pd.Series(alone.predict_age(level="sample"), index=own.obs["donor"].astype(str)).groupby(level=0).first()
    found = model.predict_types(data)[name].dropna()
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-6)


def test_ages_are_the_weighted_ages_of_the_types(model, data):
    types = model.predict_types(data)
    assert list(types) == ["type0", "type1", "composition"]
    whole = types.dropna()
    parts = model.predict_parts(data)
    weights = pd.DataFrame(parts.weights, parts.samples, parts.columns).loc[whole.index]
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    ages = pd.Series(model.predict_age(data, level="sample"), index=data.obs["donor"].astype(str)).groupby(level=0)
    np.testing.assert_allclose(ages.first()[whole.index], (whole * weights).sum(axis=1), rtol=1e-5)
    assert (ages.nunique() == 1).all()
    assert model.weights_.sum() == pytest.approx(1)
    lacking = types[types.isna().any(axis=1)]
    assert len(lacking)  # and they are predicted all the same
    assert np.isfinite(ages.first()[lacking.index]).all()


@pytest.mark.parametrize("clock", ["PLSClock", "ElasticNetClock"])
def test_sums_that_fits_share_change_nothing(data, monkeypatch, clock):
    def fitted():
        model = fit(data.copy(), clock=clock, n_folds=2, train={"split_key": "everybody"})
        return model, model.predict_types()

    shared, of_shared = fitted()
    monkeypatch.setattr(agevi.model.linear._base, "is_for_ages_alone", lambda: False)
    monkeypatch.setattr(getattr(agevi.model, clock), "share_sums", lambda self: None)
    alone, of_alone = fitted()
    pd.testing.assert_frame_equal(shared.errors_, alone.errors_, rtol=1e-6)
    pd.testing.assert_frame_equal(of_shared, of_alone, rtol=1e-6)
    for name, member in shared.type_clocks.items():
        for key, values in alone.type_clocks[name].history_.items():
            np.testing.assert_allclose(member.history_[key], values, rtol=1e-6)
        offset = alone.type_clocks[name].module.cell_offset
        assert float(member.module.cell_offset) == pytest.approx(float(offset), rel=1e-6)
        assert float(offset) != 0


def test_the_mean_weighs_all_types_the_same(data):
    model = fit(data, combine="mean", train={"split_key": "everybody"})
    np.testing.assert_allclose(model.weights_, 0.5)
    assert model.errors_.empty
    expected = model.predict_types().mean(axis=1)
    ages = pd.Series(model.predict_age(level="sample"), index=data.obs["donor"].astype(str)).groupby(level=0).first()
    np.testing.assert_allclose(ages, expected[ages.index], rtol=1e-6)


def test_held_out_errors_are_of_training_subjects_alone(data):
    agevi.pp.split_subjects(data, subject_key="donor", age_key="age", rng=0)
    model = fit(data)
    trained = [name for name, role in model.split_.items() if role == "train"]
    assert set(model.errors_.index) <= set(trained)
    inside = model.predict_types().sub(data.obs.groupby("donor", observed=True)["age"].first(), axis=0)
    assert model.errors_.abs().mean().min() > inside.loc[model.errors_.index].abs().mean().min()


def test_shuffled_ages_give_nothing(data):
    age = data.obs.groupby("donor", observed=True)["age"].first()
    drawn = pd.Series(np.random.default_rng(3).permutation(age), index=age.index)
    data.obs["age"] = data.obs["donor"].map(drawn).astype(float)
    model = fit(data, composition=True, train={"split_key": "everybody"})
    errors = model.errors_.dropna()
    held_out = errors.add(drawn[errors.index], axis=0) @ model.weights_
    assert np.corrcoef(held_out, drawn[errors.index])[0, 1] < 0.4


def test_types_with_too_few_subjects_are_named(data):
    rare = data.obs_names[(data.obs["cell_type"] == "type0").to_numpy()][:6]
    data.obs["cell_type"] = data.obs["cell_type"].astype(str)
    data.obs.loc[rare, "cell_type"] = "rare"
    with pytest.warns(UserWarning, match=r"1 of the 3 types in adata.obs\['cell_type'\] lack .*: 'rare'"):
        model = fit(data, combine="mean", train={"split_key": "everybody"})
    assert set(model.type_clocks) == {"type0", "type1"}
    data.obs["cell_type"] = [f"t{i}" for i in range(data.n_obs)]
    with pytest.raises(ValueError, match=r"no type in .* enough cells per sample \(min_cells=3\); lower it"):
        fit(data, train={"split_key": "everybody"})


def test_samples_without_types_do_not_train_the_composition(data):
    bare = data.obs["donor"].isin(data.obs["donor"].cat.categories[:2]).to_numpy()
    typed = data[~bare].copy()
    data.obs["cell_type"] = data.obs["cell_type"].astype(object).where(~bare)
    options = {"composition": True, "n_folds": 2, "train": {"split_key": "everybody"}}
    composition, expected = (fit(of, **options)._composition for of in (data, typed))
    np.testing.assert_allclose(composition.table(), expected.table())


def test_unknown_and_missing_types(model, data, caplog):
    data.obs["cell_type"] = data.obs["cell_type"].astype(str)
    one = data[(data.obs["cell_type"] == "type1").to_numpy()].copy()
    with caplog.at_level(logging.WARNING, logger="agevi"):
        ages = model.predict_age(one, level="sample")
    assert "no cells of 1 of the clock's 2 types ('type0')" in caplog.text
    assert "their composition is not read" in caplog.text
    expected = model.predict_types(one)["type1"].dropna()
    known = one.obs["donor"].isin(expected.index).to_numpy()
    np.testing.assert_allclose(ages[known], expected[one.obs["donor"].astype(str)[known]], rtol=1e-6)
    assert np.isfinite(ages).all()

    caplog.clear()
    strange = data.copy()
    strange.obs.loc[strange.obs_names[::7], "cell_type"] = "B cell"
    with caplog.at_level(logging.WARNING, logger="agevi"):
        found = model.predict_types(strange)
    assert "are of types that the clock never saw and are not read ('B cell')" in caplog.text
    kept = data[(strange.obs["cell_type"] != "B cell").to_numpy()].copy()
    pd.testing.assert_frame_equal(found, model.predict_types(kept))

    strange.obs["cell_type"] = "B cell"
    with pytest.raises(ValueError, match="holds 'B cell', and the clock reads 'type0', 'type1'"):
        model.predict_age(strange, level="sample")
    del strange.obs["cell_type"]
    with pytest.raises(KeyError, match="cell_type_key='cell_type' is not a column"):
        model.predict_types(strange)


def test_samples_with_few_cells(model, data, caplog):
    first = data.obs["donor"].iloc[0]
    of_first = (data.obs["donor"] == first).to_numpy()
    few = data[np.r_[np.flatnonzero(of_first)[:2], np.flatnonzero(~of_first)]].copy()
    with caplog.at_level(logging.WARNING, logger="agevi"):
        ages = model.predict_age(few, level="sample")
    assert np.isfinite(ages).all()
    assert "1 of 30 samples have too few cells of each type of the clock (min_cells=3) and are predicted" in caplog.text
    assert model.predict_types(few).loc[first].isna().all()
    few.obs["cell_type"] = few.obs["cell_type"].astype(str)
    few.obs.loc[few.obs_names[:2], "cell_type"] = "B cell"
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="agevi"):
        ages = model.predict_age(few, level="sample")
    assert np.isnan(ages[:2]).all()
    assert np.isfinite(ages[2:]).all()
    assert "1 of 30 samples have no cells of a type of the clock and are not predicted" in caplog.text


def test_cells_are_read_by_the_clock_of_their_type(model, data):
    ages = model.predict_age(data)
    for name, clock in model.type_clocks.items():
        own = np.flatnonzero((data.obs["cell_type"] == name).to_numpy())
        np.testing.assert_array_equal(ages[own], clock.predict_age(data, indices=own))


def test_one_bundle(model, data, tmp_path):
    model.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock")
    new = data[:, ::-1].copy()
    del new.obs["age"]
    np.testing.assert_array_equal(clock.predict_age(new, level="sample"), model.predict_age(data, level="sample"))
    pd.testing.assert_series_equal(clock.weights_, model.weights_)
    assert clock.split_ == model.split_
    card = (tmp_path / "clock" / "README.md").read_text()
    assert "CellTypeClock, PLSClock per type of cells" in card
    assert "| type1 |" in card
    bundle = read_bundle(tmp_path / "clock")
    for key, value in {"members": [], "columns": ["type0"], "types": "type0", "usual": None}.items():
        write_bundle(tmp_path / "other", bundle.meta | {key: value}, bundle.tensors, "", overwrite=True)
        with pytest.raises(BundleError):
            agevi.io.load_clock(tmp_path / "other")


def test_a_type_that_too_few_subjects_have_to_be_held_out(data, tmp_path):
    """It has a clock, errors that nobody knows, and no weight beside others; and the clock is saved."""
    data.obs["cell_type"] = data.obs["cell_type"].astype(str)
    for donor in data.obs["donor"].cat.categories[[0, 10, 20]]:
        data.obs.loc[data.obs_names[(data.obs["donor"] == donor).to_numpy()][:3], "cell_type"] = "rare"
    model = fit(data, train={"split_key": "everybody"}, n_folds=3)
    assert model.errors_["rare"].isna().all()
    assert model.weights_["rare"] == 0
    model.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock")
    pd.testing.assert_frame_equal(clock.predict_types(data), model.predict_types(data))
    alone = data[(data.obs["cell_type"] == "rare").to_numpy()].copy()
    assert np.isfinite(clock.predict_age(alone, level="sample")).all()


def test_a_loaded_clock_is_trained_again(model, data, tmp_path):
    model.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock", data)
    clock.train(split_key="everybody")
    np.testing.assert_allclose(clock.predict_types(), model.predict_types(data), rtol=1e-5)


@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_networks_are_members(data, unit):
    few = data[data.obs["donor"].isin(data.obs["donor"].cat.categories[:12])].copy()
    model = fit(
        few,
        clock=MLPClock,
        clock_kwargs={"n_hidden": [4], "train_unit": unit},
        n_folds=2,
        train={"max_epochs": 2, **QUIET},
    )
    assert np.isfinite(model.predict_age(level="sample")).all()
    assert model.chooses_epochs(model.init_args) == (unit == "cell")
    if unit == "cell":
        assert set(model.best_epoch_) == {"type0", "type1"}
        model.train(model.best_epoch_, train_roles=("train", "validation"), **QUIET)
        with pytest.raises(ValueError, match="'type2'.*'type0', 'type1'"):
            model.train({"type2": 2}, **QUIET)


def test_an_ensemble_holds_one(model, data):
    other = fit(data, combine="mean", train={"split_key": "everybody"})
    both = EnsembleClock([model, other], scale="age")
    expected = (model.predict_age(data, level="sample") + other.predict_age(data, level="sample")) / 2
    np.testing.assert_allclose(both.predict_age(data, level="sample"), expected, rtol=1e-5)
    agevi.tl.predict_age(data, both)
    assert data.uns["agevi"]["age_transform"] == "none"
    for tool in (agevi.tl.attribute_genes, agevi.tl.perturb_genes):
        for clock in (both, EnsembleClock([both])):
            with pytest.raises(ValueError, match="holds a CellTypeClock, .*attribute each of model.clocks"):
                tool(data, clock)


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        ({"clock": "PLS"}, ValueError, "'PLS' is not the name of a clock"),
        ({"clock": CellTypeClock}, ValueError, "clock is CellTypeClock, whose members"),
        ({"clock": EnsembleClock}, ValueError, "EnsembleClock is not trained on ages"),
        ({"clock_kwargs": {"method": "pls", "foo": 1}}, TypeError, "clock_kwargs holds 'foo', which PLSClock"),
        ({"clock_kwargs": [1]}, TypeError, "clock_kwargs is a list"),
        ({"combine": "median"}, ValueError, "combine='median'"),
        ({"composition": 1}, TypeError, "composition=1 is a int"),
        ({"min_cells": 0}, ValueError, "min_cells=0"),
    ],
)
def test_bad_arguments(data, init, error, message):
    CellTypeClock.setup_anndata(data, **SETUP)
    with pytest.raises(error, match=message):
        CellTypeClock(data, **init)


def test_bad_types(data):
    data.obs["none"] = np.nan
    with pytest.raises(ValueError, match=r"adata.obs\['none'\] is missing in all cells; cell_type_key"):
        CellTypeClock.setup_anndata(data, **(SETUP | {"cell_type_key": "none"}))
    data.obs["named"] = np.where(data.obs["cell_type"] == "type0", "composition", "b")
    with pytest.raises(ValueError, match="a type called 'composition'"):
        fit(data, setup={"cell_type_key": "named"}, composition=True)


class TestCrossValidation:
    KEYS = {"age_key": "age", "subject_key": "donor"}
    TYPED = {"setup_kwargs": {"cell_type_key": "cell_type"}, "model_kwargs": {"min_cells": 3, "n_folds": 2}}

    def test_types_are_those_of_groupby(self, data):
        other = data.copy()
        agevi.tl.cross_validate(data, CellTypeClock, **self.KEYS, **self.TYPED, n_folds=3)
        agevi.tl.cross_validate(other, PLSClock, **self.KEYS, groupby="cell_type", min_cells=3, n_folds=3)
        found, expected = data.uns["agevi_by_group"], other.uns["agevi_by_group"]
        columns = ["sample", "group", "subject", "age", "predicted", "n_cells", "fold"]
        pd.testing.assert_frame_equal(found[columns], expected[columns])
        combined = found.groupby("sample")["combined"].first()
        agevi.tl.aggregate_subjects(data)
        table = agevi.get.subjects_df(data).set_index("sample")
        np.testing.assert_allclose(table["predicted"], combined[table.index], rtol=1e-5)
        whole = found.groupby("sample")["predicted"].transform("count") > 0
        product = (found["weight"] * found["predicted"])[whole].groupby(found["sample"]).sum()
        np.testing.assert_allclose(product, combined[product.index], rtol=1e-5)
        by_type = []
        for adata in (data, other):
            agevi.tl.aggregate_subjects(adata)
            agevi.tl.evaluate_by(adata, groupby="cell_type")
            by_type.append(agevi.get.metrics_by_df(adata).query("groupby == 'cell_type'").reset_index(drop=True))
        pd.testing.assert_frame_equal(*by_type)

    def test_checkpoints_and_rows_of_a_leaderboard(self, data, tmp_path):
        for _ in range(2):
            agevi.tl.cross_validate(
                data, CellTypeClock, **self.KEYS, **self.TYPED, n_folds=2, checkpoint_dir=tmp_path / "folds"
            )
        first = data.uns["agevi_by_group"]
        agevi.tl.cross_validate(data, CellTypeClock, **self.KEYS, **self.TYPED, n_folds=2, key_added="again")
        pd.testing.assert_frame_equal(first, data.uns["again_by_group"])
        models = {"types": (CellTypeClock, self.TYPED), "all cells": PLSClock}
        agevi.tl.compare_models(data, models, **self.KEYS, n_folds=2, n_null_linear=0, n_null_network=0)
        assert {"types", "all cells"} <= set(agevi.get.leaderboard_df(data)["model"])

    @pytest.mark.parametrize("model_cls", [CellTypeClock, [CellTypeClock, PLSClock]], ids=["alone", "in a mean"])
    def test_what_folds_leave_out_is_said_once(self, data, caplog, model_cls):
        """And names arguments as the call takes them; what lacks in the held-out part of a fold alone is not said."""
        types, donor = data.obs["cell_type"].astype(str), data.obs["donor"].astype(str)
        first, second, third = donor.unique()[:3]
        types.iloc[[donor.eq(name).to_numpy().argmax() for name in (first, second)]] = "rare"
        data.obs["cell_type"] = types
        of_second, of_third = (np.flatnonzero(donor == name) for name in (second, third))
        kept = np.setdiff1d(np.arange(data.n_obs), np.r_[of_second[2:], of_third[2:]])
        data = data[kept].copy()
        data.obs.loc[(data.obs["donor"] == third).to_numpy(), "cell_type"] = "rare"
        arguments = self.TYPED
        if isinstance(model_cls, list):
            arguments = {name: {"CellTypeClock": kwargs} for name, kwargs in self.TYPED.items()}
        needs = r"enough cells per sample \(model_kwargs={'min_cells': 3}\), and their cells are not read: 'rare' \(in 3 of 3"
        with caplog.at_level(logging.WARNING, logger="agevi"), pytest.warns(UserWarning, match=needs) as caught:
            agevi.tl.cross_validate(data, model_cls, **self.KEYS, **arguments, n_folds=3)
        said = [warning for warning in caught if "not read" in str(warning.message)]
        assert len(said) == 1
        assert said[0].filename == __file__
        few, none = (record.getMessage() for record in caplog.records)
        assert few == (
            "1 of 30 samples have too few cells of each type of the clock (model_kwargs={'min_cells': 3}) and are "
            f"predicted from what they have: '{second}'."
        )
        assert none == f"1 of 30 samples have no cells of a type of the clock and are not predicted: '{third}'."
        lost = data.obs["agevi_predicted_sample"].isna()
        assert (lost == (data.obs["donor"] == third)).all()

    def test_without_a_column_all_cells_are_of_one_type(self, data, caplog, tmp_path):
        agevi.tl.cross_validate(data, CellTypeClock, **self.KEYS, n_folds=2)
        assert [r.getMessage() for r in caplog.records if "one type" in r.getMessage()] == [
            "CellTypeClock.setup_anndata was given no cell_type_key: all cells count as one type."
        ]
        assert set(data.uns["agevi_by_group"]["group"]) == {"all cells"}
        fit(data, {"cell_type_key": None}, {"split_key": "everybody"}).save(tmp_path / "clock")
        loaded = agevi.io.load_clock(tmp_path / "clock")
        assert list(loaded.predict_types(data)) == ["all cells"]
        with pytest.raises(ValueError, match="with cells = adata\\.$"):
            agevi.tl.cell_age_signal(data, loaded)
        with pytest.raises(ValueError, match="whose groups are the types in the data; leave it out"):
            agevi.tl.attribute_genes(data, loaded, groupby="donor")
        np.testing.assert_allclose(
            loaded.predict_age(data, level="sample"), loaded.type_clocks["all cells"].predict_age(data, level="sample")
        )

    def test_bad_calls(self, data):
        with pytest.raises(KeyError, match="'cell_type_key': 'cluster'"):
            agevi.tl.cross_validate(data, CellTypeClock, **self.KEYS, setup_kwargs={"cell_type_key": "cluster"})
        with pytest.raises(ValueError, match="groupby='cell_type' with CellTypeClock"):
            agevi.tl.cross_validate(data, CellTypeClock, **self.KEYS, **self.TYPED, groupby="cell_type")


class TestGenes:
    def test_every_type_is_attributed_by_its_own_clock(self, model, data):
        agevi.tl.attribute_genes(data, model, n_boot=10)
        record = data.uns["agevi_attribution"]
        assert list(record["groups"]) == ["all", "type0", "type1"]
        assert record["completeness_error"] < 0.05
        for column, (name, clock) in enumerate(model.type_clocks.items(), start=1):
            own = data[(data.obs["cell_type"] == name).to_numpy()].copy()
            n = own.obs.groupby("donor", observed=True)["age"].transform("size")
            own = own[(n >= 3).to_numpy()].copy()
            agevi.tl.attribute_genes(own, clock, n_boot=10)
            for part in ("", "_signed", "_se"):
                slot = f"agevi_attribution{part}"
                np.testing.assert_allclose(data.varm[slot][:, column], own.varm[slot][:, 0], rtol=1e-4, atol=1e-6)

    def test_all_is_what_the_weighted_types_add(self, model, data):
        there = model.predict_types(data)[["type0", "type1"]].notna()
        whole = data[data.obs["donor"].isin(there.index[there.all(axis=1)][:8]).to_numpy()].copy()
        agevi.tl.attribute_genes(whole, model, n_boot=10)
        signed = whole.varm["agevi_attribution_signed"]
        n = whole.obs.groupby(["donor", "cell_type"], observed=True).size().unstack()
        weights = model.type_weights(n.to_numpy(), ["type0", "type1"])
        expected = 0.0
        for donor, weight in zip(n.index, weights, strict=True):
            one = whole[(whole.obs["donor"] == donor).to_numpy()].copy()
            agevi.tl.attribute_genes(one, model, n_boot=2, background=whole)
            expected = expected + one.varm["agevi_attribution_signed"][:, 1:] @ weight / len(n)
        np.testing.assert_allclose(signed[:, 0], expected, rtol=1e-3, atol=1e-4)

    def test_a_background_and_cells_of_types(self, model, data):
        cells = data.obs_names[[3, 40, 41]]
        young = data[(data.obs["age"] < 50).to_numpy()].copy()
        agevi.tl.attribute_genes(data, model, background=young, cells=cells, n_boot=10)
        assert set(np.flatnonzero(np.diff(data.layers["agevi_attribution"].indptr))) == {3, 40, 41}
        one = young[(young.obs["cell_type"] == "type0").to_numpy()].copy()
        with pytest.raises(ValueError, match="background has no cells of a type"):
            agevi.tl.attribute_genes(data, model, background=one)

    def test_perturbations(self, model, data):
        there = model.predict_types(data)[["type0", "type1"]].notna()
        whole = data[data.obs["donor"].isin(there.index[there.all(axis=1)]).to_numpy()].copy()
        gene = str(data.var_names[0])
        agevi.tl.perturb_genes(whole, model, [gene], factor=2)
        change = agevi.get.perturbation_df(whole).set_index("group")["change"]
        for name, clock in model.type_clocks.items():
            own = whole[(whole.obs["cell_type"] == name).to_numpy()].copy()
            agevi.tl.perturb_genes(own, clock, [gene], factor=2)
            assert change[name] == pytest.approx(agevi.get.perturbation_df(own)["change"].iloc[0], rel=1e-4)
        low, high = sorted(change[["type0", "type1"]])
        assert low - 0.1 <= change["all"] <= high + 0.1

    def test_cells_without_a_type_are_of_none(self, data):
        data.obs["cell_type"] = data.obs["cell_type"].astype(object).replace({"type0": ""})
        model = fit(data, combine="mean", train={"split_key": "everybody"})
        data.obs.loc[data.obs_names[::3], "cell_type"] = np.nan
        typed = data[data.obs["cell_type"].notna().to_numpy()].copy()
        for cells in (data, typed):
            agevi.tl.attribute_genes(cells, model, n_boot=2)
        np.testing.assert_allclose(data.varm["agevi_attribution"], typed.varm["agevi_attribution"], rtol=1e-5)

    def test_an_unknown_type_may_have_the_name_of_the_sum(self, model, data):
        data.obs["cell_type"] = data.obs["cell_type"].astype(str)
        data.obs.loc[data.obs_names[::5], "cell_type"] = "all"
        known = data[(data.obs["cell_type"] != "all").to_numpy()].copy()
        for cells in (data, known):
            agevi.tl.attribute_genes(cells, model, n_boot=2)
            assert list(cells.uns["agevi_attribution"]["groups"]) == ["all", "type0", "type1"]
        np.testing.assert_allclose(data.varm["agevi_attribution"], known.varm["agevi_attribution"], rtol=1e-5)

    def test_a_known_type_may_not(self, data):
        data.obs["cell_type"] = data.obs["cell_type"].astype(str).replace({"type0": "all"})
        model = fit(data, combine="mean", train={"split_key": "everybody"})
        with pytest.raises(ValueError, match=r"has a type 'all', .* attribute its clock, model.type_clocks\['all'\]"):
            agevi.tl.attribute_genes(data, model)

    def test_data_of_other_types_are_refused(self, model, data):
        for values, held in ((["B cell"], "'B cell'"), ([np.nan], "missing values alone")):
            data.obs["cell_type"] = pd.Series(values * data.n_obs, data.obs_names, dtype=object)
            with pytest.raises(ValueError, match=f"holds {held}, and the clock reads 'type0', 'type1'"):
                agevi.tl.attribute_genes(data, model)

    def test_other_groups_are_refused(self, model, data):
        with pytest.raises(ValueError, match="groupby='sex' with a CellTypeClock"):
            agevi.tl.attribute_genes(data, model, groupby="sex")


def test_no_prediction_depends_on_the_other_samples(model, data):
    types = np.where(data.obs["donor"].isin(data.obs["donor"].cat.categories[:3]), "type1", data.obs["cell_type"])
    data.obs["cell_type"] = types
    whole = pd.Series(model.predict_age(data, level="sample"), index=data.obs["donor"].astype(str)).groupby(level=0)
    for donor in data.obs["donor"].cat.categories[:6]:
        alone = data[(data.obs["donor"] == donor).to_numpy()].copy()
        np.testing.assert_allclose(model.predict_age(alone, level="sample"), whole.first()[donor], rtol=1e-5)
