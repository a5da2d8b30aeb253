"""Negative log-likelihoods per row, in nats."""

from __future__ import annotations

import torch


def log_factorial_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis of log(x!), which only counts above 1 contribute to."""
    out = torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
    where = (x > 1).nonzero(as_tuple=True)
    terms = torch.lgamma(x[where] + 1)
    return out.index_put_(where[:-1], terms, accumulate=True)


def poisson_nll(x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor | None = None) -> torch.Tensor:
    r"""Poisson negative log-likelihood summed over genes, constants included.

    .. math:: -\log p(x) = \sum_g \lambda_g - x_g \log\lambda_g + \log x_g!

    Parameters
    ----------
    x
        Counts, (..., n_genes).
    log_rate
        :math:`\log\lambda`, same shape; must be finite.
    rate
        :math:`\lambda`, when it is at hand already.

    Returns
    -------
    (...), in nats.
    """
    rate = log_rate.exp() if rate is None else rate
    return rate.sum(-1) - (x * log_rate).sum(-1) + log_factorial_sum(x)
