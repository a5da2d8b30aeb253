from __future__ import annotations

import pytest

from agevi.io._card import clock_card, ensemble_card


def meta(**changes) -> dict:
    out = {
        "class": "PoissonVAE", "init": {"train_unit": "cell"}, "genes": ["A", "B"], "best_epoch": 2,
        "setup": {"normalize": "log1p_cp10k", "layer": None},
        "split": {f"d{i}": "train" for i in range(20)} | {f"v{i}": "validation" for i in range(6)},
        "age": {"unit": "years", "min": 20.0, "max": 80.0, "n_subjects": 20, "n_samples": 20, "n_cells": 400},
        "history": {"age_mae_validation": [9.0, 8.0, 8.5]},
        "versions": {"agevi": "1", "scvi-tools": "2", "torch": "3"},
    }  # fmt: skip
    return out | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "error 8.00 years over 6 validation subjects, which chose the epoch (2), so", id="cells"),
        pytest.param(
            {"init": {"train_unit": "pseudocell"}}, "error 8.00 years over 6 validation subjects, which did not shape",
            id="pseudocells",
        ),
        pytest.param(
            {"split": {"d": "train", "v": "validation"}}, "1 validation subjects chose the epoch (2), too few", id="few"
        ),
        pytest.param({"history": {}}, "no validation subjects were held out", id="nobody"),
        pytest.param({"setup": {"normalize": "none", "layer": "x"}}, "(values as they are)", id="values"),
        pytest.param({"setup": {"normalize": "none", "layer": "x"}}, "adata.layers['x']", id="layer"),
    ],
)  # fmt: skip
def test_what_a_card_says(changes, words):
    assert words in clock_card(meta(**changes))


@pytest.mark.parametrize(("setup", "name"), [({"sample_key": "visit"}, "visit"), ({"sample_key": None}, "donor")])
def test_how_to_use_a_clock_where_the_samples_have_another_name(setup, name):
    whole = {"normalize": "none", "layer": None, "subject_key": "donor"} | setup
    words = f"""Samples are those of adata.obs['{name}']. Data without that column: agevi.tl.predict_age(adata, clock, sample_key="<"""
    assert words in clock_card(meta(setup=whole))
    member = meta(setup=whole)
    published = {"class": "LinearClock", "init": {}, "genes": ["A"], "age": {"unit": "years"}, "setup": {"normalize": "none", "layer": None}}  # fmt: skip
    ensemble = meta(members=[published, member], init={"weights": [0.5, 0.5], "scale": "log"})
    assert words in ensemble_card(ensemble, ["train"], 2)
    nested = meta(members=[ensemble], init={"weights": [1.0], "scale": "log"})
    assert words in ensemble_card(nested, ["train"], 2)
    alone = meta(members=[published], init={"weights": [1.0], "scale": "log"}, age={"unit": "years"})
    assert "Samples are those" not in ensemble_card(alone, [], 1)


def test_what_the_members_of_an_ensemble_read():
    of_genes = meta()
    of_table = meta(setup={"normalize": "none", "layer": None, "obsm_key": "X_pca"}, genes=["X_pca_0"])
    join = {"weights": [1.0], "scale": "log"}

    def card(*members):
        weights = [1 / len(members)] * len(members)
        return ensemble_card(meta(members=list(members), init=join | {"weights": weights}), ["train"], 3)

    assert "from 3 genes: the weighted mean" in card(of_genes)
    assert "from 3 dimensions: the weighted mean" in card(meta(members=[of_table], init=join), of_table)
    assert "from 3 genes and dimensions: the weighted mean" in card(of_table, of_genes)
