"""Schedules of the KL weight and the learning rate, as functions of the epoch."""

from __future__ import annotations

import math


def cyclical_kl(
    epoch: int, *, n_off: int = 20, n_rise: int = 10, n_full: int = 10, steepness: float = 5.0, max_weight: float = 1.0
) -> float:
    """KL weight of one epoch (from 0) in [0, max_weight]: off, exponential rise, full, and again."""
    # Su & Mukundan give no formula for the rise; here t is the share of it that has passed.
    t = (epoch % (n_off + n_rise + n_full) - n_off) / max(n_rise, 1)
    if t < 0:
        return 0.0
    if t >= 1:
        return max_weight
    return max_weight * math.expm1(steepness * t) / math.expm1(steepness)


def linear_kl(epoch: int, *, n_rise: int = 20, max_weight: float = 1.0) -> float:
    """KL weight that rises in a straight line over ``n_rise`` epochs and stays at ``max_weight``."""
    return max_weight * min(1.0, epoch / n_rise) if n_rise else max_weight


def constant_kl(epoch: int, *, max_weight: float = 1.0) -> float:
    """KL weight that is ``max_weight`` in every epoch."""
    return max_weight


def cosine_restarts(epoch: int, *, t_0: int = 20, t_mult: int = 1, eta_min: float = 0.0) -> float:
    """Learning rate of one epoch (from 0) as a share of the first: SGDR, Loshchilov & Hutter 2017, eq. 5."""
    length = t_0
    while epoch >= length:
        epoch -= length
        length *= t_mult
    return eta_min + (1 - eta_min) * (1 + math.cos(math.pi * epoch / length)) / 2


def constant_lr(epoch: int) -> float:
    """Learning rate that never changes."""
    return 1.0


KL_SCHEDULES = {"cyclical": cyclical_kl, "linear": linear_kl, "constant": constant_kl}
LR_SCHEDULES = {"cosine_restarts": cosine_restarts, "constant": constant_lr}
