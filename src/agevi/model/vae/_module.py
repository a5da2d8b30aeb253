"""The tensors of a variational autoencoder with an age head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

from agevi._compat.scvi import REGISTRY_KEYS, LossOutput, auto_move_data
from agevi.dataloaders._fields import AGE, CELLS, DECODED, SUBJECT, SUMMED
from agevi.dataloaders._stats import GeneStats
from agevi.model.base._module import ClockModule, Layers
from agevi.model.vae._observation import Continuous, Counts
from agevi.nn.attribution import Reading, dense_reading
from agevi.nn.blocks import GaussianEncoder, Stack
from agevi.nn.decoding import decoded_nll
from agevi.nn.heads import AgeHead, TargetScale, masked_age_loss
from agevi.nn.inputs import CP10K, GeneInput
from agevi.nn.likelihoods import MIN_RATE, CountLikelihood, NormalLikelihood
from agevi.nn.noise import InputNoise
from agevi.nn.products import store_by_input
from agevi.nn.rows import as_dense


class ClockVAEModule(ClockModule):
    """Encoder, mirrored decoder, which sees batch and covariates, and age head; where sums are read, only these age."""

    def __init__(
        self,
        n_input: int,
        *,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] = (),
        n_continuous_cov: int = 0,
        n_latent: int,
        n_hidden: Sequence[int],
        n_head: Sequence[int],
        dropout_rate: float,
        gene_likelihood: str = "poisson",  # "normal" models the normalised values, others the counts
        rate: str = "softmax",
        age_loss: str = "huber",
        age_weight: float = 1.0,  # relative to the counts of an average cell ("normal": to the number of genes)
        encode_covariates: bool = False,  # else the decoder alone sees batch and covariates
        normalize: str = "log1p_cp10k",
        standardize: bool = False,
        sums: bool = False,
        noise: str | None = None,
        noise_level: float = 0.0,
        age_transform: str = "none",
        min_age: float = -1.0,
        year: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_input, self.n_latent = n_input, n_latent
        self.category_sizes = [n for n in (n_batch, *n_cats_per_cov) if n > 1]
        self.n_batch, self.n_cats_per_cov = n_batch, list(n_cats_per_cov)
        self.gene_likelihood, self.rate = gene_likelihood, rate
        self.age_loss, self.age_weight = age_loss, age_weight
        self.encode_covariates = encode_covariates
        n_covariates = sum(self.category_sizes) + n_continuous_cov
        encoder = Stack(
            n_input, n_hidden, dropout_rate=dropout_rate, n_covariates=n_covariates if encode_covariates else 0
        )
        self.encoder = GaussianEncoder(encoder, n_latent)
        self.decoder = Stack(n_latent, n_hidden[::-1], dropout_rate=0.0, n_covariates=n_covariates)
        self.logits = store_by_input(nn.Linear(self.decoder.n_output, n_input))
        self.head = AgeHead(n_latent, list(n_head), dropout_rate=dropout_rate)
        self.age_scale = TargetScale(age_transform, min_age, year=year)
        self.input = GeneInput(n_input, normalize=normalize, standardize=standardize, sums=sums)
        self.noise = InputNoise(n_input, kind=noise, level=noise_level) if noise else None
        self.observation = Continuous(n_input) if gene_likelihood == "normal" else Counts(gene_likelihood, n_input)

    def fit_buffers(self, stats: GeneStats, *, noise_relative_to: str = "input_sd") -> None:
        """Everything that is estimated before the first step, from the moments of training cells."""
        stats.fill(self.input)
        self.observation.fit(stats)
        self._start_at_means(stats)
        if self.noise is not None:
            unit = self.input.sd if noise_relative_to == "input_sd" else torch.full_like(self.input.sd, stats.input_max)
            self.noise.scale.copy_(unit / self.input.sd if self.input.standardize else unit)

    # --- from counts to latent space -------------------------------------------------------------------------

    @torch.no_grad()
    def _start_at_means(self, stats: GeneStats) -> None:
        """Let the decoder start from the mean of every gene, so that dispersions do not have to make up for it."""
        if isinstance(self.observation, Continuous):
            start = torch.zeros(self.n_input) if self.input.standardize else torch.from_numpy(stats.input_mean)
        else:
            mean = torch.from_numpy(stats.mean).clamp_min(1e-8) / self.observation.kept()
            start = mean.log() if self.rate == "softmax" else mean + torch.log(-torch.expm1(-mean))
        self.logits.bias.copy_(start)

    def encoder_input(
        self,
        x: torch.Tensor,
        library: torch.Tensor,
        present: torch.Tensor | None = None,
        summed: bool = False,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the encoder sees of counts with sums ``library``, (n, n_genes); noisy in training with noise."""
        if self.noise is None:
            return self.input(x, library, present, summed, out)
        noisy = self.noise.on_counts(x)
        if noisy is not x:  # its own sum keeps the mean of the input as it is without noise
            library = self.input.library_size(noisy, present)
        return self.noise.on_input(self.input(noisy, library, present, summed))

    def read(
        self,
        x: torch.Tensor,
        cells: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        summed: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the encoder sees of ``x`` and then of ``cells``, (n, n_genes), and library sizes, (n, 1)."""
        library = self.input.library_size(x, present)
        if cells is None:
            return self.encoder_input(x, library, present, summed), library
        sizes, n = self.input.library_size(cells, present), len(x)
        values = library.new_empty(n + len(cells), self.n_input)
        for rows, size, part, of_sums in ((x, library, values[:n], summed), (cells, sizes, values[n:], False)):
            seen = self.encoder_input(rows, size, present, of_sums, part)
            if seen is not part:
                as_dense(seen, part)
        return values, torch.cat([library, sizes])

    def covariates(
        self, batch_index: torch.Tensor, cat_covs: torch.Tensor | None = None, cont_covs: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """One-hot batch and categories beside the continuous covariates, (n, n_covariates)."""
        columns = [(batch_index, self.n_batch)]
        if cat_covs is not None:
            columns += [(cat_covs[:, [i]], n) for i, n in enumerate(self.n_cats_per_cov)]
        parts = [F.one_hot(c.squeeze(-1).long(), n).float() for c, n in columns if n > 1]
        if cont_covs is not None:
            parts.append(cont_covs)
        return torch.cat(parts, dim=-1) if parts else None

    def posterior(
        self,
        x: torch.Tensor,
        covariates: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        summed: bool = False,
        cells: torch.Tensor | None = None,
    ) -> tuple[Normal, torch.Tensor]:
        """Posterior over the latent space, (n, n_latent), and library size, (n, 1), of ``x`` and then of ``cells``."""
        values, library = self.read(x, cells, present, summed)
        mean, sd = self.encoder(values, covariates if self.encode_covariates else None)
        return Normal(mean, sd, validate_args=False), library

    @auto_move_data
    def latent_mean(
        self,
        x: torch.Tensor,
        batch_index: torch.Tensor,
        cat_covs: torch.Tensor | None = None,
        cont_covs: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        summed: bool = False,
        cells: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Posterior mean, (n, n_latent), from which ages are predicted."""
        values, _ = self.read(x, cells, present, summed)
        covariates = self.covariates(batch_index, cat_covs, cont_covs) if self.encode_covariates else None
        return self.encoder.location(values, covariates)

    def age(self, latent_mean: torch.Tensor) -> torch.Tensor:
        """Predicted age in the user's unit, (n,)."""
        return self.age_scale.to_target(self.head(latent_mean))

    def predict(
        self, tensors: dict[str, torch.Tensor], present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ages and latent means of a batch."""
        mean = self.latent_mean(**self._get_inference_input(tensors), present=present)
        return self.age(mean), mean

    def layers(self) -> tuple[Layers, Layers]:
        """The encoder up to the latent mean, and the head."""
        return [*self.encoder.stack.blocks, self.encoder.mean], self.head.layers()

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """The encoder's first layer, and the rest up to the age."""
        blocks: Any = self.encoder.stack.blocks
        layer: Any = self.encoder.mean
        rest: nn.Module = nn.Identity()
        if len(blocks):
            layer, rest = blocks[0][0], nn.Sequential(*blocks[0][1:], *blocks[1:], self.encoder.mean)

        def covariates(fields: dict[str, torch.Tensor]) -> Any:
            batch, *others = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)
            return self.covariates(fields[batch], *map(fields.get, others))

        sees = covariates if self.encoder.stack.n_covariates else None
        return dense_reading(self.input, layer, rest, self.age, summed=summed, present=present, covariates=sees)

    # --- scvi-tools' contract --------------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, torch.Tensor], full_forward_pass: bool = False) -> dict[str, Any]:
        return {
            "x": tensors[REGISTRY_KEYS.X_KEY],
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "summed": SUMMED in tensors,
            "cells": tensors.get(CELLS),
        }

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        batch_index: torch.Tensor,
        cat_covs: torch.Tensor | None = None,
        cont_covs: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        summed: bool = False,
        cells: torch.Tensor | None = None,
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Posterior, library size and a draw, (n, n_latent), or (n_samples, n, n_latent) for more than one."""
        qz, library = self.posterior(x, self.covariates(batch_index, cat_covs, cont_covs), present, summed, cells)
        z = qz.rsample() if n_samples == 1 else qz.rsample((n_samples,))
        if n_samples > 1:
            library = library.expand(n_samples, *library.shape)
        return {"z": z, "qz": qz, "ql": None, "library": library.log()}

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        fields = (REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)
        inputs = dict(zip(("batch_index", "cat_covs", "cont_covs"), map(tensors.get, fields), strict=True))
        inputs |= {"z": inference_outputs["z"], "library": inference_outputs["library"]}
        first = _first_decoded(tensors)
        return {name: value[..., first:, :] if first and value is not None else value for name, value in inputs.items()}

    @auto_move_data
    def generative(
        self,
        z: torch.Tensor,
        library: torch.Tensor,
        batch_index: torch.Tensor,
        cat_covs: torch.Tensor | None = None,
        cont_covs: torch.Tensor | None = None,
        transform_batch: int | None = None,
        decode: bool = True,
    ) -> dict[str, Any]:
        """Distribution of the values, ``px``, (..., n, n_genes), the prior, and what the loss reads."""
        # Without decode there is no px: the loss needs the last hidden layer only, and no tensor of cells x genes.
        if transform_batch is not None:
            batch_index = torch.full_like(batch_index, transform_batch)
        hidden = self.decoder(z, self.covariates(batch_index, cat_covs, cont_covs))
        pz = Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False)
        out = {"pz": pz, "hidden": hidden, "library": library}
        return out | {"px": self._distribution(self.logits(hidden), library)} if decode else out

    def _distribution(self, logits: torch.Tensor, library: torch.Tensor) -> Any:
        """Distribution of the values from the output of the decoder."""
        if isinstance(self.observation, Continuous):
            return self._continuous(logits, self.observation)
        if self.rate == "softmax":
            scale = torch.softmax(logits, dim=-1)
            rate = scale * (library - self.observation.log_kept(scale)).exp()
        else:
            rate = F.softplus(logits) + MIN_RATE
            scale = rate / rate.sum(-1, keepdim=True)
        return self.observation.distribution(rate, scale)

    def decoded(self, z: torch.Tensor, batch: int) -> torch.Tensor:
        """Log expected counts, or expected values, of points of the latent space in one batch, (n, n_genes)."""
        n = len(z)
        continuous = self.decoder.n_covariates - sum(self.category_sizes)
        px = self.generative(
            z,
            self.input.mean_library.log().expand(n, 1),
            torch.full((n, 1), float(batch), device=z.device),
            cat_covs=torch.zeros(n, len(self.n_cats_per_cov), device=z.device) if self.n_cats_per_cov else None,
            cont_covs=torch.zeros(n, continuous, device=z.device) if continuous else None,
        )["px"]
        mean: torch.Tensor = px.mean
        return mean if self.gene_likelihood == "normal" else mean.clamp_min(1e-12).log()

    def _continuous(self, standardized: torch.Tensor, observation: Continuous) -> Any:
        """Distribution of normalised values from the decoder's output."""
        mean, sd = standardized, observation.sd
        if self.input.standardize:
            mean, sd = self.input.mean + self.input.sd * mean, self.input.sd * sd
        shares = torch.expm1(mean).clamp_min(0) / CP10K if self.input.normalize == "log1p_cp10k" else mean
        return observation.distribution(mean, sd, shares)

    def reconstruction(self, x: torch.Tensor, generated: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Negative log-likelihood in nats: mean over cells, and that of every cell, (..., n), which has no gradient."""
        hidden, library = generated["hidden"], generated["library"]
        if hidden.dim() > 2:  # draws of cells
            parts = [self.reconstruction(x, {"hidden": h, "library": s}) for h, s in zip(hidden, library, strict=True)]
            means, rows = zip(*parts, strict=True)
            return torch.stack(means).mean(), torch.stack(rows)
        likelihood: CountLikelihood | NormalLikelihood
        if isinstance(self.observation, Continuous):
            scaler = (self.input.mean, self.input.sd) if self.input.standardize else (None, None)
            likelihood, x = self.observation.likelihood(*scaler), self.input.normalized(x)
        else:
            likelihood = self.observation.likelihood(library, self.rate)
        scale = 1 / max(len(hidden), 1)
        return decoded_nll(hidden, self.logits.weight, self.logits.bias, x, likelihood, scale=scale)

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        kl_weight: float = 1.0,
        subject_weights: torch.Tensor | None = None,
    ) -> LossOutput:
        """Negative ELBO plus the age term; ``subject_weights`` are by the code of a subject, (n_subjects,)."""
        x, qz, first = tensors[REGISTRY_KEYS.X_KEY], inference_outputs["qz"], _first_decoded(tensors)
        n_aged = len(x)  # sums where there are any, else cells
        mean, reconstruction = self.reconstruction(tensors.get(CELLS, tensors.get(DECODED, x)), generative_outputs)
        location, variance = qz.loc[first:], qz.scale[first:].square()
        kl = 0.5 * (location.square() + variance - 1 - variance.log()).sum(-1)
        loss = mean + kl_weight * kl.sum() / max(len(kl), 1)
        predicted = self.head(qz.loc[:n_aged])
        if AGE in tensors:
            weight = None if subject_weights is None else subject_weights[tensors[SUBJECT][:n_aged].squeeze(-1).long()]
            target = self.age_scale.to_scale(tensors[AGE][:n_aged].squeeze(-1))
            age = masked_age_loss(predicted, target, weight, kind=self.age_loss)
            size = self.n_input if self.gene_likelihood == "normal" else self.input.mean_library
            loss = loss + self.age_weight * size * age
        return LossOutput(
            loss=loss,
            reconstruction_loss=reconstruction,
            kl_local={"kl_divergence_z": kl},
            extra_metrics={"predicted_age": self.age_scale.to_target(predicted.detach())},
        )

    @torch.inference_mode()
    def sample(
        self, tensors: dict[str, torch.Tensor], n_samples: int = 1, generative_kwargs: dict[str, Any] | None = None
    ) -> torch.Tensor:
        """Counts drawn from the posterior predictive, (n, n_genes) or (n, n_genes, n_samples), on the CPU."""
        _, generative = self.forward(
            tensors, inference_kwargs={"n_samples": n_samples}, generative_kwargs=generative_kwargs, compute_loss=False
        )
        draws: torch.Tensor = generative["px"].sample()
        return (draws.permute(1, 2, 0) if n_samples > 1 else draws).cpu()

    @torch.inference_mode()
    @auto_move_data
    def marginal_ll(
        self,
        tensors: dict[str, torch.Tensor],
        n_mc_samples: int,
        return_mean: bool = False,
        n_mc_samples_per_pass: int = 1,
    ) -> torch.Tensor | float:
        """Log-likelihood of each cell in nats, (n,), by importance sampling from the posterior."""
        x, parts = tensors[REGISTRY_KEYS.X_KEY], []
        inputs = self._get_inference_input(tensors)
        for start in range(0, n_mc_samples, n_mc_samples_per_pass):
            n = min(n_mc_samples_per_pass, n_mc_samples - start)
            inference = self.inference(**inputs, n_samples=n)
            generative = self.generative(**self._get_generative_input(tensors, inference), decode=False)
            z, qz, pz = inference["z"], inference["qz"], generative["pz"]
            log_ratio = (pz.log_prob(z) - qz.log_prob(z)).sum(-1) - self.reconstruction(x, generative)[1]
            parts.append(log_ratio.reshape(n, -1))
        log_lik = torch.logsumexp(torch.cat(parts), dim=0) - torch.log(torch.tensor(float(n_mc_samples)))
        return float(log_lik.mean()) if return_mean else log_lik.cpu()


def _first_decoded(tensors: dict[str, Any]) -> int:
    """Rows before those that are reconstructed."""
    n = len(tensors[REGISTRY_KEYS.X_KEY])
    if CELLS in tensors:
        return n
    return n - len(tensors[DECODED]) if DECODED in tensors else 0
