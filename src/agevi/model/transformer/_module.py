"""The tensors of a transformer clock."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agevi import _keys
from agevi._compat.scvi import REGISTRY_KEYS, auto_move_data
from agevi.dataloaders._fields import CATEGORY, ROW, UNKNOWN
from agevi.model.base._module import AgeModule, Layers
from agevi.nn.attribution import Reading
from agevi.nn.rows import as_dense

LIMIT = 8.0
"""Largest absolute standardised value: features that hardly vary can be far out in new data."""


class TransformerModule(AgeModule):
    """Standardised age w_g'z + b_g + f(z), z = (x - m_g) s_g in the sample's group g, 0 if unmeasured, f a network."""

    mean: torch.Tensor
    scale: torch.Tensor
    coef: torch.Tensor
    intercept: torch.Tensor
    measured: torch.Tensor
    held_out: torch.Tensor | None

    def __init__(
        self,
        net: Any,
        *,
        n_features: int,
        n_levels: list[int],
        modality: int | None,
        tissue: int | None,
        n_sets: int,
        category_dropout: float,  # share of training rows in which a category is replaced by the unknown one
        modality_dropout: float,  # and in which the modality is, and a block of features is hidden
        l1: float,
        l2: float,
        zero_start: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net, self.n_columns, self.modality, self.tissue = net, len(n_levels), modality, tissue
        self.category_dropout, self.modality_dropout, self.l1, self.l2 = category_dropout, modality_dropout, l1, l2
        self.n_tissues = 0 if tissue is None else n_levels[tissue]
        self.n_groups = (1 if modality is None else n_levels[modality]) * (self.n_tissues + 1)
        for name in ("mean", "scale", "coef"):
            self.register_buffer(name, torch.zeros(self.n_groups, n_features))
        self.register_buffer("intercept", torch.zeros(self.n_groups))
        self.register_buffer("measured", torch.ones(n_sets, n_features, dtype=torch.bool))
        self.register_buffer("held_out", None, persistent=False)
        self.output = nn.Linear(net.n_latent, 1)
        if zero_start:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def group(self, levels: torch.Tensor) -> torch.Tensor:
        """Group of every row, (n,); the one of the modality where the tissue is not known."""
        out = torch.zeros(len(levels), dtype=torch.int64, device=levels.device)
        if self.modality is not None:
            out = (levels[:, self.modality] - 1) * (self.n_tissues + 1)
        return out if self.tissue is None else out + levels[:, self.tissue]

    def standardized(self, x: torch.Tensor, group: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        """Values as the network reads them, (n, n_features), from values as they are and a mask of the same shape."""
        z = (as_dense(x) - self.mean[group]).mul_(self.scale[group]).clamp_(-LIMIT, LIMIT)
        return z.masked_fill_(~measured, 0.0)

    def line(self, z: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        """The linear path, (n,)."""
        return torch.linalg.vecdot(z, self.coef[group]) + self.intercept[group]

    def penalty(self) -> torch.Tensor | float:
        """Sums of absolute and squared weights of the network, times their factors."""
        if not self.l1 and not self.l2:
            return 0.0
        weights = [w for w in self.net.parameters() if w.dim() > 1]
        absolute = sum(w.abs().sum() for w in weights) if self.l1 else 0.0
        square = sum(w.square().sum() for w in weights) if self.l2 else 0.0
        return self.l1 * absolute + self.l2 * square

    # --- scvi-tools' contract --------------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {
            "x": tensors[REGISTRY_KEYS.X_KEY],
            "levels": self.levels(tensors),
            "sets": tensors[_keys.FEATURE_SET].squeeze(-1).long(),
            "row": tensors[ROW].squeeze(-1).long(),
        }

    def levels(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Codes of the categories, (n, n_columns)."""
        columns = [tensors[f"{CATEGORY}{i}"].long() for i in range(self.n_columns)]
        x = tensors[REGISTRY_KEYS.X_KEY]
        return torch.cat(columns, dim=1) if columns else torch.zeros(len(x), 0, dtype=torch.int64, device=x.device)

    @auto_move_data
    def inference(
        self,
        x: torch.Tensor,
        levels: torch.Tensor,
        sets: torch.Tensor,
        masks: torch.Tensor | None = None,
        row: torch.Tensor | None = None,
        weights: bool = False,
    ) -> dict[str, Any]:
        """Latent representation and linear path of a batch; ``masks``, (n_sets, n_features), of features measured."""
        # Rows of training data, by position, have the linear path that was fitted to other subjects.
        masks = self.measured if masks is None else masks
        levels, seen = self._dropped(levels) if self.training else (levels, levels)
        group = self.group(levels)
        z = self.standardized(x, group, masks[sets])
        line = self._line(z, group, levels, row)
        shares = self.net.shares(masks)[sets]
        if self.training and self.modality_dropout and self.net.n_tokens:
            hidden = self.net.hidden_tokens(shares, self.modality_dropout)
            shares = shares.masked_fill(hidden, 0.0)
            z = z.masked_fill(hidden[:, self.net.features.token_of], 0.0)
        encoded = self.net(self.net.units(z), seen, shares, line, weights=weights)
        return {"latent": encoded.latent, "line": line, "tokens": encoded.tokens, "weights": encoded.weights}

    def _dropped(self, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Categories, some replaced by the unknown one; and for the network the same without some modalities."""
        drop = torch.rand(levels.shape, device=levels.device) < self.category_dropout
        if self.modality is None:
            known = levels.masked_fill(drop, UNKNOWN)
            return known, known
        drop[:, self.modality] = False  # without the modality, values have no scale
        known = levels.masked_fill(drop, UNKNOWN)
        seen = known.clone()
        seen[torch.rand(len(levels), device=levels.device) < self.modality_dropout, self.modality] = UNKNOWN
        return known, seen

    def _line(
        self, z: torch.Tensor, group: torch.Tensor, levels: torch.Tensor, row: torch.Tensor | None
    ) -> torch.Tensor:
        """The linear path; for training rows, as fitted to other subjects."""
        line = self.line(z, group)
        if not self.training or self.held_out is None or row is None:
            return line
        known = torch.zeros_like(group) if self.tissue is None else (levels[:, self.tissue] == UNKNOWN).long()
        held_out = self.held_out[row, known]
        return torch.where(torch.isfinite(held_out), held_out, line)

    def _get_generative_input(
        self, tensors: dict[str, torch.Tensor], inference_outputs: dict[str, torch.Tensor]
    ) -> dict[str, Any]:
        return {"latent": inference_outputs["latent"], "line": inference_outputs["line"]}

    @auto_move_data
    def generative(self, latent: torch.Tensor, line: torch.Tensor) -> dict[str, torch.Tensor]:
        """Standardised ages, (n,)."""
        return {"predicted": self.standardized_age(latent, line)}

    def standardized_age(self, latent: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Standardised age from the latent representation and the linear path, (n,)."""
        out: torch.Tensor = self.output(latent).squeeze(-1)
        return out + line if self.age_scale.target == "age" else out  # log-odds do not contain it: the network reads it

    def age(self, latent: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        """Predicted age in the user's unit, (n,)."""
        return self.age_scale.to_target(self.standardized_age(latent, line))

    def predict(
        self, tensors: dict[str, torch.Tensor], present: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ages and latent representation of a batch."""
        found = self.inference(**self._get_inference_input(tensors), masks=present)
        return self.age(found["latent"], found["line"]), found["latent"]

    def layers(self) -> tuple[Layers, Layers]:
        """The layers of the network, and the last unit."""
        return self.net.layers(), [self.output]

    def reading(self, *, summed: bool, present: torch.Tensor | None = None) -> Reading:
        """Units of the network, then the lines of all groups; behind them, what a row is told beside its values."""
        masks = self.measured if present is None else present
        net, n = self.net, len(self.net.weight())
        codes = torch.zeros(self.n_columns + net.n_tokens, masks.shape[1], device=masks.device)
        weight = torch.cat([net.weight().detach(), self.coef, codes])
        sizes = [n, self.n_groups, self.n_columns, net.n_tokens]

        def place(fields: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            return self.levels(fields), fields[_keys.FEATURE_SET].squeeze(-1).long()

        def values(x: torch.Tensor, fields: dict[str, torch.Tensor]) -> torch.Tensor:
            levels, sets = place(fields)
            return self.standardized(x, self.group(levels), masks[sets])

        def told(fields: dict[str, torch.Tensor]) -> torch.Tensor:
            levels, sets = place(fields)
            lines = self.intercept.expand(len(levels), -1)
            return torch.cat([lines.new_zeros(len(levels), n), lines, levels.to(lines), net.shares(masks)[sets]], dim=1)

        def latent(units: torch.Tensor) -> torch.Tensor:
            own, lines, levels, shares = units.split(sizes, dim=1)
            codes = levels.round().long()
            line = lines.gather(1, self.group(codes)[:, None])
            return torch.cat([net(own, codes, shares, line.squeeze(1)).latent, line], dim=1)

        def age(found: torch.Tensor) -> torch.Tensor:
            return self.age(found[:, :-1], found[:, -1])

        shift = torch.zeros(len(weight), device=weight.device)
        return Reading(weight, shift, latent, age, values, False, told, by_field=True)
