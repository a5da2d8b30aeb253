"""What every clock promises, run over ``model.MODELS``."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import agevi
from agevi.model.linear._base import FittedLinearClock
from tests.clocks import every_clock
from tests.conftest import QUIET
from tests.files import stored

SETUP = {"age_key": "age", "subject_key": "donor"}

pytestmark = every_clock


def setup_of(cls):
    return SETUP | cls.test_params().get("setup", {})


def make(cls, adata, **setup):
    cls.setup_anndata(adata, **setup_of(cls), **setup)
    return cls(adata, **cls.test_params()["init"])


def train(model):
    model.train(**model.test_params()["train"], **QUIET)


def fit(cls, adata, **setup):
    model = make(cls, adata, **setup)
    train(model)
    return model


@pytest.fixture(scope="module")
def _fitted():
    return {}


@pytest.fixture
def fitted(cls, _fitted, _cohort):
    """A clock trained on the cohort; tests must not change it."""
    if cls not in _fitted:
        _fitted[cls] = fit(cls, _cohort.copy())
    return _fitted[cls]


def test_shapes_and_determinism(cls, fitted, cohort):
    first, second = fitted, fit(cls, cohort.copy())
    ages = first.predict_age(cohort)
    assert ages.shape == (cohort.n_obs,)
    assert ages.dtype == np.float32
    assert np.isfinite(ages).all()
    np.testing.assert_array_equal(ages, second.predict_age(cohort))
    assert first.is_trained
    assert isinstance(first.best_epoch_, int)


def test_roles_follow_the_split(cls, fitted, cohort):
    expected = cohort.obs.groupby("donor", observed=True)["agevi_split"].first().astype(str)
    assert fitted.split_ == expected.to_dict()
    agevi.tl.predict_age(cohort, fitted)
    assert (cohort.obs["agevi_role"].astype(str) == cohort.obs["agevi_split"].astype(str)).all()


def test_new_subjects_without_ages(cls, fitted, cohort):
    new = cohort.copy()
    new.obs["donor"] = "new " + new.obs["donor"].astype(str)
    del new.obs["age"]
    agevi.tl.predict_age(new, fitted)
    assert (new.obs["agevi_role"] == "new").all()
    expected = fitted.predict_age(cohort, level="sample" if fitted.predicts_sums else "cell")
    np.testing.assert_allclose(new.obs["agevi_predicted"], expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", [sp.csc_matrix, sp.csr_array, lambda x: x.toarray()], ids=["csc", "csr_array", "dense"])  # fmt: skip
def test_the_same_clock_from_every_form_of_matrix(cls, fitted, cohort, form):
    other = cohort.copy()
    assert isinstance(cohort.X, sp.csr_matrix)  # of which the fitted clock is
    other.X = form(sp.csr_matrix(cohort.X))
    got = fit(cls, other)
    np.testing.assert_allclose(got.predict_age(other), fitted.predict_age(cohort), rtol=1e-4)
    assert type(other.X) is type(form(sp.csr_matrix(cohort.X)))


def test_gene_order_does_not_matter(cls, fitted, cohort):
    np.testing.assert_allclose(fitted.predict_age(cohort[:, ::-1].copy()), fitted.predict_age(cohort), rtol=1e-5)


def test_views_stay_views(cls, cohort):
    view = cohort[cohort.obs["donor"] != cohort.obs["donor"].iloc[0]]
    whole = fit(cls, view.copy())
    model = fit(cls, view)
    assert view.is_view
    assert not any(c.startswith("_scvi") for c in [*view.obs, *view.uns])
    np.testing.assert_array_equal(model.predict_age(view), whole.predict_age(view))
    np.testing.assert_array_equal(model.predict_age(), whole.predict_age())


def test_backed_data(cls, fitted, cohort, tmp_path):
    cohort.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_array_equal(fitted.predict_age(backed), fitted.predict_age(cohort))
    np.testing.assert_array_equal(
        fitted.predict_age(backed, indices=[7, 3]), fitted.predict_age(cohort, indices=[7, 3])
    )
    agevi.tl.predict_age(backed, fitted)
    assert backed.isbacked
    if cls.unit_from_disk or cls.trains_on_sums():  # trained in tests/model/base/test_from_disk.py
        cls.setup_anndata(backed, **setup_of(cls))
    else:
        with pytest.raises(ValueError, match=r"is backed by .*adata.to_memory\(\)"):
            cls.setup_anndata(backed, **setup_of(cls))
    backed.file.close()


@pytest.mark.slow
def test_backed_blocks_join(cls, fitted, cohort, tmp_path, monkeypatch):
    cohort.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    monkeypatch.setattr(agevi.dataloaders._query, "_BACKED_BLOCK", 70)
    np.testing.assert_allclose(fitted.predict_age(backed), fitted.predict_age(cohort), rtol=1e-5)
    backed.file.close()


def test_missing_ages_are_unlabelled(cls, cohort):
    unlabelled = cohort.obs["donor"].isin(cohort.obs["donor"].unique()[:5]).to_numpy()
    cohort.obs.loc[unlabelled, "age"] = np.nan
    model = fit(cls, cohort)
    assert np.isfinite(model.predict_age()).all()
    agevi.tl.predict_age(cohort, model)
    agevi.tl.aggregate_subjects(cohort)
    assert cohort.uns["agevi_subjects"]["age"].isna().sum() == 5


def test_training_goes_on(cls, cohort):
    model = fit(cls, cohort)
    before = model.predict_age()
    train(model)
    assert np.array_equal(model.predict_age(), before) == (
        issubclass(cls, FittedLinearClock) or cls.of_types
    )  # fits have no epochs


def test_odd_cells_and_genes(cls, cohort):
    x = sp.csr_matrix(cohort.X).toarray()
    x[3], x[:, 5] = 0, 0
    cohort.X = x
    model = fit(cls, cohort)
    assert np.isfinite(model.predict_age()).all()
    assert model.predict_age(cohort[3].copy()).shape == (1,)


def test_a_layer(cls, fitted, cohort):
    expected = fitted.predict_age(cohort)
    cohort.layers["counts"] = cohort.X.copy()
    cohort.X = np.log1p(sp.csr_matrix(cohort.X))
    model = fit(cls, cohort, layer="counts")
    np.testing.assert_allclose(model.predict_age(), expected, rtol=1e-5)
    counts = cohort.layers.pop("counts")
    with pytest.raises(KeyError, match="layer='counts', which the clock reads, is not in adata.layers"):
        model.predict_age(cohort)
    cohort.X = counts
    if cls.__name__ == "TransformerClock":  # nothing shows what normalised values are
        with pytest.raises(KeyError, match=r"if it does: adata.layers\['counts'\] = adata.X"):
            model.predict_age(cohort)
    else:
        np.testing.assert_allclose(model.predict_age(cohort), expected, rtol=1e-5)


@pytest.mark.slow
def test_ages_on_the_scale_of_horvath(cls, cohort, tmp_path):
    years = fit(cls, cohort.copy(), age_transform="horvath")
    in_months = cohort.copy()
    in_months.obs["age"] *= 12
    months = fit(cls, in_months, age_transform="horvath", age_unit="months", min_age=-12.0)
    np.testing.assert_allclose(months.predict_age(), 12 * years.predict_age(), rtol=1e-2)  # Adam amplifies rounding
    train = cohort.obs[cohort.obs["agevi_split"] == "train"].groupby("donor", observed=True)["age"].first()
    scale = np.where(train <= 20, np.log((np.minimum(train, 20) + 1) / 21), (train - 20) / 21)
    if cls.of_types:  # whose members each have a scale of their own
        return
    assert float(years.module.age_scale.mean) == pytest.approx(scale.mean())
    assert float(years.module.age_scale.sd) == pytest.approx(scale.std())
    months.save(tmp_path / "clock")
    np.testing.assert_array_equal(agevi.io.load_clock(tmp_path / "clock").predict_age(in_months), months.predict_age())
    card = (tmp_path / "clock" / "README.md").read_text()
    read = "values as they are" if cls.expects == "continuous" else "raw counts, normalised inside"
    assert f"age in months from 60 genes ({read}), trained on the scale of Horvath (2013)." in card


def test_save_and_load(cls, fitted, cohort, tmp_path):
    fitted.save(tmp_path / "clock")
    for clock in (cls.load(tmp_path / "clock"), agevi.io.load_clock(tmp_path / "clock")):
        np.testing.assert_array_equal(clock.predict_age(cohort), fitted.predict_age(cohort))
        assert clock.split_ == fitted.split_
        assert type(clock) is cls


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_survives_a_file(cls, fitted, cohort, tmp_path, form):
    given = list(cohort.obs)
    for key in ("agevi", "second"):
        agevi.tl.predict_age(cohort, fitted, key_added=key)
        agevi.tl.aggregate_subjects(cohort, key_added=key)
    written = ad.AnnData(obs=cohort.obs.drop(columns=given), obsm=cohort.obsm, uns=cohort.uns)
    back = stored(written, form, tmp_path)
    for key in ("agevi", "second"):
        np.testing.assert_array_equal(back.obs[f"{key}_predicted"], cohort.obs[f"{key}_predicted"])
        np.testing.assert_allclose(back.uns[f"{key}_subjects"]["predicted"], cohort.uns[f"{key}_subjects"]["predicted"])


def test_untrained_clocks_refuse(cls, cohort):
    with pytest.raises(RuntimeError, match=f"call model.train\\(\\) or {cls.__name__}.load"):
        make(cls, cohort).predict_age()


def test_wrong_values_are_refused(cls, cohort):
    cohort.X = np.log1p(sp.csr_matrix(cohort.X))
    if cls.expects == "continuous":
        with pytest.raises(ValueError, match="reads values that are normalised already"):
            make(cls, cohort, normalize="log1p_cp10k")
        return
    with pytest.raises(ValueError, match="raw counts"):
        make(cls, cohort)


def test_values_that_are_normalised_already(cls, cohort, tmp_path):
    x = np.log1p(sp.csr_matrix(cohort.X).toarray())
    cohort.X = (x - x.mean(0)).astype(np.float32)
    if cls.expects == "counts":
        with pytest.raises(ValueError, match="raw counts"):
            make(cls, cohort, normalize="none")
        return
    cls.setup_anndata(cohort, **setup_of(cls), normalize="none")
    params = cls.test_params()
    model = cls(cohort, **params["init"], **params.get("continuous", {}))
    train(model)
    ages = model.predict_age(cohort)
    assert np.isfinite(ages).all()
    model.save(tmp_path / "clock")
    np.testing.assert_array_equal(agevi.io.load_clock(tmp_path / "clock").predict_age(cohort), ages)


@pytest.mark.slow
def test_a_default_dtype_that_another_library_left(cls, fitted, cohort, tmp_path):
    expected = fitted.predict_age(cohort)
    torch.set_default_dtype(torch.float64)
    try:
        model = fit(cls, cohort)
        model.save(tmp_path / "clock")
        for clock in (model, cls.load(tmp_path / "clock")):
            np.testing.assert_allclose(clock.predict_age(cohort), expected, rtol=1e-5)
        agevi.tl.attribute_genes(cohort, model, n_boot=10)
        assert np.isfinite(cohort.varm["agevi_attribution"]).any()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
