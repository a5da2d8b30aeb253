"""Every figure on small and large data with short and long names, for the contract that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from agevi import pl, tl
from agevi.tl.curves._curve_table import Point, Resampler, curve_table, verdict
from agevi.tl.curves._levels import CELLS, SUBJECTS, make_levels

LONG = "A rather long name of something that was measured in a cohort, as people write them"


def named(what: str, n: int, long: bool) -> list[str]:
    """Names that differ at their ends, as those of pathways and cell types do."""
    return [f"{LONG}, {what} {i}" if long else f"{what}{i}" for i in range(n)]


def cohort(n: int, n_genes: int = 12, n_groups: int = 3, long: bool = False, seed: int = 0) -> ad.AnnData:
    """``n`` subjects of three cells with predictions, roles and the subject table."""
    rng = np.random.default_rng(seed)
    names = np.array([f"d{i:03d}" for i in range(n)])
    age = rng.uniform(20, 90, n)
    role = np.array(["train", "validation", "test", "out_of_fold", "new"])[np.arange(n) % 5]
    of_cell, stage = np.repeat(np.arange(n), 3), ((age - 20) * n_groups / 70).astype(int)
    groups = np.array(named("group", n_groups, long))
    obs = pd.DataFrame(
        {
            "donor": names[of_cell],
            "age": age[of_cell],
            "agevi_split": pd.Categorical(np.array(["train", "validation", "test"])[of_cell % 3]),
            "group": pd.Categorical(groups[(of_cell // 5) % n_groups], categories=groups),
            "stage": pd.Categorical(groups[stage[of_cell]], categories=groups, ordered=True),
        },
        index=[f"cell{i}" for i in range(3 * n)],
    )  # fmt: skip
    adata = ad.AnnData(np.ones((3 * n, n_genes), dtype=np.float32), obs=obs)
    adata.var_names = [f"ENSG{i:011d}" for i in range(n_genes)]
    adata.var["symbol"] = named("GENE", n_genes, long)
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": "donor", "age_key": "age", "age_unit": "years"}
    adata.uns["agevi_subjects"] = pd.DataFrame(
        {"subject": names, "age": age, "predicted": age + rng.normal(0, 6, n), "n_cells": 3, "sd_cells": 1.0, "role": role},
        index=pd.Index(names, name="sample"),
    )  # fmt: skip
    adata.obsm["X_pca"] = rng.normal(size=(3 * n, 20)) - 0.02 * age[of_cell, None] * (np.arange(20) == 3)
    return adata


def explained(n: int, n_types: int, long: bool) -> ad.AnnData:
    """A cohort with what each of its types of cells adds to predicted ages."""
    adata, rng = cohort(n, long=long), np.random.default_rng(1)
    table = adata.uns["agevi_subjects"].reset_index()
    columns = {"sample": table["sample"], "subject": table["subject"], "age": table["age"], "n_cells": 9}
    parts = [
        pd.DataFrame({**columns, "group": name, "weight": 1 / n_types}).assign(
            predicted=50 + (table["age"] - 50) / (i + 1) + rng.normal(0, 4, n)
        )
        for i, name in enumerate(named("type", n_types, long))
    ]
    adata.uns["agevi_by_group"] = pd.concat(parts, ignore_index=True)
    tl.explain_age(adata, groupby="group", n_boot=50)
    return adata


def attributed(n: int, n_genes: int, long: bool, n_groups: int = 3) -> ad.AnnData:
    """A cohort with attributions, perturbations of single genes and one of a set."""
    adata, rng = cohort(n, n_genes, n_groups, long), np.random.default_rng(1)
    groups = ["all", *adata.obs["group"].cat.categories]
    signed = rng.standard_t(2, size=(n_genes, len(groups)))
    rank = (-np.abs(signed)).argsort(axis=0).argsort(axis=0)
    parts = {"": np.abs(signed), "_signed": signed, "_se": np.abs(signed) / 8, "_selected": np.ones_like(signed)}
    parts |= {"_rank_low": rank.clip(1), "_rank_high": rank + 900}
    for part, values in parts.items():
        adata.varm[f"agevi_attribution{part}"] = values.astype(np.float32)
    adata.uns["agevi_attribution"] = {"groups": np.array(groups, dtype=object), "age_unit": "years"}
    change = np.sort(rng.standard_t(2, n_genes))
    table = pd.DataFrame({"gene": adata.var_names, "group": "all", "n_genes": 1, "n_cells": 9, "n_subjects": n})
    table["change"], table["low"], table["high"] = change, change - 0.3, change + 0.4
    table.loc[0, ["gene", "n_genes"]] = ["a set of genes", 17]
    adata.uns["agevi_perturbation"] = table.loc[table["change"].abs().sort_values(ascending=False).index]
    adata.uns["agevi_perturbation_params"] = {"factor": 0.5, "age_unit": "years"}
    return adata


def enriched(n_sets: int, long: bool) -> ad.AnnData:
    """Sets of two groups, one of them with a score a thousand times that of the others."""
    rng = np.random.default_rng(2)
    adata, p = cohort(8), np.sort(10 ** -rng.uniform(0, 6, n_sets))
    table = pd.DataFrame({"group": "all", "term": named("set", n_sets, long), "p": p, "padj": np.minimum(1, 3 * p)})
    table["overlap"], table["set_size"] = rng.integers(1, 20, n_sets), rng.integers(20, 400, n_sets)
    table["odds_ratio"] = rng.uniform(1, 9, n_sets) * np.where(np.arange(n_sets) == 0, 1000, 1)
    table["combined_score"] = -np.log(p) * table["odds_ratio"]
    adata.uns["agevi_enrichment"] = table
    adata.uns["agevi_enrichment_params"] = {"method": "ora"}
    return adata


def compared(n_models: int, long: bool) -> ad.AnnData:
    """A leaderboard with a diverged and a failed model."""
    adata, rng = cohort(8), np.random.default_rng(3)
    mae = np.sort(rng.uniform(5, 11, n_models))
    table = pd.DataFrame(
        {"linear": np.arange(n_models) % 2 == 0, "mae": mae, "mae_low": mae - 1, "mae_high": mae + 1.5}
    )
    table["null_gain"], table["null_se"], table["error"] = rng.normal(0, 0.5, n_models), 0.3, ""
    table.loc[n_models - 1, ["mae", "mae_low", "mae_high"]] = [900.0, 300.0, 2000.0]
    names = named("Clock", n_models, long)
    last = pd.DataFrame({"linear": False, "mae": [12.0, np.nan], "mae_low": [11.0, np.nan], "mae_high": [13.0, np.nan],
                         "null_gain": np.nan, "null_se": np.nan, "error": ["", "fold 'a': RuntimeError: no luck"]})  # fmt: skip
    table = pd.concat([table, last]).set_axis([*names, "median age", "broken"])
    adata.uns["agevi_leaderboard"], adata.uns["agevi_leaderboard_params"] = table, {"age_unit": "years"}
    return adata


def transferred(n: int, long: bool) -> ad.AnnData:
    """A transfer of five rows."""
    adata, rng = cohort(n), np.random.default_rng(4)
    rows = ["frozen transfer", "encoder frozen", "fine-tuned", "from scratch", "logistic regression", "age + sex"]
    table = pd.DataFrame({"n_subjects": n, "n_cases": n // 3, "auroc": rng.uniform(0.4, 0.9, 6)}, index=rows)
    table["auroc_low"], table["auroc_high"] = table["auroc"] - 0.1, (table["auroc"] + 0.2).clip(upper=1)
    table["difference_low"], table["difference_high"] = [0.1, -0.1, 0.2, 0, -0.3, -0.1], [0.2, 0.2, 0.3, 0, -0.1, 0.1]
    case = LONG if long else "ill"
    adata.uns["agevi_transfer"] = table
    adata.uns["agevi_transfer_params"] = {"control": "control", "case": case, "reference": "from scratch"}
    return adata


def curve(n: int, few: bool = False) -> ad.AnnData:
    """A learning curve up to ``n`` training subjects; ``few`` levels of them, of bulk data."""
    rng, age = np.random.default_rng(5), np.random.default_rng(6).uniform(20, 90, 60)
    curves: dict[str, list[Point]] = {}
    for axis, most in ((SUBJECTS, n), (CELLS, 2000 if n > 100 else 30)):
        levels = make_levels(axis, [0.8] if few else None, most, most)
        sizes = [int(level.of(most)) for level in levels]
        noise = rng.normal(size=(1, 60))
        predicted = [age + (3 + 30 * size**-0.5) * noise for size in sizes]
        curves[axis] = [
            Point(level, size, p, np.full_like(p, 55), size, size)
            for level, size, p in zip(levels, sizes, predicted, strict=True)
        ]
    if few:
        del curves[CELLS]
    subject, adata = np.arange(60), cohort(8)
    table, laws = curve_table(curves, age, subject, Resampler.of(subject, 50, np.random.SeedSequence(0)))
    sentence, _ = verdict(curves[SUBJECTS], laws, age, subject, "years")
    adata.uns["agevi_learning_curve"] = table
    adata.uns["agevi_learning_curve_params"] = {"age_unit": "years", "sentence": sentence, **laws}
    return adata


def correlated(n: int) -> ad.AnnData:
    """Correlations of twenty components, one of which follows age."""
    adata = cohort(n)
    tl.age_correlation(adata, age_key="age", subject_key="donor", n_permutations=99)
    return adata


def with_intervals(n: int, n_groups: int = 3, long: bool = False) -> ad.AnnData:
    """A cohort of which the held-out samples have intervals, and some of them no age."""
    adata = cohort(n, n_groups=n_groups, long=long)
    table = adata.uns["agevi_subjects"]
    held_out, half = ~table["role"].isin(["train", "validation"]), 6 + 0.1 * table["predicted"]
    for bound, sign in (("lower", -1), ("upper", 1)):
        table[bound] = (table["predicted"] + sign * half).where(held_out)
    table.loc[table.index[::7], "age"] = np.nan
    adata.uns["agevi_calibration_params"] = {"level": 0.9}
    return adata


def with_posterior(n: int, n_groups: int = 3, long: bool = False) -> ad.AnnData:
    """A cohort of which the held-out samples have a posterior."""
    adata = cohort(n, n_groups=n_groups, long=long)
    tl.subject_posterior(adata, level=0.8, rng=0)
    return adata


def calibrated(n: int) -> ad.AnnData:
    """A cohort that was calibrated, most of it held out."""
    adata, rng = cohort(n), np.random.default_rng(7)
    table = adata.uns["agevi_subjects"]
    table["role"], table["n_cells"] = "new", rng.integers(3, 200, n)
    tl.calibrate(adata, level=0.8)
    return adata


def ordered(n: int, n_groups: int, long: bool, order_key: str, groupby: str | None) -> ad.AnnData:
    """The trend of held-out samples along age or stages."""
    adata = cohort(n, n_groups=n_groups, long=long)
    adata.uns["agevi_subjects"]["role"] = "new"
    tl.trend_test(adata, order_key=order_key, groupby=groupby, n_boot=10, n_permutations=99)
    return adata


def accelerated(n: int, n_groups: int, long: bool, n_types: int = 0, paired: bool = False) -> ad.AnnData:
    """Groups of which the last looks older, tested overall and in types; pairs are two visits of a subject."""
    adata = cohort(n, n_groups=n_groups, long=long)
    table, groups = adata.uns["agevi_subjects"], named("group", n_groups, long)
    place = np.arange(n) % n_groups
    if paired:
        table["subject"] = [f"p{i // 2}" for i in range(n)]
        table["age"] = np.repeat(table["age"].to_numpy()[::2], 2)[:n] + np.arange(n) % 2
        table["predicted"] = table["age"] + np.repeat(np.random.default_rng(6).normal(0, 6, n), 2)[:n]
        table["predicted"] += np.random.default_rng(7).normal(0, 3, n)
    table["role"], table["predicted"] = "out_of_fold", 0.6 * table["predicted"] + 4.0 * (place == n_groups - 1)
    table["group"] = pd.Categorical.from_codes(place, groups)
    table["type"] = np.array(named("type", max(1, n_types), long))[(np.arange(n) // n_groups) % max(1, n_types)]
    by = "type" if n_types else None
    tl.age_acceleration(adata, groupby="group", reference=groups[0], by=by, paired=paired, n_permutations=0)
    return adata


def normed(n: int, n_groups: int, long: bool) -> ad.AnnData:
    """Centiles of all samples, of groups against the first of them where there are several."""
    adata = accelerated(n, max(2, n_groups), long)
    table = adata.uns["agevi_subjects"]
    table.loc[table.index[-1], "age"] = 99.0
    given = {} if n_groups < 2 else {"groupby": "group", "reference": named("group", n_groups, long)[0]}
    tl.normative_scores(adata, **given)
    return adata


def ranked(n_diseases: int, long: bool) -> tl.TargetRanking:
    """Targets of some diseases."""
    rng = np.random.default_rng(5)
    genes = [f"GENE{i}" for i in range(80)]
    tables = {name: pd.Series(rng.normal(size=80), genes) for name in named("disease", n_diseases, long)}
    return tl.rank_targets(tables, n_top=40)


class Trained:
    """Stands for a network after ``train()``."""

    best_epoch_ = 7

    def __init__(self, n: int = 10):
        epoch = np.arange(n)
        curves = {"age_mae_train": 8 + 900 * np.exp(-2.0 * epoch), "age_mae_validation": 9 + 800 * np.exp(-2.0 * epoch)}
        curves |= {"elbo_train": 5 - epoch / n, "kl_weight": np.minimum(1, epoch / 5)}
        self.history = {k: pd.DataFrame({k: v}, index=pd.RangeIndex(n, name="epoch")) for k, v in curves.items()}


Drawing = tuple[Callable[..., Any], Callable[[], Any], dict[str, Any]]


def _add_differences(add: Callable[..., None]) -> None:
    """Figures of differences between groups, and of centiles."""
    add(pl.acceleration, "8 of 2 groups", accelerated, 8, 2, False)
    add(pl.acceleration, "40 of 4 groups", accelerated, 40, 4, False)
    add(pl.acceleration, "40 in pairs", accelerated, 40, 2, False, 0, True)
    add(pl.acceleration, "755 of 4 long groups", accelerated, 755, 4, True)
    add(pl.acceleration_forest, "40 in 3 types", accelerated, 40, 2, False, 3)
    add(pl.acceleration_forest, "8 overall", accelerated, 8, 2, False)
    add(pl.acceleration_forest, "755 of 4 long groups in 9 types", accelerated, 755, 4, True, 9)
    add(pl.normative, "40 alone", normed, 40, 1, False)
    add(pl.normative, "100 of 2 groups", normed, 100, 2, False)
    add(pl.normative, "755 of 4 long groups", normed, 755, 4, True)


def _add_intervals(add: Callable[..., None]) -> None:
    """Figures of intervals and of how well they hold."""
    for n in (8, 40, 755):
        add(pl.subject_intervals, f"{n} samples", with_intervals, n)
        add(pl.calibration, f"{n} samples", calibrated, n)
    add(pl.subject_intervals, "60 posteriors", with_posterior, 60, table="posterior")
    add(pl.subject_intervals, "40 in panels", with_intervals, 40, groupby="group", order_by="age")
    add(pl.subject_intervals, "755 by long groups", with_intervals, 755, 7, True, color_by="group")
    add(pl.subject_intervals, "755 in 7 panels", with_intervals, 755, 7, True, groupby="group")


def drawings() -> dict[str, Drawing]:
    """Function, what makes its data and arguments, by a readable name that starts with the function's."""
    out: dict[str, Drawing] = {}

    def add(function: Callable[..., Any], case: str, make: Callable[..., Any], *given: Any, **arguments: Any) -> None:
        out[f"{function.__name__}-{case}"] = (function, partial(make, *given), arguments)

    add(pl.predicted_vs_actual, "8 by role", cohort, 8)
    add(pl.predicted_vs_actual, "40 by group", cohort, 40, color_by="group", fit="groups")
    add(pl.predicted_vs_actual, "755 by 19 long groups", cohort, 755, 12, 19, True, color_by="group")
    add(pl.predicted_vs_actual, "755 by role", cohort, 755)
    add(pl.predicted_vs_actual, "40 in panels", cohort, 40, groupby="group", color_by="group")
    add(pl.predicted_vs_actual, "755 in 10 panels", cohort, 755, 12, 10, True, groupby="group")
    add(pl.age_distribution, "8 subjects", cohort, 8, age_key="age")
    add(pl.age_distribution, "40 subjects", cohort, 40, age_key="age")
    add(pl.age_distribution, "19 long groups", cohort, 755, 12, 19, True, age_key="age", groupby="group", level="cell")
    add(pl.training, "10 epochs", Trained, 10)
    add(pl.training, "400 epochs of the ELBO", Trained, 400, metric="elbo")
    for n_genes, long in ((3, False), (40, True)):
        case, given = f"{n_genes} genes{', long names' if long else ''}", (8, n_genes, long)
        add(pl.attribution, case, attributed, *given, n_top=n_genes, gene_symbols="symbol")
        add(pl.attribution_heatmap, case, attributed, *given, n_top=3, gene_symbols="symbol")
        add(pl.perturbation, case, attributed, *given, n_top=n_genes, gene_symbols="symbol")
    add(pl.attribution, "a long group", attributed, 8, 20, True, group=named("group", 1, True)[0])
    add(pl.attribution_heatmap, "19 groups", attributed, 8, 20, False, 19, n_top=1)
    for n, long in ((3, False), (20, True)):
        add(pl.enrichment, f"{n} sets{', long names' if long else ''}", enriched, n, long, n_terms=n)
        add(pl.leaderboard, f"{n} clocks{', long names' if long else ''}", compared, n, long)
    add(pl.enrichment, "odds ratio", enriched, 20, False, x="odds_ratio")
    add(pl.transfer, "8", transferred, 8, False)
    add(pl.transfer, "755, long names", transferred, 755, True)
    for n in (48, 604):
        add(pl.learning_curve, f"{n} subjects", curve, n)
        add(pl.explanation, f"{n} subjects", explained, n, 3 + n // 20, n > 40)
        add(pl.explanation, f"{n} subjects in stacks", explained, n, 3 + n // 20, n > 40, kind="stack")
    add(pl.learning_curve, "few levels of bulk data", curve, 48, True)
    for n in (8, 40, 755):
        add(pl.age_correlation, f"{n} subjects", correlated, n)
    add(pl.age_correlation, "by group", correlated, 40, color_by="group")
    add(pl.trend, "8 along age", ordered, 8, 3, False, "age", None)
    add(pl.trend, "40 along stages", ordered, 40, 3, False, "stage", "group")
    add(pl.trend, "755 along long stages", ordered, 755, 7, True, "stage", "group")
    _add_differences(add)
    _add_intervals(add)
    add(pl.targets, "2 diseases", ranked, 2, False, n_genes=3)
    add(pl.targets, "8 long diseases", ranked, 8, True, n_genes=60)
    return out
