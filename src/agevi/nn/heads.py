"""The age head and the scale on which it is trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from agevi._ages import ADULT
from agevi.nn.blocks import Stack

AGE_TRANSFORMS = ("none", "log", "horvath")
_LOSSES: dict[str, Callable[..., torch.Tensor]] = {"huber": F.huber_loss, "mse": F.mse_loss, "mae": F.l1_loss}
AGE_LOSSES = tuple(_LOSSES)


class TargetScale(nn.Module):
    """What a head predicts, (T(a) - m) / s by training samples, to and from ages in the user's unit, or as log-odds."""

    mean: torch.Tensor
    sd: torch.Tensor
    target = "age"
    highest: torch.Tensor

    def __init__(
        self, transform: str = "none", min_age: float = -1.0, *, year: float = 1.0, bounded: bool = True
    ) -> None:
        super().__init__()
        self.transform, self.min_age, self.year, self.bounded = transform, min_age, year, bounded
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sd", torch.ones((), dtype=torch.float64))
        self.register_buffer("highest", torch.full((), torch.finfo(torch.float32).max, dtype=torch.float64))

    # T(a) is a, log(a - a_min + 1), or Horvath's (2013, Genome Biology 14:R115) log((a + 1) / (A + 1)) up to A = 20
    # years and (a - A) / (A + 1) from there: logarithmic in childhood, linear in adults. Log-odds have no scale.
    def _forward_transform(self, age: torch.Tensor) -> torch.Tensor:
        if self.transform == "horvath":
            beyond = (age / self.year - ADULT) / (ADULT + 1)
            return torch.where(beyond > 0, beyond, torch.log1p(beyond.clamp(max=0)))  # (a + 1) / (A + 1) = 1 + beyond
        return torch.log(age - self.min_age + 1) if self.transform == "log" else age

    def _inverse_transform(self, t: torch.Tensor) -> torch.Tensor:
        if self.transform == "horvath":
            low = torch.where(t > 0, 0.0, t)  # so that no gradient meets an overflow
            beyond = torch.where(t > 0, t, torch.expm1(low))
            return (beyond * (ADULT + 1) + ADULT) * self.year
        return torch.exp(t) + self.min_age - 1 if self.transform == "log" else t

    def fit(self, age: torch.Tensor) -> None:
        """Set mean, standard deviation and bound from the finite ages of training samples, (n_samples,)."""
        if self.target != "age":
            return
        known = age[torch.isfinite(age)].double()
        t = self._forward_transform(known)
        self.mean.fill_(t.mean())
        self.sd.fill_(t.std(correction=0).clamp_min(1e-8))
        self.highest.fill_(2 * known.max() - known.min())

    def to_scale(self, age: torch.Tensor) -> torch.Tensor:
        """Standardised ages as float32; NaN stays NaN."""
        if self.target != "age":
            return age.float()
        return ((self._forward_transform(age.double()) - self.mean) / self.sd).float()

    def to_target(self, z: torch.Tensor) -> torch.Tensor:
        """Ages in the user's unit as float32."""
        if self.target != "age":
            return z.float()
        age = self._inverse_transform(z.double() * self.sd + self.mean)
        # One noisy cell on a log scale would otherwise be centuries old.
        if not self.bounded:
            return age.float()
        lowest = torch.full((), self.min_age, dtype=age.dtype, device=age.device)  # a copy would make a GPU wait
        return age.clamp(lowest, self.highest).float()


class AgeHead(nn.Module):
    """Standardised age from the latent mean: blocks as in :class:`~agevi.nn.blocks.Stack`, then one linear unit."""

    def __init__(self, n_latent: int, widths: list[int], *, dropout_rate: float) -> None:
        super().__init__()
        self.stack = Stack(n_latent, widths, dropout_rate=dropout_rate)
        self.output = nn.Linear(self.stack.n_output, 1)

    def layers(self) -> list[nn.Module]:
        """Blocks and the last unit, in the order in which values pass them."""
        return [*self.stack.blocks, self.output]

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Map (n, n_latent) to (n,)."""
        out: torch.Tensor = self.output(self.stack(latent))
        return out.squeeze(-1)


def masked_age_loss(
    predicted: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None, *, kind: str = "huber"
) -> torch.Tensor:
    """Mean loss of standardised ages, (n,), over rows that have one, 0-d; 0 with a gradient of 0 where none has."""
    labelled = torch.isfinite(target)
    target = torch.where(labelled, target, predicted.detach())  # before the difference: NaN * 0 is NaN in gradients
    loss = _LOSSES[kind](predicted, target, reduction="none") * labelled
    if weight is not None:
        loss = loss * weight
    return loss.sum() / labelled.sum().clamp_min(1)
