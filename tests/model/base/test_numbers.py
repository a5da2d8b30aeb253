"""Clocks that bring their intervals and say how good they are: whose numbers they take, and how these travel."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import agevi
from agevi.io._bundle import canonical, sha256
from agevi.io._files import BundleError
from agevi.io._numbers import check_calibration
from agevi.model.base import _fingerprint, _save
from agevi.tl.intervals._conformal import Calibration
from tests.clocks import each_clock
from tests.conftest import QUIET

KEYS = {"age_key": "age", "subject_key": "donor"}
PLS = agevi.model.PLSClock


def everybody(adata, cls=PLS, setup=None, **init):
    """A clock of all subjects."""
    cls.setup_anndata(adata, **KEYS, **(setup or {}))
    model = cls(adata, **init)
    adata.obs["everybody"] = "train"
    model.train(split_key="everybody")
    return model


@pytest.fixture(scope="module")
def calibrated():
    adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=6, n_genes=40)
    adata.var["symbol"] = [f"S{i}" for i in range(adata.n_vars)]
    agevi.tl.cross_validate(adata, PLS, **KEYS)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata, groupby="sex")
    return adata


@pytest.fixture(scope="module")
def clock(calibrated):
    model = everybody(calibrated)
    model.set_calibration(calibrated)
    model.set_evaluation(calibrated, gene_symbols="symbol")
    return model


@pytest.mark.slow
def test_a_saved_clock_gives_new_subjects_intervals(calibrated, clock, tmp_path):
    clock.save(tmp_path / "clock")
    loaded = agevi.io.load_clock(tmp_path / "clock")
    assert loaded.calibration == clock.calibration
    assert loaded.evaluation == clock.evaluation
    new = agevi.datasets.simulate_cohort(n_subjects=15, n_cells=6, n_genes=40, rng=3)
    new.obs["donor"] = "new" + new.obs["donor"].astype(str)
    del new.obs["age"]
    agevi.tl.predict_age(new, loaded)
    agevi.tl.aggregate_subjects(new)
    table = agevi.get.subjects_df(new)
    assert (table["lower"] <= table["predicted"].clip(lower=0)).all()
    assert table["upper"].notna().all()
    width = agevi.get.calibration_df(calibrated).loc[0, "width"]
    assert (table["upper"] - table["lower"]).mean() == pytest.approx(width, rel=0.3)
    again = agevi.tl.predict_age(calibrated, loaded, overwrite=True, copy=True)
    agevi.tl.aggregate_subjects(again)
    assert agevi.get.subjects_df(again)["lower"].isna().all()  # subjects that trained it


@pytest.mark.slow
def test_a_saved_clock_brings_the_errors_that_shrink_a_shift(calibrated, clock, tmp_path):
    clock.save(tmp_path / "clock")
    new = agevi.datasets.simulate_cohort(n_subjects=15, n_cells=6, n_genes=40, rng=3)
    new.obs["donor"] = "new" + new.obs["donor"].astype(str)
    new.obs["known"] = new.obs["age"].where(new.obs["donor"].isin(sorted(set(new.obs["donor"]))[:6]))
    agevi.tl.predict_age(new, agevi.io.load_clock(tmp_path / "clock"))
    agevi.tl.aggregate_subjects(new)
    agevi.tl.recalibrate(new, by=None, labels="known")
    table = agevi.get.subjects_df(new, key_added="recalibrated")
    assert table.groupby("role")["lower"].apply(lambda x: x.notna().all()).to_dict() == {
        "new": True,
        "recalibration": False,
    }
    np.testing.assert_array_equal(
        clock.calibration["residuals"], calibrated.uns["agevi_calibration_params"]["residuals"]
    )


@pytest.mark.parametrize(("low", "high", "unit", "n"), [(45, 60, 1.0, 20), (45, 60, 365.25, 40), (5, 7.5, 12.0, 24)])
def test_calibrations_of_narrow_ages_are_kept(low, high, unit, n):
    """The power law is steep in a narrow range of ages, and its slope and constant large, though its values are not."""
    about = {"guarantee": "approximate", "age_unit": "years", "groupby": "", "roles": ["out_of_fold"], "cohorts": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        age = rng.uniform(low, high, n)
        predicted = age.mean() + 0.4 * (age - age.mean()) + rng.normal(0, (high - low) / 5, n)
        fitted = Calibration.fit(unit * age, unit * predicted, rng.integers(50, 60, n))
        check_calibration(fitted.to_dict() | about | {"n_samples": n, "clock": {}})


@pytest.mark.slow
def test_a_clock_without_calibration_takes_an_old_one_away(calibrated):
    adata = calibrated.copy()
    agevi.tl.predict_age(adata, everybody(adata), overwrite=True)
    assert "agevi_calibration_params" not in adata.uns
    assert "agevi_calibration" not in adata.uns


def test_evaluation_is_that_of_the_held_out_subjects(calibrated, clock):
    found, table = clock.evaluation, agevi.get.subjects_df(calibrated)
    row = agevi.get.metrics_df(calibrated).loc["out_of_fold"]
    for name in ("mae", "mae_low", "mae_high", "mae_median", "slope", "pearson", "spearman", "rmse"):
        assert found[name] == pytest.approx(row[name]), name
    assert (found["n_subjects"], found["n_folds"], found["roles"]) == (40, 5, ["out_of_fold"])
    assert (found["age_min"], found["age_max"]) == (table["age"].min(), table["age"].max())
    report = agevi.get.calibration_df(calibrated).loc[0]
    assert found["intervals"]["coverage"] == report["coverage"]
    assert found["cohorts"] == ["female", "male"]
    expected = [f"S{list(calibrated.var_names).index(g)}" for g in clock.genes]
    assert clock.gene_names["gene_symbols"].tolist() == expected
    found["mae"] = 0.0
    assert clock.evaluation["mae"] > 0  # a copy


def test_the_card_says_how_well(clock, tmp_path):
    clock.save(tmp_path / "clock")
    card = (tmp_path / "clock" / "README.md").read_text()
    found = clock.evaluation
    assert f"mean absolute error {found['mae']:.2f} years [{found['mae_low']:.2f}, {found['mae_high']:.2f}]" in card
    assert "over 40 subjects" in card
    assert "of the same recipe that never saw it (5 folds)" in card
    assert f"predicting the median age for everyone gives {found['mae_median']:.2f}" in card
    assert f"held the age of {100 * found['intervals']['coverage']:.1f} %" in card
    assert "calibrated on 40 subjects of female, male" in card
    assert f'"{clock.genes[0]}" (S' in card


def test_training_again_forgets(calibrated):
    model = everybody(calibrated.copy())
    model.set_calibration(calibrated)
    model.train(split_key="everybody")
    assert model.calibration is None
    assert model.evaluation is None


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["set_calibration", "set_evaluation"])
@pytest.mark.parametrize(
    ("options", "differs"),
    [
        pytest.param({"method": "ridge"}, "arguments of its constructor", id="init"),
        pytest.param({"setup": {"age_transform": "log"}}, "arguments of setup_anndata", id="setup"),
        pytest.param({"cls": agevi.model.ElasticNetClock}, "class", id="class"),
        pytest.param({"setup": {"features": [f"gene{i}" for i in range(20)]}}, "genes", id="genes"),
    ],
)
def test_numbers_of_another_recipe_are_refused(calibrated, verb, options, differs):
    adata = calibrated.copy()
    if "features" in options.get("setup", {}):
        options = {"setup": {"features": list(adata.var_names[:20])}}
    model = everybody(adata, **options)
    with pytest.raises(ValueError, match=rf"is of another clock: .*differs in .*{differs}"):
        getattr(model, verb)(calibrated)
    assert model.calibration is None


@pytest.mark.slow
def test_a_calibration_of_one_clock_fits_it_alone():
    adata = agevi.datasets.simulate_cohort(n_subjects=60, n_cells=5, n_genes=30)
    agevi.pp.split_subjects(adata, **KEYS, test_size=30)
    PLS.setup_anndata(adata, **KEYS)
    model = PLS(adata)
    model.train()
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata, scale="constant")
    assert adata.uns["agevi_calibration_params"]["guarantee"] == "split"
    model.set_calibration(adata)
    model.set_evaluation(adata)
    assert model.evaluation["n_folds"] == 0
    copy = _save.copy_of(model)
    copy.set_calibration(adata)  # the same weights
    other = everybody(adata)
    with pytest.raises(ValueError, match=r"of predictions of one PLSClock, and this PLSClock differs in weights"):
        other.set_calibration(adata)
    # predicting once more gives the same intervals, those of the test subjects without their own part
    before = agevi.get.subjects_df(adata)[["lower", "upper"]]
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    np.testing.assert_allclose(agevi.get.subjects_df(adata)[["lower", "upper"]], before)


@pytest.mark.slow
def test_one_clock_per_type_is_none_for_all_cells():
    adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=60, n_genes=30)
    agevi.tl.cross_validate(adata, PLS, **KEYS, n_folds=2, groupby="cell_type", min_cells=2)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    with pytest.raises(
        ValueError, match=r"differs in being one for all cells, not one per type in adata.obs\['cell_type'\]"
    ):
        everybody(adata).set_calibration(adata)


@pytest.mark.slow
def test_predictions_that_name_no_clock_are_refused(calibrated):
    adata = calibrated.copy()
    adata.uns["agevi_calibration_params"] = {
        k: v for k, v in adata.uns["agevi_calibration_params"].items() if k != "clock"
    }
    with pytest.raises(ValueError, match="does not say which clock its predictions are of"):
        everybody(adata).set_calibration(adata)
    with pytest.raises(KeyError, match=r"run agevi.tl.calibrate\(adata, key_added='x'\) first"):
        everybody(adata).set_calibration(adata, key_added="x")
    with pytest.raises(KeyError, match="gene_symbols='symbols' is not a column of adata.var; closest: 'symbol'"):
        everybody(adata).set_evaluation(adata, gene_symbols="symbols")


@pytest.mark.slow
def test_ensembles_take_the_numbers_of_their_recipe(tmp_path):
    adata = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=5, n_genes=30)
    agevi.tl.cross_validate(adata, [PLS, agevi.model.ElasticNetClock], **KEYS, n_folds=2)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    members = [everybody(adata, agevi.model.ElasticNetClock), everybody(adata)]
    ensemble = agevi.model.EnsembleClock(members)
    ensemble.set_calibration(adata)
    ensemble.set_evaluation(adata)
    with pytest.raises(ValueError, match="out-of-fold predictions of a EnsembleClock"):
        members[0].set_calibration(adata)
    with pytest.raises(ValueError, match="differs in arguments of its constructor"):
        agevi.model.EnsembleClock(members, scale="age").set_calibration(adata)
    ensemble.save(tmp_path / "e")
    loaded = agevi.io.load_clock(tmp_path / "e")
    assert loaded.calibration == ensemble.calibration
    assert "**How well**: mean absolute error" in (tmp_path / "e" / "README.md").read_text()


def test_members_keep_their_own_numbers(clock, tmp_path):
    ensemble = agevi.model.EnsembleClock([clock, clock])
    assert ensemble.calibration is None
    assert ensemble.clocks[0].calibration == clock.calibration
    ensemble.save(tmp_path / "e")
    assert agevi.io.load_clock(tmp_path / "e").clocks[1].evaluation == clock.evaluation


def test_published_clocks_are_calibrated_on_labelled_subjects(tmp_path):
    import pandas as pd

    adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=5, n_genes=30)
    table = pd.DataFrame({"gene": ["intercept", *adata.var_names[:2]], "coef": [50.0, 1.5, -2.0]})
    model = agevi.model.LinearClock.from_coefficients(table)
    agevi.tl.predict_age(adata, model)
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    model.set_calibration(adata)
    model.set_evaluation(adata)
    model.save(tmp_path / "c")
    loaded = agevi.io.load_clock(tmp_path / "c")
    assert loaded.calibration["roles"] == ["new"]
    assert "which this clock never saw in training" in (tmp_path / "c" / "README.md").read_text()
    agevi.tl.predict_age(adata, loaded)
    agevi.tl.aggregate_subjects(adata)
    assert agevi.get.subjects_df(adata)["upper"].notna().all()


SMALL = {"n_hidden": [4], "n_latent": 2}
SHORT = {
    agevi.model.PoissonVAE: SMALL,
    agevi.model.GaussianVAE: SMALL,
    agevi.model.DenoisingVAE: SMALL,
    agevi.model.MLPClock: {"n_hidden": (4,)},
    agevi.model.ElasticNetClock: {"alphas": 10, "l1_ratios": 0.5},
    agevi.model.NMFClock: {"n_components": 5},
    agevi.model.TransformerClock: {"n_tokens": 2},
}


@each_clock
@pytest.mark.parametrize("features", [None, 20], ids=["all genes", "20 genes"])
def test_recipes_and_clocks_of_every_class_are_recognised(cls, features):
    """What cross_validate stores of a class and its arguments is what a clock made with these says of itself."""
    from agevi.tl.validate._cross_validate import fingerprint_of
    from agevi.tl.validate._recipe import recipe_of

    adata = agevi.datasets.simulate_cohort(n_subjects=8, n_cells=5, n_genes=30)
    setup = {} if features is None else {"features": list(adata.var_names[:features])}
    recipe = recipe_of(cls, KEYS | {"sample_key": None}, setup, SHORT.get(cls), {})
    cls.setup_anndata(adata, **KEYS, **setup)
    own = _fingerprint.of_model(cls(adata, **SHORT.get(cls, {}), rng=7))
    assert fingerprint_of(recipe, adata.var_names) == {k: own[k] for k in _fingerprint.KEYS}


@pytest.mark.slow
def test_networks_keep_their_numbers_in_bundles_and_copies(tmp_path):
    adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=6, n_genes=30)
    options = {"n_hidden": [8], "n_latent": 2, "train_unit": "cell"}
    agevi.tl.cross_validate(
        adata, agevi.model.PoissonVAE, **KEYS, n_folds=2, model_kwargs=options, train_kwargs={"max_epochs": 2}
    )
    agevi.tl.aggregate_subjects(adata)
    agevi.tl.calibrate(adata)
    agevi.model.PoissonVAE.setup_anndata(adata, **KEYS)
    model = agevi.model.PoissonVAE(adata, **options)
    model.train(max_epochs=2, **QUIET)
    model.set_calibration(adata)
    assert _save.copy_of(model).calibration == model.calibration
    before = _fingerprint.of_model(model)
    model.save(tmp_path / "c")
    assert _fingerprint.of_model(agevi.io.load_clock(tmp_path / "c")) == before


def test_classifiers_have_no_ages_to_calibrate(calibrated):
    classifier = object.__new__(agevi.model.CaseControlClassifier)
    with pytest.raises(TypeError, match="set_calibration needs .* this CaseControlClassifier predicts log-odds"):
        classifier.set_calibration(calibrated)


def test_an_untrained_clock_comes_second(calibrated):
    adata = calibrated.copy()
    PLS.setup_anndata(adata, **KEYS)
    with pytest.raises(RuntimeError, match="trained"):
        PLS(adata).set_calibration(calibrated)


def edited(path, place, value):
    """Change a value of a bundle and sign it again, as whoever can write a bundle can."""
    document = json.loads((path / "clock.json").read_text())
    held = document
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = value
    rest = {k: v for k, v in document.items() if k != "digest"}
    document["digest"] = sha256(canonical(rest))
    (path / "clock.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("calibration",), "trust me"),
        (("calibration",), {}),
        (("calibration", "scale"), "pickle"),
        (("calibration", "scale"), ["constant"]),
        (("calibration", "scale"), "constant"),
        (("calibration", "features"), ["n_cells"]),
        (("calibration", "coefficients"), [1.0]),
        (("calibration", "coefficients"), [1e6, 1e6]),
        (("calibration", "coefficients"), [True, 1.0]),
        (("calibration", "ranges"), [4.0, 1.0]),
        (("calibration", "scores"), []),
        (("calibration", "scores"), [3.0, 1.0]),
        (("calibration", "scores"), 7),
        (("calibration", "scores"), ["1"]),
        (("calibration", "weights"), [1.0]),
        (("calibration", "strata"), [0]),
        (("calibration", "strata"), [5] * 40),
        (("calibration", "cuts"), [50.0]),
        (("calibration", "n"), 10**6),
        (("calibration", "n"), 40.5),
        (("calibration", "level"), 1.0),
        (("calibration", "h"), -1.0),
        (("calibration", "origin"), 5.0),
        (("calibration", "min_age"), -50.0),
        (("calibration", "guarantee"), "absolute"),
        (("calibration", "roles"), ["train"]),
        (("calibration", "cohorts"), ["a" * 10**6]),
        (("calibration", "age_unit"), "\x1b[31myears"),
        (("calibration", "clock"), {"class": 1}),
        (("calibration", "residuals"), "small"),
        (("calibration", "residuals"), [1.0]),
        (("calibration", "residuals"), [None] * 40),
        (("calibration", "shift_var"), -1.0),
        (("evaluation",), []),
        (("evaluation", "mae"), "small"),
        (("evaluation", "mae"), None),
        (("evaluation", "slope"), "steep"),
        (("evaluation", "roles"), ["train"]),
        (("evaluation", "n_subjects"), 0),
        (("gene_names",), "TP53"),
        (("gene_names",), ["TP53"]),
        (("gene_names", "gene_symbols"), ["TP53"]),
        (("gene_names", "gene_symbols"), {"a": 1}),
        (("gene_names", "gene_symbols"), ["x" * 201] * 40),
        (("gene_names", "gene_symbols"), [1] * 40),
        (("gene_names", "gene_symbols"), ["\x1b[31m"] * 40),
        (("evaluation", "intervals"), {"level": 0.9}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_numbers_are_refused(clock, tmp_path, place, value):
    clock.save(tmp_path / "c")
    edited(tmp_path / "c", place, value)
    with pytest.raises(BundleError, match=rf"does not describe a PLSClock .*{place[0]}"):
        agevi.io.load_clock(tmp_path / "c")


def test_numbers_without_values_and_unknown_ones_pass(clock, tmp_path):
    clock.save(tmp_path / "c")
    edited(tmp_path / "c", ("evaluation", "slope"), None)
    edited(tmp_path / "c", ("calibration", "of a later version"), 1)
    edited(tmp_path / "c", ("a later key",), {"x": [1]})
    loaded = agevi.io.load_clock(tmp_path / "c")
    assert loaded.evaluation["slope"] is None
    assert loaded.calibration == clock.calibration
    assert math.isfinite(loaded.evaluation["mae"])


def test_bundles_without_numbers_load(clock, tmp_path):
    clock.save(tmp_path / "c")
    document = json.loads((tmp_path / "c" / "clock.json").read_text())
    rest = {k: v for k, v in document.items() if k not in ("digest", "calibration", "evaluation")}
    (tmp_path / "c" / "clock.json").write_text(json.dumps(rest | {"digest": sha256(canonical(rest))}))
    loaded = agevi.io.load_clock(tmp_path / "c")
    assert loaded.calibration is None
    assert loaded.evaluation is None
