from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

import agevi
from agevi._progress import Bar
from tests.conftest import QUIET

SETUP = {"age_key": "age", "subject_key": "donor"}
SOME = [0, 19, 101, 479]


def fit(cls, adata, *, init=None, setup=None):
    cls.setup_anndata(adata, **SETUP, **(setup or {}))
    model = cls(adata, **cls.test_params()["init"], **(init or {}))
    model.train(**cls.test_params()["train"], **QUIET)
    return model


def raw(model, adata, method="exact"):
    """What every cell adds, before it is centred."""
    ages = model.predict_left_out(adata, method=method, sample_key=None, min_gene_coverage=0.5, bar=Bar())
    return ages.whole - ages.without


def by_hand(model, adata, cells):
    """The same of some cells from predictions of their samples without them."""
    donor, out = adata.obs["donor"].astype(str).to_numpy(), []
    for cell in cells:
        own = donor == donor[cell]
        rest = own.copy()
        rest[cell] = False
        ages = [_sample_age(model, adata[chosen].copy()) for chosen in (own, rest)]
        out.append(ages[0] - ages[1])
    return np.array(out, dtype=np.float64)


def _sample_age(model, sample):
    return float(model.predict_samples(sample, min_gene_coverage=0.5)[0])


@pytest.fixture(scope="module")
def adata():
    return agevi.datasets.simulate_cohort(n_subjects=24, n_cells=20, n_genes=60, n_age_genes=20, rng=1)


@pytest.fixture(scope="module")
def pls(adata):
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", rng=0)
    return fit(agevi.model.PLSClock, adata)


OF_SUMS = {
    **{name: (getattr(agevi.model, name), {}) for name in ("PLSClock", "PoissonVAE", "NMFClock")},
    "means": (agevi.model.PLSClock, {"setup": {"normalize": "none"}}),
    "groups": (agevi.model.MLPClock, {"init": {"pseudocell_groupby": "cell_type"}}),
}


@pytest.mark.parametrize("name", OF_SUMS)
def test_exact_contributions_are_those_of_predictions_without_the_cell(name, adata):
    cls, kwargs = OF_SUMS[name]
    model = fit(cls, adata.copy(), **kwargs)
    assert model.predicts_sums
    expected = by_hand(model, adata, SOME)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(raw(model, adata)[SOME], expected, atol=2e-5)


@pytest.mark.parametrize("name", [n for n in OF_SUMS if n != "NMFClock"])
def test_the_first_order_is_near_the_exact_one_in_large_samples(name):
    adata = agevi.datasets.simulate_cohort(n_subjects=8, n_cells=300, n_genes=60, n_age_genes=20, rng=3)
    cls, kwargs = OF_SUMS[name]
    model = fit(cls, adata, **kwargs)
    exact, first = (raw(model, adata, method) for method in ("exact", "first_order"))
    assert np.corrcoef(exact, first)[0, 1] > (0.999 if model.linear else 0.95)
    assert abs(np.polyfit(first, exact, 1)[0] - 1) < (0.01 if model.linear else 0.1)


def test_auto_is_exact_unless_a_linear_clock_has_large_samples(pls, monkeypatch):
    adata = agevi.datasets.simulate_cohort(n_subjects=3, n_cells=[30, 40, 50], n_genes=60, n_age_genes=20, rng=2)
    monkeypatch.setattr("agevi.model.base._left_out.MANY_CELLS", 40)
    exact, first, auto = (raw(pls, adata, method) for method in ("exact", "first_order", "auto"))
    np.testing.assert_array_equal(auto[:30], exact[:30])
    np.testing.assert_array_equal(auto[30:], first[30:])
    assert (exact != first).mean() > 0.9


