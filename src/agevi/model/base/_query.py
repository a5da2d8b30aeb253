"""How clocks look at data: an AnnData of the clock's genes and columns is registered, never the user's own."""

from __future__ import annotations

import inspect
import logging
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks
from agevi._compat import Absent, Host
from agevi._compat.scvi import AnnDataManager
from agevi._source import features, inner, mark, place, read
from agevi._stored import Stored
from agevi.dataloaders._fields import unknown_values
from agevi.dataloaders._kind import ValueKind, kind_of, refuse_other_kinds
from agevi.dataloaders._own_copies import check_unchanged, check_values_kept, forget, recall, remember, sums_a_file
from agevi.dataloaders._query import GeneMatch, match_genes, query_shell
from agevi.dataloaders._register import (
    absent_layer,
    check_covariate,
    check_values,
    column_names,
    counts_in,
    covariate_columns,
    make_manager,
)
from agevi.dataloaders._summed import check_sums, is_summed, refuse_sums
from agevi.io._bundle import Bundle
from agevi.io._card import clock_card
from agevi.model.base import _save
from agevi.model.base._names_of_genes import GeneNamesMixin

logger = logging.getLogger(__name__)
ADVICE_OF_SUMS = (
    "Pass the cells that were summed; or train a clock of sums on these: PLSClock, ElasticNetClock, or CellTypeClock "
    "with such clocks."
)
"""For who would train another clock on sums."""
_MANAGERS = "_agevi_managers"  # attribute of an AnnData of agevi's own: {id of a model: manager}


def refuse_training(cls: Any, init: dict[str, Any], adata: AnnData) -> None:
    """Refuse sums of cells for a clock that learns from single cells, or from pseudocells drawn from them."""
    if not cls.trains_on_sums(init):
        refuse_sums(adata, f"{cls.__name__}{_unit_of(init)} learns from", ADVICE_OF_SUMS)


def refuse_draws(cls: Any, init: dict[str, Any], x: Any) -> None:
    """Refuse a matrix on disk for a clock that would draw cells from everywhere in the file."""
    default = inspect.signature(cls).parameters.get("train_unit")
    unit = init.get("train_unit", cls.unit_from_disk if default is None else default.default)
    if isinstance(x, Stored) and unit != cls.unit_from_disk:
        raise ValueError(
            f"{x.where} is on disk, and {cls.__name__} with train_unit={unit!r} draws cells from everywhere in it, "
            f"which is slow. Make the clock with train_unit={cls.unit_from_disk!r}, which reads blocks of rows; or "
            "train PLSClock on the sums of agevi.pp.sum_samples; or call adata = adata.to_memory() first."
        )


def _unit_of(init: dict[str, Any]) -> str:
    """What it trains on, as a message writes it after the class."""
    return f" with train_unit={init['train_unit']!r}" if "train_unit" in init else ""


class DataMixin(Host):
    """For models that are not trained on AnnData themselves: data to predict by default, which are kept as they are."""

    without_data: ClassVar[str] = "was loaded without data"
    """Why there may be none, for the message."""

    def _data(self, adata: AnnData | None) -> AnnData:
        """``adata``, or the data of the model."""
        if adata is None and self._adata is None:
            raise RuntimeError(f"this {type(self).__name__} {self.without_data}; pass adata=... to predict.")
        return _checks.anndata(self._adata if adata is None else adata)

    def _attach(self, adata: AnnData) -> None:
        """Make ``adata`` the data that are predicted by default."""
        self._adata = _checks.anndata(adata)


