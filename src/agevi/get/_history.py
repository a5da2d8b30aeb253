"""What models recorded while they were trained."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd


def history_df(model: Any) -> pd.DataFrame:
    """What a model recorded during training, one row per epoch and metric.

    Parameters
    ----------
    model
        A model after ``train()``.

    Returns
    -------
    DataFrame with the columns ``epoch`` (from 1, as in ``model.best_epoch_``), ``metric`` (the name in
    ``model.history``), ``value``, ``quantity`` (the metric without the role, such as ``"age_mae"``) and ``role``
    (``"train"``, ``"validation"`` or empty). Values that were recorded per step come with the epoch of the step.

    Raises
    ------
    RuntimeError
        The model was not trained.
    TypeError
        ``model`` keeps no history.

    Examples
    --------
    >>> import agevi, pandas as pd
    >>> class Trained:  # stands for a model after train()
    ...     history = {"age_mae_train": pd.DataFrame({"age_mae_train": [9.0, 7.5]})}
    >>> agevi.get.history_df(Trained()).iloc[-1].to_dict()
    {'epoch': 2, 'metric': 'age_mae_train', 'value': 7.5, 'quantity': 'age_mae', 'role': 'train'}
    """
    if not hasattr(model, "history"):
        raise TypeError(f"model is a {type(model).__name__}, which keeps no history; pass a model of agevi.model.")
    history: dict[str, pd.DataFrame] = model.history or {}
    if not history:
        raise RuntimeError(f"this {type(model).__name__} has no history; call model.train() first.")
    by_epoch = [frame.index.max() + 1 for frame in history.values() if frame.index.name != "step"]
    n_epochs = int(max(by_epoch, default=0))
    return pd.concat([_tidy(name, frame, n_epochs) for name, frame in history.items()], ignore_index=True)


def _tidy(name: str, frame: pd.DataFrame, n_epochs: int) -> pd.DataFrame:
    """One metric of a history in long form."""
    time = frame.index.to_numpy(dtype=np.int64)
    if frame.index.name == "step" and n_epochs and len(time):
        time = time * n_epochs // (time.max() + 1)
    role = re.search(r"(?:^|_)(train|validation)(?:_|$)", name)
    quantity = (name[: role.start()] + "_" + name[role.end() :]).strip("_") if role else name
    return pd.DataFrame(
        {
            "epoch": time + 1,
            "metric": name,
            "value": frame.iloc[:, 0].to_numpy(dtype=np.float64),
            "quantity": quantity,
            "role": role[1] if role else "",
        }
    )