def test_values_are_centred_within_samples_and_types(adata, pls):
    out = agevi.tl.cell_age_signal(adata, pls, groupby="cell_type", copy=True)
    assert "agevi_cell_signal" not in adata.obs
    units = [out.obs["donor"], out.obs["cell_type"]]
    expected = pd.Series(raw(pls, adata), out.obs_names)
    mean = expected.groupby(units, observed=True).transform("mean")
    alone = expected.groupby(units, observed=True).transform("size") == 1
    assert 0 < alone.sum() < 50
    signal = out.obs["agevi_cell_signal"]
    assert signal.dtype == np.float32
    np.testing.assert_allclose(signal, (expected - mean).mask(alone), atol=1e-5)
    assert signal.groupby(units, observed=True).sum().abs().max() < 1e-4
    params = out.uns["agevi_cell_signal_params"]
    assert (params["groupby"], params["method"], params["sample_key"]) == ("cell_type", "auto", "donor")
    assert (params["model"], params["unit"]) == ("PLSClock", "years")


def test_cells_without_others_to_compare_with_have_none(adata, pls, caplog):
    few = adata[(adata.obs["donor"] != adata.obs["donor"].iloc[0]) | (np.arange(480) == 0)].copy()
    few.obs["kind"] = few.obs["cell_type"].astype(object).where(np.arange(len(few)) != 3)
    with caplog.at_level(logging.INFO, "agevi"):
        agevi.tl.cell_age_signal(few, pls)
        agevi.tl.cell_age_signal(few, pls, groupby="kind", key_added="kind")
    assert np.flatnonzero(few.obs["agevi_cell_signal"].isna()).tolist() == [0]
    assert caplog.messages[0] == "1 of 461 cells are alone in their sample; their signal is NaN."
    assert few.obs["kind_cell_signal"].isna().iloc[[0, 3]].all()
    assert "alone in their sample and adata.obs['kind'], or have no value there" in caplog.messages[-1]
    bulk = adata[::20].copy()
    with pytest.raises(ValueError, match="all 24 cells are alone in their sample; a cell is compared with others"):
        agevi.tl.cell_age_signal(bulk, pls)
    assert "agevi_cell_signal" not in bulk.obs


@pytest.mark.slow
def test_ensembles_average_their_members(adata, pls):
    members = [
        pls,
        fit(agevi.model.MLPClock, adata.copy()),
        fit(agevi.model.MLPClock, adata.copy(), init={"train_unit": "cell"}),
    ]
    model = agevi.model.EnsembleClock(members)
    np.testing.assert_allclose(raw(model, adata)[SOME], by_hand(model, adata, SOME), atol=3e-5)


