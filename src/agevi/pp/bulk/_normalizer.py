"""Batch effects and distributions of bulk samples, learnt from some samples and removed from any."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import qnorm
import scipy.sparse as sp
import torch
from anndata import AnnData

from agevi import _checks, _compat, _gene_names, _names, _units
from agevi._compat import written_to
from agevi._source import where
from agevi.io import _bundle
from agevi.io._numbers import check_gene_names
from agevi.pp.bulk import _covariates, _values
from agevi.pp.bulk._combat import Combat, fit_combat

logger = logging.getLogger(__name__)
_CARD = """# Normaliser of bulk samples

Learnt from {n_samples:,} training samples with {n_genes:,} features: {steps}.

```python
import agevi

normalizer = agevi.pp.BulkNormalizer.load("path/to/this/directory")
normalizer.apply(adata)  # layers["normalized"]
```

Made with agevi {version}. The numbers are safetensors, everything else is JSON; loading runs no code.
"""


class BulkNormalizer:
    """Values without batch effects (ComBat) and of one distribution (quantiles), as learnt from training samples.

    ``fit`` sees training samples only, and ``apply`` treats every sample by itself with what was learnt, so that a
    held-out sample shapes neither the model nor another held-out sample. On the training samples the result is that of
    :func:`scanpy.pp.combat` (Johnson, Li and Rabinovic 2007) followed by that of ``qnorm`` (Bolstad et al. 2003).
    ComBat assumes additive effects: give it logarithms or M values, not counts or shares. Where batches go together
    with age or tissue it cannot tell them apart, and ``fit`` warns or refuses.

    Parameters
    ----------
    batch_key
        Column of ``adata.obs`` with the batch; None leaves ComBat out.
    covariates
        Columns whose effects are kept, such as tissue and sex: categories, or numbers where the column is stored as
        such. ``apply`` needs them too.
    age_key
        Column with the age, whose effect is kept. It is read by ``fit`` only. ``apply`` takes every sample, training
        samples too, to be of the mean training age, since true ages must not reach the features.
    quantile
        Give each sample the distribution of the training samples: its values are replaced by those of the same rank,
        ties by their mean.
    layer
        Layer with the values; default X.

    Attributes
    ----------
    genes_
        Names of the features.
    batches_
        Names of the training batches.
    combat_
        What ComBat learnt, or None.
    quantiles_
        The distribution of the training samples, sorted, (n_genes,), or None.
    n_samples_
        Number of training samples.

    Examples
    --------
    >>> import agevi, numpy as np, scanpy as sc
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=1, n_genes=50)
    >>> sc.pp.log1p(adata)
    >>> train, held_out = adata[:30], adata[30:].copy()
    >>> normalizer = agevi.pp.BulkNormalizer(batch_key="batch", age_key="age").fit(train)
    >>> normalizer.apply(held_out)
    >>> held_out.layers["normalized"].shape
    (10, 50)
    """

    def __init__(
        self,
        *,
        batch_key: str | None = None,
        covariates: Sequence[str] = (),
        age_key: str | None = None,
        quantile: bool = True,
        layer: str | None = None,
    ) -> None:
        self.batch_key, self.age_key, self.quantile, self.layer = batch_key, age_key, bool(quantile), layer
        self.covariates = [covariates] if isinstance(covariates, str) else list(covariates)
        if batch_key is None and (self.covariates or age_key is not None):
            raise ValueError("covariates and age_key need a batch_key; quantile normalisation alone uses neither.")
        if batch_key is None and not quantile:
            raise ValueError("there is nothing to do without batch_key and with quantile=False; set one of the two.")
        keys = [batch_key, *self.covariates, age_key]
        twice = [k for i, k in enumerate(keys) if k is not None and k in keys[:i]]
        if twice:
            raise ValueError(f"{twice[0]!r} is named twice in batch_key, covariates and age_key; name it once.")
        self.n_samples_ = 0

    def fit(self, adata: AnnData) -> Self:
        """Learn from training samples.

        Parameters
        ----------
        adata
            Training samples only, samples x features.

        Returns
        -------
        The normaliser itself.

        Raises
        ------
        KeyError
            A column or the layer is absent.
        TypeError
            A covariate holds fractions that are stored as text or categories.
        ValueError
            Values are missing, a batch has one sample, there is one batch, or batches and covariates cannot be told
            apart.
        """
        _checks.anndata(adata)
        return self._fit(adata, np.arange(adata.n_obs))

    def apply(
        self, adata: AnnData, *, reference_batch: str | None = None, key_added: str = "normalized", copy: bool = False
    ) -> AnnData | None:
        """Normalise samples, each by itself.

        Parameters
        ----------
        adata
            Samples with the features of the fit, in any order and under their names or Ensembl ids. Ages are not read.
        reference_batch
            Training batch whose effects are removed from samples of batches that were not trained on. Default: such
            samples are an error.
        key_added
            Layer to write.
        copy
            Return a copy instead of writing to ``adata``.

        Returns
        -------
        None, or the copy. Sets ``layers[key_added]``: float32, dense, (n_samples, n_features).

        Raises
        ------
        KeyError
            A column or the layer is absent.
        RuntimeError
            The normaliser was not fitted.
        ValueError
            Features differ from those of the fit, values are missing, or a batch or category is new.
        """
        if not self.n_samples_:
            raise RuntimeError("BulkNormalizer.apply needs a fitted normaliser; call fit(adata) on training samples.")
        _checks.anndata(adata)
        x = self._matrix(adata)
        if key_added == self.layer:
            raise ValueError(f"key_added={key_added!r} is the layer that is read; choose another name.")
        order = self._order(adata)
        batch, covariates = self._of_samples(adata, reference_batch)
        values = np.empty(adata.shape, dtype=np.float32)
        for rows in _values.row_blocks(*adata.shape):
            block = _values.dense(x[rows], np.float64)[:, order]
            if self.combat_ is not None:
                block = self.combat_.apply(block, batch[rows], covariates[rows])
            if self.quantiles_ is not None:
                block = qnorm.quantile_normalize(block, axis=0, target=self.quantiles_)
            values[rows.start : rows.stop, order] = block
        out = written_to(adata, copy=copy)
        out.layers[key_added] = values
        return out if copy else None

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted normaliser as a folder of safetensors and JSON.

        Parameters
        ----------
        path
            Folder to write.
        overwrite
            Replace a folder that agevi wrote.
        """
        if not self.n_samples_:
            raise RuntimeError("BulkNormalizer.save needs a fitted normaliser; call fit(adata) on training samples.")
        arrays = {} if self.combat_ is None else {f"combat.{k}": v for k, v in vars(self.combat_).items()}
        if self.quantiles_ is not None:
            arrays["quantiles"] = self.quantiles_
        meta = {
            "class": type(self).__name__,
            "versions": {"agevi": _compat.version("agevi")},
            "init": {k: getattr(self, k) for k in ("batch_key", "covariates", "age_key", "quantile", "layer")},
            "genes": self.genes_.tolist(),
            "gene_names": {kind: self._gene_names[kind].tolist() for kind in self._gene_names},
            "batches": self.batches_,
            "design": [vars(covariate) for covariate in self._design],
            "n_samples": self.n_samples_,
        }
        steps = [f"the effects of {len(self.batches_)} batches (ComBat)"] if self.batches_ else []
        steps += ["their mean distribution (quantile normalisation)"] if self.quantile else []
        shown = {"n_samples": self.n_samples_, "n_genes": len(self.genes_), "version": meta["versions"]["agevi"]}
        card = _CARD.format(steps=" and ".join(steps), **shown)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        _bundle.write_bundle(path, meta, tensors, card, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a normaliser that ``save`` wrote. Nothing in the folder is executed.

        Parameters
        ----------
        path
            The folder.

        Returns
        -------
        The fitted normaliser.

        Raises
        ------
        FileNotFoundError
            There is nothing at ``path``.
        ValueError
            The folder was damaged or edited, or holds something else.
        """
        bundle = _bundle.read_bundle(path)
        meta, arrays = bundle.meta, {name: tensor.numpy() for name, tensor in bundle.tensors.items()}
        if meta.get("class") != cls.__name__:
            raise _bundle.BundleError(
                f"{bundle.path} holds a {meta.get('class')}, not a {cls.__name__}; load it with agevi.io.load_clock."
            )
        n_genes, n_batches = len(meta["genes"]), len(meta["batches"])
        n_columns = sum(len(covariate["centre"]) for covariate in meta["design"])
        shapes = {"quantiles": (n_genes,), "combat.mean": (n_genes,), "combat.effects": (n_columns, n_genes)}
        shapes |= dict.fromkeys(("combat.shift", "combat.weight"), (n_batches, n_genes))
        wanted = [name for name in shapes if (meta["init"]["quantile"] if name == "quantiles" else n_batches)]
        # Checksums find damage only; whoever rewrites both files can still leave arrays that do not fit.
        if {name: a.shape for name, a in arrays.items()} != {name: shapes[name] for name in wanted}:
            raise _bundle.BundleError(
                f"{bundle.path} holds arrays that do not fit its features and batches; save it again."
            )
        out = cls(**meta["init"])
        combat = {name.removeprefix("combat."): a for name, a in arrays.items() if name != "quantiles"}
        out.combat_ = Combat(**combat) if combat else None
        out.quantiles_ = arrays.get("quantiles")
        out._gene_names = pd.DataFrame(check_gene_names(meta.get("gene_names"), n_genes), index=pd.Index(meta["genes"]))
        out.genes_, out.batches_ = pd.Index(meta["genes"]), _names.several(meta["batches"])
        out.n_samples_ = meta["n_samples"]
        out._design = [_covariates.Covariate(**covariate) for covariate in meta["design"]]
        return out

    def _fit(self, adata: AnnData, rows: np.ndarray) -> Self:
        """Learn from the samples ``rows``; sets nothing before it has all."""
        x = self._matrix(adata)
        if adata.n_vars < 2:
            raise ValueError("adata has one feature; batch effects and distributions are learnt over many. Pass more.")
        combat, batches, design = None, [], []
        covariates = np.zeros((len(rows), 0))
        code = np.zeros(len(rows), dtype=np.int64)
        if self.batch_key is not None:
            names = _checks.labels(adata, self.batch_key, "batch_key").iloc[rows]
            _covariates.check_batches(names, self.batch_key)
            code, index = pd.factorize(names, sort=True)
            batches = index.tolist()
            if self.age_key is not None:
                _units.ages(adata[rows], self.age_key, min_age=-np.inf)
            # Age last, since its column is set to zero below.
            design = [
                _covariates.learn(adata, key, rows) for key in (*self.covariates, self.age_key) if key is not None
            ]
            parts = {c.key: c.columns(adata, rows) for c in design}
            _covariates.check_identifiable(code, parts, self.batch_key)
            _covariates.warn_of_confounding(code, design, adata, rows)
            covariates = np.hstack([covariates, *parts.values()])
            combat = fit_combat(lambda: _blocks(x, rows), code, covariates)
            if self.age_key is not None:
                covariates[:, -1] = 0  # as in apply
        quantiles = None
        if self.quantile:
            quantiles = np.zeros(adata.n_vars)
            for part, block in _blocks(x, rows):
                fixed = block if combat is None else combat.apply(block, code[part], covariates[part])
                quantiles += np.sort(fixed, axis=1).sum(0)
            quantiles /= len(rows)
        self.combat_, self.quantiles_, self.batches_, self._design = combat, quantiles, batches, design
        self.genes_, self.n_samples_ = adata.var_names.copy(), len(rows)
        self._gene_names = _gene_names.kept(adata.var)
        return self

    def _matrix(self, adata: AnnData) -> Any:
        """The finite values to read, CSR where they are sparse."""
        _checks.in_memory(adata, "a BulkNormalizer reads", "")
        _checks.unique_names(adata)
        x = _checks.matrix(adata, self.layer)
        _checks.finite(x, where(self.layer))
        return sp.csr_matrix(x) if sp.issparse(x) else x

    def _order(self, adata: AnnData) -> np.ndarray:
        """Column of every feature of the fit, found by its other names too."""
        found = _gene_names.locate(self.genes_, self._gene_names, adata.var, enough=1.0)
        absent = self.genes_[found.columns < 0]
        if len(absent):
            said = f"; {found.n:,} are found {found.how}" if found.how else ""
            raise ValueError(
                f"{len(absent):,} of the normaliser's {len(self.genes_):,} features are absent from adata.var_names "
                f"(e.g. {_checks.listed(absent, 2)}){said}; the rank of a value needs all. Fit on the features that "
                "all have."
            )
        if adata.n_vars > len(self.genes_):
            extra = np.delete(adata.var_names.to_numpy(), found.columns)
            kept = "pass adata[:, normalizer.genes_].copy()" if not found.how else "leave them out"
            raise ValueError(
                f"adata has {len(extra):,} features that the normaliser was not fitted on (e.g. "
                f"{_checks.listed(extra, 2)}); {kept}."
            )
        if found.how:
            logger.info("%s", _gene_names.message(found, self.genes_, adata.var, whose="The normaliser"))
        return found.columns

    def _of_samples(self, adata: AnnData, reference_batch: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Batch and covariates of every sample; the age stands at its mean."""
        n = adata.n_obs
        if self.batch_key is None:
            return np.zeros(n, dtype=np.int64), np.zeros((n, 0))
        known = pd.Index(self.batches_)
        if reference_batch is not None:
            reference_batch = _checks.choice(_names.name(reference_batch), self.batches_, "reference_batch")
        names = _checks.labels(adata, self.batch_key, "batch_key")
        code = known.get_indexer(pd.Index(names))
        unseen = sorted(set(names[code < 0]))
        if unseen and reference_batch is None:
            raise ValueError(
                f"adata.obs[{self.batch_key!r}] holds {_checks.listed(unseen)}, which the normaliser was not fitted on "
                f"({_checks.listed(self.batches_)}); pass reference_batch=... to treat them as one of these, or fit "
                "with samples of theirs."
            )
        code[code < 0] = known.get_indexer([reference_batch])[0]
        every = np.arange(n)
        parts = [np.zeros((n, 1)) if c.key == self.age_key else c.columns(adata, every) for c in self._design]
        return code, np.hstack([np.zeros((n, 0)), *parts])


def _blocks(x: Any, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The samples ``rows`` in float64, block by block."""
    for part in _values.row_blocks(len(rows), x.shape[1]):
        yield part, _values.dense(x[rows[part]], np.float64)
