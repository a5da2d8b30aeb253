"""Canaries for the hooks of scvi-tools that agevi relies on: each names the hook when it breaks."""

from __future__ import annotations

import inspect

import pytest

from agevi import _compat
from agevi._compat import scvi


@pytest.mark.parametrize(
    ("owner", "hook"),
    [
        (scvi.BaseModelClass, "_get_setup_method_args"),
        (scvi.BaseModelClass, "_get_init_params"),
        (scvi.BaseModelClass, "_make_data_loader"),
        (scvi.BaseModelClass, "_validate_anndata"),
        (scvi.BaseModelClass, "_get_most_recent_anndata_manager"),
        (scvi.BaseModelClass, "_register_manager_for_instance"),
        (scvi.BaseModelClass, "get_anndata_manager"),
        (scvi.BaseModelClass, "get_var_names"),
        (scvi.TrainRunner, "_update_history"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_hook_exists(owner, hook):
    assert callable(getattr(owner, hook, None)), f"scvi-tools no longer has {owner.__name__}.{hook}"


def test_every_verb_validates_through_the_hook():
    for verb in ("get_elbo", "get_latent_representation", "get_normalized_expression", "posterior_predictive_sample"):
        mixin = scvi.VAEMixin if hasattr(scvi.VAEMixin, verb) else scvi.RNASeqMixin
        source = inspect.getsource(inspect.unwrap(getattr(mixin, verb)))
        assert "self._validate_anndata(" in source or "_validate_adata_dataloader_input" in source, verb


def test_model_keeps_its_data_where_agevi_looks(trained):
    assert trained._adata is trained.adata
    assert trained._adata_manager is trained.adata_manager
    assert trained.get_anndata_manager(trained.adata_manager.adata) is trained.adata_manager
    assert trained.registry_["setup_args"]["subject_key"] == "donor"


def test_plan_reads_the_kl_weight_property():
    assert isinstance(scvi.TrainingPlan.kl_weight, property)


def test_version_of_what_is_not_installed():
    assert _compat.version("no-such-package") == ""
    assert _compat.version("scvi-tools")
