from __future__ import annotations

import json
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

SCRIPT = """
import json, os, sys, warnings
warnings.filterwarnings("ignore")
import torch
import agevi

torch.set_num_threads(1)
adata = agevi.datasets.simulate_cohort(24, 30, 60, n_modules=0, n_age_genes=10, rng=0)
agevi.pp.split_subjects(adata, subject_key="donor", age_key="age", rng=0)
agevi.model.PoissonVAE.setup_anndata(adata, subject_key="donor", age_key="age")
n, folder = int(sys.argv[1]), sys.argv[2]
for unit in ("cell", "pseudocell"):
    model = agevi.model.PoissonVAE(adata, train_unit=unit, n_hidden=[16], n_latent=4, dropout_rate=0.0)
    model.train(
        4, batch_size=64, accelerator="cpu", devices=n, strategy="ddp" if n > 1 else "auto", precision="float32",
        enable_progress_bar=False, plan_kwargs={"kl_schedule": "constant"} if unit == "cell" else {},
    )
    rank = os.environ.get("LOCAL_RANK", "0")
    weights = torch.cat([p.detach().double().flatten() for p in model.module.parameters()])
    result = {
        "weights": [float(weights.sum()), float(weights.norm())],
        "history": {name: frame.iloc[:, 0].tolist() for name, frame in model.history.items()},
        "best_epoch": model.best_epoch_,
        "predicted": model.predict_age().tolist(),
    }
    with open(f"{folder}/{unit}_{n}_{rank}.json", "w") as file:
        json.dump(result, file)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, usual_fits_of_module):
    """What one process, and each of two, found."""
    folder = tmp_path_factory.mktemp("distributed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    script = folder / "script.py"  # a file, which the second process starts too
    script.write_text(SCRIPT)
    with mock.patch.object(sys, "argv", [str(script), "1", str(folder)]):
        exec(SCRIPT, {})
    subprocess.run([sys.executable, str(script), "2", str(folder)], env=environment, check=True)
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.slow  # two processes start
@pytest.mark.parametrize("unit", ["cell", "pseudocell"])
def test_two_processes_train_one_clock(unit, results):
    alone, first, second = (results[f"{unit}_{name}"] for name in ("1_0", "2_0", "2_1"))
    assert first["weights"] == second["weights"]
    assert first["best_epoch"] == second["best_epoch"]
    assert first["weights"] != alone["weights"]  # halves of batches, each with a BatchNorm of its own
    for name in ("train_loss", "validation_loss"):  # but sums over both halves of the cells
        np.testing.assert_allclose(first["history"][name], alone["history"][name], rtol=0.05)
    np.testing.assert_allclose(first["predicted"], alone["predicted"], atol=15)
