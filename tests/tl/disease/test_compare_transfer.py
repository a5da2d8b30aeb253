"""Transfers compared with what does not start from a clock."""

from __future__ import annotations

import dataclasses
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

import agevi
from agevi.model import TransformerClock
from agevi.model.transfer import CaseControlClassifier
from agevi.tl.disease import _compare_transfer, _folds, _linear_models, _table
from tests.conftest import QUIET
from tests.files import stored
from tests.model.transformer import masked
from tests.test_gates import snapshot

pytestmark = pytest.mark.filterwarnings("ignore:.* subjects trained the clock or chose its epochs")
SETUP = {"age_key": "age", "subject_key": "donor"}
CONDITION = {"condition_key": "condition", "control": "control"}
SHORT = {"n_folds": 3, "n_repeats": 2, "n_boot": 50, "train_kwargs": {"max_epochs": 1}, "sex_key": "sex"}
ONCE = SHORT | {"n_repeats": 1}
ROWS = ["frozen transfer", "encoder frozen", "fine-tuned", "from scratch", "logistic regression", "age + sex"]


@pytest.fixture(scope="module")
def _data():
    return agevi.datasets.simulate_cohort(
        n_subjects=30, n_cells=6, n_genes=40, n_age_genes=20, case_fraction=0.4, acceleration=60, n_visits=2, rng=2
    )


@pytest.fixture
def data(_data):
    """12 cases, biologically 60 years older, and 18 controls, with two visits each."""
    return _data.copy()


@pytest.fixture(scope="module")
def clock(_data):
    adata = _data.copy()
    agevi.model.MLPClock.setup_anndata(adata, **SETUP, sample_key="sample")
    model = agevi.model.MLPClock(adata, n_hidden=[8])
    model.train(max_epochs=2, **QUIET)
    return model


@pytest.fixture(scope="module")
def once(clock, _data):
    """What ``compare_transfer`` writes with the arguments ``ONCE``."""
    return agevi.tl.compare_transfer(_data, clock, **CONDITION, **ONCE, copy=True).uns


REFIT = ONCE | {"refit_clock": True, "clock_kwargs": {"max_epochs": 1}}


@pytest.mark.slow
def test_the_table(clock, data):
    agevi.tl.compare_transfer(data, clock, **CONDITION, **SHORT)
    table = agevi.get.transfer_df(data)
    assert table["model"].tolist() == ROWS
    assert (table["n_subjects"] == 30).all()
    assert (table["n_cases"] == 12).all()
    for name in ("auroc", "auprc", "f1", "mcc", "balanced_accuracy", "brier"):
        assert (table[f"{name}_low"] <= table[name] + 1e-9).all()
        assert (table[f"{name}_high"] >= table[name] - 1e-9).all()
    scratch = table.set_index("model").loc["from scratch"]
    np.testing.assert_allclose(table["difference"], table["auroc"] - scratch["auroc"])
    assert scratch[["difference", "difference_low", "difference_high"]].tolist() == [0, 0, 0]
    params = data.uns["agevi_transfer_params"]
    assert (params["control"], params["case"], params["model"]) == ("control", "case", "MLPClock")
    assert params["n_known"] == sum(role in ("train", "validation") for role in clock.split_.values())


@pytest.mark.slow
@pytest.mark.parametrize("refit", [False, True])
def test_a_layer_holds_the_values_where_x_does_not(clock, data, once, refit):
    arguments = CONDITION | (REFIT if refit else ONCE)
    expected = agevi.tl.compare_transfer(data, clock, **arguments, copy=True).uns if refit else once
    data.layers["counts"], data.X = data.X.copy(), data.X * 0
    agevi.tl.compare_transfer(data, clock, layer="counts", **arguments, key_added="layer")
    pd.testing.assert_frame_equal(expected["agevi_transfer"], data.uns["layer_transfer"])
    with pytest.raises(KeyError, match="layer='count' is not in adata.layers; closest: 'counts'"):
        agevi.tl.compare_transfer(data, clock, layer="count", **arguments)


