"""Coverage over levels and in groups, as it is drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from agevi import get, metrics, pl, tl
from tests.pl.figures import calibrated
from tests.test_gates import check_style


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.slow
def test_the_curve_is_the_coverage_that_a_calibration_of_each_level_reports():
    adata = calibrated(40)
    levels, found = pl.calibration(adata)["levels"].lines[1].get_data()
    np.testing.assert_allclose(levels, np.arange(0.5, 0.96, 0.05))
    for level in (0.5, 0.8, 0.9):
        tl.calibrate(adata, level=level)
        table = get.subjects_df(adata)
        wanted = metrics.coverage(table["age"], table["lower"], table["upper"])
        assert found[np.isclose(levels, level)] == pytest.approx(wanted)


@pytest.mark.slow
def test_groups_are_those_of_the_table():
    adata = calibrated(40)
    drawn, table = pl.calibration(adata), get.calibration_df(adata)
    np.testing.assert_allclose(drawn["coverage"].lines[1].get_xdata(), table["coverage"])
    np.testing.assert_allclose(drawn["width"].lines[0].get_xdata(), table["width_trivial"])
    np.testing.assert_allclose(drawn["width"].lines[1].get_xdata(), table["width"])
    assert drawn["coverage"].get_yticklabels()[0].get_text() == "all"


def test_levels_for_which_there_are_too_few_subjects_are_left_out():
    levels = pl.calibration(calibrated(8))["levels"].lines[1].get_xdata()
    assert levels.max() == pytest.approx(0.85)


def test_as_many_subjects_as_the_level_needs_draw_what_can_be_judged():
    adata = calibrated(9)
    tl.calibrate(adata, level=0.9)
    drawn = pl.calibration(adata)
    assert np.isnan(drawn["coverage"].lines[1].get_xdata()).all()
    assert drawn["levels"].lines[1].get_xdata().max() == pytest.approx(0.85)
    assert drawn["width"].get_xlim()[1] > drawn["width"].lines[0].get_xdata().max()


def test_other_samples_than_those_that_calibrated_are_refused():
    adata = calibrated(40)
    adata.uns["agevi_subjects"] = adata.uns["agevi_subjects"].iloc[:30]
    with pytest.raises(ValueError, match="has 30 held-out samples with an age, and 40 calibrated") as raised:
        pl.calibration(adata)
    check_style(str(raised.value))
