from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from agevi.nn import rows

X = sp.random(11, 6, 0.3, format="csr", random_state=0, dtype=np.float32)


def tensor(x=X, index=np.int32) -> torch.Tensor:
    crow, columns = torch.from_numpy(x.indptr.astype(index)), torch.from_numpy(x.indices.astype(index))
    return rows.csr(crow, columns, torch.from_numpy(x.data), x.shape[1])


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("n_rows", [1, 3, 100], ids="{} rows".format)
def test_blocks_cover_the_matrix(n_rows, index, monkeypatch):
    monkeypatch.setitem(rows._CHUNK_BYTES, "cpu", n_rows * 6 * 4)
    got = [(b.rows, b.dense(torch.float32)) for b in rows.blocks(tensor(index=index))]
    assert all(len(d) <= n_rows for _, d in got)
    np.testing.assert_array_equal(torch.cat([d for _, d in got]).numpy(), X.toarray())
    np.testing.assert_array_equal(rows.as_dense(tensor(index=index)).numpy(), X.toarray())
    for block in rows.blocks(tensor(index=index)):
        part = X[block.rows]
        np.testing.assert_allclose(block.row_sum(block.values).numpy(), np.asarray(part.sum(1)).ravel(), rtol=1e-6)
        np.testing.assert_array_equal(block.gene().numpy(), part.indices)


def test_from_dense_and_back():
    dense = torch.from_numpy(X.toarray())
    assert rows.as_dense(dense) is dense
    got = rows.as_csr(dense)
    assert rows.is_csr(got)
    np.testing.assert_array_equal(got.to_dense().numpy(), X.toarray())
    assert rows.as_csr(got) is got
    np.testing.assert_array_equal(rows.with_values(got, got.values() * 2).to_dense().numpy(), 2 * X.toarray())


@pytest.mark.parametrize("shape", [(4, 6), (0, 6)], ids=["only zeros", "no row"])
def test_empty(shape):
    x = rows.as_csr(torch.zeros(shape))
    assert rows.as_dense(x).shape == shape
    assert rows.row_sum(x).tolist() == [[0.0]] * shape[0]


def test_sums():
    expected = np.asarray(X.sum(1))
    np.testing.assert_allclose(rows.row_sum(tensor()).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(rows.row_sum(torch.from_numpy(X.toarray())).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("lengths", [[3, 0, 2], [0, 0, 4], [2, 3, 0], [0, 0], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("with_gradient", [False, True], ids=["numpy", "torch"])
def test_stretches_are_summed_and_numbers_repeated(lengths, with_gradient):
    offsets = torch.tensor([0, *np.cumsum(lengths)])
    values = torch.arange(1.0, 1 + sum(lengths), requires_grad=with_gradient)
    want = [float(part.sum()) for part in torch.split(values.detach(), lengths)]
    assert rows.segment_sum(values, offsets).tolist() == want
    of_rows = torch.arange(0.0, len(lengths), requires_grad=with_gradient)
    got = rows.repeated(of_rows, torch.tensor(lengths), sum(lengths))
    assert got.tolist() == [float(i) for i, n in enumerate(lengths) for _ in range(n)]
