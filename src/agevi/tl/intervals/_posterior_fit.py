"""Posterior draws of the shared parameters, in Pyro: Laplace's approximation, variational inference or NUTS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from agevi._progress import progress
from agevi._threads import n_threads, threads
from agevi.model.base._seed import seeded
from agevi.tl.intervals._posterior_model import START, Data, Draws, pyro_model

METHODS = ("laplace", "svi", "nuts")
N_DRAWS = 100
_FLATTEST = 0.2
"""Least curvature of the log density that counts: directions without information get the sd of 2.2 of their priors."""
_SVI_STEPS, _LEARNING_RATE, _DECAY = 1000, 0.03, 0.02
_TAIL = 100
"""Last steps whose evidence lower bounds are kept."""
_CHAINS, _WARM_UP = 2, 50


@dataclass(frozen=True)
class Fitted:
    """Draws, and what shows whether they can be relied on."""

    draws: Draws
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Density:
    """Pyro's log joint density of the unconstrained parameters."""

    potential: Callable[[dict[str, torch.Tensor]], torch.Tensor]  # minus the log density
    transforms: dict[str, Any]  # by parameter, to the unconstrained scale
    start: dict[str, torch.Tensor]

    def flat(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """All parameters in one vector."""
        return torch.cat([values[name].reshape(-1) for name in self.start])

    def by_name(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters of a vector, or of many, (..., n_parameters)."""
        parts = vector.split([value.numel() for value in self.start.values()], dim=-1)
        shape = vector.shape[:-1]
        return {
            name: part.reshape((*shape, *value.shape))
            for (name, value), part in zip(self.start.items(), parts, strict=True)
        }

    def draws(self, values: dict[str, torch.Tensor]) -> Draws:
        """Parameters on their own scale from unconstrained ones."""
        return _as_draws({name: self.transforms[name].inv(value) for name, value in values.items()})


def fit(data: Data, age: torch.Tensor, method: str, seed: int, n_draws: int = N_DRAWS) -> Fitted:
    """Draws of the parameters given the predictions of labelled samples and their standardised ages, (n,)."""
    # One fit at a time: Pyro keeps its stack of handlers, and torch its random state, for the whole process.
    with threads(n_threads(data.predicted.numel() * N_DRAWS)), seeded(seed):
        density = _density(data, age)
        mode = _mode(density)
        if method == "svi":
            return _svi(data, age, density, mode, n_draws)
        if method == "nuts":
            return _nuts(density, mode, 2 * n_draws)  # which depend on one another
        # A normal distribution at the mode with the curvature there, on the unconstrained scale.
        noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((n_draws, len(mode))))
        return Fitted(density.draws(density.by_name(mode + noise @ _spread(density, mode).T)))


def _density(data: Data, age: torch.Tensor) -> _Density:
    """The density of the Pyro model, on the scale that Pyro chooses for each parameter."""
    from pyro.infer.autoguide import init_to_value
    from pyro.infer.mcmc.util import initialize_model

    n_types = data.predicted.shape[1]
    shape = {"intercept": (n_types,), "slope": (n_types,), "scale": (n_types,), "shares": (3,), "df": ()}
    values = {name: age.new_full(shape[name], value) for name, value in START.items()}
    start, potential, transforms, _ = initialize_model(
        pyro_model, (data, age), init_strategy=init_to_value(values=values)
    )
    return _Density(potential, transforms, {name: value.detach() for name, value in start.items()})


def _mode(density: _Density) -> torch.Tensor:
    """Parameters of the highest density, (n_parameters,)."""
    vector = density.flat(density.start).clone().requires_grad_()
    search = torch.optim.LBFGS(
        [vector], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-7, tolerance_change=1e-10
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        out = density.potential(density.by_name(vector))
        out.backward()
        return out

    search.step(loss)
    return vector.detach()


def _spread(density: _Density, mode: torch.Tensor) -> torch.Tensor:
    """Root of the covariance by the curvature at the mode, (n_parameters, n_parameters); one column per axis."""
    hessian: Any = torch.autograd.functional.hessian(lambda v: density.potential(density.by_name(v)), mode)
    curvature, axes = torch.linalg.eigh(hessian)
    return axes / curvature.clamp_min(_FLATTEST).sqrt()


def _svi(data: Data, age: torch.Tensor, density: _Density, mode: torch.Tensor, n_draws: int) -> Fitted:
    """The normal distribution on the unconstrained scale with the highest evidence lower bound."""
    import pyro
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoMultivariateNormal, init_to_value

    start = {name: density.transforms[name].inv(value) for name, value in density.by_name(mode).items()}
    bounds = []
    with pyro.get_param_store().scope():
        guide = AutoMultivariateNormal(pyro_model, init_loc_fn=init_to_value(values=start), init_scale=0.1)
        optimiser = pyro.optim.ClippedAdam({"lr": _LEARNING_RATE, "lrd": _DECAY ** (1 / _SVI_STEPS)})
        svi = SVI(pyro_model, guide, optimiser, Trace_ELBO())
        with progress(_SVI_STEPS, "Fitting the posterior", "steps") as bar:
            for _ in range(_SVI_STEPS):
                bounds.append(-svi.step(data, age))
                bar.step()
        with torch.no_grad():
            drawn = [guide(data, age) for _ in range(n_draws)]
    values = {name: torch.stack([d[name] for d in drawn]) for name in density.start}
    return Fitted(_as_draws(values), {"elbo_tail": np.asarray(bounds[-_TAIL:])})


def _nuts(density: _Density, mode: torch.Tensor, n_draws: int) -> Fitted:
    """Two chains of the No-U-Turn sampler on axes of unit spread, with split r-hats."""
    from pyro.infer import MCMC, NUTS
    from pyro.ops.stats import split_gelman_rubin

    spread = _spread(density, mode)

    def potential(at: dict[str, torch.Tensor]) -> torch.Tensor:
        return density.potential(density.by_name(mode + spread @ at["axes"]))

    n_each = -(-n_draws // _CHAINS)
    chains, divergences = [], 0
    with progress(_CHAINS * (_WARM_UP + n_each), "Sampling the posterior", "draws") as bar:
        for _ in range(_CHAINS):
            start = {"axes": torch.randn(len(mode), dtype=mode.dtype)}
            sampler = MCMC(
                NUTS(potential_fn=potential), n_each, warmup_steps=_WARM_UP, initial_params=start, disable_progbar=True,
                hook_fn=lambda *_: bar.step(),
            )  # fmt: skip
            sampler.run()
            chains.append(mode + sampler.get_samples()["axes"] @ spread.T)
            divergences += sum(map(len, sampler.diagnostics()["divergences"].values()))
    kept = vars(density.draws(density.by_name(torch.stack(chains))))  # by parameter: chains x draws x ...
    r_hat = {name: split_gelman_rubin(value, 0, 1).numpy() for name, value in kept.items()}
    return Fitted(
        Draws(**{name: value.flatten(0, 1) for name, value in kept.items()}),
        {"r_hat": r_hat, "n_divergences": divergences},
    )


def _as_draws(values: dict[str, torch.Tensor]) -> Draws:
    """Parameters by the names of the Pyro model."""
    plain = {name: value.detach() for name, value in values.items()}
    return Draws(plain["intercept"], plain["slope"], plain["scale"], plain["shares"], plain["df"] + 2)
