from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import agevi
from tests.pl.figures import explained


@pytest.fixture
def adata():
    """Held-out ages of two types, of which one follows the age."""
    cohort = agevi.datasets.simulate_cohort(12, 3, 10, case_fraction=0.5)
    donors = cohort.obs.drop_duplicates("donor").sort_values("donor")
    names, age = donors["donor"].astype(str).to_numpy(), donors["age"].to_numpy()
    parts = [
        pd.DataFrame(
            {
                "sample": names,
                "group": group,
                "subject": names,
                "age": age,
                "predicted": p,
                "n_cells": 9,
                "weight": 0.5,
            }
        )
        for group, p in {"T": age, "B": np.full(len(age), 50.0) + np.arange(len(age)) % 2}.items()
    ]
    cohort.uns["agevi_by_group"] = pd.concat(parts, ignore_index=True)
    cohort.uns["agevi"] = {"age_unit": "years", "sample_key": "donor", "subject_key": "donor"}
    agevi.tl.explain_age(cohort, groupby="condition", n_boot=50)
    return cohort


def test_dots(adata):
    ax = agevi.pl.explanation(adata)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["T", "B"]
    sizes = agevi.get.explanation_df(adata).set_index(["group", "part"])["size"]
    drawn = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2][:3]
    for group, values in zip(["overall", "case", "control"], drawn, strict=True):
        np.testing.assert_allclose(values, [sizes[group, "T"], sizes[group, "B"]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["overall", "case", "control"]


@pytest.mark.parametrize("quantity", ["mean", "share"])
def test_other_quantities(adata, quantity):
    ax = agevi.pl.explanation(adata, quantity=quantity, ax=plt.subplots()[1])
    assert ax.get_xlabel().startswith({"mean": "Mean contribution (years)", "share": "Share of"}[quantity])


def heights_of(stairs):
    """Of every part in every sample, (n_parts, n_samples)."""
    return np.array([part.get_data().values - part.get_data().baseline for part in stairs])


def test_stacks_end_at_the_sum(adata):
    ax = agevi.pl.explanation(adata, kind="stack")
    (line,) = [line for line in ax.lines if len(line.get_xdata()) > 2]
    of_samples = agevi.get.explanation_df(adata, "samples")
    total = of_samples[of_samples["part"] != "baseline"].groupby("sample")["contribution"].sum()
    np.testing.assert_allclose(line.get_ydata(), np.sort(total))
    heights = heights_of(ax.patches)
    assert heights.shape == (2, len(total))
    np.testing.assert_allclose(heights.sum(axis=0), np.sort(total), atol=1e-9)


def test_bad_calls(adata):
    with pytest.raises(ValueError, match="kind='bars'"):
        agevi.pl.explanation(adata, kind="bars")
    with pytest.raises(ValueError, match="quantity='years'"):
        agevi.pl.explanation(adata, quantity="years")
    del adata.uns["agevi_explanation"]
    with pytest.raises(KeyError, match=r"run agevi.tl.explain_age\(adata, model\)"):
        agevi.pl.explanation(adata)


def test_the_smallest_of_many_parts_are_joined():
    adata = explained(20, 15, False)
    ax = agevi.pl.explanation(adata, kind="stack")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(names) == 12
    assert names[-1] == "4 others"
    of_samples = agevi.get.explanation_df(adata, "samples")
    total = of_samples[of_samples["part"] != "baseline"].groupby("sample")["contribution"].sum()
    heights = heights_of(ax.patches)
    assert heights.shape == (12, len(total))
    np.testing.assert_allclose(heights.sum(axis=0), np.sort(total), atol=1e-9)
