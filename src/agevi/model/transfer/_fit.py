"""The training of a classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from agevi._progress import steps
from agevi.model.transfer._draws import Draws


@dataclass
class Fit:
    """What a training left behind beside the weights."""

    best_epoch: int
    history: dict[str, list[float]] = field(default_factory=dict)


def fit(
    module: Any,
    trained: list[nn.Module],
    *,
    train: Draws,
    validation: Draws | None,
    max_epochs: int,
    last_epoch: int | None,
    patience: int | None,
    lr: float,
    weight_decay: float,
    whole: bool,
    present: torch.Tensor | None,
) -> Fit:
    """Minimise the weighted log-loss over parameters of ``trained``, the learning rate in one cycle of epochs."""
    parameters = [p for layer in trained for p in layer.parameters()]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = OneCycleLR(optimizer, max_lr=lr, total_steps=max_epochs * len(train))
    last = last_epoch or max_epochs
    out, best, weights = Fit(last, {"log_loss_train": []}), float("inf"), None
    # With patience the weights of the lowest log-loss on validation are kept; last_epoch ends the cycle before its end.
    for epoch in steps(range(1, last + 1), last, "CaseControlClassifier", "epochs"):
        # Frozen BatchNorm and dropout stay as in predictions; noise on the input is on where nothing is frozen.
        module.train(whole)
        for layer in trained:
            layer.train()
        total = torch.zeros((), device=device)
        for batch in train:
            loss = _loss(module, train, batch, present, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        module.eval()
        out.history["log_loss_train"].append(_checked(float(total) / len(train), epoch))
        if validation is None:
            continue
        value = judged(module, validation, present, device)
        out.history.setdefault("log_loss_validation", []).append(value)
        if patience is None:
            continue
        if value < best:
            best, out.best_epoch = value, epoch
            weights = {k: v.detach().clone() for k, v in module.state_dict().items()}
        elif epoch - out.best_epoch >= patience:
            break
    if weights is not None:
        module.load_state_dict(weights)
    return out


@torch.no_grad()
def judged(module: Any, draws: Draws, present: torch.Tensor | None, device: torch.device) -> float:
    """Weighted log-loss of whole samples in evaluation mode."""
    total, n = 0.0, 0
    for batch in draws.whole():
        size = len(batch[2])
        total += size * float(_loss(module, draws, batch, present, device))
        n += size
    return total / n


def _loss(module: Any, draws: Draws, batch: Any, present: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Weighted mean of the log-loss over units, in nats; log-odds of single cells are averaged before."""
    tensors, owner, chosen = batch
    tensors = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in tensors.items()}
    of_rows, _ = module.predict(tensors, present)
    owner = owner.to(device)
    n_rows = torch.zeros(len(chosen), device=device).index_add_(0, owner, torch.ones_like(of_rows))
    of_units = torch.zeros(len(chosen), device=device).index_add_(0, owner, of_rows) / n_rows
    case, weight = draws.units.case[chosen].to(device), draws.units.weight[chosen].to(device)
    return F.binary_cross_entropy_with_logits(of_units, case, weight)


def _checked(loss: float, epoch: int) -> float:
    if not torch.isfinite(torch.tensor(loss)):
        raise RuntimeError(
            f"the training loss became {loss} in epoch {epoch}; lower the learning rate with train(lr=1e-4), or look "
            "for extreme values in the data."
        )
    return loss
