from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import pl
from tests.test_gates import check_message


class Model:
    def __init__(self, best_epoch=None, **metrics):
        self.history = {
            name: pd.DataFrame({name: values}, index=pd.RangeIndex(len(values), name="epoch"))
            for name, values in metrics.items()
        }
        if best_epoch is not None:
            self.best_epoch_ = best_epoch


@pytest.fixture
def model():
    return Model(
        best_epoch=3,
        age_mae_train=[9.0, 8.0, 7.0, 6.0],
        age_mae_validation=[9.5, 9.0, 8.5, 8.9],
        elbo_train=[4.0, 3.0, 2.0, 1.0],
        kl_weight=[0.0, 0.5, 1.0, 1.0],
    )


def curves(ax):
    return {li.get_label(): li for li in ax.lines if not li.get_label().startswith("_")}


def test_curves_are_the_history_from_epoch_one(model):
    ax = pl.training(model)
    drawn = curves(ax)
    assert drawn["train"].get_xdata().tolist() == [1, 2, 3, 4]
    assert drawn["train"].get_ydata().tolist() == [9.0, 8.0, 7.0, 6.0]
    assert drawn["validation"].get_ydata().tolist() == [9.5, 9.0, 8.5, 8.9]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Mean absolute error of subjects (years)")


def test_best_epoch_is_marked(model):
    ax = pl.training(model)
    line = curves(ax)["kept: epoch 3: 8.50"]
    assert list(line.get_xdata()) == [3, 3]
    marker = next(li for li in ax.lines if li.get_marker() == "o")
    assert (list(marker.get_xdata()), list(marker.get_ydata())) == ([3], [8.5])


@pytest.mark.parametrize("best_epoch", [None, 9], ids=["not recorded", "beyond the history"])
def test_best_epoch_may_be_unknown(best_epoch):
    ax = pl.training(Model(best_epoch=best_epoch, age_mae_train=[2.0, 1.0], age_mae_validation=[3.0, 2.5]))
    assert set(curves(ax)) - {"kept: epoch 9"} == {"train", "validation"}
    assert not any(li.get_marker() == "o" for li in ax.lines)


def test_no_validation_has_no_best_epoch():
    assert set(curves(pl.training(Model(best_epoch=2, age_mae_train=[2.0, 1.0])))) == {"train"}


def test_kl_weight_lies_behind_on_its_own_scale(model):
    ax = pl.training(model)
    behind = next(a for a in ax.figure.axes if a is not ax)
    assert behind.get_ylabel() == "KL weight"
    assert behind.get_zorder() < ax.get_zorder()
    assert not ax.patch.get_visible()
    assert behind.collections[0].get_paths()[0].vertices[:, 1].max() == 1.0


@pytest.mark.parametrize(
    ("weights", "arguments"),
    [
        pytest.param([0.0, 0.5, 1.0, 1.0], {"show_kl_weight": False}, id="not wanted"),
        pytest.param([1.0, 1.0, 1.0, 1.0], {}, id="constant"),
        pytest.param([0.0, 0.5, 1.0, 1.0], {"metric": "kl_weight"}, id="is the metric"),
    ],
)
def test_kl_weight_is_left_out(weights, arguments):
    ax = pl.training(Model(age_mae_train=[4.0, 3.0, 2.0, 1.0], kl_weight=weights), **arguments)
    assert ax.figure.axes == [ax]


def test_other_metrics_ax_and_unit(model):
    model.unit = "weeks"
    _, ax = plt.subplots()
    assert pl.training(model, metric="elbo", ax=ax) is ax
    assert ax.get_ylabel() == "elbo"
    assert curves(ax)["train"].get_ydata().tolist() == [4.0, 3.0, 2.0, 1.0]
    assert pl.training(model).get_ylabel() == "Mean absolute error of subjects (weeks)"


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        pytest.param(
            lambda m: m, {"metric": "mae"}, KeyError, "metric='mae' was not recorded; choose one of 'age_mae'", id="m"
        ),
        pytest.param(lambda m: Model(), {}, RuntimeError, r"call model.train\(\) first", id="untrained"),
        pytest.param(lambda m: "model", {}, TypeError, "pass a model of agevi.model", id="no model"),
    ],
)
def test_refuses(model, make, arguments, error, message):
    with pytest.raises(error, match=message):
        pl.training(make(model), **arguments)
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", ["PLSClock", "ElasticNetClock"])
def test_clocks_without_epochs_are_refused(name):
    """Their one error was drawn as a curve without extent."""
    model = getattr(agevi.model, name).__new__(getattr(agevi.model, name))
    with pytest.raises(TypeError) as raised:
        pl.training(model)
    check_message(
        raised, f"model is a {name}, which is not trained in epochs, so there is no curve to draw; the errors"
    )
    assert not plt.get_fignums()


def test_one_epoch_is_a_point():
    assert curves(pl.training(Model(age_mae_train=[2.0])))["train"].get_marker() == "o"


def test_first_epochs_far_from_the_others_do_not_squeeze_them():
    ax = pl.training(Model(age_mae_train=[1e6, 1e5, *np.linspace(9, 5, 20)]))
    assert ax.get_ylim()[1] < 100


def test_values_of_objects_are_drawn():
    """scvi-tools keeps numbers as objects."""
    model = Model(age_mae_train=[2.0, 1.0])
    model.history = {name: frame.astype(object) for name, frame in model.history.items()}
    assert np.asarray(curves(pl.training(model))["train"].get_ydata()).dtype == np.float64


@pytest.mark.slow
def test_clocks_of_sums_choose_no_epoch(cohort):
    keys = {"age_key": "age", "subject_key": "donor"}
    agevi.model.MLPClock.setup_anndata(cohort, **keys)
    for unit, text in (("pseudocell", "kept: epoch 3, the last (none is chosen)"), ("cell", "kept: epoch ")):
        clock = agevi.model.MLPClock(cohort, n_hidden=[4], train_unit=unit)
        clock.train(max_epochs=3, enable_progress_bar=False, accelerator="cpu")
        label = next(name for name in curves(pl.training(clock)) if name.startswith("kept"))
        assert label.startswith(text)
        assert ("none is chosen" in label) == (unit == "pseudocell")
        error = clock.history_["age_mae_validation"].iloc[:, 0]
        assert clock.best_epoch_ == (3 if unit == "pseudocell" else int(error.argmin()) + 1)
