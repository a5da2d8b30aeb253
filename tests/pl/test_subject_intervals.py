"""Rows of intervals: which samples, in which order, and which ages lie outside."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import pl
from agevi.pl._subject_intervals import _OUTSIDE
from tests.pl.figures import cohort, with_intervals, with_posterior
from tests.test_gates import check_style


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def rows(ax):
    """Intervals of the rows from below, (n, 2)."""
    lines = [np.asarray(path) for path in ax.collections[0].get_segments()]
    return np.array([line[:, 0] for line in lines])


def test_rows_rise_with_the_prediction():
    adata = with_intervals(40)
    table = adata.uns["agevi_subjects"].dropna(subset="lower").sort_values("predicted")
    ax = pl.subject_intervals(adata)
    np.testing.assert_allclose(rows(ax), table[["lower", "upper"]])
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 0], table["predicted"])
    assert [label.get_text() for label in ax.get_yticklabels()] == table.index.tolist()


def test_rows_rise_with_the_age_and_unknown_ages_stand_last():
    adata = with_intervals(40)
    table = adata.uns["agevi_subjects"].dropna(subset="lower").sort_values(["age", "predicted"])
    np.testing.assert_allclose(rows(pl.subject_intervals(adata, order_by="age")), table[["lower", "upper"]])


@pytest.mark.slow
def test_ages_outside_are_red_and_counted():
    adata = with_intervals(40)
    table = adata.uns["agevi_subjects"]
    first = table.dropna().index[:3]
    table.loc[first, "age"] = table.loc[first, "upper"] + 1
    ax = pl.subject_intervals(adata)
    known = table.dropna(subset=["age", "lower"])
    red = [c for c in ax.collections if len(c.get_edgecolor()) and np.allclose(c.get_edgecolor()[0], plt.matplotlib.colors.to_rgba(_OUTSIDE))]  # fmt: skip
    outside = (~known["age"].between(known["lower"], known["upper"])).sum()
    assert sum(len(c.get_offsets()) for c in red) == outside >= 3
    note = " ".join(t.get_text() for t in ax.texts)
    assert f"{len(known) - outside} of {len(known)} ages inside" in note
    assert "intervals at 90 %" in note


def test_many_samples_are_not_named():
    ax = pl.subject_intervals(with_intervals(755))
    assert not ax.get_yticklabels()
    assert len(rows(ax)) == 453


def test_only_some_roles():
    assert len(rows(pl.subject_intervals(with_intervals(40), roles="test"))) == 8


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        pytest.param(cohort, {}, r"no sample has an interval in adata.uns\['agevi_subjects'\]; run agevi.tl.calibrate", id="no intervals"),
        pytest.param(with_intervals, {"roles": "train"}, "no sample of roles='train' has an interval", id="no intervals of a role"),
        pytest.param(with_intervals, {"order_by": "donor"}, "order_by='donor' is not known", id="order"),
    ],
)  # fmt: skip
def test_refusals(make, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        pl.subject_intervals(make(8), **arguments)
    check_style(str(raised.value))


@pytest.mark.slow
def test_the_posterior_is_drawn_around_its_mean():
    adata = with_posterior(60)
    table = agevi.get.posterior_df(adata).sort_values("mean")
    ax = pl.subject_intervals(adata, table="posterior")
    np.testing.assert_allclose(rows(ax), table[["lower", "upper"]])
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 0], table["mean"])
    inside = table["age"].between(table["lower"], table["upper"]).sum()
    note = " ".join(t.get_text() for t in ax.texts)
    assert f"{len(table)} intervals at 80 %" in note
    assert f"{inside} of {len(table)} ages inside" in note
    roles = adata.uns["agevi_subjects"]["role"].loc[table["sample"]]
    one = pl.subject_intervals(adata, table="posterior", roles=roles.iloc[0], color_by="group")
    assert len(rows(one)) == (roles == roles.iloc[0]).sum()


@pytest.mark.slow
def test_the_posterior_of_types_is_drawn_for_all_of_them_together():
    """Without a table of subjects, which predictions by types do not need."""
    adata = with_posterior(60)
    table = adata.uns["agevi_posterior"]
    adata.uns["agevi_posterior"] = pd.concat([table, table.assign(type="T", lower=0.0, upper=150.0)], ignore_index=True)
    del adata.uns["agevi_subjects"]
    ax = pl.subject_intervals(adata, table="posterior")
    np.testing.assert_allclose(rows(ax), table.sort_values("mean")[["lower", "upper"]])


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        pytest.param(
            {"table": "posteriors"},
            ValueError,
            "table='posteriors' is not known; choose one of 'calibration'",
            id="table",
        ),
        pytest.param({"table": "posterior"}, KeyError, "is absent; run agevi.tl.subject_posterior", id="no posterior"),
    ],
)
def test_posteriors_that_are_not_there(kwargs, error, message):
    with pytest.raises(error, match=message):
        pl.subject_intervals(with_intervals(40), **kwargs)
    with pytest.raises(ValueError, match="no sample of roles='train' has a posterior in adata.uns"):
        pl.subject_intervals(with_posterior(60), table="posterior", roles="train")
