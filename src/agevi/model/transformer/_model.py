"""Transformer clock for samples of several tissues and modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys
from agevi._compat.scvi import REGISTRY_KEYS
from agevi.dataloaders._cells import cell_loader
from agevi.dataloaders._fields import CATEGORY, SUBJECT
from agevi.dataloaders._measured import feature_sets
from agevi.dataloaders._register import category_columns
from agevi.model.base._seed import as_seed, seeded
from agevi.model.transformer._data import SampleClock
from agevi.model.transformer._fit import N_MODULE_ROWS, dense, given_modules, group_moments, learn_modules
from agevi.model.transformer._module import TransformerModule
from agevi.model.transformer._skip import Rows, fit_skip
from agevi.nn.attention import ACTIVATIONS
from agevi.nn.transformer import FeatureTransformer, TabTransformer

_ATTENTION_BATCH = 64
SKIPS = ("auto", "ridge", "none")
STANDARDIZE_BY = ("tissue", "modality")
WIDTHS = {"ft": (), "tab": (128, 2048, 128)}


class Attention(NamedTuple):
    """How tokens saw one another."""

    weights: np.ndarray
    """Share of the attention of a token (second last axis) that goes to each token, (n, n_layers, n_heads, n_tokens,
    n_tokens) float32."""
    embeddings: np.ndarray
    """Contextual embeddings, (n, n_tokens, n_token) float32."""
    tokens: list[str]
    """Names of the tokens."""


class TransformerClock(SampleClock):
    r"""Ageing clock: attention over categories and groups of features, for samples of any tissue and modality.

    ``architecture="tab"`` is the clock of Urban et al., *Precious1GPT* (Aging 2023): categories such as tissue and
    modality go through self-attention, and the features join behind it, in a perceptron
    (:data:`agevi.model.presets.PRECIOUS1GPT` has its settings). No feature is ever seen by the attention.
    ``architecture="ft"`` gives features to the attention too: groups of features that go together become tokens by a
    linear map each, and a token of its own reads the age from them. What was not measured (``varm["agevi_measured"]``)
    adds nothing: a token without a measured feature is not seen, and each token is told the share that was. Around the
    network runs a linear path, one ridge regression per tissue and modality, so that the network learns what these
    leave over. Values enter in standard deviations of the training samples of the same tissue and modality. Each row is
    a sample; values must be normalised already. Batch and continuous covariates are not read. Do not trust predictions
    on other platforms or normalisations than the training data's.

    Parameters
    ----------
    adata
        AnnData registered with :meth:`setup_anndata`.
    architecture
        ``"ft"`` or ``"tab"``.
    n_tokens
        Tokens that are made of features, with ``"ft"``.
    n_token
        Width of a token.
    n_heads, n_layers
        Heads, which must divide ``n_token``, and layers of the attention.
    n_hidden
        Widths of the perceptron behind the attention. Default: none with ``"ft"``, [128, 2048, 128] with ``"tab"``.
    activation
        ``"elu"``, ``"relu"``, ``"gelu"`` or ``"silu"``.
    dropout_rate
        Dropout of attention and perceptron while training.
    modules
        Features by module, such as pathways; each module is a token, and features of none share one more. Default:
        ``n_tokens`` modules are learnt from the correlations of features among training samples.
    skip
        ``"ridge"``: the linear path, whose penalties are chosen on whole training subjects; ``"none"``: no such path;
        ``"auto"``: ridge with ``"ft"``, none with ``"tab"``.
    standardize_by
        ``"tissue"``: mean and standard deviation per tissue and modality (of the modality, for tissues with fewer than
        ten training samples); ``"modality"``: per modality.
    category_dropout
        Share of training rows in which each category but the modality is replaced by the unknown one, which stands for
        values that were never seen.
    modality_dropout
        Share of training rows in which the network is not told the modality and, where a row has several blocks of
        features that are measured together, does not see one of them.
    l1, l2
        Penalties of absolute and squared weights of the network, on top of ``plan_kwargs={"weight_decay": ...}``.
    age_loss
        ``"huber"``, ``"mse"`` or ``"mae"`` on the standardised age.
    subject_weight
        ``"equal"``: every subject has equal weight in the loss; ``"cells"``: every row does; ``"density"``: a subject
        weighs inversely to how common its age is among the training subjects.
    rng
        Seed of the initial weights and of training.

    Examples
    --------
    >>> import agevi
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=30, n_cells=1)
    >>> agevi.model.TransformerClock.setup_anndata(adata, age_key="age", subject_key="donor", tissue_key="cell_type")
    >>> model = agevi.model.TransformerClock(adata, n_tokens=8, n_token=8, n_layers=1)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.predict_age().shape
    (30,)
    """

    search_space: ClassVar[dict[str, Any]] = {
        "architecture": ["ft", "tab"],
        "n_hidden": [None, [64], [128, 128], [128, 2048, 128]],
        "skip": ["auto", "none", "ridge"],
        "l1": [0.0, 1e-7, 1e-6, 1e-5],
        "l2": [0.0, 1e-6, 1e-5, 1e-4],
        "activation": ["elu", "relu", "gelu", "silu"],
        **{name: SampleClock.search_space[name] for name in ("dropout_rate", "age_loss")},
        "batch_size": [None, 32, 96, 256],
        "n_token": [16, 32, 64],
        "n_layers": {"low": 1, "high": 4},
        "plan_kwargs.lr": {"low": 1e-5, "high": 1e-2, "log": True},
        "plan_kwargs.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
        "plan_kwargs.optimizer": ["Adam", "AdamW"],
    }
    default_batch_size = 96
    default_steps = {"cell": 1200}
    plan_kwargs_of_unit: ClassVar[dict[str, dict[str, Any]]] = {
        "cell": {"optimizer": "AdamW", "lr": 1e-4, "weight_decay": 0.1, "lr_schedule": "constant"}
    }

    @classmethod
    def _init_as_stored(cls, init: dict[str, Any]) -> dict[str, Any]:
        return init | ({"n_hidden": list(WIDTHS[init["architecture"]])} if init["n_hidden"] is None else {})

    def __init__(
        self,
        adata: AnnData,
        *,
        architecture: str = "ft",
        n_tokens: int = 64,
        n_token: int = 32,
        n_heads: int = 4,
        n_layers: int = 2,
        n_hidden: Sequence[int] | None = None,
        activation: str = "elu",
        dropout_rate: float = 0.3,
        modules: Mapping[str, Sequence[str]] | None = None,
        skip: str = "auto",
        standardize_by: str = "tissue",
        category_dropout: float = 0.1,
        modality_dropout: float = 0.1,
        l1: float = 0.0,
        l2: float = 0.0,
        age_loss: str = "huber",
        subject_weight: str = "equal",
        rng: int | np.random.Generator | None = 0,
    ) -> None:
        _checks.choice(architecture, tuple(WIDTHS), "architecture")
        _checks.choice(activation, tuple(ACTIVATIONS), "activation")
        _checks.choice(skip, SKIPS, "skip")
        _checks.choice(standardize_by, STANDARDIZE_BY, "standardize_by")
        n_token, n_heads = _checks.count(n_token, "n_token"), _checks.count(n_heads, "n_heads")
        n_tokens, n_layers = _checks.count(n_tokens, "n_tokens"), _checks.count(n_layers, "n_layers")
        if n_token % n_heads:
            raise ValueError(
                f"n_heads={n_heads} does not divide n_token={n_token}; pass for example n_token=32, n_heads=4."
            )
        n_hidden = [int(n) for n in (WIDTHS[architecture] if n_hidden is None else n_hidden)]
        if architecture == "tab" and not n_hidden:
            raise ValueError(
                "n_hidden=[] is empty, and architecture='tab' needs a layer at least; pass for example n_hidden=[128]."
            )
        modules = None if modules is None else {str(k): [str(gene) for gene in v] for k, v in modules.items()}
        rng = as_seed(rng)
        super().__init__(adata, age_loss, subject_weight, "cell", pseudocell_size=0.5, pseudocell_groupby=None)
        self.init_params_ = self._get_init_params(locals())
        self.module = self._make_module()
        self._model_summary_string = (
            f"TransformerClock: {self._width}, architecture: {architecture}, n_token: {n_token}, "
            f"n_layers: {n_layers}, n_hidden: {n_hidden}"
        )

    # --- the module ------------------------------------------------------------------------------------------

    @property
    def _has_line(self) -> bool:
        """Whether a linear path runs around the network."""
        skip = self.init_args["skip"]
        return bool(skip == "ridge" or (skip == "auto" and self.init_args["architecture"] == "ft"))

    @classmethod
    def test_params(cls) -> dict[str, dict[str, Any]]:
        """Arguments that make a small clock for tests."""
        return super().test_params() | {"init": {"n_tokens": 6, "n_token": 8, "n_layers": 1}}

    def _make_module(self) -> TransformerModule:
        """A module with fresh weights that depend on the seed alone."""
        init, setup = self.init_args, self.setup_args
        columns, genes = category_columns(setup), self.genes
        levels = [len(self._state(f"{CATEGORY}{i}")["categories"]) for i in range(len(columns))]
        shape = {
            name: init[name] for name in ("n_token", "n_heads", "n_layers", "n_hidden", "activation", "dropout_rate")
        }
        with seeded(init["rng"]):
            if init["architecture"] == "tab":
                net: Any = TabTransformer(len(genes), levels, **shape)
            elif init["modules"] is None:
                net = FeatureTransformer(len(genes), levels, n_tokens=min(init["n_tokens"], len(genes)), **shape)
            else:
                names, token_of = given_modules(list(genes), init["modules"])
                net = FeatureTransformer(len(genes), levels, n_tokens=len(names), **shape)
                net.features.assign(torch.from_numpy(token_of))
            return TransformerModule(
                net,
                n_features=len(genes),
                n_levels=levels,
                modality=columns.index(setup["modality_key"]) if setup["modality_key"] else None,
                tissue=columns.index(setup["tissue_key"]) if setup["tissue_key"] else None,
                n_sets=len(self._set_names),
                zero_start=self._has_line,
                **self._age_scale_args,
                **{k: init[k] for k in ("category_dropout", "modality_dropout", "l1", "l2", "age_loss")},
            )

    def _fit_buffers(self, train: np.ndarray) -> None:
        """Moments, modules and the linear path, from training rows alone."""
        module, init, x = self.module, self.init_args, self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        sets, rows, (group, fallback) = feature_sets(self.adata_manager.adata), np.flatnonzero(train), self._groups()
        mean, scale = group_moments(
            x,
            rows,
            (group if init["standardize_by"] == "tissue" else fallback)[rows],
            sets.codes[rows],
            sets.masks,
            n_groups=module.n_groups,
            n_tissues=module.n_tissues,
        )
        module.mean.copy_(torch.from_numpy(mean))
        module.scale.copy_(torch.from_numpy(scale))
        module.measured.copy_(sets.tensor)
        module.age_scale.fit(self._sample_ages(train))
        if init["architecture"] == "ft" and init["modules"] is None:
            rng = np.random.default_rng(init["rng"])
            chosen = np.sort(rng.permutation(rows)[:N_MODULE_ROWS])
            token_of, block_of = learn_modules(
                self._standardized(chosen, group[chosen]), sets.masks, module.net.n_tokens, rng
            )
            module.net.features.assign(torch.from_numpy(token_of))
            module.net.block_of.copy_(torch.from_numpy(block_of))
        if self._has_line:
            self._fit_line(train)

    def _fit_line(self, train: np.ndarray) -> None:
        """The linear path, and its predictions of training rows from other subjects."""
        module, ages, (group, fallback) = self.module, self._cell_ages(), self._groups()
        sets = feature_sets(self.adata_manager.adata)
        masks, codes = sets.masks, sets.codes
        rows = np.flatnonzero(train & np.isfinite(ages))
        kinds = np.unique(np.stack([group[rows], codes[rows]], axis=1), axis=0)
        measured = [masks[kinds[kinds[:, 0] == g, 1]].any(axis=0) for g in np.unique(kinds[:, 0])]
        coef, intercept, by_others = fit_skip(
            self._standardized,
            Rows(
                position=rows,
                target=module.age_scale.to_scale(torch.from_numpy(ages[rows])).double().numpy(),
                subject=self.adata_manager.get_from_registry(SUBJECT).ravel().astype(np.int64)[rows],
                group=group[rows],
                fallback=fallback[rows],
            ),
            n_groups=module.n_groups,
            n_tissues=module.n_tissues,
            n_features=masks.shape[1],
            share=bool((np.sum(measured, axis=0) > 1).any()),
            rng=np.random.default_rng(self.init_args["rng"]),
        )
        module.coef.copy_(torch.from_numpy(coef))
        module.intercept.copy_(torch.from_numpy(intercept))
        held_out = torch.full((len(ages), 2), torch.nan)
        held_out[torch.from_numpy(rows)] = torch.from_numpy(by_others).float()
        module.held_out = held_out

    def _run(self, cell_roles: np.ndarray, **kwargs: Any) -> None:
        """One run; a clock that was loaded learns the linear path of its training rows again."""
        if self._has_line and self.module.held_out is None:
            self._fit_line(cell_roles == _keys.TRAIN)
        super()._run(cell_roles, **kwargs)

    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Group of every row, and that of its modality."""
        levels = torch.from_numpy(self._levels())
        group, n = self.module.group(levels).numpy(), self.module.n_tissues + 1
        return group, group // n * n

    def _levels(self) -> np.ndarray:
        """Codes of the categories, (n_obs, n_columns)."""
        columns = [self.adata_manager.get_from_registry(f"{CATEGORY}{i}").ravel() for i in range(self.module.n_columns)]
        empty = np.zeros((self.adata_manager.adata.n_obs, 0), dtype=np.int64)
        return np.column_stack([empty, *columns]).astype(np.int64)

    @torch.no_grad()
    def _standardized(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Values of training rows as members of some groups, (n, n_features) float32."""
        x, sets = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY), feature_sets(self.adata_manager.adata)
        values, of = torch.from_numpy(dense(x, rows)), torch.from_numpy(sets.codes[rows])
        z: torch.Tensor = self.module.standardized(values, torch.from_numpy(group), self.module.measured[of])
        return z.numpy()

    # --- prediction ------------------------------------------------------------------------------------------

    def modules(self) -> pd.Series:
        """Token that every feature is part of, by name; with ``architecture="ft"``.

        Returns
        -------
        Series of text, index feature, in the order of the features.

        Raises
        ------
        RuntimeError
            If the clock is not trained.
        ValueError
            If the clock has no tokens of features.
        """
        self.check_trained("model.modules")
        if self.init_args["architecture"] != "ft":
            raise ValueError("architecture='tab' makes no tokens of features; take architecture='ft'.")
        names = np.asarray(self._token_names()[-self.module.net.n_tokens :], dtype=object)
        index = pd.Index(self.genes, dtype=object, name="feature")
        return pd.Series(names[self.module.net.features.token_of.cpu().numpy()], index=index, name="module")

    def _token_names(self) -> list[str]:
        """Names of the tokens in their order."""
        columns = category_columns(self.setup_args)
        if self.init_args["architecture"] == "tab":
            return columns or ["nothing"]
        if self.init_args["modules"] is None:
            own = [f"module {i}" for i in range(self.module.net.n_tokens)]
        else:
            own = given_modules(list(self.genes), self.init_args["modules"])[0]
        return ["readout", *columns, *own]

    @torch.inference_mode()
    def get_attention(
        self, adata: AnnData | None = None, *, indices: Sequence[int] | None = None, batch_size: int | None = None
    ) -> Attention:
        """Shares of attention between tokens, and contextual embeddings, of every sample.

        Weights say what was looked at, not what the age rests on: for that see :func:`agevi.tl.attribute_genes`. They
        take n_layers x n_heads x n_tokens squared numbers a sample; choose samples by ``indices``.

        Parameters
        ----------
        adata
            Samples; default: the data of the model.
        indices
            Positions of the samples; default all.
        batch_size
            Samples per step.

        Returns
        -------
        Named tuple of ``weights``, float32 (n, n_layers, n_heads, n_tokens, n_tokens), which sum to 1 over the last
        axis; ``embeddings``, float32 (n, n_tokens, n_token), behind the last layer; and ``tokens``, their names.

        Raises
        ------
        RuntimeError
            If the clock is not trained.
        """
        self.check_trained("model.get_attention")
        data = self._data(adata)
        _checks.in_memory(data, "model.get_attention reads")
        rows = _checks.positions(indices, data.n_obs)
        shell, match = self.query(data, min_gene_coverage=0.8, conditioned=False)
        module, masks, found = self.module.eval(), self.present_genes(shell, match), []
        self._remember(shell)
        try:
            for batch in cell_loader(self.get_anndata_manager(shell), rows, batch_size=batch_size or _ATTENTION_BATCH):
                out = module.inference(**module._get_inference_input(batch), masks=masks, weights=True)
                found.append((out["weights"].cpu(), out["tokens"].cpu()))
        finally:
            self._forget(shell)
        weights, tokens = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
        return Attention(weights, tokens, self._token_names())
