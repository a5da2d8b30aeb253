r"""Likelihoods of a block of cells with their gradients, from what the last layer of a decoder gives.

Counts :math:`x` of a cell have the rates :math:`\lambda` with logarithm :math:`\eta`, from logits :math:`o`:

.. math::

    \lambda_g = \ell \frac{e^{o_g}}{\sum_j k_j e^{o_j}} \quad \text{("softmax")}, \qquad
    \lambda_g = \log(1 + e^{o_g}) + 10^{-8} \quad \text{("softplus")}

with library size :math:`\ell` and :math:`1 - k` the probability of an excess zero. Few counts are not zero, so the
negative log-likelihood is a sum of what zeros would give and a correction at the counts, and only the first is dense:

.. math:: -\log p(x) = \sum_g z(\lambda_g) + \sum_{x_g > 0} c(x_g, \lambda_g)

"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from agevi.nn.rows import Block

GENE_LIKELIHOODS = ("poisson", "zip", "nb", "zinb")
"""Distributions of counts; ``"normal"`` is for continuous values."""
MIN_RATE = 1e-8

_SMALL = 0.125  # below it r - log(1 + r) is a series
_STIRLING = 16.0  # from it on Stirling's series with these Bernoulli numbers is exact to the last digit
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
_TABLES = {
    t: torch.lgamma(torch.arange(1.0, 4097.0, dtype=torch.float64)).to(t) for t in (torch.float32, torch.float64)
}


def log_factorial(x: torch.Tensor) -> torch.Tensor:
    """log(x!) of every value; on a CPU whole numbers below 4,096 are looked up."""
    if x.device.type != "cpu":
        return torch.lgamma(x + 1)
    table = _TABLES[x.dtype]
    index = x.long().clamp_(0, len(table) - 1)
    out = table.index_select(0, index)
    if not torch.equal(index.to(x.dtype), x):
        other = index != x
        out[other] = torch.lgamma(x[other] + 1)
    return out


def log1p_rest(r: torch.Tensor) -> torch.Tensor:
    """Precise r - log(1 + r) where r is below 1/8."""
    # From log(1 + r) = 2 artanh(s), s = r / (2 + r): r - log(1 + r) = s r - 2 s^3 (1/3 + s^2 / 5 + ...).
    s = r / (2 + r)
    square = s * s
    last = 6 if r.dtype == torch.float64 else 2
    series = square * (-2 / (2 * last + 1))
    for k in range(last - 1, 0, -1):
        series.add_(-2 / (2 * k + 1)).mul_(square)
    return series.add_(r).mul_(s)


def rising_factorial(x: torch.Tensor, theta: torch.Tensor, gene: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``log(G(x + t) / (G(t) t^x))`` and ``x - t (psi(x + t) - psi(t))`` of counts, (n,), precise where tiny."""
    # Sums over k < x of log(1 + k / t) and of k / (t + k), which is minus the derivative of the first by log t. From
    # t = 16 on they come from Stirling's series, in which the large terms cancel before they are computed.
    large = theta >= _STIRLING
    if large.all():
        return _by_stirling(x, theta, gene)
    if not large.any():
        return _by_gamma(x, theta, gene)
    log, slope, large = torch.empty_like(x), torch.empty_like(x), large[gene]
    for at, of in ((large, _by_stirling), (~large, _by_gamma)):
        log[at], slope[at] = of(x[at], theta, gene[at])
    return log, slope


