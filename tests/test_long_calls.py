"""Every long call shows one bar, in words, and is quiet where that is asked for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import agevi
from agevi._settings import settings

KEYS = {"age_key": "age", "subject_key": "donor"}
NETWORK = {"model_kwargs": {"n_hidden": [4]}, "train_kwargs": {"max_epochs": 2}}


def clock(adata, name, **kwargs):
    """A registered clock."""
    cls = getattr(agevi.model, name)
    cls.setup_anndata(adata, **KEYS)
    return cls(adata, **kwargs)


def attributed(adata):
    """Attributions without a clock."""
    adata.varm["agevi_attribution"] = adata.varm["agevi_attribution_signed"] = np.arange(1.0, adata.n_vars + 1)[:, None]
    adata.uns["agevi_attribution"] = {"groups": ["all"]}
    return {f"set {i}": adata.var_names[i : i + 8] for i in range(3)}


def trained(adata):
    """A clock of sums."""
    model = clock(adata, "PLSClock")
    model.train()
    return model


def transfer(adata):
    """Cases among the donors."""
    adata.obs["state"] = np.where(adata.obs["donor"].astype("category").cat.codes % 2, "case", "control")
    model = clock(adata, "MLPClock", n_hidden=[4])
    model.train(max_epochs=1, enable_progress_bar=False)
    model.split_ = {f"{name} of another cohort": role for name, role in model.split_.items()}
    options = {"condition_key": "state", "control": "control", "n_folds": 2, "n_repeats": 2, "n_boot": 10}
    return lambda: agevi.tl.compare_transfer(adata, model, train_kwargs={"max_epochs": 1}, **options)


CALLS = {
    "cross_validate": (
        lambda a: lambda: agevi.tl.cross_validate(a, agevi.model.MLPClock, **KEYS, n_folds=3, **NETWORK),
        "MLPClock, fold 1 of 3: 1/3 fits",
    ),
    "compare_models": (
        lambda a: (
            lambda: agevi.tl.compare_models(
                a, [agevi.model.PLSClock], **KEYS, n_folds=2, n_null_linear=1, n_null_network=1
            )
        ),
        "PLSClock, fold 1 of 2: 1/3 fits",
    ),
    "tune": (
        lambda a: (
            lambda: agevi.tl.tune(a, agevi.model.MLPClock, {"dropout_rate": [0.1, 0.2]}, **KEYS, n_trials=2, **NETWORK)
        ),
        "MLPClock, trial 1 of 2: 1/2 trials",
    ),
    "learning_curve": (
        lambda a: (
            lambda: agevi.tl.learning_curve(a, "PLSClock", **KEYS, n_folds=2, n_subjects=[5], n_cells=[2], n_repeats=1)
        ),
        "PLSClock, all data, fold 1 of 2: 1/6 fits",
    ),
    "compare_transfer": (transfer, "transfer, repeat 1, fold 1: 1/4 folds"),
    "attribute_genes": (
        lambda a: (lambda model: lambda: agevi.tl.attribute_genes(a, model))(trained(a)),
        "PLSClock, attributions: 24/24 rows",
    ),
    "perturb_genes": (
        lambda a: (lambda model: lambda: agevi.tl.perturb_genes(a, model, ["gene00", "gene01"]))(trained(a)),
        "PLSClock, perturbations: 1/2 predictions",
    ),
    "enrich": (
        lambda a: (lambda sets: lambda: agevi.tl.enrich(a, sets, method="gsea", size_range=(2, None)))(attributed(a)),
        "gene sets, gsea: 1/1 groups",
    ),
    "audit_leakage": (
        lambda a: lambda: agevi.pp.audit_leakage(a, **KEYS),
        "audit, copies of cells: 1/",
    ),
    "ElasticNetClock": (
        lambda a: clock(a, "ElasticNetClock", n_folds=2, alphas=5).train,
        "ElasticNetClock, choice of the penalty: 1/",
    ),
    "PoissonVAE": (
        lambda a: (lambda model: lambda: model.train(max_epochs=3))(clock(a, "PoissonVAE", n_hidden=[4], n_latent=2)),
        "PoissonVAE: 1/3 epochs",
    ),
    "NMFClock": (
        lambda a: (lambda model: lambda: model.train(max_epochs=3))(clock(a, "NMFClock", n_components=2)),
        "NMFClock, components of ",
    ),
    "CaseControlClassifier": (
        lambda a: (lambda model: lambda: model.train(max_epochs=2))(classifier(a)),
        "CaseControlClassifier: 1/2 epochs",
    ),
}


def classifier(adata):
    """A classifier of cases."""
    transfer(adata)
    model = clock(adata, "MLPClock", n_hidden=[4])
    model.train(max_epochs=1, enable_progress_bar=False)
    return agevi.model.CaseControlClassifier.from_clock(model, adata, condition_key="state", control="control")


@pytest.mark.slow
@pytest.mark.usefixtures("bars_of_short_calls")
@pytest.mark.parametrize("name", CALLS)
def test_shows_one_bar_in_words(cohort, capsys, name):
    make, first = CALLS[name]
    call = make(cohort)
    capsys.readouterr()
    call()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith(first), err
    assert err.replace("\n", "").isprintable()  # no control characters
    done = lines[-1].split(": ")[1].split()[0].split("/")
    assert done[0] == done[1], err
    counts = [int(line.split(": ")[1].split("/")[0]) for line in lines]
    assert name == "NMFClock" or counts == sorted(set(counts)), err  # one bar, which never begins anew


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_says_nothing_at_verbosity_0(cohort, capsys, name):
    call = CALLS[name][0](cohort)
    capsys.readouterr()
    settings.verbosity = 0
    try:
        call()
    finally:
        settings.verbosity = None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["PoissonVAE", "NMFClock", "ElasticNetClock"])
def test_one_training_can_be_silenced(cohort, capsys, name):
    model = clock(cohort, name, **({"n_components": 2} if name == "NMFClock" else {}))
    capsys.readouterr()
    model.train(max_epochs=2, enable_progress_bar=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_importing_and_training_leave_others_quiet_and_as_they_were():
    """In a process of its own, where nothing has been configured; early stopping ends it, which scvi-tools prints."""
    code = """
        import logging
        root = logging.getLogger()
        before = root.level, list(root.handlers)
        import torch, agevi
        own = logging.getLogger("agevi")
        assert (own.level, own.handlers, own.propagate) == (0, [], True), own.handlers
        assert (root.level, root.handlers) == before
        torch.set_num_threads(2)
        from agevi import _progress
        _progress.SHORT = 0.0
        adata = agevi.datasets.simulate_cohort(n_subjects=24, n_cells=10, n_genes=40)
        agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
        agevi.model.MLPClock.setup_anndata(adata, subject_key="donor", age_key="age")
        model = agevi.model.MLPClock(adata, n_hidden=[4], train_unit="cell")
        names = ["lightning.pytorch", "lightning.fabric", "scvi", "agevi", None]
        state = lambda: [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in names]
        before = state()
        model.train(60, early_stopping_patience=1, plan_kwargs={"lr": 1.0})
        assert state() == before
        assert torch.get_num_threads() == 2
        assert model.trainer.current_epoch < 60
    """
    found = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert found.stdout == ""
    lines = [line for line in found.stderr.splitlines() if line.startswith("MLPClock: ")]
    assert lines[-1].endswith("left, stopped early")
    for word in ("GPU", "Trainer", "Monitored", "Epoch", "Seed", "tip", "num_workers"):
        assert word not in found.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("bars_of_short_calls")
def test_the_bar_names_the_type_of_cells(cohort, capsys):
    cohort.obs["kind"] = np.where(np.arange(cohort.n_obs) % 2, "CD4 T", "NK")
    capsys.readouterr()
    agevi.tl.cross_validate(cohort, "PLSClock", **KEYS, n_folds=2, groupby="kind", min_cells=2)
    lines = capsys.readouterr().err.splitlines()
    for kind in ("CD4 T", "NK"):
        for fold in (1, 2):
            assert any(line.startswith(f"PLSClock, {kind}, fold {fold} of 2: ") for line in lines), lines
