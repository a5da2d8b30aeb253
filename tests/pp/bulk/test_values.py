from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import logit

from agevi import pp
from agevi.pp.bulk import _values
from tests.test_gates import check_message, snapshot


def samples(values, **layers):
    out = ad.AnnData(np.asarray(values, dtype=np.float32))
    for name, layer in layers.items():
        out.layers[name] = np.asarray(layer, dtype=np.float32)
    return out


@pytest.fixture
def betas():
    return samples(np.random.default_rng(0).uniform(0.001, 0.999, (30, 20)))


def test_m_values_are_log2_odds(betas):
    pp.beta_to_m(betas)
    np.testing.assert_allclose(betas.layers["m"], logit(betas.X.astype(float)) / np.log(2), rtol=1e-5, atol=1e-6)
    assert betas.layers["m"].dtype == np.float32


def test_there_and_back(betas, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", 100)  # several blocks
    betas.X[3, 4] = np.nan
    out = pp.m_to_beta(pp.beta_to_m(betas, copy=True), layer="m", key_added="again", copy=True)
    np.testing.assert_allclose(out.layers["again"], betas.X, atol=1e-6)
    assert list(betas.layers.keys()) in ([], [None])


def test_the_ends_stay_finite():
    out = pp.beta_to_m(samples([[0.0, 1.0]]), copy=True)
    np.testing.assert_allclose(out.layers["m"], [[-np.log2(1e6 - 1), np.log2(1e6 - 1)]], rtol=1e-5)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_forms(form):
    values = np.array([[0.0, 0.5], [0.25, 0.0]], dtype=np.float32)
    out = pp.beta_to_m(ad.AnnData(form(values)), copy=True)
    np.testing.assert_allclose(out.layers["m"], pp.beta_to_m(samples(values), copy=True).layers["m"])


CASES = {
    "M values as betas": (pp.beta_to_m, [[-3.0, 2.0]], {}, "as M values do; they need no conversion"),
    "percentages as betas": (pp.beta_to_m, [[3.0, 90.0]], {}, "as percentages do; divide them by 100"),
    "intensities as betas": (pp.beta_to_m, [[3.0, 9000.0]], {}, "check how the data were read"),
    "betas as M values": (pp.m_to_beta, [[0.1, 0.9]], {}, "as betas do; they need no conversion"),
    "intensities as M values": (pp.m_to_beta, [[-3.0, 9000.0]], {}, "M values are log2 ratios"),
    "infinite": (pp.m_to_beta, [[-np.inf, 1.0]], {}, "no beta and no M value is infinite"),
    "nothing measured": (pp.beta_to_m, [[np.nan, np.nan]], {}, "holds no values: all are missing"),
    "onto itself": (pp.beta_to_m, [[0.5]], {"layer": "m"}, "is the layer that is read"),
}


@pytest.mark.parametrize("case", CASES)
def test_errors(case):
    function, values, arguments, words = CASES[case]
    adata = samples(values, m=values)
    before = snapshot(adata)
    with pytest.raises(ValueError) as raised:
        function(adata, **arguments)
    check_message(raised, words)
    assert snapshot(adata) == before
