r"""Negative log-likelihoods per row, in nats, constants included.

Counts :math:`x` have a rate :math:`\lambda`, given with its logarithm; sums run over genes (the last axis).
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

GENE_LIKELIHOODS = ("poisson", "zip", "nb", "zinb")
"""Distributions of counts; ``"normal"`` is for continuous values."""


def log_factorial_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis of log(x!), which only counts above 1 contribute to."""
    out = torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
    where = (x > 1).nonzero(as_tuple=True)
    terms = torch.lgamma(x[where] + 1)
    return out.index_put_(where[:-1], terms, accumulate=True)


def poisson_nll(x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor | None = None) -> torch.Tensor:
    r"""Poisson negative log-likelihood.

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


def zip_nll(x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor, zero_logit: torch.Tensor) -> torch.Tensor:
    r"""Zero-inflated Poisson negative log-likelihood.

    With :math:`\pi` the logistic function of ``zero_logit``, the probability that a count is lost (Lambert 1992):

    .. math:: p(0) = \pi + (1 - \pi) e^{-\lambda}, \qquad p(x) = (1 - \pi) \frac{\lambda^x e^{-\lambda}}{x!}

    Parameters
    ----------
    x
        Counts, (..., n_genes).
    log_rate, rate
        :math:`\log\lambda` and :math:`\lambda`, same shape.
    zero_logit
        Logit of :math:`\pi`, (n_genes,) or the shape of ``x``.

    Returns
    -------
    (...), in nats.
    """
    of_count = rate - x * log_rate
    of_zero = -torch.logaddexp(zero_logit.expand_as(rate), -rate)
    kept = F.softplus(zero_logit).expand_as(rate)  # -log(1 - pi)
    return (kept + torch.where(x > 0, of_count, of_zero)).sum(-1) + log_factorial_sum(x)


def nb_nll(x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    r"""Negative binomial negative log-likelihood.

    With inverse dispersion :math:`\theta`, so that the variance is :math:`\lambda + \lambda^2 / \theta`:

    .. math::

        -\log p(x) = \sum_g (\theta_g + x_g) \log(\theta_g + \lambda_g) - \theta_g \log\theta_g
        - x_g \log\lambda_g - \log\frac{\Gamma(x_g + \theta_g)}{\Gamma(\theta_g)} + \log x_g!

    Parameters
    ----------
    x
        Counts, (..., n_genes).
    log_rate, rate
        :math:`\log\lambda` and :math:`\lambda`, same shape.
    log_theta
        :math:`\log\theta`, (n_genes,).

    Returns
    -------
    (...), in nats.
    """
    theta = log_theta.exp()
    dense = theta * _log1p_ratio(rate, theta) - x * (log_rate - torch.log(theta + rate))
    return dense.sum(-1) - _log_rising_sum(x, theta) + log_factorial_sum(x)


def zinb_nll(
    x: torch.Tensor, log_rate: torch.Tensor, rate: torch.Tensor, log_theta: torch.Tensor, zero_logit: torch.Tensor
) -> torch.Tensor:
    r"""Zero-inflated negative binomial negative log-likelihood.

    With :math:`\pi` as in :func:`zip_nll` and :math:`\theta` as in :func:`nb_nll`:

    .. math::

        p(0) = \pi + (1 - \pi) \Bigl(\frac{\theta}{\theta + \lambda}\Bigr)^\theta, \qquad
        p(x) = (1 - \pi) \operatorname{NB}(x; \lambda, \theta)

    Parameters
    ----------
    x
        Counts, (..., n_genes).
    log_rate, rate
        :math:`\log\lambda` and :math:`\lambda`, same shape.
    log_theta
        :math:`\log\theta`, (n_genes,).
    zero_logit
        Logit of :math:`\pi`, (n_genes,) or the shape of ``x``.

    Returns
    -------
    (...), in nats.
    """
    theta = log_theta.exp()
    zero = theta * _log1p_ratio(rate, theta)  # -log NB(0)
    of_count = zero - x * (log_rate - torch.log(theta + rate))
    of_zero = -torch.logaddexp(zero_logit.expand_as(rate), -zero)
    kept = F.softplus(zero_logit).expand_as(rate)
    dense = (kept + torch.where(x > 0, of_count, of_zero)).sum(-1)
    return dense - _log_rising_sum(x, theta) + log_factorial_sum(x)


def normal_nll(x: torch.Tensor, mean: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    r"""Normal negative log-likelihood.

    .. math:: -\log p(x) = \sum_g \tfrac12 \Bigl(\frac{x_g - \mu_g}{\sigma_g}\Bigr)^2 + \log\sigma_g
        + \tfrac12 \log 2\pi

    Parameters
    ----------
    x
        Values, (..., n_genes).
    mean
        :math:`\mu`, same shape.
    sd
        :math:`\sigma`, (n_genes,) or the shape of ``x``.

    Returns
    -------
    (...), in nats.
    """
    squares = 0.5 * ((x - mean) / sd) ** 2
    return squares.sum(-1) + (sd.log() + 0.5 * math.log(2 * math.pi)).expand_as(x).sum(-1)


def _log1p_ratio(rate: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """log(1 + rate / theta), exact also where theta is large."""
    return torch.log1p(rate / theta)


def _log_rising_sum(x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis of log(Gamma(x + theta) / Gamma(theta)), which only counts contribute to."""
    out = torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
    where = (x > 0).nonzero(as_tuple=True)
    of_gene = theta[where[-1]]
    terms = torch.lgamma(x[where] + of_gene) - torch.lgamma(of_gene)
    return out.index_put(where[:-1], terms, accumulate=True)