@pytest.mark.slow
def test_folds_hold_out_whole_subjects_and_are_the_same_for_all(clock, data, monkeypatch):
    seen = {}

    def network(fits, clock, row, fold):
        seen.setdefault(row, []).append(fold.roles == "test")
        case = fits.samples.case_of[fold.roles == "validation"]
        assert (case.sum(), len(case)) == (2, 4)  # of 8 and 12 that are not held out
        return np.full(fold.held_out.sum(), 0.5)

    monkeypatch.setattr(_folds, "_network", network)
    agevi.tl.compare_transfer(data, clock, **CONDITION, **SHORT)
    case = data.obs.drop_duplicates("donor").set_index("donor")["condition"] == "case"
    for row in _linear_models.NETWORKS:
        masks = pd.concat(seen[row], axis=1).to_numpy()  # 2 divisions x 3 folds
        np.testing.assert_array_equal(masks, pd.concat(seen["from scratch"], axis=1).to_numpy())
        for part in (masks[:, :3], masks[:, 3:]):
            assert (part.sum(axis=1) == 1).all()
            assert {tuple(p[case[seen[row][0].index].to_numpy()].sum(0)) for p in [part]} == {(4, 4, 4)}
        assert (masks[:, :3] != masks[:, 3:]).any()


@pytest.mark.slow
def test_networks_never_see_who_is_held_out(clock, data, monkeypatch):
    """Their training roles hold no subject that is predicted."""
    made, predict = [], CaseControlClassifier.predict_proba

    def spied(self, *args, indices, **kwargs):
        held_out = set(self._adata.obs["donor"].astype(str).iloc[list(indices)])
        assert held_out == {name for name, role in self.split_.items() if role == "test"}
        assert set(self.split_.values()) == {"train", "test"}
        made.append(self.freeze)
        return predict(self, *args, indices=indices, **kwargs)

    monkeypatch.setattr(CaseControlClassifier, "predict_proba", spied)
    agevi.tl.compare_transfer(data, clock, **CONDITION, **ONCE)
    assert made == ["all_but_last", "encoder", "none", "none"] * 3


