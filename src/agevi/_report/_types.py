"""What each type of cells says about age."""

from __future__ import annotations

from agevi import _names, get, pl
from agevi._report._blocks import Absent, Block, Section, Side, Text
from agevi._report._cohort import Cohort
from agevi._report._numbers import Column, listing, number, rounded, table, whole
from agevi._report._verdict import doubt, with_unit
from agevi.tl.predict._evaluate_by import OVERALL
from agevi.tl.predict._judged import types_key

_TYPES = {
    "group": Column("Type"),
    "n_subjects": Column("Subjects", whole),
    "mae": Column("Error ({unit})", rounded(2), "Mean absolute error of the clock of this type, out of fold"),
    "mae_low": Column("from", rounded(2), "95 % interval of the error"),
    "mae_high": Column("to", rounded(2)),
    "mae_median": Column("Of the median age", rounded(2)),
    "pearson": Column("Pearson\N{RIGHT SINGLE QUOTATION MARK}s r", rounded(2)),
    "slope": Column("Slope", rounded(2)),
}
_PARTS = {
    "group": Column("Samples"),
    "part": Column("Part"),
    "n_subjects": Column("Subjects", whole),
    "size": Column("Contribution ({unit})", rounded(2), "Mean absolute contribution to predicted ages"),
    "size_low": Column("from", rounded(2), "Interval over subjects"),
    "size_high": Column("to", rounded(2)),
    "share": Column("Share", rounded(2), "Of the differences in predicted age between samples; all parts sum to 1"),
    "slope": Column(
        "Per {one} of age",
        rounded(2),
        "Contribution per unit of age; a large part without slope moves predictions for other reasons",
    ),
}


def types_section(cohort: Cohort) -> Section:
    """What each type of cells says about age."""
    title = "Cell types"
    blocks: list[Block] = []
    by_type = types_key(cohort.adata, cohort.keys)
    if by_type:
        rows = get.metrics_df(cohort.adata, key_added=cohort.key, groupby=by_type).rename_axis("group").reset_index()
        worse = rows.loc[~(rows["mae"] < rows["mae_median"]), "group"]
        blocks.append(
            table(
                rows,
                with_unit(_TYPES, cohort.unit),
                name="types",
                caption="Accuracy of each type of cells by its own clock, out of fold",
            )
        )
        if len(worse):
            blocks.append(Text(f"Not better than the median age by their own clocks: {listing(worse)}."))
    if cohort.has("explanation"):
        blocks += _parts(cohort)
    if not blocks:
        call = "agevi.tl.cross_validate(adata, agevi.model.CellTypeClock, ..., setup_kwargs={'cell_type_key': ...})"
        blocks = [Absent("Types of cells were not told apart.", call)]
    else:
        blocks = [*doubt(cohort), *blocks]
    return Section("types", title, title, blocks)


def _parts(cohort: Cohort) -> list[Block]:
    """What each type adds to predicted ages."""
    rows = get.explanation_df(cohort.adata, key_added=cohort.key)
    unit = str(cohort.params("explanation").get("age_unit", cohort.unit))
    parts = rows[rows["part"] != _names.BASELINE]
    overall = parts[parts["group"] == OVERALL].sort_values("size", ascending=False, kind="stable")
    first = [f"{row['part']} ({number(row['size'], 1)})" for _, row in overall.iterrows()]
    figure = cohort.figures.draw(
        pl.explanation, cohort.adata, key_added=cohort.key,
        alt=f"Mean absolute contribution of each type of cells to predicted ages in {unit}, the largest first: "
        f"{listing(first, 12)}.",
        caption="What each type of cells adds to predicted ages, with its interval over subjects.",
    )  # fmt: skip
    columns = {
        name: c._replace(label=c.label.format(unit=unit, one=unit.removesuffix("s"))) for name, c in _PARTS.items()
    }
    if (parts["group"] == OVERALL).all():
        columns.pop("group")
    ordered = parts.assign(group=parts["group"].replace(OVERALL, "all")).sort_values(
        ["group", "size"], ascending=[True, False], kind="stable"
    )
    text = Text(
        "The parts explain what the clock says, not why people age. A type adds little, too, where another one that "
        "errs alike was preferred.", small=True,
    )  # fmt: skip
    return [
        Side(figure, [table(ordered, columns, name="parts", caption="What each type adds to predicted ages"), text])
    ]
