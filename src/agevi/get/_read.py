"""The tables that tools leave in ``uns``, and what the functions that read or draw them say of them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from anndata import AnnData

from agevi import _checks, _docs, _keys

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Table:
    """One table: the call that writes it, the column that its index becomes ("" for none), and words about its rows."""

    call: str
    index: str = ""
    rows: str = ""

    @property
    def writer(self) -> str:
        """Name of the tool in the docs."""
        return f":func:`{self.call.split('(')[0]}`"


TABLES = {
    "acceleration": Table("agevi.tl.age_acceleration(adata, groupby=..., reference=...)"),
    "attribution": Table("agevi.tl.attribute_genes(adata, model)"),
    "calibration": Table("agevi.tl.calibrate(adata, key_added={key!r})", rows=", all samples first, then each group"),
    "correlation": Table(
        "agevi.tl.age_correlation(adata, age_key=..., subject_key=...)",
        "component",
        ", one row per component in the order of the representation",
    ),
    "enrichment": Table("agevi.tl.enrich(adata, sets, key_added={key!r})"),
    "explanation": Table("agevi.tl.explain_age(adata, model)"),
    "leaderboard": Table("agevi.tl.compare_models(adata, ..., key_added={key!r})", "model"),
    "learning_curve": Table(
        "agevi.tl.learning_curve(adata, model_cls, age_key=..., subject_key=...)", rows=", one row per axis and level"
    ),
    "metrics": Table("agevi.tl.evaluate_by(adata, groupby=[...])", rows=", one row per group"),
    "neuron_clock_study": Table("agevi.tl.neuron_clock_study(adata, age_key=..., subject_key=...)"),
    "normative": Table("agevi.tl.normative_scores(adata)"),
    "perturbation": Table("agevi.tl.perturb_genes(adata, model)", rows=", the largest changes of a group first"),
    "posterior": Table(
        "agevi.tl.subject_posterior(adata)",
        rows=': one row per sample with ``type`` ``"all"``, and one per sample and type where types were told apart',
    ),
    "programs": Table("agevi.tl.age_programs(adata, model)", "program", ", the largest part first"),
    "study": Table("agevi.tl.study(adata, age_key=..., subject_key=...)", rows=", one row per step"),
    "subjects": Table("agevi.tl.aggregate_subjects(adata{other_key})", "sample"),
    "transfer": Table(
        "agevi.tl.compare_transfer(adata, clock, condition_key=..., control=...)",
        "model",
        ", the rows that start from the clock first",
    ),
    "trend": Table("agevi.tl.trend_test(adata, order_key=...)", rows=", all samples first, then each group"),
}
"""Every table by its noun, ``adata.uns[f"{key_added}_{noun}"]``."""


def stored(adata: AnnData, noun: str, key_added: str, where: str = "uns") -> Any:
    """What the tool left in ``adata.<where>``, or a KeyError that names the call that writes it."""
    return _checks.slot(adata, _keys.Keys(key_added).table(noun), where, call_of(noun, key_added))


def call_of(noun: str, key_added: str) -> str:
    """The call that writes a table."""
    other_key = "" if key_added == _keys.DEFAULT_KEY else f", key_added={key_added!r}"
    return TABLES[noun].call.format(key=key_added, other_key=other_key)


def read(adata: AnnData, noun: str, key_added: str) -> pd.DataFrame:
    """A copy of a table with numbered rows; its index becomes a column where it names something."""
    table: pd.DataFrame = stored(adata, noun, key_added)
    index = TABLES[noun].index
    return table.rename_axis(index).reset_index() if index else table.reset_index(drop=True)


_PLAIN = """
Parameters
----------
adata
    Annotated data after {table.writer}.
key_added
    Prefix of the slots.

Returns
-------
{returns}

Raises
------
KeyError
    {table.writer} was not run.
"""


def _returns(table: Table) -> str:
    """What a reader of the whole table returns, in lines."""
    those = f"column ``{table.index}`` and those" if table.index else "columns"
    return textwrap.fill(f"A copy of the table with the {those} that {table.writer} lists{table.rows}.", 112)


ENTRIES = {
    **_docs.ARGUMENTS,
    **{f"after_{noun}": f"\nadata\n    Annotated data after {table.writer}." for noun, table in TABLES.items()},
    **{f"plain_{noun}": _PLAIN.format(table=t, returns=_returns(t)) for noun, t in TABLES.items()},
    **{f"returns_{noun}": f"Returns\n-------\n{_returns(table)}" for noun, table in TABLES.items()},
    "gene_symbols": """
        gene_symbols
            Column of ``adata.var`` that is added after ``gene`` under its name, as scanpy does; where a gene has no
            symbol, its name stands there.
    """,
    "example_model": """
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort()
        >>> agevi.model.PLSClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> model = agevi.model.PLSClock(adata)
        >>> model.train()
    """,
    "example_explanation": """
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(30, 20, 50, n_cell_types=2, ageing_rates=[0, 1])
        >>> Clock = agevi.model.CellTypeClock
        >>> Clock.setup_anndata(adata, age_key="age", subject_key="donor", cell_type_key="cell_type")
        >>> model = Clock(adata, min_cells=3, combine="mean")
        >>> model.train()
        >>> agevi.tl.explain_age(adata, model, n_boot=100)
    """,
    "example_enrichment": """
        >>> import agevi, numpy as np
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=5, n_genes=50)
        >>> adata.varm["agevi_attribution"] = np.arange(50.0)[:, None]  # stands for tl.attribute_genes(adata, model)
        >>> adata.uns["agevi_attribution"] = {"groups": ["all"]}
        >>> agevi.tl.enrich(adata, {"last": adata.var_names[-8:], "first": adata.var_names[:8]}, n_top=10)
    """,
    "example_normative": """
        >>> import agevi, numpy as np
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=40, n_cells=5, n_genes=50)
        >>> noise = np.repeat(np.random.default_rng(0).normal(0, 5, 40), 5)
        >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2 + noise  # stands for tl.cross_validate(adata, model)
        >>> adata.obs["agevi_role"] = "out_of_fold"
        >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
        >>> agevi.tl.normative_scores(adata)
    """,
    "example_transfer": """
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=20, n_cells=10, n_genes=60, case_fraction=0.5)
        >>> agevi.model.MLPClock.setup_anndata(adata, age_key="age", subject_key="donor")
        >>> clock = agevi.model.MLPClock(adata, n_hidden=[16])
        >>> clock.train(max_epochs=2, enable_progress_bar=False)
        >>> agevi.tl.compare_transfer(
        ...     adata,
        ...     clock,
        ...     condition_key="condition",
        ...     control="control",
        ...     n_folds=2,
        ...     n_repeats=1,
        ...     n_boot=20,
        ...     train_kwargs={"max_epochs": 1},
        ...     refit_clock=True,
        ...     clock_kwargs={"max_epochs": 1},
        ... )
    """,
    "example_trend": """
        >>> import agevi
        >>> adata = agevi.datasets.simulate_cohort(n_subjects=12, n_cells=5, n_genes=50)
        >>> adata.obs["agevi_predicted"] = adata.obs["age"] / 2  # stands for tl.predict_age(adata, model)
        >>> adata.obs["agevi_role"] = "new"
        >>> agevi.tl.aggregate_subjects(adata, subject_key="donor", age_key="age")
        >>> agevi.tl.trend_test(adata, order_key="age")
    """,
}
"""Entries of docstrings: ``adata`` after a tool, all sections of a plain reader, and data that examples start from."""


def documented(function: F) -> F:
    """The function with these entries in its docstring."""
    return _docs.shared(function, ENTRIES)
