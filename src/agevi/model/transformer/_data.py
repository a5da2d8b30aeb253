"""How a transformer clock looks at data: columns of categories, and what was measured."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from agevi import _checks, _keys, _names
from agevi._source import CLR
from agevi.dataloaders._measured import FeatureSets, aligned, feature_sets, match_sets, write_sets
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._register import CATEGORY_KEYS, category_columns, check_covariate
from agevi.model.base import _save
from agevi.model.base._regressor import RegressorClock


class SampleClock(RegressorClock):
    """A clock of samples that reads modality, tissue and feature sets."""

    expects = "continuous"
    unit_from_disk: ClassVar[str] = ""

    @property
    def compared_within(self) -> str | None:  # type: ignore[override]
        """The column of the modality."""
        return self.setup_args["modality_key"]

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        age_key: str,
        subject_key: str,
        sample_key: str | None = None,
        layer: str | None = None,
        obsm_key: str | None = None,
        batch_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        modality_key: str | None = None,
        tissue_key: str | None = None,
        normalize: str | None = "none",
        age_unit: str = "years",
        age_transform: str = "auto",
        min_age: float = -1.0,
        features: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register an AnnData for this clock.

        Checks everything, and writes nothing. What was measured in which rows is read from
        ``varm["agevi_measured"]``, which :func:`agevi.pp.concat_modalities` writes; without it, everything was.

        Parameters
        ----------
        adata
            Samples x features, values normalised.
        age_key
            Column of ``adata.obs`` with the age of each sample; NaN means unlabelled.
        subject_key
            Column with the person or animal, the unit that is held out.
        sample_key
            Column with the visit or biopsy, the unit with one age. Default: the subject.
        layer
            Layer that holds the values; default X.
        obsm_key
            Table of ``adata.obsm`` to read in place of X, as for other clocks; what was measured is not asked then.
        batch_key
            Not read; taken so that one call serves all clocks.
        categorical_covariate_keys
            Further columns that become tokens, such as the sex.
        continuous_covariate_keys
            Not read.
        modality_key
            Column with the kind of measurement, such as expression and methylation. Moments are taken per modality, and
            a modality that the clock never saw is refused.
        tissue_key
            Column with the tissue. One that the clock never saw is read as unknown, with a warning.
        normalize
            ``"none"``, the default, or with ``obsm_key`` ``"clr"``, as for other clocks.
        age_unit
            Unit of the ages.
        age_transform
            Scale on which ages are trained: ``"none"``, ``"log"``, ``"horvath"`` or ``"auto"``, which is ``"none"``.
        min_age
            Lowest age that is believed.
        features
            Features that train the clock, such as drug targets; those that the data lack are left out, and all train by
            default.
        **kwargs
            Passed on by scvi-tools when a saved registration is used again.

        Raises
        ------
        KeyError
            If a column, the layer, the table or a part of the mask does not exist.
        TypeError
            If ages are not numeric or ``features`` is not a list of names.
        ValueError
            If ages, units, values or the mask cannot be trained on, a modality has one sample, or the data have none of
            the ``features``.
        """
        method_args = cls._get_setup_method_args(**locals())
        if normalize != "none" and (obsm_key is None or normalize != CLR):
            raise ValueError(
                f"normalize={normalize!r} with {cls.__name__}, which reads values that are normalised already; leave "
                "it out."
            )
        cls._register(adata, method_args, kwargs)

    def _match(self, adata: AnnData, min_coverage: float) -> GeneMatch:
        """Where the clock's features are; each feature set of the data must cover one of the clock's."""
        known = FeatureSets(self._set_names, self.module.measured.cpu().numpy(), np.zeros(0, dtype=np.int64))
        return match_sets(self.genes, known, adata, min_coverage=min_coverage, names=self.gene_names)

    def query(self, adata: AnnData, *, min_gene_coverage: float, conditioned: bool) -> tuple[AnnData, GeneMatch]:
        """A registered-to-be AnnData with the clock's features and what was measured of them."""
        adata = self.read(adata)
        shell, match = super().query(adata, min_gene_coverage=min_gene_coverage, conditioned=conditioned)
        write_sets(shell, aligned(feature_sets(adata), match))
        return shell, match

    def present_genes(self, shell: AnnData, match: GeneMatch) -> torch.Tensor:
        """Features that each feature set of the data measures, (n_sets, n_features)."""
        return feature_sets(shell).tensor.to(self.device)

    def _conditions(self, adata: AnnData, required: bool, *, conditioned: bool = False) -> pd.DataFrame:
        """Columns of the categories; a modality must be known, another value may be new."""
        obs = self._columns_for_verbs(adata) if conditioned else pd.DataFrame(index=adata.obs_names)
        known, setup = _save.categories(self.registry_), self.setup_args
        for key in category_columns(setup):
            argument = next((k for k in CATEGORY_KEYS if setup[k] == key), "categorical_covariate_keys")
            check_covariate(adata, key, argument)
            obs[key] = _checks.labels(adata, key, argument).to_numpy()
            new = sorted(set(obs[key]) - set(known[key]))
            if new and argument == "modality_key":
                raise ValueError(
                    f"adata.obs[{key!r}] holds the modality {_checks.listed(new)}, which the clock never saw; it knows "
                    f"{_checks.listed(known[key])}{_names.difference(new, known[key])}. Map the column to known "
                    "values, or train with these samples."
                )
            if new:
                n_rows = int(obs[key].isin(new).sum())
                warnings.warn(
                    f"adata.obs[{key!r}] holds {_checks.listed(new)} in {n_rows:,} samples, which the clock never saw "
                    f"(it knows {_checks.listed(known[key])}){_names.difference(new, known[key])}; they are read as "
                    "unknown, and their ages are less certain.",
                    UserWarning,
                    stacklevel=_checks.stack_depth(),
                )
        return obs

    @property
    def _set_names(self) -> list[str]:
        """Names of the feature sets of the training data."""
        return [str(name) for name in self._state(_keys.FEATURE_SET)["names"]]

    def _state(self, field: str) -> dict[str, Any]:
        """What scvi-tools keeps of a field."""
        return self.registry_["field_registries"][field]["state_registry"]

    def _meta(self) -> dict[str, Any]:
        """Everything about the trained clock except its weights, as plain values."""
        return super()._meta() | {"feature_sets": self._set_names}

    @classmethod
    def _template(cls, meta: dict[str, Any]) -> AnnData:
        """A substitute for the training data of a saved clock, with as many feature sets."""
        out, names = super()._template(meta), meta["feature_sets"]
        masks = np.ones((len(names), out.n_vars), dtype=bool)
        write_sets(out, FeatureSets(list(names), masks, np.zeros(out.n_obs, dtype=np.int64)))
        return out
