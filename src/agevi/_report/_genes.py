"""Genes that predicted ages rest on, and the sets that they are in."""

from __future__ import annotations

import numpy as np
import pandas as pd

from agevi import get, pl
from agevi._report._blocks import Block, Callout, Section, Side, Text
from agevi._report._cohort import Cohort
from agevi._report._numbers import Column, counted, listing, number, p, percent, rounded, table, whole
from agevi._report._verdict import doubt
from agevi.pl._base import unit_of, wording

MOST_GENES, MOST_SETS = 100, 60
SIGNIFICANT = 0.05
_GENES = {
    "rank": Column("Rank", whole),
    "gene": Column("Gene"),
    "symbol": Column("Symbol"),
    "direction": Column("More of it"),
    "attribution": Column("Attribution ({unit})", rounded(3), "Mean absolute value over subjects"),
    "signed": Column("Signed", rounded(3, sign=True), "Positive: more of the gene looks older"),
    "se": Column("Standard error", rounded(3), "Of the attribution, across subjects"),
    "rank_low": Column("Rank from", whole, "95 % interval of the rank, when subjects are drawn anew"),
    "rank_high": Column("to", whole),
    "selected": Column("Selected", percent, "Share of draws of subjects in which it is among the first genes"),
}


def genes_section(cohort: Cohort) -> Section:
    """The first genes with their intervals."""
    title = "Genes"
    if not cohort.has("attribution"):
        return Section(
            "genes", title, title, [cohort.absent("Predicted ages were not divided among genes.", "attribution")]
        )
    record = cohort.adata.uns[cohort.keys.attribution_groups]
    unit = unit_of(record)
    rows = get.attribution_df(cohort.adata, gene_symbols=cohort.gene_symbols, key_added=cohort.key)
    words = wording(unit)
    rows["direction"] = np.where(rows["signed"] >= 0, words.higher, words.lower)
    names = rows[cohort.gene_symbols] if cohort.gene_symbols in rows else rows["gene"]
    n = min(20, len(rows))
    firm = int((rows["rank_high"].head(n) <= 2 * n).sum())
    figure = cohort.figures.draw(
        pl.attribution, cohort.adata, n_top=n, gene_symbols=cohort.gene_symbols, key_added=cohort.key,
        alt=f"Attribution of the first {n} genes in {unit}, with intervals: "
        + listing([f"{gene} ({word})" for gene, word in zip(names[:n], rows["direction"][:n], strict=True)], 6) + ".",
        caption="The line on a bar is its 95 % interval across subjects, the numbers are that of its rank.",
    )  # fmt: skip
    blocks: list[Block] = [*doubt(cohort), Side(figure, [
        Text(f"Of the first {n} genes, {firm} stay among the first {2 * n} when subjects are drawn anew."),
        Text("A high value says that the clock uses a gene, not that the gene causes ageing. Of genes that go together "
             "a clock may use one, so a gene without value can change with age, too."),
        *_how(record, unit),
    ])]  # fmt: skip
    groups = [str(group) for group in record["groups"]][1:]
    if groups:
        blocks.append(_of_groups(cohort, groups))
    columns = {name: c._replace(label=c.label.format(unit=unit)) for name, c in _GENES.items()}
    if cohort.gene_symbols and cohort.gene_symbols in rows:
        rows = rows.rename(columns={cohort.gene_symbols: "symbol"} if cohort.gene_symbols != "symbol" else {})
    shown = table(rows, columns, name="genes", caption="Genes by what they add to predicted ages, over all cells",
                  most=MOST_GENES)  # fmt: skip
    return Section("genes", title, title, [*blocks, shown])


def _how(record: dict[str, object], unit: str) -> list[Block]:
    """How well the attributions add up, where that was measured."""
    error, span = (record.get(name) for name in ("completeness_error", "predicted_range"))
    if error is None or span is None:
        return []
    missed = (
        f"{number(float(str(error)), 2)} {unit} on average, beside a range of predictions of {number(float(str(span)))}"
    )
    return [Text(f"What genes are given misses what they have to add up to by {missed}.", small=True)]


