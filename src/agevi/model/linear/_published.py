"""Published clocks: a linear map with coefficients from a table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from agevi import _checks, _symbols
from agevi._compat import Absent
from agevi._source import place
from agevi.dataloaders._kind import ValueKind
from agevi.dataloaders._own_copies import is_registered
from agevi.dataloaders._query import GeneMatch
from agevi.dataloaders._register import check_horvath_unit
from agevi.dataloaders._summed import are_of_counts, cells_of_rows, is_summed, refuse_sums
from agevi.io._card import published_card
from agevi.model.base import _save
from agevi.model.base._predict import ADVICE_OF_SAMPLES
from agevi.model.base._query import DataMixin
from agevi.model.linear._base import LinearBase
from agevi.model.linear._module import PublishedModule
from agevi.model.linear._table import Coefficients, read_coefficients
from agevi.nn.heads import AGE_TRANSFORMS

VALUES = ("any", "beta", "log")


class LinearClock(DataMixin, LinearBase):
    """Ageing clock: a weighted sum of features with published weights.

    Made by :meth:`from_coefficients`; there is nothing to train. Values are read as they are in the data, so they must
    be what the clock was made for: beta values for most methylation clocks, and for expression the normalisation that
    the publication names, computed on all genes. A sample is predicted from the mean of the values of its cells. Nobody
    in your data is known to have trained it, so every subject has the role ``new``; a cohort of the publication is not
    new all the same. Ages are what the formula gives, and are not kept within bounds.

    Parameters
    ----------
    adata
        Not for users: see :meth:`from_coefficients`.
    values
        ``"beta"`` refuses values outside 0 to 1, ``"log"`` raw counts and what else cannot be a logarithm of counts.

    Examples
    --------
    >>> import agevi, pandas as pd
    >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
    >>> table = pd.DataFrame({"gene": ["intercept", *adata.var_names[:3]], "coef": [40.0, 1.5, -2.0, 0.5]})
    >>> clock = agevi.model.LinearClock.from_coefficients(table)
    >>> agevi.tl.predict_age(adata, clock)
    >>> adata.obs["agevi_role"].unique().tolist()
    ['new']
    """

    expects = "continuous"
    trainable: ClassVar[bool] = False
    without_data = "has no data, since it was made from a table"
    selects_epochs: ClassVar[bool] = False
    predicts_sums = True
    predicts_rows = True  # of bulk samples, for which the formula was published
    module: PublishedModule

    setup_anndata = Absent("its coefficients are published; make it by LinearClock.from_coefficients(...).")
    train = Absent("its coefficients are published; make it by LinearClock.from_coefficients(...).")
    history = Absent("it was not trained here.")

    def __init__(self, adata: AnnData, *, values: str = "any") -> None:
        if not is_registered(type(self), _checks.anndata(adata)):
            raise RuntimeError(
                "LinearClock is not made from data; call agevi.model.LinearClock.from_coefficients(...)."
            )
        super().__init__(adata)
        self._start()
        self.values = _checks.choice(values, VALUES, "values")
        self.init_params_ = self._get_init_params(locals())
        self.module = PublishedModule(self.summary_stats.n_vars, **self._age_scale_args).eval()
        self._model_summary_string = f"{type(self).__name__}: {len(self.genes):,} features, published coefficients"

    @classmethod
    def from_coefficients(
        cls,
        table_or_path: str | Path | pd.DataFrame | pd.Series,
        intercept: float | None = None,
        transform: str | None = None,
        *,
        scale: str | Path | pd.DataFrame | None = None,
        model: str | None = None,
        fill: float | Mapping[str, float] | pd.Series | None = None,
        values: str | None = None,
        layer: str | None = None,
        obsm_key: str | None = None,
        age_key: str = "age",
        subject_key: str = "donor",
        sample_key: str | None = None,
        age_unit: str = "years",
        min_age: float = -1.0,
    ) -> LinearClock:
        r"""A clock from a table of published coefficients.

        The score is :math:`b + \sum_j w_j (x_j - m_j) / s_j`, and the age is the score, or what ``transform`` makes of
        it. Features are in a column such as ``gene``, ``probe`` or ``feature_name`` (or in the index), coefficients in
        ``coef``, ``coefficient`` or ``coef_scaled``. With columns ``mean`` and ``scale`` (or ``sd``) features are
        standardised by them. Where rows have a ``fold``, the folds of a model are averaged, which averages their
        predictions.

        Parameters
        ----------
        table_or_path
            DataFrame, Series (index feature), or a csv or tsv file, gzipped or not.
        intercept
            Constant of the score. Default: the row ``(Intercept)`` or ``intercept``, or else the file beside the table:
            ``<name>_intercept.txt``, or the row of that name in ``intercepts.tsv``. A clock without any needs ``0``
            here.
        transform
            Scale on which the score gives the age: None, ``"horvath"`` (log((age + 1) / 21) up to 20 years, (age - 20)
            / 21 above; Horvath 2013), or ``"log"`` (log(age - ``min_age`` + 1), so that ``min_age=1`` is log(age)).
        scale
            Table of features with ``mean`` and ``scale`` (or ``sd``), in place of columns of the coefficients' table.
        model
            Which model, where the table holds several in a column ``model`` or ``model_key``.
        fill
            Value at which features that the data lack enter: one number, or one for each feature. Default: the table's
            column ``mean``, ``ref_mean``, ``model_mean`` or ``medianByCpG``; where there is none they enter at 0, with
            a warning.
        values
            ``"beta"`` refuses values outside 0 to 1; ``"log"``, for logarithms of normalised counts, refuses raw
            counts, values that are not logarithms, and where the table has the means of features also logarithms on
            another scale, such as counts per 10,000 in place of per million; ``"any"`` takes all finite ones. Default:
            ``"beta"`` where features are CpG sites that are not standardised, else ``"any"``.
        layer
            Layer that holds the values; default X.
        obsm_key
            Table of ``adata.obsm`` that holds them, a DataFrame whose columns are the features, such as proteins.
        age_key, subject_key, sample_key
            Columns of the data that are predicted, where they are there; no age is needed.
        age_unit
            Unit in which the clock gives ages.
        min_age
            Only for ``transform="log"``.

        Returns
        -------
        The clock, ready to predict.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        TypeError
            If the table or its coefficients are of a wrong type.
        ValueError
            If columns, the intercept or scales are missing, or the table holds several models.

        Examples
        --------
        >>> import agevi, pandas as pd
        >>> clock = agevi.model.LinearClock.from_coefficients(pd.Series({"cg01": 2.0, "cg02": -1.0}), 0.5, "horvath")
        >>> clock.coefficients().to_dict()
        {'cg01': 2.0, 'cg02': -1.0}
        """
        transform = _checks.choice("none" if transform is None else transform, AGE_TRANSFORMS, "transform")
        if transform == "horvath":
            check_horvath_unit(age_unit)
        found = read_coefficients(table_or_path, intercept=intercept, scale=scale, fill=fill, model=model)
        standardised = bool((found.scale != 1).any())
        setup = {
            "age_key": age_key,
            "subject_key": subject_key,
            "sample_key": sample_key,
            "layer": layer,
            "obsm_key": obsm_key,
            "batch_key": None,
            "categorical_covariate_keys": None,
            "continuous_covariate_keys": None,
            "normalize": "none",
            "age_unit": age_unit,
            "age_transform": transform,
            "min_age": float(min_age),
        }
        meta = {"setup": setup, "categories": {}, "genes": found.features.tolist(), "init": {}}
        kind = _kind(found.features, standardised) if values is None else values
        clock: LinearClock = cls._from_template(_save.template(meta), setup, {"values": kind})
        clock._set(found)
        return clock

    def _set(self, found: Coefficients) -> None:
        """Take over the linear map. Values are centred where absent features enter, which moves the intercept alone."""
        known = np.isfinite(found.usual)
        center = torch.from_numpy(np.where(known, found.usual, 0.0)).float()
        module, unit = self.module, torch.from_numpy(found.scale).float().double()
        weight = torch.from_numpy(found.weight)
        module.input.mean.copy_(center)
        module.input.sd.copy_(unit)
        module.known.copy_(torch.from_numpy(known))
        moved = weight @ ((center.double() - torch.from_numpy(found.shift)) / unit)
        module.set_map(weight, found.intercept + float(moved))
        self.age_summary_ = {"unit": self.setup_args["age_unit"], "transform": self.age_transform}
        self.is_trained_ = True

    def coefficients(self) -> pd.Series:
        """Change of the score per unit of each feature's value, largest absolute values first.

        The score is the age itself without ``transform``.

        Returns
        -------
        Series of float64, index feature.
        """
        module = self.module
        values = (module.coefficients.detach() / module.input.sd.double()).cpu().numpy()
        out = pd.Series(values, index=pd.Index(self.genes, dtype=object, name="feature"), name="score per unit")
        return out.iloc[np.argsort(-np.abs(values), kind="stable")]

    # --- data ------------------------------------------------------------------------------------------------

    def query(self, adata: AnnData, *, min_gene_coverage: float, conditioned: bool) -> tuple[AnnData, GeneMatch]:
        if is_summed(adata) and are_of_counts(adata):
            refuse_sums(adata, "a published clock reads means over", ADVICE_OF_SAMPLES)
        shell, match = super().query(adata, min_gene_coverage=min_gene_coverage, conditioned=conditioned)
        layer = self.setup_args["layer"]
        if self.values == "beta":
            x = _checks.matrix(shell, layer)
            _checks.within(
                sp.diags(1 / cells_of_rows(adata)) @ x if is_summed(adata) else x, place(self.setup_args), 0, 1,
                "the clock reads beta values. Pass them (layer=... of from_coefficients names a layer; from M values "
                "beta = 2**M / (2**M + 1)), or values='any' if the clock reads something else, such as z-scores.",
            )  # fmt: skip
        unknown = np.flatnonzero(~match.present & ~self.module.known.cpu().numpy())
        if len(unknown):
            warnings.warn(
                f"{len(unknown):,} of the clock's {len(self.genes):,} features are absent (e.g. "
                f"{_checks.listed(self.genes[unknown], 2)}) and their usual value is not known, so they enter at 0, "
                "which moves all ages alike. Pass fill=... to from_coefficients.",
                UserWarning,
                stacklevel=_checks.stack_depth(),
            )
        return shell, match

    @property
    def value_kind(self) -> ValueKind | None:
        if self.values != "log":
            return None
        known, mean = (values.detach().cpu().numpy() for values in (self.module.known, self.module.input.mean))
        return ValueKind.logarithms(np.where(known, mean.astype(np.float64), np.nan))

    def _knows(self, x: Any) -> bool:
        try:
            _checks.within(x, "", 0, 1, "")
        except ValueError:
            return False
        return self.values == "beta"

    def _card(self, meta: dict[str, Any]) -> str:
        return published_card(meta)


def _kind(features: np.ndarray, standardised: bool) -> str:
    """``"beta"`` for CpG sites as they are."""
    n_sites = sum(bool(_symbols.CPG.match(str(name))) for name in features)
    return "beta" if n_sites > len(features) / 2 and not standardised else "any"
