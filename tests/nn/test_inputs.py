from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from agevi.nn.inputs import GeneInput
from agevi.nn.rows import as_csr

X = np.random.default_rng(0).poisson(2.0, (30, 7)).astype(np.float32)


def make(**kwargs) -> GeneInput:
    module = GeneInput(7, **kwargs)
    module.mean.copy_(torch.arange(7.0))
    module.sd.copy_(torch.arange(1.0, 8.0))
    module.share.copy_(torch.arange(1.0, 8.0) / 28)
    return module


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_values_equal_numpy(normalize, standardize):
    got = make(normalize=normalize, standardize=standardize)(torch.from_numpy(X)).numpy()
    expected = np.log1p(X / X.sum(1, keepdims=True) * 1e4) if normalize == "log1p_cp10k" else X
    expected = (expected - np.arange(7)) / np.arange(1, 8) if standardize else expected
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_z_scores_equal_scikit_learn():
    module = GeneInput(7, normalize="none", standardize=True)
    scaler = StandardScaler().fit(X)
    module.mean.copy_(torch.from_numpy(scaler.mean_))
    module.sd.copy_(torch.from_numpy(scaler.scale_))
    np.testing.assert_allclose(module(torch.from_numpy(X)).numpy(), scaler.transform(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", ["log1p_cp10k", "none"])
def test_sums_are_standardised_by_their_own_moments(normalize):
    module, x = make(normalize=normalize, standardize=True, sums=True), torch.from_numpy(X.copy())
    module.sum_mean.copy_(torch.arange(7.0) / 2)
    module.sum_scale.copy_(torch.arange(7.0))
    values = np.log1p(X / X.sum(1, keepdims=True) * 1e4) if normalize == "log1p_cp10k" else X
    expected = (values - np.arange(7) / 2) * np.arange(7)
    np.testing.assert_allclose(module(x, summed=True).numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(module(x).numpy(), (values - np.arange(7)) / np.arange(1, 8), rtol=1e-5, atol=1e-5)
    assert (x.numpy() == X).all()
    for form in (x, as_csr(x)):
        out = torch.full((32, 7), torch.nan)
        seen = module(form, summed=True, out=out[1:31])
        np.testing.assert_allclose(out[1:31].numpy(), expected, rtol=1e-5, atol=1e-5)
        assert seen.data_ptr() == out[1].data_ptr()
        assert out[[0, 31]].isnan().all()
    assert (x.numpy() == X).all()


def test_absent_genes_are_at_their_mean_and_the_library_is_scaled_up():
    module, present = make(standardize=True), torch.tensor([True] * 5 + [False] * 2)
    x = torch.from_numpy(X) * present
    library = module.library_size(x, present)
    np.testing.assert_allclose(library.numpy().ravel(), np.maximum(X[:, :5].sum(1) / (15 / 28), 1), rtol=1e-5)
    assert (module(x, present=present)[:, 5:] == 0).all()


def test_empty_cells_are_finite():
    assert torch.isfinite(make()(torch.zeros(2, 7))).all()
