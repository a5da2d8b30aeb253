"""A training that was killed goes on where it was, and ends as one without a break does."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

import agevi
from agevi._compat.scvi import Callback
from agevi.io import _kept
from agevi.model import CellTypeClock, MLPClock, NMFClock, PoissonVAE, TransformerClock
from agevi.model.base import _resume
from tests.conftest import QUIET

KEYS = {"age_key": "age", "subject_key": "donor"}
SMALL = {"n_hidden": [8], "rng": 0}
slow = pytest.mark.slow


class Stop(Callback):
    """Raises at the end of an epoch, counted from 0."""

    def __init__(self, epoch=None):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("planted")


@pytest.fixture(autouse=True)
def _writes_every_epoch(monkeypatch):
    monkeypatch.setattr(_kept, "PAUSE", 0.0)
    monkeypatch.setattr(_kept, "SHARE", 0.0)


def make(adata, cls=MLPClock, **init):
    setup = {"tissue_key": "cell_type"} if cls is TransformerClock else {}
    cls.setup_anndata(adata, **KEYS, **setup)
    return cls(adata, **{**(SMALL if cls is not TransformerClock else {}), **init})


def train(model, directory=None, stop=None, **kwargs):
    own = {"max_epochs": 6, "checkpoint_dir": directory, "callbacks": [Stop(stop)], "precision": "float32"}
    model.train(**(own | QUIET | kwargs))
    return model


def assert_same(model, expected):
    for name, tensor in expected.module.state_dict().items():
        np.testing.assert_array_equal(model.module.state_dict()[name].numpy(), tensor.numpy(), err_msg=name)
    assert model.history.keys() == expected.history.keys()
    for name, frame in expected.history.items():
        np.testing.assert_array_equal(model.history[name].to_numpy(), frame.to_numpy(), err_msg=name)
    assert (model.best_epoch_, model.split_) == (expected.best_epoch_, expected.split_)
    np.testing.assert_array_equal(model.predict_age(), expected.predict_age())


KINDS = [
    pytest.param(MLPClock, {}, {}, id="MLP of pseudocells"),
    pytest.param(MLPClock, {"train_unit": "cell"}, {"early_stopping_patience": 2}, id="MLP that stops early"),
    pytest.param(MLPClock, {"train_unit": "cell"}, {"early_stopping": False}, id="MLP of cells", marks=slow),
    pytest.param(PoissonVAE, {}, {}, id="PoissonVAE", marks=slow),
    pytest.param(PoissonVAE, {"train_unit": "cell"}, {}, id="PoissonVAE of cells", marks=slow),
    pytest.param(NMFClock, {"n_components": 4}, {}, id="NMF", marks=slow),
    pytest.param(NMFClock, {"n_components": 4, "train_unit": "cell"}, {}, id="NMF of cells", marks=slow),
    pytest.param(TransformerClock, {"n_tokens": 6, "n_token": 8, "n_layers": 1}, {}, id="transformer", marks=slow),
]


@pytest.mark.parametrize(("cls", "init", "kwargs"), KINDS)
def test_it_ends_as_without_a_break(cls, init, kwargs, cohort, tmp_path):
    expected = train(make(cohort, cls, **init), **kwargs)
    for last in (1, 3):
        with pytest.raises(RuntimeError, match="planted"):
            train(make(cohort, cls, **init), tmp_path, last, **kwargs)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.safetensors", "training.json"]
    goes_on = make(cohort, cls, **init)
    assert_same(train(goes_on, tmp_path, **kwargs), expected)
    finished = make(cohort, cls, **init)
    assert_same(train(finished, tmp_path, stop=0, **kwargs), expected)  # no epoch is run, so that none stops it


@slow
def test_a_training_that_goes_on_from_weights_is_another_one(cohort, tmp_path):
    expected = train(train(make(cohort)))
    model = train(make(cohort), tmp_path / "first")
    with pytest.raises(ValueError, match="trainings before was 0 and is 1"):
        train(model, tmp_path / "first")
    with pytest.raises(RuntimeError, match="planted"):
        train(model, tmp_path / "second", 2)
    assert_same(train(model, tmp_path / "second"), expected)


@slow
def test_each_fit_of_a_clock_of_types_is_kept(cohort, tmp_path):
    def clock():
        CellTypeClock.setup_anndata(cohort, **KEYS, cell_type_key="cell_type")
        return CellTypeClock(cohort, "MLPClock", clock_kwargs={"n_hidden": [4]}, min_cells=1, combine="mean")

    options = {"max_epochs": 2, **QUIET}
    expected = clock()
    expected.train(**options)
    for _ in range(2):
        model = clock()
        model.train(**options, checkpoint_dir=tmp_path)
        np.testing.assert_array_equal(model.predict_age(), expected.predict_age())
    assert len(list(tmp_path.glob("fit_*/state.safetensors"))) == len(model.type_clocks)


@pytest.fixture(scope="module")
def folder(_cohort, tmp_path_factory):
    """A finished training of an epoch; tests must not change it."""
    out = tmp_path_factory.mktemp("kept")
    train(make(_cohort.copy()), out, max_epochs=1)
    return out


def other_age(adata):
    adata.obs.loc[adata.obs["donor"] == adata.obs["donor"].iloc[0], "age"] += 1


def other_value(adata):
    adata.X.data[0] += 1


@pytest.mark.parametrize(
    ("init", "kwargs", "change", "message"),
    [
        ({"rng": 1}, {}, None, r"MLPClock\(rng\) was 0 and is 1"),
        ({}, {"batch_size": 64}, None, r"train\(batch_size\) was null and is 64"),
        ({}, {"plan_kwargs": {"lr": 0.1}}, None, r'train\(plan_kwargs\) was null and is \{"lr": 0.1\}'),
        ({}, {"train_roles": ("train", "validation")}, None, "roles of subjects differs"),
        ({}, {}, other_age, r"adata.obs\['age'\] differs"),
        ({}, {}, other_value, "values differs"),
    ],
    ids=["seed", "argument", "plan", "roles", "age", "value"],
)
def test_another_training_is_refused(init, kwargs, change, message, cohort, folder):
    if change:
        change(cohort)
    before = sorted((p.name, p.read_bytes()) for p in folder.iterdir())
    with pytest.raises(ValueError, match=f"holds the state of another training: .*{message}"):
        train(make(cohort, **init), folder, max_epochs=1, **kwargs)
    assert sorted((p.name, p.read_bytes()) for p in folder.iterdir()) == before


def damage(data):
    return data[:-1] + bytes([data[-1] ^ 1])


class Code:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "was cut, edited or damaged"),
        (lambda data: b"", "was cut, edited or damaged"),
        (damage, "its bytes are not those that were written"),
        (lambda data: pickle.dumps(Code()), "is a pickle, which agevi never opens"),
    ],
    ids=["cut", "empty", "damaged", "pickle"],
)
def test_a_torn_state_is_refused(change, message, cohort, folder, tmp_path, capsys):
    for path in folder.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(change(data) if path.name == "state.safetensors" else data)
    with pytest.raises(ValueError, match=f"{message}.* Remove .* or pass a new checkpoint_dir"):
        train(make(cohort), tmp_path, max_epochs=1)
    assert "ran" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_ends_the_call_at_once(cohort, tmp_path):
    (tmp_path / "file").write_text("")
    model = make(cohort)
    with pytest.raises(OSError, match="cannot be written"):
        train(model, tmp_path / "file" / "folder", stop=0)
    with pytest.raises(ValueError, match="holds other files"):
        train(model, tmp_path, stop=0)
    assert not model.is_trained_


def test_a_disk_that_fills_up_leaves_the_last_state(cohort, tmp_path, monkeypatch):
    written = []

    def full(path, content):
        written.append(path.name)
        if written.count("state.safetensors") == 2:
            raise OSError(28, "No space left on device")
        whole(path, content)

    whole = _kept.write
    monkeypatch.setattr(_kept, "write", full)
    with pytest.raises(OSError, match="No space left on device.*call train again"):
        train(make(cohort), tmp_path)
    monkeypatch.setattr(_kept, "write", whole)
    assert _kept.read_state(tmp_path / "state.safetensors")["epoch"] == 1
    assert train(make(cohort), tmp_path).best_epoch_ == 6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"devices": 2}, "devices=2 with checkpoint_dir"), ({"strategy": "ddp"}, "strategy='ddp' with checkpoint_dir")],
)
def test_several_processes_are_refused(kwargs, message, cohort, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(make(cohort), tmp_path / "new", **kwargs)
    assert not (tmp_path / "new").exists()


class Odd(Callback):
    def state_dict(self):
        return {"function": print}


def test_callbacks_must_be_plain(cohort, tmp_path):
    with pytest.raises(TypeError, match="callbacks holds a Odd whose state_dict"):
        make(cohort).train(max_epochs=1, checkpoint_dir=tmp_path, callbacks=[Odd()], **QUIET)


def test_short_epochs_are_not_all_written(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(_kept, "PAUSE", 60.0)
    written = []
    monkeypatch.setattr(_resume.Kept, "write", lambda self, state: written.append(state["epoch"]))
    train(make(cohort), tmp_path)
    assert written == [6]  # the finished clock alone


def test_folds_have_a_folder_of_their_own(cohort, tmp_path):
    with pytest.raises(ValueError, match="train_kwargs holds 'checkpoint_dir'"):
        agevi.tl.cross_validate(cohort, "MLPClock", **KEYS, train_kwargs={"checkpoint_dir": tmp_path})


SCRIPT = """
import sys
import agevi
from agevi.io import _kept
_kept.PAUSE = _kept.SHARE = 0.0
name, unit, directory = sys.argv[1:]
adata = agevi.datasets.simulate_cohort(n_subjects=16, n_cells=6, n_genes=30)
cls = getattr(agevi.model, name)
cls.setup_anndata(adata, age_key="age", subject_key="donor")
model = cls(adata, n_hidden=[8], train_unit=unit)
print("ready", flush=True)
model.train(max_epochs=30, checkpoint_dir=directory or None, enable_progress_bar=False, accelerator="cpu")
print(agevi.model.base._fingerprint.weights_of(model.module))
print(model.best_epoch_, {k: v.iloc[:, 0].tolist() for k, v in model.history.items()}, model.predict_age().tolist())
"""


@slow
@pytest.mark.parametrize(("name", "unit"), [("MLPClock", "pseudocell"), ("PoissonVAE", "cell")])
def test_a_killed_process_goes_on(name, unit, tmp_path):
    def begin(directory):
        call = [sys.executable, "-c", SCRIPT, name, unit, str(directory)]
        return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)

    expected = begin("").communicate()[0]
    for part in (1, 2):
        process = begin(tmp_path / "kept")
        assert process.stdout.readline() == "ready\n"
        epoch = None
        while process.poll() is None and not (epoch or 0) >= 8 * part:
            state = tmp_path / "kept" / "state.safetensors"
            epoch = _kept.read_state(state)["epoch"] if state.exists() else None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert begin(tmp_path / "kept").communicate()[0] == expected