def test_rows_of_linear_models_equal_scikit_learn(clock, data):
    model = CaseControlClassifier.from_clock(clock, data, **CONDITION)
    samples = _linear_models.samples_of(data, clock, model, "condition", "sex")
    visits = data.obs.drop_duplicates("sample").sort_values("sample")
    counts = pd.DataFrame(data.X.toarray()).groupby(data.obs["sample"].to_numpy()).sum()
    values = np.log1p(counts.div(counts.sum(axis=1), axis=0) * 1e4)
    np.testing.assert_allclose(samples.features["logistic regression"].values, values, rtol=1e-5)
    known = np.column_stack([visits["age"], visits["sex"] == "male"]).astype(float)
    np.testing.assert_allclose(samples.features["age + sex"].values, known)
    np.testing.assert_array_equal(samples.case, visits["condition"] == "case")
    held_out = samples.subject < "d10"
    scaler = StandardScaler().fit(known[~held_out])
    fitted = LogisticRegression(C=1e4, class_weight="balanced").fit(
        scaler.transform(known[~held_out]), samples.case[~held_out]
    )
    expected = fitted.predict_proba(scaler.transform(known[held_out]))[:, 1]
    found = _linear_models.linear_probabilities(samples, "age + sex", held_out, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_linear_row_of_two_modalities_scales_each(monkeypatch):
    """Each by its training rows; a sample measured twice has the mean of its log-odds."""
    adata = masked.samples(60, paired=0.5)
    adata.obs["condition"] = np.where(adata.obs["donor"].str[1:].astype(int) % 3 == 0, "case", "control")
    TransformerClock.setup_anndata(adata, **(masked.SETUP | {"sample_key": None}))
    clock = TransformerClock(adata, **masked.SMALL)
    clock.train(max_epochs=1, **QUIET)
    model = CaseControlClassifier.from_clock(clock, adata, **CONDITION)
    found = _linear_models.samples_of(adata, clock, model, "condition", None)
    monkeypatch.setattr(_linear_models, "PENALTIES", (1e-2,))
    held_out = np.arange(len(found.case)) % 4 == 0
    values = pd.DataFrame(adata.X.astype(float), index=adata.obs["donor"])
    modality, z = adata.obs["modality"].to_numpy(), np.zeros(adata.shape)
    train = ~values.index.isin(found.subject[held_out])
    for name in ("expression", "methylation"):
        own = modality == name
        z[own] = StandardScaler().fit(values[own & train]).transform(values[own])
    case = (adata.obs["condition"] == "case").to_numpy()
    subject = pd.Series(values.index[train])
    weight = 1 / subject.map(subject.value_counts()).to_numpy()
    weight *= np.where(case[train], 1 / weight[case[train]].sum(), 1 / weight[~case[train]].sum()) * weight.sum() / 2
    fitted = LogisticRegression(C=1e-2).fit(z[train], case[train], weight)
    log_odds = pd.Series(fitted.decision_function(z[~train])).groupby(values.index[~train]).mean()
    expected = pd.Series(expit(log_odds)).reindex(found.subject[held_out])
    row = _linear_models.linear_probabilities(found, "logistic regression", held_out, 0)
    np.testing.assert_allclose(row, expected, rtol=1e-3)


def test_a_missing_age_is_the_mean_and_a_column_of_its_own(clock, data):
    data.obs.loc[data.obs["donor"].isin(["d03", "d20"]), "age"] = np.nan
    model = CaseControlClassifier.from_clock(clock, data, **CONDITION)
    samples = _linear_models.samples_of(data, clock, model, "condition", None)
    assert samples.rows == ROWS[:-1] + ["age"]
    age = data.obs.drop_duplicates("sample").sort_values("sample")["age"].to_numpy()
    missing, held_out = np.isnan(age), samples.subject < "d10"
    known = np.column_stack([np.where(missing, np.nanmean(age[~held_out]), age), missing])
    x = StandardScaler().fit(known[~held_out]).transform(known)
    fitted = LogisticRegression(C=1e4, class_weight="balanced").fit(x[~held_out], samples.case[~held_out])
    found = _linear_models.linear_probabilities(samples, "age", held_out, 0)
    np.testing.assert_allclose(found, fitted.predict_proba(x[held_out])[:, 1], atol=1e-3)
    samples = dataclasses.replace(samples, case=np.arange(60) % 2)  # so that those without an age are of both classes
    nobody = _linear_models.linear_probabilities(samples, "age", ~missing, 0)
    assert np.isfinite(nobody).all()
    data.obs["age"] = data.obs["age"].astype(str) + " years"
    with pytest.raises(TypeError, match="turn text, bins and censored ages into numbers with agevi.pp.parse_age"):
        agevi.tl.compare_transfer(data, clock, **CONDITION, **SHORT)


@pytest.mark.slow
def test_a_large_share_of_validation_leaves_subjects_to_train_on(clock, data):
    agevi.tl.compare_transfer(data, clock, **CONDITION, **ONCE, validation_size=0.95)
    assert agevi.get.transfer_df(data)["auroc"].notna().all()


def test_metrics_are_means_over_divisions(clock, data, monkeypatch):
    """Of known probabilities of subjects, by scikit-learn; AUROC over pairs of one fold."""
    rng, parts, seen = np.random.default_rng(0), [], []

    def fit_folds(fits, folds, _):
        parts.extend(rng.random((2, len(fits.samples.rows), len(fits.samples.case))))
        seen.extend([fits.samples.subject, folds])
        return [parts[fold.repeat][:, fold.held_out] for fold in folds]

    monkeypatch.setattr(_compare_transfer, "fit_folds", fit_folds)
    agevi.tl.compare_transfer(data, clock, **CONDITION, **SHORT)
    subject, folds = seen
    case = data.obs.drop_duplicates("donor").set_index("donor")["condition"].eq("case").sort_index()
    of_subject = [[pd.Series(row).groupby(subject).mean() for row in part] for part in parts]
    expected = np.zeros((2, len(ROWS)))
    for i, row in np.ndindex(expected.shape):
        own = [f.roles.index[f.roles == "test"] for f in folds if f.repeat == i]
        pairs = [case[names].sum() * (~case[names]).sum() for names in own]
        areas = [roc_auc_score(case[names], of_subject[i][row][names]) for names in own]
        expected[i, row] = np.average(areas, weights=pairs)
    table = agevi.get.transfer_df(data)
    np.testing.assert_allclose(table["auroc"], expected.mean(axis=0))
    np.testing.assert_allclose(table["auroc_sd"], expected.std(axis=0, ddof=1))
    precision = [[average_precision_score(case, row) for row in part] for part in of_subject]
    np.testing.assert_allclose(table["auprc"], np.mean(precision, axis=0))


@pytest.mark.slow
def test_networks_train_for_as_many_epochs_as_validation_subjects_chose(clock, data, monkeypatch):
    """On all training subjects; once where nobody is to choose."""
    calls, train = [], CaseControlClassifier._train_until

    def spied(self, last_epoch, **arguments):
        train(self, last_epoch, **arguments)
        calls.append((arguments, self.best_epoch_, "log_loss_validation" in self.history))

    monkeypatch.setattr(CaseControlClassifier, "_train_until", spied)
    short = SHORT | {"n_folds": 2, "n_repeats": 1, "train_kwargs": {"max_epochs": 4}}
    agevi.tl.compare_transfer(data, clock, **CONDITION, **short, validation_size=0.4)
    assert len(calls) == 16
    for first, final in zip(calls[::2], calls[1::2], strict=True):
        assert first[0].items() >= {"early_stopping": True, "max_epochs": 4, "train_roles": ("train",)}.items()
        roles = ("train", "validation")
        assert final[0] == {"early_stopping": False, "max_epochs": 4, "train_roles": roles}
        assert final[1] == first[1]
        assert (first[2], final[2]) == (True, False)
    calls.clear()
    agevi.tl.compare_transfer(data, clock, **CONDITION, **short, validation_size=0)
    assert [c[0]["early_stopping"] for c in calls] == [False] * 8


@pytest.mark.slow
def test_features_that_say_nothing_have_an_area_of_one_half():
    """With few subjects, whose areas across folds would be below."""
    rng, within, across = np.random.default_rng(0), [], []
    case = np.r_[np.ones(4), np.zeros(8)]
    for _ in range(500):
        fold = np.r_[rng.permutation(4), rng.permutation(np.repeat(np.arange(4), 2))]
        probability = np.array([case[fold != f].mean() for f in fold]) + 0.2 * rng.normal(size=12)
        within.append(_table.auroc_within(case, probability, fold, np.ones((1, 12)))[0])
        fold[8:] = rng.integers(4, size=4)
        probability = np.array([case[fold != f].mean() for f in fold]) + 0.02 * rng.normal(size=12)
        across.append(roc_auc_score(case, probability))
        assert 0 <= within[-1] <= 1
    assert abs(np.mean(within) - 0.5) < 0.03
    assert np.mean(across) < 0.4


def people(case):
    """Samples of which nothing but the condition is known."""
    case = pd.Series(np.asarray(case, dtype=float), index=[f"d{i:02d}" for i in range(len(case))])
    code = np.arange(len(case))
    return _linear_models.Samples(None, case.index.to_series(), code, case.to_numpy(), case.index.to_numpy(), case)


@pytest.mark.parametrize(("n_cases", "n_controls", "n_folds"), [(4, 9, 4), (12, 18, 5), (7, 30, 5), (3, 3, 2)])
def test_every_fold_holds_out_its_share_of_both_classes(n_cases, n_controls, n_folds):
    samples, rng = people(np.r_[np.ones(n_cases), np.zeros(n_controls)]), np.random.default_rng(0)
    for _ in range(20):
        folds = _folds.draw_folds(samples, 0, n_folds, 0.2, rng)
        held_out = np.stack([fold.held_out for fold in folds])
        assert (held_out.sum(axis=0) == 1).all()
        for used in (samples.case == 1, samples.case == 0, np.isin(samples.case, (0, 1))):
            sizes = held_out[:, used].sum(axis=1)
            assert sizes.max() - sizes.min() <= 1


@pytest.mark.slow
def test_age_says_nothing_of_labels_at_random():
    """In folds that are balanced over age too the area is 0.55, and the correlation positive."""
    rng, areas, distances = np.random.default_rng(0), [], []
    for _ in range(100):
        samples, age = people(rng.permutation(np.arange(60) % 2)), rng.uniform(20, 90, 60)
        for fold in _folds.draw_folds(samples, 0, 5, 0.2, rng):
            train, new = ~fold.held_out, fold.held_out
            of_train, of_new = (
                age[used & (samples.case == 1)].mean() - age[used & (samples.case == 0)].mean() for used in (train, new)
            )
            areas.append(roc_auc_score(samples.case[new], np.sign(of_train) * age[new]))
            distances.append((of_train, of_new))
    of_draw = np.reshape(areas, (100, 5)).mean(axis=1)
    assert abs(of_draw.mean() - 0.5) < 3 * of_draw.std(ddof=1) / np.sqrt(100)
    assert abs(np.corrcoef(np.transpose(distances))[0, 1]) < 0.1


@pytest.mark.slow  # networks learn a difference in every fold
@pytest.mark.usefixtures("usual_fits")
def test_a_strong_difference_is_found_and_labels_at_random_are_not(clock, data):
    agevi.tl.compare_transfer(data, clock, **CONDITION, **(ONCE | {"train_kwargs": {"max_epochs": 6}}))
    first = agevi.get.transfer_df(data).set_index("model")["auroc"]
    assert first["logistic regression"] > 0.8
    assert first["fine-tuned"] > 0.8
    donors = data.obs["donor"].unique()
    drawn = dict(zip(donors, np.random.default_rng(1).permutation(np.arange(30) < 12), strict=True))
    data.obs["random"] = np.where(data.obs["donor"].map(drawn).astype(bool), "case", "control")
    agevi.tl.compare_transfer(data, clock, **(CONDITION | {"condition_key": "random"}), **SHORT)
    assert agevi.get.transfer_df(data)["auroc"].between(0.15, 0.8).all()


@pytest.mark.slow
def test_same_seed_same_table_and_nothing_else_written(clock, data, once):
    before = snapshot(data)
    second = agevi.tl.compare_transfer(data, clock, **CONDITION, **ONCE, copy=True)
    pd.testing.assert_frame_equal(once["agevi_transfer"], second.uns["agevi_transfer"])
    assert snapshot(data) == before
    agevi.tl.compare_transfer(data, clock, **CONDITION, **(ONCE | {"n_folds": 2}), key_added="k")
    after = snapshot(data)
    assert {k for k in after if before.get(k) != after[k]} == {"uns"}
    assert set(data.uns) - {"truth"} == {"k_transfer", "k_transfer_params"}


@pytest.mark.slow
def test_a_clock_that_knows_held_out_subjects_is_told_of(clock, data):
    known = sum(role in ("train", "validation") for role in clock.split_.values())
    short = CONDITION | ONCE | {"n_folds": 2}
    with pytest.warns(UserWarning, match=rf"^{known} of 30 subjects trained the clock.*or refit_clock=True\.$"):
        agevi.tl.compare_transfer(data, clock, **short)
    data.obs["donor"] = "new " + data.obs["donor"].astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agevi.tl.compare_transfer(data, clock, **short)
    assert data.uns["agevi_transfer_params"]["n_known"] == 0


@pytest.mark.slow
def test_clocks_of_every_fold_see_training_subjects_alone(clock, data, monkeypatch):
    """By the subjects that each was trained on, and by the clocks that the classifiers were made from."""
    trained, judged, train = [], [], agevi.model.MLPClock.train
    from_clock, predict = CaseControlClassifier.from_clock, CaseControlClassifier.predict_proba

    def spied_train(self, **arguments):
        train(self, **arguments)
        trained.append((self, set(self.adata.obs["donor"].astype(str)), arguments["max_epochs"]))

    def spied_from(source, *args, **arguments):
        out = from_clock(source, *args, **arguments)
        out.source = source
        return out

    def spied_predict(self, *args, indices, **kwargs):
        judged.append((self.source, set(self._adata.obs["donor"].astype(str).iloc[list(indices)])))
        return predict(self, *args, indices=indices, **kwargs)

    monkeypatch.setattr(agevi.model.MLPClock, "train", spied_train)
    monkeypatch.setattr(CaseControlClassifier, "from_clock", spied_from)
    monkeypatch.setattr(CaseControlClassifier, "predict_proba", spied_predict)
    data.obs.loc[data.obs["donor"].isin(["d00", "d01"]), "condition"] = np.nan
    before = snapshot(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        agevi.tl.compare_transfer(data, clock, **CONDITION, **REFIT, copy=True)
    assert snapshot(data) == before
    assert len(trained) == 3
    assert len(judged) == 12
    donors = set(data.obs["donor"].astype(str)) - {"d00", "d01"}
    for i, (model, held_out) in enumerate(judged):
        source, seen, epochs = trained[i // 4]
        assert model is source
        assert epochs == 1
        assert seen == donors - held_out
        assert (list(source.genes), source.module.head.output.in_features) == (list(clock.genes), 8)


@pytest.mark.slow
@pytest.mark.usefixtures("usual_fits")
@pytest.mark.parametrize("refit", [False, True], ids=["one clock", "a clock for every fold"])
def test_folds_side_by_side_give_the_same(clock, data, refit):
    """In processes, and in threads of this one."""
    arguments = CONDITION | (REFIT if refit else ONCE) | {"n_folds": 2}
    expected = agevi.tl.compare_transfer(data, clock, **arguments, copy=True).uns["agevi_transfer"]
    found = agevi.tl.compare_transfer(data, clock, **arguments, n_jobs=2, copy=True).uns["agevi_transfer"]
    pd.testing.assert_frame_equal(found, expected)
    with joblib.parallel_config("threading", n_jobs=2):
        found = agevi.tl.compare_transfer(data, clock, **arguments, copy=True).uns["agevi_transfer"]
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.slow
def test_without_ages_and_with_unlabelled_subjects(clock, data):
    del data.obs["age"]
    unlabelled = data.obs["donor"].isin(["d00", "d01"])
    data.obs["condition"] = data.obs["condition"].astype(object).where(~unlabelled, np.nan)
    agevi.tl.compare_transfer(data, clock, **CONDITION, **(ONCE | {"sex_key": None}))
    table = agevi.get.transfer_df(data)
    assert table["model"].tolist() == ROWS[:-1]
    assert (table["n_subjects"] == 28).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_the_table_survives_a_file(data, once, tmp_path, form):
    data.uns.update(once)
    back = stored(data, form, tmp_path)
    pd.testing.assert_frame_equal(agevi.get.transfer_df(back), agevi.get.transfer_df(data), check_dtype=False)
    assert back.uns["agevi_transfer_params"]["train_kwargs"]["max_epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param({"n_folds": 13}, ValueError, "n_folds=13, but adata.obs['condition'] has 12 cases and 18 controls; each fold holds out one of each or more. Pass n_folds=12 or less.", id="folds"),
        pytest.param({"n_folds": 1}, ValueError, "n_folds=1 is out of range", id="one fold"),
        pytest.param({"validation_size": 1.0}, ValueError, "validation_size=1.0 is not a share; pass a number from 0", id="validation"),
        pytest.param({"clock_kwargs": {"max_epochs": 1}}, ValueError, "clock_kwargs is for clocks that are trained anew; pass refit_clock=True too", id="clock_kwargs"),
        pytest.param({"train_kwargs": {"train_roles": ("train", "test")}}, ValueError, "train_kwargs holds 'train_roles', which is set for each fold; leave it out.", id="roles"),
        pytest.param({"train_kwargs": {"max_epoch": 1}}, TypeError, "train_kwargs holds 'max_epoch', which CaseControlClassifier.train does not take; closest: 'max_epochs'.", id="train_kwargs"),
        pytest.param({"refit_clock": True, "clock_kwargs": {"split_key": "x"}}, ValueError, "clock_kwargs holds 'split_key', which is set for each fold; leave it out.", id="clock's roles"),
        pytest.param({"validation_size": None}, ValueError, "validation_size=None is not a share; pass a number from 0", id="no validation"),
        pytest.param({"sex_key": "cell_type"}, ValueError, "adata.obs['cell_type'] has 3 values ('type1', 'type2', 'type0') in sample 'd00_v1' and several in 56 of 60 samples; pass a column that describes samples.", id="cells"),
        pytest.param({"sex_key": "age"}, ValueError, "sex_key='age' is a column of 60 numbers (e.g. ", id="numbers"),
        pytest.param({"reference": "scratch"}, ValueError, "reference='scratch' is not known; choose one of 'frozen transfer'", id="reference"),
        pytest.param({"sex_key": "gender"}, KeyError, "sex_key='gender' is not a column of adata.obs", id="sex"),
        pytest.param({"condition_key": "cell_type"}, ValueError, "has 3 levels", id="three levels"),
        pytest.param({"control": "healthy"}, ValueError, "control='healthy' is not in", id="control"),
        pytest.param({"condition_key": "batch", "control": "batch0"}, ValueError, "is both 'batch1' and 'batch0'", id="both"),
    ],
)  # fmt: skip
def test_bad_input(clock, data, arguments, error, words):
    before = snapshot(data)
    with pytest.raises(error) as raised:
        agevi.tl.compare_transfer(data, clock, **(CONDITION | SHORT | arguments))
    assert words in str(raised.value)
    assert snapshot(data) == before


def test_before_it_was_run(data):
    with pytest.raises(KeyError, match=r"run agevi.tl.compare_transfer\(adata, clock"):
        agevi.get.transfer_df(data)
    with pytest.raises(KeyError, match=r"run agevi.tl.compare_transfer\(adata, clock"):
        agevi.pl.transfer(data)
