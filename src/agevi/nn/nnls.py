"""Non-negative least squares for many right-hand sides at once."""

from __future__ import annotations

import torch

_CHUNK = 1 << 22  # numbers in the matrices that are solved at a time
_RIDGE = 1e-12  # of components that do not determine each other
_PATIENCE = 3  # exchanges of all wrong components without progress, after which they go one by one


def nnls(gram: torch.Tensor, target: torch.Tensor, *, n_sweeps: int = 50, max_exchanges: int = 200) -> torch.Tensor:
    """Solutions of min ||x - w H||^2 over w >= 0, (n, k), from H H' and x H', differentiable by x H'."""
    scale = gram.diagonal().detach().double().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.inf)  # what is divided by it is 0
    unit = gram.detach().double() / scale / scale[:, None]
    b = target.double() / scale
    with torch.no_grad():
        # Coordinate descent finds nearly all components in use; block principal pivoting (Kim & Park 2011) exchanges
        # the others until the optimum, so that no solution depends on the rows beside it.
        w = _descend(unit, b.T.contiguous(), n_sweeps).T
        w = _exchange(unit, b.detach(), w, max_exchanges)
    if torch.is_grad_enabled() and b.requires_grad:
        # On the components that it uses, a solution is linear in the target.
        linear = _solve(unit, b, w > 0)
        w = w + linear - linear.detach()
    return (w / scale).to(target.dtype)


def _descend(unit: torch.Tensor, b: torch.Tensor, n_sweeps: int) -> torch.Tensor:
    """Cyclic coordinate descent from 0; ``b`` and the result are (k, n)."""
    w = torch.zeros_like(b)
    for _ in range(n_sweeps):
        for j in range(len(unit)):
            w[j] = (w[j] + b[j] - unit[j] @ w).clamp_min_(0)
    return w


def _solve(unit: torch.Tensor, b: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """Least squares on the components that each row uses, (n, k), 0 on the others."""
    parts, k = [], len(unit)
    n = max(1, _CHUNK // (k * k))
    for start in range(0, len(b), n):
        rows = slice(start, start + n)
        u = used[rows].to(b.dtype)
        masked = unit * u[:, :, None] * u[:, None, :]  # n x k x k
        parts.append(torch.linalg.solve(masked + torch.diag_embed(1 - u + _RIDGE), b[rows] * u))
    return torch.cat(parts) if parts else torch.zeros_like(b)


def _exchange(unit: torch.Tensor, b: torch.Tensor, start: torch.Tensor, max_exchanges: int) -> torch.Tensor:
    """Exact solutions, (n, k), from approximate ones."""
    out, k = start.clone(), len(unit)
    rows, used = torch.arange(len(b), device=b.device), start > 0
    fewest = torch.full((len(b),), k + 1, device=b.device)
    patience = torch.full_like(fewest, _PATIENCE)
    for _ in range(max_exchanges):
        if not len(rows):
            break
        solution = _solve(unit, b[rows], used)
        slope = solution @ unit - b[rows]
        eps = 1e-9 * b[rows].abs().amax(1, keepdim=True)
        wrong = torch.where(used, solution < -eps, slope < -eps)
        n_wrong = wrong.sum(1)
        done = n_wrong == 0
        out[rows[done]] = solution[done].clamp_min(0)
        rows, used, wrong, n_wrong = rows[~done], used[~done], wrong[~done], n_wrong[~done]
        better = n_wrong < fewest[~done]
        patience = torch.where(better, _PATIENCE, patience[~done] - 1)
        fewest = torch.where(better, n_wrong, fewest[~done])
        last = k - 1 - wrong.flip(1).to(torch.uint8).argmax(1, keepdim=True)
        single = torch.zeros_like(wrong).scatter_(1, last, True)
        used = used ^ torch.where((patience < 0)[:, None], single, wrong)
    return out