class ShellMixin(GeneNamesMixin):
    """How a clock looks at data other than those it was made with."""

    expects: str
    registry_: Any
    kind_: ValueKind | None

    deregister_manager = Absent("data are kept by the model alone, and by nothing once it is deleted.")

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of ``setup_anndata``."""
        return self.registry_["setup_args"]

    @property
    def genes(self) -> np.ndarray:
        """The clock's genes in order, (n_genes,)."""
        return column_names(self.registry_)

    @property
    def _width(self) -> str:
        """Their number, in words."""
        return f"{len(self.genes):,} {features(self.setup_args)}"

    @property
    def normalize(self) -> str:
        """What the network does with the values that it is given; it is given log-ratios as such."""
        return inner(self.setup_args["normalize"])

    def read(self, adata: AnnData) -> AnnData:
        """``adata``, or for a clock on a table of ``obsm`` the same cells with the clock's dimensions as X."""
        return read(adata, self.setup_args, self.genes)

    def query(self, adata: AnnData, *, min_gene_coverage: float, conditioned: bool) -> tuple[AnnData, GeneMatch]:
        """A registered-to-be AnnData with the clock's genes; ``adata`` is only read.

        With ``conditioned`` every batch and covariate column must be there and known, because the decoder reads
        them; without, they may be absent unless the encoder reads them.
        """
        setup, adata = self.setup_args, self.read(adata)
        _checks.unique_names(adata)
        match = self._match(adata, min_gene_coverage)
        required = conditioned or self.module.encode_covariates
        obs = self._conditions(adata, required, conditioned=conditioned)
        shell = query_shell(adata, match, self.genes, layer=setup["layer"], read=self.layer_of(adata), obs=obs)
        x = _checks.matrix(shell, setup["layer"])
        check_sums(adata, x, place(setup))
        check_values(x, setup, counts=self.expects == "counts", model=type(self).__name__, new=True, source=adata)
        if not is_summed(adata):  # sums of values as they are tell nothing of the kind of each
            refuse_other_kinds(x, self.value_kind, setup, type(self).__name__, adata)
        return mark(shell, setup), match

    def layer_of(self, adata: AnnData) -> str | None:
        """The layer of new data that is read: that of training, or None for X where it holds what the clock expects."""
        layer, there = self.setup_args["layer"], adata.layers
        if layer in there and layer is not None:
            return str(layer)
        if layer is None:
            found = counts_in(adata) if adata.X is None and self._of_counts else ""
            if found:
                raise ValueError(f"adata.X, which the clock reads, is absent; {found} holds counts: adata.X = {found}.")
            return None
        if adata.X is not None and self._knows(_checks.matrix(adata, None)):
            logger.info(
                "adata.layers has no %r, on which the clock was trained; adata.X holds such values and is read.", layer
            )
            return None
        raise KeyError(absent_layer(adata, layer, counts=self._of_counts))

    @property
    def value_kind(self) -> ValueKind | None:
        """Of what kind the values are that it reads as they are; None where it does not tell."""
        return self.kind_

    @property
    def _of_counts(self) -> bool:
        """Whether the clock reads raw counts."""
        return self.expects == "counts" or self.normalize != "none"

    def _knows(self, x: Any) -> bool:
        """Whether values are surely of the kind that the clock was trained on; normalised ones do not show it."""
        return self._of_counts and _checks.holds_counts(x)

    def _match(self, adata: AnnData, min_coverage: float) -> GeneMatch:
        """Where the clock's genes are in ``adata``; refuses when too few are there."""
        return match_genes(self.genes, adata, min_coverage=min_coverage, known=self._kept_names())

    def find_genes(self, adata: AnnData, min_gene_coverage: float = 0.8) -> np.ndarray:
        """Position of each of :attr:`genes` among the columns of ``adata``, -1 where absent, (n_genes,)."""
        return self._match(adata, min_gene_coverage).columns

    def _columns_for_verbs(self, adata: AnnData) -> pd.DataFrame:
        """Columns that a verb may group by: all but the ages, which no verb needs, and scvi-tools' own."""
        kept = [c for c in adata.obs if c != self.setup_args["age_key"] and not str(c).startswith("_scvi")]
        return adata.obs[kept].copy()

    def _conditions(self, adata: AnnData, required: bool, *, conditioned: bool = False) -> pd.DataFrame:
        """Batch and covariate columns of ``adata``, or a substitute where they are not read."""
        obs = self._columns_for_verbs(adata) if conditioned else pd.DataFrame(index=adata.obs_names.astype(str))
        categories = _save.categories(self.registry_)
        for argument, keys in covariate_columns(self.setup_args):
            for key in keys:
                known = categories.get(key)
                if required:
                    check_covariate(adata, key, argument)
                    obs[key] = adata.obs[key].to_numpy()
                    new = set(_checks.labels(adata, key, argument)) - set(known) if known else set()
                    if new and known:
                        raise ValueError(unknown_values(key, new, known))
                else:
                    obs[key] = 0.0 if known is None else known[0]
        return obs

    # --- registration: scvi-tools' stores by class, which keep data alive, are not used ----------------------------

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata: AnnData, required: bool = False) -> AnnDataManager | None:
        """What the last ``setup_anndata`` of the class registered for ``adata``."""
        return recall(cls, adata)

    def _register_manager_for_instance(self, adata_manager: AnnDataManager) -> None:
        """Keep a manager with the data that it manages."""
        vars(adata_manager.adata).setdefault(_MANAGERS, {})[self.id] = adata_manager

    def get_anndata_manager(self, adata: AnnData, required: bool = False) -> AnnDataManager | None:
        """Manager of data that were registered for this model, None for other data; used by scvi-tools."""
        return vars(adata).get(_MANAGERS, {}).get(self.id)

    def get_var_names(self, legacy_mudata_format: bool = False) -> np.ndarray:
        """The clock's genes; used by scvi-tools."""
        return self.genes

    def _validate_anndata(self, adata: AnnData | None = None, copy_if_view: bool = True) -> AnnData:
        """Hook of every scvi-tools verb: data pass through a shell, so that they are never written to."""
        data = self._data(adata)
        if self.get_anndata_manager(data) is not None:  # a shell, from the verb that called this one
            return data
        _checks.in_memory(data)
        shell, _ = self.query(data, min_gene_coverage=1.0, conditioned=True)
        self._remember(shell)
        return shell

    def _registered(self) -> AnnData:
        """What is trained on: the registered data, which are still those of the user."""
        self._data(None)
        own: AnnData = self.adata_manager.adata
        if self.adata is not own:
            check_unchanged(self.adata, self.adata_manager, type(self).__name__)
            check_values_kept(self.adata, own, self.setup_args, type(self).__name__)
        setup, counts = self.setup_args, self.expects == "counts"
        if sums_a_file(own):
            refuse_draws(type(self), self.init_args, _checks.matrix(self.adata, setup["layer"]))
        refuse_training(type(self), self.init_args, own)
        x = _checks.matrix(own, setup["layer"])
        refuse_draws(type(self), self.init_args, x)
        check_values(x, setup, counts=counts, model=type(self).__name__)
        self.kind_ = None if is_summed(own) else kind_of(self.adata, x, setup, counts=counts)
        return own

    @classmethod
    def _from_template(cls, template: AnnData, setup: dict[str, Any], init: dict[str, Any]) -> Any:
        """An untrained model on a substitute for its training data."""
        args = cls._get_setup_method_args(cls=cls, adata=template, **setup)
        known = {key: v.cat.categories for key, v in template.obs.items() if isinstance(v.dtype, pd.CategoricalDtype)}
        manager = make_manager(setup, args, known)
        manager.register_fields(template)
        remember(cls, template, manager)
        model = cls(template, **init)
        forget(template)
        model._adata = None
        return model

    def _meta(self) -> dict[str, Any]:
        """Everything about the trained clock except its weights, as plain values."""
        return _save.meta_of(self)

    @classmethod
    def _template(cls, meta: dict[str, Any]) -> AnnData:
        """A substitute for the training data of a saved clock."""
        return _save.template(meta)

    def _card(self, meta: dict[str, Any]) -> str:
        """The text for people that lies beside a saved clock."""
        return clock_card(meta)

    @classmethod
    def _restore(cls, bundle: Bundle) -> Any:
        """A trained clock on the CPU, without data, from a bundle of this class."""
        return _save.restore(cls, bundle)

    def _attach(self, adata: AnnData) -> None:
        """Register ``adata`` with the categories of this clock and make it the model's data."""
        _checks.anndata(adata)
        names, own = self.read(adata).var_names, self._kept_names()
        match_genes(self.genes, self.read(adata), min_coverage=1.0, known=own)
        if not np.array_equal(names, self.genes):
            same = pd.Index(self.genes).isin(names).all()
            raise ValueError(
                "adata has other genes, another order or other names than the clock; pass "
                f"{'adata[:, clock.genes].copy()' if same else 'agevi.pp.align_genes(adata, clock)'}."
            )
        self._conditions(adata, True)
        type(self).setup_anndata(adata, source_registry=self.registry_, **self.setup_args)
        self._adata = adata
        self._adata_manager = recall(type(self), adata)
        self._register_manager_for_instance(self._adata_manager)
        self.registry_ = self._adata_manager.registry
        self.summary_stats = self._adata_manager.summary_stats

    def _remember(self, shell: AnnData) -> None:
        """Register a shell."""
        self._register_manager_for_instance(self.adata_manager.transfer_fields(shell))

    def _forget(self, shell: AnnData) -> None:
        """Drop the manager of a shell, so that its data are freed at once and not by the next search for cycles."""
        vars(shell).pop(_MANAGERS, None)

    def _data(self, adata: AnnData | None) -> AnnData:
        """``adata``, or the data of the model, as :meth:`read` gives them."""
        if adata is not None:
            return self.read(_checks.anndata(adata))
        if self.adata is None:
            raise RuntimeError(
                "this clock was loaded without data; pass adata=... to predict, or load it with "
                "agevi.io.load_clock(path, adata) to train on."
            )
        return self.read(self.adata)
