"""The page of all figures: for each its code, which is run, and the picture that it draws.

usage: python docs/make_gallery.py [NAME ...]

Writes docs/gallery.md and docs/_static/gallery/NAME.png; with names, those pictures alone. The site's build runs it.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PICTURES = HERE / "_static" / "gallery"


@dataclass(frozen=True)
class Entry:
    """A figure: the function of ``agevi.pl``, what it answers, and its code, of which the last line draws."""

    name: str
    question: str
    code: str
    seen: str  # what the picture shows, for those who do not see it


@dataclass(frozen=True)
class Part:
    """Figures that share their data."""

    title: str
    text: str
    code: str
    entries: tuple[Entry, ...]


COHORT = Part(
    "A cohort and its clock",
    "150 blood donors whose cells are drawn from the profile of each. Every prediction is of a donor who was held out.",
    """
    import agevi

    adata = agevi.datasets.tcells(150, 20)
    key = dict(age_key="age", subject_key="donor")
    """,
    (
        Entry(
            "age_distribution",
            "Which ages does the cohort have, and which of them train?",
            """
            agevi.pp.split_subjects(adata, **key)
            agevi.pl.age_distribution(adata, **key)
            """,
            "Bars of the number of donors by age, stacked by training, validation and test",
        ),
        Entry(
            "predicted_vs_actual",
            "How near are predicted ages? The line is flatter than the diagonal: predictions shrink to the mean.",
            """
            agevi.tl.cross_validate(adata, agevi.model.PLSClock, **key)
            agevi.tl.aggregate_subjects(adata)
            agevi.pl.predicted_vs_actual(adata)
            """,
            "Predicted against actual age of every donor, with the diagonal and the fitted line",
        ),
        Entry(
            "calibration",
            "Do the intervals hold the ages that they should?",
            """
            agevi.tl.calibrate(adata)
            agevi.pl.calibration(adata)
            """,
            "Share of ages inside their intervals against the level, and coverage and width by age",
        ),
        Entry(
            "subject_intervals",
            "How sure is the age of each donor?",
            "agevi.pl.subject_intervals(adata)",
            "One row per donor: an interval, the predicted age and the actual age",
        ),
        Entry(
            "leaderboard",
            "Which clock, and does it beat the median age?",
            """
            agevi.tl.compare_models(adata, ["PLSClock"], **key, n_null_linear=5)
            agevi.pl.leaderboard(adata)
            """,
            "Mean absolute error with its interval of every clock, of ridge regression and of the median age",
        ),
        Entry(
            "learning_curve",
            "Would more donors help, or more cells?",
            """
            agevi.tl.learning_curve(adata, "PLSClock", **key, n_subjects=[20, 40, 80], n_cells=[5, 10, 20], n_repeats=2)
            agevi.pl.learning_curve(adata)
            """,
            "Error against the number of training donors, and against the number of cells of a donor",
        ),
        Entry(
            "training",
            "Has a network been trained for long enough?",
            """
            agevi.model.MLPClock.setup_anndata(adata, **key)
            network = agevi.model.MLPClock(adata)
            network.train(enable_progress_bar=False)
            agevi.pl.training(network)
            """,
            "Error on training and on validation donors by epoch",
        ),
    ),
)

GROUPS = Part(
    "Cases and controls, and types of cells",
    "A simulated cohort, whose cases are eight years ahead.",
    """
    cohort = agevi.datasets.simulate_cohort(
        n_subjects=80, n_cells=90, n_genes=200, case_fraction=0.4, acceleration=8, rng=1
    )
    """,
    (
        Entry(
            "acceleration",
            "Do cases look older than controls of their age?",
            """
            agevi.tl.cross_validate(
                cohort, agevi.model.CellTypeClock, **key, setup_kwargs={"cell_type_key": "cell_type"},
                train_on="condition == 'control'",
            )
            agevi.tl.aggregate_subjects(cohort)
            agevi.tl.age_acceleration(cohort, groupby="condition", reference="control", by="cell_type")
            agevi.pl.acceleration(cohort)
            """,
            "Predicted against actual age of cases and controls, and the difference between them at equal age",
        ),
        Entry(
            "acceleration_forest",
            "In which types of cells?",
            "agevi.pl.acceleration_forest(cohort)",
            "The difference with its interval, overall and in each type of cells",
        ),
        Entry(
            "normative",
            "Who lies outside of what the reference spans at their age?",
            """
            agevi.tl.normative_scores(cohort, groupby="condition", reference="control")
            agevi.pl.normative(cohort)
            """,
            "Predicted age of every sample over the centiles of the controls",
        ),
        Entry(
            "explanation",
            "What does each type of cells add to a predicted age?",
            """
            agevi.tl.explain_age(cohort)
            agevi.pl.explanation(cohort)
            """,
            "Bars of the mean contribution of each type of cells, with intervals",
        ),
        Entry(
            "transfer",
            "Does what was learnt of age help to tell cases from controls?",
            """
            agevi.model.MLPClock.setup_anndata(cohort, **key)
            clock = agevi.model.MLPClock(cohort)
            clock.train(enable_progress_bar=False)
            agevi.tl.compare_transfer(
                cohort, clock, condition_key="condition", control="control", n_repeats=1, refit_clock=True
            )
            agevi.pl.transfer(cohort)
            """,
            "AUROC with its interval of the clock's classifier, of the same network from scratch and of a linear model",
        ),
    ),
)

GENES = Part(
    "Genes",
    "The genes behind a clock of the same donors, in years.",
    """
    agevi.model.PLSClock.setup_anndata(adata, **key)
    clock = agevi.model.PLSClock(adata)
    clock.train()
    """,
    (
        Entry(
            "attribution",
            "Which genes does the clock use?",
            """
            agevi.tl.attribute_genes(adata, clock, groupby="dataset")
            agevi.pl.attribution(adata, n_top=12)
            """,
            "Bars of what each of twelve genes adds to predicted ages, towards older or younger",
        ),
        Entry(
            "attribution_heatmap",
            "Are they the same in each data set?",
            "agevi.pl.attribution_heatmap(adata, n_top=8)",
            "A table in colours of genes by group",
        ),
        Entry(
            "perturbation",
            "What happens to predicted ages when a gene is halved in the data?",
            """
            agevi.tl.perturb_genes(adata, clock, factor=0.5)
            agevi.pl.perturbation(adata, n_top=10)
            """,
            "Change of predicted age with its interval for each of ten genes",
        ),
        Entry(
            "enrichment",
            "Do the genes share pathways?",
            """
            families = {"ribosome": ("RPL", "RPS"), "interleukins": "IL", "zinc fingers": "ZNF", "histones": "HIST"}
            sets = {name: [g for g in adata.var_names if g.startswith(start)] for name, start in families.items()}
            agevi.tl.enrich(adata, sets, method="gsea")
            agevi.pl.enrichment(adata)
            """,
            "Dots of gene sets by score, coloured by adjusted p value",
        ),
        Entry(
            "targets",
            "Which genes do several diseases share?",
            """
            import numpy as np, pandas as pd

            ranks = np.random.default_rng(0)
            scores = {name: pd.Series(ranks.normal(size=100), adata.var_names[:100]) for name in ("COPD", "PD", "AD")}
            agevi.pl.targets(agevi.tl.rank_targets(scores, n_top=50), n_genes=15)
            """,
            "Ranks of fifteen genes in each of three diseases",
        ),
    ),
)

EXPLORE = Part(
    "Before and beside a clock",
    "What goes with age or with another order, without a clock or after it.",
    "",
    (
        Entry(
            "age_correlation",
            "Do the principal components go with age?",
            """
            import scanpy as sc

            cells = adata.copy()
            sc.pp.normalize_total(cells)
            sc.pp.log1p(cells)
            sc.pp.pca(cells, n_comps=20)
            agevi.tl.age_correlation(cells, **key)
            agevi.pl.age_correlation(cells)
            """,
            "Correlation with age of each component beside the best that chance gives, and one component by age",
        ),
        Entry(
            "trend",
            "Do predicted ages rise along days or doses?",
            """
            agevi.tl.trend_test(adata, order_key="age")
            agevi.pl.trend(adata)
            """,
            "Predicted age of every donor along the order that was tested, with its line",
        ),
    ),
)

PARTS = (COHORT, GROUPS, GENES, EXPLORE)
ENTRIES = [entry for part in PARTS for entry in part.entries]


def page() -> str:
    """The page, in Markdown."""
    out = [
        "# Gallery",
        "",
        "Every figure of `agevi.pl`, with the code that drew it. The code of a part goes on from that above it. Each "
        "function takes and returns matplotlib `Axes` (`ax=`), so that figures can be joined and changed.",
    ]
    for part in PARTS:
        out += ["", f"## {part.title}", ""]
        out += [part.text, ""] if part.text else []
        out += _code(part.code) if part.code else []
        for entry in part.entries:
            out += [
                "",
                f"### {{func}}`{entry.name} <agevi.pl.{entry.name}>`",
                "",
                entry.question,
                "",
                *_code(entry.code),
                "",
            ]
            out += [f"```{{image}} _static/gallery/{entry.name}.png", f":alt: {entry.seen}", ":width: 90%", "```"]
    return "\n".join([*out, ""])


def plain(code: str) -> str:
    """Code without its indentation."""
    return textwrap.dedent(code).strip()


def _code(code: str) -> list[str]:
    return ["```python", *plain(code).splitlines(), "```"]


def draw(folder: Path, names: tuple[str, ...] = ()) -> None:
    """Run all code and save the picture of every entry, or of those ``names``, into a folder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    import agevi

    agevi.settings.verbosity = "error"
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {}
    for part in PARTS:
        exec(plain(part.code), known)
        for entry in part.entries:
            plt.close("all")
            exec(plain(entry.code), known)
            if not names or entry.name in names:
                plt.gcf().savefig(folder / f"{entry.name}.png", dpi=110, bbox_inches="tight")
    plt.close("all")


if __name__ == "__main__":
    (HERE / "gallery.md").write_text(page(), encoding="utf-8")
    draw(PICTURES, tuple(sys.argv[1:]))
