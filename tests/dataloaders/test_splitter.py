from __future__ import annotations

import pytest
import torch

from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders import _splitter
from agevi.dataloaders._cells import EvenBatchSampler
from agevi.dataloaders._fields import AGE, DECODED
from agevi.dataloaders._splitter import SubjectSplitter, roles_from_column
from agevi.model import PoissonVAE
from agevi.nn.rows import as_dense


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [
        pytest.param(1025, 1024, [513, 512], id="remainder of one"),
        pytest.param(10, 5, [5, 5], id="exact"),
        pytest.param(7, 100, [7], id="one batch"),
        pytest.param(7, 3, [3, 2, 2], id="spread"),
    ],
)
def test_batches_are_even_and_cover_all(n, batch_size, sizes):
    sampler = EvenBatchSampler(n, batch_size, shuffle=True)
    batches = list(sampler)
    assert [len(b) for b in batches] == sizes
    assert len(sampler) == len(sizes)
    assert sorted(i for b in batches for i in b) == list(range(n))
    assert [i for b in EvenBatchSampler(n, batch_size, shuffle=False) for i in b] == list(range(n))


def test_roles_from_column(cohort):
    roles = roles_from_column(cohort, "agevi_split", cohort.obs["donor"].astype(str))
    expected = cohort.obs.groupby("donor", observed=True)["agevi_split"].first()
    assert roles.to_dict() == expected.astype(str).to_dict()


def test_subject_on_two_sides_is_refused(cohort):
    cohort.obs["agevi_split"] = ["train", *["test"] * (cohort.n_obs - 1)]
    with pytest.raises(ValueError, match="is in 'train' and 'test'.*held out as a whole"):
        roles_from_column(cohort, "agevi_split", cohort.obs["donor"].astype(str))


def test_unknown_role_is_refused(cohort):
    cohort.obs["mine"] = "holdout"
    with pytest.raises(ValueError, match="holds 'holdout'; the roles of a split are"):
        roles_from_column(cohort, "mine", cohort.obs["donor"].astype(str))


@pytest.mark.parametrize("decodes", [True, False])
def test_validation_decodes_some_cells_of_all(cohort, decodes, monkeypatch):
    monkeypatch.setattr(_splitter, "VALIDATION_CELLS", 20)
    PoissonVAE.setup_anndata(cohort, age_key="age", subject_key="donor")
    manager = PoissonVAE._get_most_recent_anndata_manager(cohort)
    roles = cohort.obs["agevi_split"].astype(str).to_numpy()
    splitter = SubjectSplitter(manager, roles, batch_size=7, decodes=decodes)
    found, decoded = [], []
    for batch in splitter.val_dataloader():
        x = as_dense(batch[REGISTRY_KEYS.X_KEY])
        assert len(x) == len(batch[AGE]) <= 20
        found.append(x)
        if decodes:
            last = as_dense(batch[DECODED])
            assert torch.equal(last, x[-len(last) :])
            decoded.append(len(last))
    want = torch.from_numpy(cohort.X[roles == "validation"].toarray()).float()
    assert torch.equal(torch.cat(found).sum(0), want.sum(0))
    assert torch.equal(torch.sort(torch.cat(found).sum(1))[0], torch.sort(want.sum(1))[0])
    if decodes:
        step = -(-len(want) // 20)
        assert len(want) / step <= sum(decoded) <= len(want) / step + len(decoded)
