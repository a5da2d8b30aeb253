"""What is taken from training rows before the network is trained: moments per group, and modules of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.utils.extmath import randomized_svd

from agevi import _checks
from agevi.model.transformer._skip import MIN_SUBJECTS

N_MODULE_ROWS = 1000
"""Rows that modules are learnt from."""
_BLOCK = 512
_N_LOADINGS = 16
OTHER = "other"


def dense(x: Any, rows: np.ndarray) -> np.ndarray:
    """Some rows as float32."""
    return _checks.dense(x[rows])


def group_moments(
    x: Any, rows: np.ndarray, group: np.ndarray, sets: np.ndarray, masks: np.ndarray, *, n_groups: int, n_tissues: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse sd of every feature in every group of training ``rows``, (n_groups, n_features) float32 each."""
    shape = (n_groups, masks.shape[1])
    number, total, square = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape)
    for kind in np.unique(np.stack([group, sets], axis=1), axis=0):
        own = rows[(group == kind[0]) & (sets == kind[1])]
        mask = masks[kind[1]]
        number[kind[0]] += len(own) * mask
        for start in range(0, len(own), _BLOCK):
            block = dense(x, own[start : start + _BLOCK]).astype(np.float64)
            total[kind[0]] += block.sum(axis=0) * mask
            square[kind[0]] += np.einsum("ij,ij->j", block, block) * mask
    # Groups are modality * (n_tissues + 1) + tissue, tissue 0 the modality as a whole, which stands in for the few.
    for first in range(0, n_groups, n_tissues + 1):
        whole = slice(first, first + n_tissues + 1)
        for sums in (number, total, square):
            sums[first] = sums[whole].sum(axis=0)
        few = number[whole] < MIN_SUBJECTS
        for sums in (number, total, square):
            sums[whole] = np.where(few, sums[first], sums[whole])
    known = np.maximum(number, 1)
    mean = total / known
    variance = square / known - mean**2
    # The inverse is 0 where a feature does not vary or was never measured.
    varies = (variance > 1e-10 * np.maximum(square / known, 1e-12)) & (number > 1)
    inverse = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
    return mean.astype(np.float32), inverse.astype(np.float32)


def learn_modules(
    z: np.ndarray, masks: np.ndarray, n_tokens: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Token of every feature, (n_features,), and block, measured by the same sets, of every token, (n_tokens,)."""
    n_features = masks.shape[1]
    block = np.unique(masks, axis=1, return_inverse=True)[1].ravel()
    sizes = np.bincount(block)
    if len(sizes) > n_tokens:
        block, sizes = np.zeros(n_features, dtype=np.int64), np.array([n_features])
    share = _shared_out(sizes, n_tokens)
    token_of, first = np.zeros(n_features, dtype=np.int64), 0
    block_of = np.zeros(n_tokens, dtype=np.int64)
    for code, n in enumerate(share):
        columns = np.flatnonzero(block == code)
        # K-means on the leading loadings orders features by cluster, and the order is cut into tokens of equal size.
        order = columns[_by_cluster(z[:, columns], int(n), rng)]
        token_of[order] = first + np.arange(len(order)) * n // len(order)
        block_of[first : first + n] = code
        first += int(n)
    return token_of, block_of


def _shared_out(sizes: np.ndarray, n_tokens: int) -> np.ndarray:
    """Tokens of every block: one at least, the rest in proportion to its features, none above their number."""
    out = np.ones(len(sizes), dtype=np.int64)
    for _ in range(min(n_tokens, int(sizes.sum())) - len(sizes)):
        out[np.argmax(np.where(out < sizes, sizes / out, -1.0))] += 1
    return out


def _by_cluster(z: np.ndarray, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Order of features in which those of a cluster are neighbours."""
    n_loadings = min(_N_LOADINGS, *z.shape)
    if n_clusters < 2 or n_loadings < 2:
        return np.arange(z.shape[1])
    seed = int(rng.integers(2**31))
    _, strength, loadings = randomized_svd(z, n_loadings, random_state=seed)
    place = (strength[:, None] * loadings).T
    place /= np.maximum(np.linalg.norm(place, axis=1, keepdims=True), 1e-12)  # so that distances are correlations
    label = MiniBatchKMeans(n_clusters, n_init=1, batch_size=4096, random_state=seed).fit_predict(place)
    return np.lexsort((place[:, 0], label))


def given_modules(genes: Sequence[str], modules: Mapping[str, Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Names of the tokens, and token of every feature, (n_features,); features of no module share the last."""
    token: dict[str, int] = {}
    for i, members in enumerate(modules.values()):
        for gene in members:
            token.setdefault(str(gene), i)
    out = np.array([token.get(str(gene), len(modules)) for gene in genes], dtype=np.int64)
    empty = [name for i, name in enumerate(modules) if not (out == i).any()]
    if empty:
        raise ValueError(
            f"module {empty[0]!r} has no feature of its own among the {len(genes):,} of adata.var_names (e.g. "
            f"{_checks.listed(genes, 3)}); leave it out of modules."
        )
    names = [str(name) for name in modules]
    return (names, out) if out.max() < len(names) else ([*names, OTHER], out)
