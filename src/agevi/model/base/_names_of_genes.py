"""Other names of a clock's genes, Ensembl ids and symbols, by which it finds them in new data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _gene_names, _symbols
from agevi._compat import Host
from agevi.io._numbers import check_gene_names


class GeneNamesMixin(Host):
    """Names that a clock keeps beside those in ``genes``."""

    _gene_names: pd.DataFrame | None = None

    @property
    def gene_names(self) -> pd.DataFrame:
        """Ensembl ids and symbols of the clock's genes, as a copy with index gene and "" where a gene has none.

        Columns are ``gene_ids`` and ``gene_symbols``, those that ``adata.var`` held when the clock was set up and that
        differ from ``genes``, or that were set by :meth:`set_gene_names`.
        """
        names = pd.concat([clock.gene_names for clock in self.own_clocks] or [self._kept_names()])
        return names[~names.index.duplicated()].reindex(pd.Index(self.genes, dtype=object, name="gene")).fillna("")

    def set_gene_names(self, adata: AnnData, *, gene_symbols: str | None = None, gene_ids: str | None = None) -> None:
        """Let the clock know its genes by other names too, so that it finds them in data that use these.

        They are saved with the clock. Columns under customary names, such as ``"gene_ids"`` of 10x or
        ``"feature_name"`` of CELLxGENE, are found when a clock is set up and need not be named.

        Parameters
        ----------
        adata
            Annotated data with the clock's genes in ``adata.var_names``, such as the training data.
        gene_symbols
            Column of ``adata.var`` with symbols.
        gene_ids
            Column of ``adata.var`` with Ensembl ids; versions are cut off.

        Raises
        ------
        KeyError
            A column does not exist.
        ValueError
            Neither column is named, or ``adata.var_names`` has none of the clock's genes.

        Examples
        --------
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort()
        >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> clock = agevi.model.PLSClock(adata)
        >>> adata.var["my ids"] = [f"ENSG{i:011d}.4" for i in range(adata.n_vars)]
        >>> clock.set_gene_names(adata, gene_ids="my ids")
        >>> clock.gene_names["gene_ids"].iloc[0]
        'ENSG00000000000'
        """
        _checks.anndata(adata)
        given = {_gene_names.IDS: gene_ids, _gene_names.SYMBOLS: gene_symbols}
        found = {kind: _symbols.column(adata, name, kind) for kind, name in given.items() if name is not None}
        if not found:
            raise ValueError("neither gene_symbols nor gene_ids is given; name a column of adata.var.")
        if not adata.var_names.isin(self.genes).any():
            raise ValueError(
                f"none of the clock's {len(self.genes):,} genes ({_checks.listed(self.genes, 2)}) is in "
                f"adata.var_names ({_checks.listed(adata.var_names, 2)}); pass data under the clock's own names, such "
                "as those that trained it."
            )
        names = pd.DataFrame({k: _gene_names.storable(v) for k, v in found.items()}, index=adata.var_names.astype(str))
        for clock in self._keepers():
            own = clock._kept_names()
            more = names[~names.index.duplicated()].reindex(own.index).fillna("")
            clock._gene_names = own.assign(**{str(kind): more[kind] for kind in more})

    def _keepers(self) -> list[Any]:
        """The clocks that hold the names: this one, and those in it."""
        return [self, *(keeper for clock in self.own_clocks for keeper in clock._keepers())]

    def _kept_names(self) -> pd.DataFrame:
        """The names that the clock holds: those of the registered data until others are set."""
        if self._gene_names is None:
            manager = getattr(self, "_adata_manager", None)
            var = pd.DataFrame() if manager is None else manager.adata.var
            index = pd.Index(np.asarray(self.genes, dtype=object), name="gene")
            self._gene_names = pd.DataFrame(
                {kind: var[kind].to_numpy(dtype=object) for kind in _gene_names.KINDS if kind in var}, index=index
            )
        return self._gene_names

    def _names_as_plain(self) -> dict[str, Any]:
        """What a bundle holds of them."""
        names = self._kept_names()
        return {"gene_names": {kind: names[kind].tolist() for kind in names}} if len(names.columns) else {}


def var_of(meta: Mapping[str, Any]) -> pd.DataFrame:
    """Genes of a saved clock with their other names, after every value was checked."""
    genes = pd.Index(meta["genes"], dtype=object)
    return pd.DataFrame(check_gene_names(meta.get("gene_names"), len(genes)), index=genes)
