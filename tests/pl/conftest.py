from __future__ import annotations

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from agevi.pl import _figure


@pytest.fixture(autouse=True)
def figures_and_rcparams():
    """Draw without a screen, leave no figure open, and fail when a plot changes rcParams."""
    plt.switch_backend("agg")
    plt.close("all")  # what tests elsewhere left open
    before = mpl.rcParams.copy()
    yield
    assert mpl.rcParams == before
    plt.close("all")


@pytest.fixture(autouse=True)
def layout(monkeypatch):
    """Draw new figures once and leave them as large as they are, where no test looks at the layout."""
    monkeypatch.setattr(_figure, "_grow", lambda figure: figure.draw_without_rendering())


@pytest.fixture
def cohort():
    """Forty subjects of five cells with predictions, roles and the subject table, as the tools leave them."""
    rng = np.random.default_rng(0)
    names = np.array([f"d{i:02d}" for i in range(40)])
    age = rng.uniform(20, 90, 40)
    role = np.array(["train"] * 26 + ["validation"] * 6 + ["test"] * 8)
    predicted = age + rng.normal(0, 6, 40)
    of_cell = rng.permutation(np.repeat(np.arange(40), 5))
    obs = pd.DataFrame(
        {
            "donor": names[of_cell],
            "age": age[of_cell],
            "agevi_split": pd.Categorical(role[of_cell], categories=["train", "validation", "test"]),
            "agevi_role": pd.Categorical(role[of_cell], categories=["train", "validation", "test"]),
            "tissue": pd.Categorical(np.array(["skin", "blood"])[of_cell % 2], categories=["skin", "blood"]),
        },
        index=[f"cell{i}" for i in range(200)],
    )
    adata = ad.AnnData(np.ones((200, 2), dtype=np.float32), obs=obs)
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age", "age_unit": "years"}
    adata.uns["agevi_subjects"] = pd.DataFrame(
        {"subject": names, "age": age, "predicted": predicted, "n_cells": 5, "sd_cells": 1.0, "role": role},
        index=pd.Index(names, name="sample"),
    )
    return adata
