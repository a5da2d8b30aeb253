from __future__ import annotations

import pandas as pd
import pytest
import torch
from scvi.train._logger import SimpleLogger

from agevi.model import MLPClock
from agevi.model.base._history import History
from tests.conftest import QUIET


def test_tables_are_those_of_scvi_tools():
    ours, theirs = History(), SimpleLogger()
    for epoch in range(3):
        for metrics in ({"validation_loss": torch.tensor(1.5 * epoch)}, {"train_loss": 2.0 - epoch}, {}):
            for logger in (ours, theirs):
                logger.log_metrics({**metrics, "epoch": epoch}, 10 * epoch)
    for logger in (ours, theirs):
        logger.log_metrics({"lr": 0.1}, 7)
        logger.log_metrics({"lr": 0.2}, 7)
    expected = theirs.history
    assert list(ours.history) == list(expected)
    for name, table in ours.history.items():
        assert table.index.name == expected[name].index.name
        pd.testing.assert_frame_equal(table, expected[name].astype(float), check_index_type=False)


@pytest.mark.slow
def test_a_logger_of_the_user_stays(cohort, tmp_path):
    MLPClock.setup_anndata(cohort, age_key="age", subject_key="donor")
    model = MLPClock(cohort, n_hidden=[4])
    model.train(max_epochs=2, **QUIET)
    first = model.history
    assert isinstance(model.trainer.logger, History)
    given = SimpleLogger()
    model.train(max_epochs=2, logger=given, **QUIET)
    assert model.trainer.logger is given
    assert list(model.history) == list(first)
    assert all(len(table) == 4 for table in model.history.values())
    model.train(max_epochs=1, log_save_dir=str(tmp_path), **QUIET)
    assert list(tmp_path.rglob("history.pkl"))
