"""Names of genes from a column of ``adata.var``."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from agevi import _symbols
from tests.test_gates import check_message


@pytest.fixture
def adata():
    var = pd.DataFrame({"symbol": ["CD3E", "CD8A", None, "CD8A", ""]}, index=[f"ENSG{i}" for i in range(5)])
    var["kind"] = pd.Categorical(["a", "b", "c", "d", "e"])
    return ad.AnnData(np.ones((2, 5), dtype=np.float32), var=var)


def test_genes_without_a_symbol_keep_their_names(adata):
    assert _symbols.names(adata, "symbol").tolist() == ["CD3E", "CD8A", "ENSG2", "CD8A", "ENSG4"]
    assert _symbols.names(adata, "kind").to_dict() == dict(zip(adata.var_names, "abcde", strict=True))
    assert _symbols.names(adata, None).tolist() == adata.var_names.tolist()


def test_labels_are_unique(adata):
    expected = ["CD3E", "CD8A (ENSG1)", "ENSG2", "CD8A (ENSG3)", "ENSG4"]
    assert _symbols.labels(adata, "symbol").tolist() == expected


def test_an_absent_column_is_refused(adata):
    with pytest.raises(KeyError) as raised:
        _symbols.names(adata, "symbols")
    check_message(
        raised,
        "gene_symbols='symbols' is not a column of adata.var; closest: 'symbol'. Available: 'symbol', 'kind'.",
    )