def _by_gamma(x: torch.Tensor, theta: torch.Tensor, gene: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both functions as they are written."""
    total = x + theta[gene]
    log = torch.lgamma(total) - torch.lgamma(theta)[gene] - x * theta.log()[gene]
    return log, x - theta[gene] * (torch.digamma(total) - torch.digamma(theta)[gene])


def _by_stirling(x: torch.Tensor, theta: torch.Tensor, gene: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both functions from the series of log Gamma and its derivative."""
    start, start_slope = _stirling(theta)
    theta, start, start_slope = theta[gene], start[gene], start_slope[gene]
    ratio, total = x / theta, x + theta
    end, end_slope = _stirling(total)
    log1p = torch.log1p(ratio)
    rest = theta * torch.where(ratio < _SMALL, log1p_rest(ratio), ratio - log1p)
    log = (x - 0.5) * log1p - rest + end - start
    return log, rest - 0.5 * x / total + theta * (end_slope - start_slope)


def _stirling(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What Stirling's formula lacks of log Gamma, and of minus its derivative beyond 1 / (2 z)."""
    inverse = 1 / z
    square = inverse * inverse
    n_terms = len(_BERNOULLI) if z.dtype == torch.float64 else 3
    log, slope = torch.zeros_like(z), torch.zeros_like(z)
    for k in range(n_terms, 0, -1):
        log.mul_(square).add_(_BERNOULLI[k - 1] / (2 * k * (2 * k - 1)))
        slope.mul_(square).add_(_BERNOULLI[k - 1] / (2 * k))
    return log.mul_(inverse), slope.mul_(square)


class CountLikelihood:
    """Poisson or negative binomial counts, zero-inflated or not; ``log_library`` (n, 1), others by gene, (n_genes,)."""

    # z and c of the module are q = -log p(0) without inflation and its correction e at a count x of rate l:
    #   Poisson            q = l                       e = -x eta + log x!
    #   negative binomial  q = theta log(1 + l/theta)  e = x (log(1 + l/theta) - eta) - log rising factorial + log x!
    # Inflated with the logit zeta (Lambert 1992), z = s(zeta) + q - s(zeta + q), c = e + s(zeta + q), s softplus.
    # The rates of a softmax Poisson sum to the library, so that it needs no more than library - sum x eta + sum log x!
    # with the gradient sum(x) l / library - x by its logits.
    def __init__(
        self,
        kind: str,
        rate: str,
        log_library: torch.Tensor,
        log_theta: torch.Tensor | None = None,
        zero_logit: torch.Tensor | None = None,
    ) -> None:
        self.kind, self.rate = kind, rate
        self.log_library = log_library
        self.parameters = tuple(p for p in (log_theta, zero_logit) if p is not None)
        self.log_theta: Any = None if log_theta is None else log_theta.detach()
        self.zero_logit: Any = None if zero_logit is None else zero_logit.detach()
        self.theta: Any = None if self.log_theta is None else self.log_theta.exp()
        self.large: Any = None if self.theta is None else (self.theta >= _STIRLING).nonzero().squeeze(-1)
        self.of_theta, self.of_zero = (
            None if p is None else torch.zeros_like(p) for p in (self.theta, self.zero_logit)
        )
        self.weighted = rate == "softmax" and zero_logit is not None
        if self.weighted:
            self.log_kept = -F.softplus(self.parameters[-1].detach())

    @property
    def gradients(self) -> tuple[torch.Tensor, ...]:
        """Gradients of the parameters over the blocks so far."""
        return tuple(g for g in (self.of_theta, self.of_zero) if g is not None)

    def __call__(self, logits: torch.Tensor, block: Block, gradient: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """NLL of every row in nats, (n_rows,), and its gradient by ``logits``, which may be overwritten."""
        log_library = self.log_library[block.rows]
        at: Any = None
        share: Any = None
        if self.rate == "softmax":
            at, share = self._softmax(logits, block, log_library)
        if self.kind == "poisson":
            return self._poisson(logits, share, at, block, log_library, gradient)
        if share is None:
            rate = F.softplus(logits).add_(MIN_RATE)
            eta = block.at_values(rate).log_()
        else:
            rate, eta = share * log_library.exp(), at
            if self.weighted:
                rate /= self.log_kept.exp()
        nll, slope = self._general(rate, eta, block, gradient)
        if not gradient:
            return nll, None
        if share is None:
            return nll, slope.mul_(torch.sigmoid(logits)).div_(rate)
        total = slope.sum(-1, keepdim=True)
        if self.of_zero is not None:
            self.of_zero += torch.sigmoid(self.zero_logit) * (total.t() @ share).squeeze(0)
        return nll, slope.addcmul_(total, share, value=-1)

    def _softmax(
        self, logits: torch.Tensor, block: Block, log_library: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithm of the rate at the counts, (n_nonzero,), and the softmax of the logits, weighted by ``kept``."""
        if self.weighted:
            logits = logits.add_(self.log_kept)
        share = torch.softmax(logits, dim=-1)
        # The softmax at the largest logit, at least 1 / n_genes, gives the normaliser without another exponential.
        log_sum = logits.amax(-1, keepdim=True) - share.amax(-1, keepdim=True).log_()
        at = block.at_values(logits) + block.per_value((log_library - log_sum).squeeze(-1))
        if self.weighted:
            at -= self.log_kept[block.gene()]
        return at, share

    def _poisson(
        self,
        logits: torch.Tensor,
        share: torch.Tensor | None,
        at: torch.Tensor | None,
        block: Block,
        log_library: torch.Tensor,
        gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The Poisson, whose gradient needs no dense tensor but the softmax or the sigmoid."""
        x = block.values
        if share is not None and at is not None:
            nll = block.row_sum(log_factorial(x).sub_(x * at)) + log_library.exp().squeeze(-1)
            if not gradient:
                return nll, None
            share.mul_(block.row_sum(x).unsqueeze(-1))
            share.view(-1).scatter_add_(0, block.position, -x)
            return nll, share
        rate = F.softplus(logits).add_(MIN_RATE)
        at_counts = block.at_values(rate)
        nll = rate.sum(-1) + block.row_sum(log_factorial(x).sub_(x * at_counts.log()))
        if not gradient:
            return nll, None
        slope = logits.sigmoid_()
        slope.view(-1).scatter_add_(0, block.position, -x * block.at_values(slope) / at_counts)
        return nll, slope

    def _general(
        self, rate: torch.Tensor, eta: torch.Tensor, block: Block, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Negative log-likelihood, (n_rows,), and its gradient with respect to :math:`\eta`, (n_rows, n_genes)."""
        x, gene = block.values, block.gene()
        correction = log_factorial(x).sub_(x * eta)
        if self.theta is None:
            q, q_slope, theta_slope = rate, rate, None
            slope_at_counts = block.at_values(rate).sub_(x)
            of_theta_at_counts = None
        else:
            ratio = rate / self.theta
            log1p, share = torch.log1p(ratio), ratio / (1 + ratio)  # share: rate / (theta + rate)
            q, q_slope = self.theta * log1p, self.theta * share
            theta, u = self.theta[gene], block.at_values(share)
            rising, slope_of_rising = rising_factorial(x, self.theta, gene)
            correction += x * block.at_values(log1p) - rising
            slope_at_counts = u * (theta + x) - x
            theta_slope = q - q_slope
            if len(self.large):  # there q and its slope are nearly the same
                ratio, log1p, part = (t.index_select(1, self.large) for t in (ratio, log1p, share))
                precise = torch.where(ratio < _SMALL, ratio * part - log1p_rest(ratio), log1p - part)
                theta_slope.index_copy_(1, self.large, precise * self.theta[self.large])
            of_theta_at_counts = slope_of_rising - x * u
        if self.zero_logit is None:
            dense, count_zero = q, None
        else:
            inflated = F.softplus(self.zero_logit + q)
            dense = F.softplus(self.zero_logit) + q - inflated
            correction += block.at_values(inflated)
            count_zero = torch.sigmoid(-self.zero_logit - q)  # share of zeros that are not in excess
        nll = dense.sum(-1) + block.row_sum(correction)
        if gradient:
            slope = q_slope.clone() if count_zero is None else q_slope * count_zero
            slope.view(-1).scatter_(0, block.position, slope_at_counts)
            self._add(count_zero, theta_slope, of_theta_at_counts, block, gene)
            return nll, slope
        return nll, q_slope

    def _add(
        self,
        count_zero: torch.Tensor | None,
        theta_slope: torch.Tensor | None,
        of_theta_at_counts: torch.Tensor | None,
        block: Block,
        gene: torch.Tensor,
    ) -> None:
        """Add the gradients of the parameters, leaving out what they do to rates through the softmax."""
        if self.of_theta is not None and theta_slope is not None and of_theta_at_counts is not None:
            at_counts = of_theta_at_counts
            if count_zero is not None:
                at_counts = at_counts + block.at_values((1 - count_zero) * theta_slope)
                theta_slope = count_zero * theta_slope
            self.of_theta += theta_slope.sum(0)
            self.of_theta.index_add_(0, gene, at_counts)
        if self.of_zero is not None and count_zero is not None:
            self.of_zero += block.n_rows * torch.sigmoid(self.zero_logit) - (1 - count_zero).sum(0)
            self.of_zero.index_add_(0, gene, 1 - block.at_values(count_zero))


class NormalLikelihood:
    """Normal values of deviation ``sd``; the decoder gives their mean, ``mean + scale * logits``, by gene."""

    def __init__(self, sd: torch.Tensor, mean: torch.Tensor | None = None, scale: torch.Tensor | None = None) -> None:
        self.parameters = (sd,)
        self.sd, self.mean, self.scale = sd.detach(), mean, scale
        self.constant = (self.sd.log() + 0.5 * math.log(2 * math.pi)).sum()
        self.of_sd = torch.zeros_like(self.sd)

    @property
    def gradients(self) -> tuple[torch.Tensor, ...]:
        """Gradient of the standard deviations over the blocks so far."""
        return (self.of_sd,)

    def __call__(
        self, logits: torch.Tensor, block: Block | torch.Tensor, gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As in :class:`CountLikelihood`; ``block`` may also be dense, (n_rows, n_genes)."""
        if self.mean is not None and self.scale is not None:
            logits = logits.mul_(self.scale).add_(self.mean)
        if isinstance(block, torch.Tensor):
            logits = logits.sub_(block)
        else:
            logits.view(-1).scatter_add_(0, block.position, -block.values)
        error = logits.div_(self.sd)
        squares = error.square()
        nll = 0.5 * squares.sum(-1) + self.constant
        if not gradient:
            return nll, None
        self.of_sd += (len(error) - squares.sum(0)) / self.sd
        return nll, error.mul_((1 if self.scale is None else self.scale) / self.sd)