def _of_groups(cohort: Cohort, groups: list[str]) -> Block:
    """The first genes of each group of cells."""
    table_of_all = get.attribution_df(cohort.adata, group=None, gene_symbols=cohort.gene_symbols, key_added=cohort.key)
    symbols = cohort.gene_symbols
    name = symbols if symbols and symbols in table_of_all else "gene"
    first = table_of_all[(table_of_all["rank"] <= 2) & (table_of_all["group"] != "all")].groupby("group", sort=False)[
        name
    ]
    said = "; ".join(f"{group}: {', '.join(genes.astype(str))}" for group, genes in list(first)[:8])
    return cohort.figures.draw(
        pl.attribution_heatmap, cohort.adata, gene_symbols=cohort.gene_symbols, key_added=cohort.key,
        alt=f"Heat map of the signed attribution of the first genes of {counted(len(groups), 'group')} of cells: "
        f"{said}.",
        caption="Red: more of the gene looks older; blue: younger.",
    )  # fmt: skip


_SETS = {
    "group": Column("Cells"),
    "term": Column("Set"),
    "overlap": Column("Top genes in it", whole),
    "set_size": Column("Genes", whole, "Genes of the set that the clock saw"),
    "odds_ratio": Column("Odds ratio", rounded(1)),
    "score": Column("Score", rounded(2, sign=True)),
    "p": Column("p", p),
    "padj": Column("p adjusted", p, "Benjamini and Hochberg over all sets of the group"),
    "genes": Column("Which"),
}


def sets_section(cohort: Cohort) -> Section:
    """Sets of genes among those that the clock uses."""
    title, short = "Gene sets", "Gene sets"
    if not cohort.has("enrichment"):
        return Section(
            "sets", title, short, [cohort.absent("Sets of genes, such as pathways, were not tested.", "enrichment")]
        )
    rows = get.enrichment_df(cohort.adata, key_added=cohort.key)
    params = cohort.params("enrichment")
    first = rows[rows["group"] == rows["group"].iloc[0]] if len(rows) else rows
    found = first[first["padj"] < SIGNIFICANT]
    n = len(first)
    kind = "hold more of the first genes than chance would give" if "overlap" in rows else "have a score beyond chance"
    title_of = f"{len(found):,} of {counted(n, 'set')} {kind}"
    names = f"Adjusted p below {SIGNIFICANT:g}: {listing(found['term'], 5)}." if len(found) else ""
    answer = Callout(
        "plain", title_of if len(found) else f"None of {counted(n, 'set')} {kind.replace('hold', 'holds', 1)}", names
    )
    figure = cohort.figures.draw(
        pl.enrichment, cohort.adata, key_added=cohort.key,
        alt=f"Dot plot of gene sets with the smallest p values: {listing(first['term'], 6)}. "
        f"{len(found):,} of {n:,} have an adjusted p below {SIGNIFICANT:g}.",
        caption="The smallest p value is on top; a thick rim marks an adjusted p below 0.05.",
    )  # fmt: skip
    text = (
        "Tests treat genes as independent, which they are not. Sets contain one another, so that neighbouring rows are "
        "often one finding. A set shows what the clock reads, not what ageing does."
    )
    origin = params.get("sets")
    if params.get("method") and origin:
        text += f" Method: {params['method']}; sets: {origin}."
    n_groups = max(1, rows["group"].nunique())
    shown = rows.groupby("group", sort=False).head(max(5, MOST_SETS // n_groups))
    note = f"The first {len(shown):,} of {len(rows):,} rows." if len(shown) < len(rows) else ""
    if n_groups < 2:
        shown = shown.drop(columns="group")
    return Section("sets", title, short, [
        *doubt(cohort), answer, figure, Text(text, small=True),
        table(_readable(shown), _SETS, name="sets", caption="Gene sets by p value", note=note),
    ])  # fmt: skip


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    """Genes of a set with spaces between them, so that lines break."""
    return rows.assign(genes=rows["genes"].astype(str).str.replace(";", ", ")) if "genes" in rows else rows