@pytest.mark.slow
def test_data_of_every_kind_give_the_same(adata, pls, tmp_path):
    expected = raw(pls, adata)
    dense = ad.AnnData(adata.X.toarray(), obs=adata.obs, var=adata.var)
    np.testing.assert_allclose(raw(pls, dense), expected, atol=1e-5)
    np.testing.assert_allclose(raw(pls, dense, "first_order"), raw(pls, adata, "first_order"), atol=1e-5)
    turned = ad.AnnData(sp.csc_matrix(adata.X)[:, ::-1], obs=adata.obs, var=adata.var[::-1])
    np.testing.assert_allclose(raw(pls, turned), expected, atol=1e-5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_allclose(raw(pls, backed), expected, atol=1e-5)
    agevi.tl.cell_age_signal(backed, pls)
    np.testing.assert_allclose(raw(pls, adata[:, :50]), by_hand_all(pls, adata[:, :50].copy()), atol=1e-5)


def by_hand_all(model, adata):
    """For all cells, those not in ``SOME`` as they are given."""
    out = raw(model, adata)
    out[SOME] = by_hand(model, adata, SOME)
    return out


def test_blocks_of_cells_do_not_change_it(adata, pls, monkeypatch):
    expected = [raw(pls, adata, method) for method in ("exact", "first_order")]
    monkeypatch.setattr("agevi.model.base._left_out.PREDICT_VALUES", 1)
    for method, values in zip(("exact", "first_order"), expected, strict=True):
        np.testing.assert_allclose(raw(pls, adata, method), values, atol=1e-5)


def test_new_predictions_remove_the_signal(adata, pls):
    own = adata.copy()
    agevi.tl.cell_age_signal(own, pls)
    agevi.tl.predict_age(own, pls)
    assert not {"agevi_cell_signal", "agevi_cell_signal_params"} & ({*own.obs} | {*own.uns})


def mixed(planted: bool):
    """60 donors of whose cells a third ages, and else nothing differs; with ``planted`` False no cell does."""
    ages, other = (
        agevi.datasets.simulate_cohort(
            60, 30, 80, n_age_genes=40, n_cell_types=1, ageing_rates=[rate], effect_range=(0.2, 0.4), rng=5
        )
        for rate in (1.0, 0.0)
    )
    chosen = np.random.default_rng(0).random(ages.n_obs) < 1 / 3
    out = other.copy()
    out.X = np.where(chosen[:, None] & planted, ages.X.toarray(), other.X.toarray())
    out.obs["ageing"] = chosen
    return out


@pytest.mark.parametrize(
    ("planted", "low", "high"), [pytest.param(True, 0.75, 1, id="planted"), pytest.param(False, 0.46, 0.54, id="null")]
)
def test_ageing_cells_of_held_out_donors_stand_out_only_where_they_are(planted, low, high):
    adata = mixed(planted)
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", test_size=0.4, rng=0)
    agevi.tl.cell_age_signal(adata, fit(agevi.model.PLSClock, adata))
    held = adata.obs[(adata.obs["agevi_split"] == "test") & ((adata.obs["age"] - 55).abs() > 15)]
    found = [
        roc_auc_score(cells["ageing"], cells["agevi_cell_signal"] * np.sign(cells["age"].iloc[0] - 55))
        for _, cells in held.groupby("donor", observed=True)
    ]
    assert len(found) > 8
    assert low < np.mean(found) < high


@pytest.mark.parametrize(
    ("change", "message", "error"),
    [
        pytest.param({"method": "rough"}, "method='rough' is not known; choose one of 'auto'", ValueError, id="method"),
        pytest.param({"groupby": "kind"}, "groupby='kind' is not a column of adata.obs", KeyError, id="groupby"),
        pytest.param({"sample_key": "visit"}, "sample_key='visit' is not a column", KeyError, id="sample"),
    ],
)
def test_arguments_out_of_range(adata, pls, change, message, error):
    with pytest.raises(error, match=message):
        agevi.tl.cell_age_signal(adata, pls, **change)


@pytest.mark.slow
def test_a_clock_per_type_is_asked_type_by_type(adata):
    own = adata.copy()
    agevi.model.CellTypeClock.setup_anndata(own, **SETUP, cell_type_key="cell_type")
    model = agevi.model.CellTypeClock(own, min_cells=2)
    model.train()
    ensemble = agevi.model.EnsembleClock
    for whole in (model, ensemble([ensemble([model])])):
        with pytest.raises(
            ValueError,
            match="this CellTypeClock has a clock for each type of cells; .* adata.adata.obs.'cell_type'. == name",
        ):
            agevi.tl.cell_age_signal(own, whole)
    for name, clock in model.type_clocks.items():
        part = own[own.obs["cell_type"] == name].copy()
        agevi.tl.cell_age_signal(part, clock)
        assert part.obs["agevi_cell_signal"].std() > 0.1


def test_clocks_of_embeddings_are_read_from_these(adata):
    own = adata.copy()
    own.obsm["X_own"] = np.asarray(np.log1p(own.X[:, :30].toarray()), dtype=np.float32)
    model = agevi.model.PLSClock
    model.setup_anndata(own, **SETUP, obsm_key="X_own")
    clock = model(own)
    clock.train()
    np.testing.assert_allclose(raw(clock, own)[SOME], by_hand(clock, own, SOME), atol=1e-4)
    exact, first = (raw(clock, own, method) for method in ("exact", "first_order"))
    assert np.corrcoef(exact, first)[0, 1] > 0.99


def test_clocks_of_single_cells_have_predictions_of_their_own(cohort, trained, pls):
    with pytest.raises(
        ValueError, match="trained on single cells, so that it has an age for each: call agevi.tl.predict"
    ):
        agevi.tl.cell_age_signal(cohort, trained)
    with pytest.raises(TypeError, match="model is a str"):
        agevi.tl.cell_age_signal(cohort, "clock")
    untrained = agevi.model.PLSClock
    untrained.setup_anndata(cohort, **SETUP)
    with pytest.raises(RuntimeError, match="tl.cell_age_signal needs a trained model"):
        agevi.tl.cell_age_signal(cohort, untrained(cohort))
