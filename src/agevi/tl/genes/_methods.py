"""The ways in which rows are attributed."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from agevi import _checks
from agevi.nn.attribution import Attributions, Reader, linear_attributions, path_attributions
from agevi.tl.genes._passes import Explain, Settings

METHODS = ("auto", "expected_gradients", "integrated_gradients", "linear", "shap")
N_POINTS = {True: 8, False: 4}
"""Points on each path of expected gradients, for sums (where errors stay below 1 % of the range) and for cells."""
N_SAMPLES = {True: 400, False: 100}
"""Gradients of a row by default, for sums, of which there are few, and for cells."""
_N_PROJECTED = 100  # of clocks that solve least squares at every point
_POOL = 1000  # rows of the background where only its mean is read
_SHAP_ROWS = 200


def is_linear(model: Any) -> bool:
    """Whether the age is a function of one weighted sum of genes."""
    return all(clock.linear for clock in model.members()) and len(model.members()) == 1


def settings_of(
    model: Any, method: str, n_samples: int | None, *, summed: bool, rng: np.random.Generator, row_seed: int = 0
) -> tuple[str, int, Settings]:
    """The method, its number of gradients for each row, and what it does; ``row_seed`` draws rows if it takes some."""
    _checks.choice(method, METHODS, "method")
    if method == "auto":
        method = "linear" if is_linear(model) else "expected_gradients"
    if method == "linear" and not is_linear(model):
        raise ValueError(
            f"method='linear' with a {type(model).__name__}, whose age is not a function of one weighted sum of genes; "
            "pass method='expected_gradients'."
        )
    projects = any(clock.solves_rows for clock in model.members())
    default = _N_PROJECTED if projects else N_SAMPLES[summed]
    n = default if n_samples is None else _checks.count(n_samples, "n_samples")
    if method == "expected_gradients":
        n_points = min(n, N_POINTS[summed and not projects])
        return method, n, Settings(partial(path_attributions, n_points=n_points), max(1, n // n_points), False, rng)
    if method == "integrated_gradients":
        return method, n, Settings(partial(path_attributions, n_points=n), _POOL, True, rng)
    if method == "linear":
        return method, n, Settings(linear_attributions, _POOL, False, rng)
    explain, n_background = _shap(model, n, int(rng.integers(2**31))), max(1, n // N_POINTS[summed])
    return method, n, Settings(explain, n_background, False, rng, _SHAP_ROWS, row_seed)


class _Net(torch.nn.Module):
    """A clock under a fixed shift, in the form that shap takes."""

    def __init__(self, reader: Reader, shifts: list[torch.Tensor]) -> None:
        super().__init__()
        self.reader, self.shifts = reader, shifts

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Ages, (n, 1)."""
        return self.reader(values, self.shifts)[:, None]


def _shap(model: Any, n_samples: int, seed: int) -> Explain:
    """Attributions by shap's own explainers."""
    exact = is_linear(model) and model.module.age_scale.transform == "none"

    def explain(
        reader: Reader, values: list[torch.Tensor], background: list[torch.Tensor], shifts: list[torch.Tensor]
    ) -> Attributions:
        with torch.no_grad():
            output = reader(values, shifts)
        parts, references = [], []
        for rows, own in _same_shift(values, shifts):
            chosen = [v[rows] for v in values]
            net = _Net(reader, own)
            if exact:
                parts.append(_linear_explainer(net, chosen, background, float(model.module.age_scale.sd)))
            else:
                parts.append(_gradients(net, chosen, background, n_samples, seed))
            with torch.no_grad():
                references.append(reader(background, own).mean().expand(len(chosen[0])))
        joined = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return Attributions(joined, output, torch.cat(references))

    return explain


def _same_shift(values: list[torch.Tensor], shifts: list[torch.Tensor]) -> list[tuple[slice, list[torch.Tensor]]]:
    """All rows at once, or one by one where their covariates differ."""
    if all(shift.dim() == 1 for shift in shifts):
        return [(slice(None), shifts)]
    return [(slice(i, i + 1), [s if s.dim() == 1 else s[i] for s in shifts]) for i in range(len(values[0]))]


def _gradients(
    net: _Net, values: list[torch.Tensor], background: list[torch.Tensor], n_samples: int, seed: int
) -> list[torch.Tensor]:
    """Shap's expected gradients, with points drawn at random."""
    import shap

    state = np.random.get_state()  # noqa: NPY002 - shap seeds numpy's global generator
    try:
        found = shap.GradientExplainer(net, list(background)).shap_values(
            list(values), nsamples=n_samples, rseed=seed % 2**31
        )
    finally:
        np.random.set_state(state)  # noqa: NPY002
    found = found if isinstance(found, list) else [found]
    return [
        torch.as_tensor(np.asarray(f), dtype=torch.float32, device=v.device).reshape(v.shape)
        for f, v in zip(found, values, strict=True)
    ]


def _linear_explainer(
    net: _Net, values: list[torch.Tensor], background: list[torch.Tensor], sd: float
) -> list[torch.Tensor]:
    """Shap's exact values of a linear age."""
    import shap

    with torch.no_grad():
        slope = net.reader.weights[0][0].double() * sd
    rows = background[0].cpu().numpy()
    explainer = shap.LinearExplainer((slope.cpu().numpy(), 0.0), shap.maskers.Independent(rows, max_samples=len(rows)))
    found = explainer.shap_values(values[0].cpu().numpy())
    return [torch.as_tensor(np.asarray(found), dtype=torch.float32, device=values[0].device)]
