"""The card of a saved clock, written for people."""

from __future__ import annotations

from typing import Any

from agevi import _names
from agevi._gene_names import IDS, KINDS, SYMBOLS
from agevi._source import CLR, features, place

_MIN_SUBJECTS = 5
_USE = """**Use it**

```python
import agevi

clock = agevi.io.load_clock("path/to/this/directory")
agevi.tl.predict_age(adata, clock)  # obs["agevi_predicted"]; needs no ages
agevi.tl.aggregate_subjects(adata, subject_key="...")  # one row per %s
```

In a shell: `agevi predict cells.h5ad --clock path/to/this/directory --out ages.csv`.
"""
_NO_DIAGNOSIS = "A difference between predicted and chronological age is a model's statement, not a diagnosis."
_LIMITS = "**Limits**: predictions hold for the tissue, assay, species and age range of the"


def clock_card(meta: dict[str, Any]) -> str:
    """README.md of a bundle: what it predicts, on whom it was trained, how well, how to use it."""
    age, setup, roles = meta["age"], meta["setup"], list(meta["split"].values())
    return f"""# Ageing clock: {meta["class"]}

**Predicts** chronological age in {age["unit"]} from {len(meta["genes"]):,} {features(setup)} \
({_input(meta)}){_scale(meta)}.

**Trained on** {age["n_subjects"]:,} subjects ({age["n_samples"]:,} samples, {age["n_cells"]:,} cells) aged \
{_range(age)}. \
Held out as whole subjects: {roles.count("validation")} for validation, {roles.count("test")} for testing.

**How well**: {_how_well(meta) or _validation_error(meta)}{_cohorts(meta)}

{_USE % "sample"}{_unit(setup)}
Values are read from {place(setup)}; {features(setup)} are found by name ({_gene_examples(meta)}).{_groups(meta)} \
{_LIMITS} training \
data. {_NO_DIAGNOSIS}

{_made(meta)}"""


def ensemble_card(meta: dict[str, Any], roles: list[str], n_genes: int) -> str:
    """README.md of an ensemble of ``n_genes`` in all; ``roles`` are those of every subject that a member knows."""
    age, members = meta["age"], meta["members"]
    rows = "\n".join(
        f"| {member['class']} | {weight:.3f} | {_trained_on(member)} |"
        for member, weight in zip(members, meta["init"]["weights"], strict=True)
    )
    how = "of log(age - lowest age + 1)" if meta["init"]["scale"] == "log" else "of the ages"
    return f"""# Ageing clock: {meta["class"]} of {len(members)}

**Predicts** chronological age in {age["unit"]} from {n_genes:,} {_columns_of(members)}: the weighted mean {how} \
over its members.

**Trained on** subjects aged {_range(age)}. Held out from every member as whole subjects: {roles.count("test")} for \
testing. \
{roles.count("train")} subjects trained a member or more, and {roles.count("validation")} validated.

| member | weight | trained on |
| --- | --- | --- |
{rows}
{_paragraph(meta)}
{_USE % "sample"}{_unit(_setup_of(members))}
{_LIMITS} training data. {_NO_DIAGNOSIS}

{_made(meta)}"""


def cell_type_card(meta: dict[str, Any], weights: dict[str, float]) -> str:
    """README.md of a clock of cell types, with the weight of each type in a sample that has all of them."""
    age, setup, init, roles = meta["age"], meta["setup"], meta["init"], list(meta["split"].values())
    trained = {name: _trained_on(member) for name, member in zip(meta["columns"], meta["members"], strict=False)}
    rows = "\n".join(
        f"| {name} | {weight:.3f} | {trained.get(name, 'shares of the types of cells')} |"
        for name, weight in weights.items()
    )
    how = (
        "the precision of each type on training subjects held out in turn"
        if init["combine"] == "precision"
        else ("the number of types alone")
    )
    return f"""# Ageing clock: {meta["class"]}, {init["clock"]} per type of cells

**Predicts** chronological age in {age["unit"]} from {len(meta["genes"]):,} {features(meta["setup"])} \
({_input(meta)}): an age per type in \
{_names.in_types(setup["cell_type_key"])} and sample, combined with weights from {how}. Samples need \
{init["min_cells"]} cells of a type; types that a sample lacks are left out, and cells of other types are not read.

**Trained on** {age["n_subjects"]:,} subjects ({age["n_samples"]:,} samples, {age["n_cells"]:,} cells) aged \
{_range(age)}. \
Held out as whole subjects: {roles.count("validation")} for validation, {roles.count("test")} for testing.

| type | weight where all are there | trained on |
| --- | --- | --- |
{rows}
{_anchor(meta)}{_paragraph(meta)}
{_USE % "sample"}{_unit(setup)}
{_LIMITS} training data. {_NO_DIAGNOSIS}

{_made(meta)}"""


def _anchor(meta: dict[str, Any]) -> str:
    """What a clock of cell types says of its anchor; nothing without one."""
    against = meta.get("against")
    if not against:
        return ""
    return (
        f"\n**Anchor**: {', '.join(against)} against {meta['init']['anchor']} in the same sample tell the level of a "
        "cohort (agevi.tl.recalibrate with anchor=...). They do not enter ages.\n"
    )


def classifier_card(meta: dict[str, Any]) -> str:
    """README.md of the bundle of a classifier: what it tells apart, on whom it was trained, how to use it."""
    init, clock, roles, n = meta["init"], meta["clock"], list(meta["split"].values()), meta["trained_on"]
    start = "new weights" if init["from_scratch"] else f"the weights of the clock (freeze: {init['freeze']})"
    balanced = (
        " Cases and controls weighed the same in sum, so probabilities are those of a population half of which are "
        "cases."
        if init["class_weight"] == "balanced"
        else ""
    )
    return f"""# Classifier: {meta["class"]}

**Predicts** the probability of {init["case"]!r} against {init["control"]!r} ({init["condition_key"]}) from \
{len(clock["genes"]):,} {features(clock["setup"])} ({_input(clock)}), with the network of a {clock["class"]}, \
trained from {start}.

**Trained on** {n["n_cases"]:,} cases and {n["n_subjects"] - n["n_cases"]:,} controls. Held out as whole subjects: \
{roles.count("validation")} for validation, {roles.count("test")} for testing.{balanced} The clock was trained on the \
ages of \
{list(clock["split"].values()).count("train"):,} subjects.

**Use it**

```python
import agevi

model = agevi.io.load_clock("path/to/this/directory")
probability = model.predict_proba(adata)  # needs neither ages nor conditions
```

**Limits**: predictions hold for the tissue, assay, species and patients of the training data. Whatever sets cases \
apart from \
controls there is used, batches too. This is research software and no diagnosis.

{_made(meta)}"""


def published_card(meta: dict[str, Any]) -> str:
    """README.md of the bundle of a published clock: what it reads and gives, how to use it."""
    kinds = {"beta": "beta values", "log": "logarithms of normalised counts"}
    kind = kinds.get(meta["init"]["values"], "values as they are")
    return f"""# Ageing clock: {meta["class"]}

**Predicts** an age in {meta["age"]["unit"]} as a weighted sum of {len(meta["genes"]):,} features ({kind}; transform: \
{meta["age"]["transform"]}). The coefficients are published ones and were not trained here; cite the publication, \
whose \
licence holds.
{_paragraph(meta)}
{_USE % "subject"}
Values are read from {place(meta["setup"])}, normalised as the publication says; features are found by name \
("{meta["genes"][0]}", ...). {_LIMITS} publication. {_NO_DIAGNOSIS}

{_made(meta)}"""


def _made(meta: dict[str, Any]) -> str:
    """With what a clock was made, and what its files are."""
    versions = meta["versions"]
    return (
        f"Made with agevi {versions['agevi']}, scvi-tools {versions['scvi-tools']}, torch {versions['torch']}. Weights "
        "are safetensors, everything else is JSON; loading runs no code.\n"
    )


def _unit(setup: dict[str, Any]) -> str:
    """What to pass where new data name their samples otherwise than the training data."""
    name = setup.get("sample_key") or setup.get("subject_key")
    return (
        f"\nSamples are those of adata.obs[{name!r}]. Data without that column: agevi.tl.predict_age(adata, clock, "
        'sample_key="<column with the donor or visit>").\n'
        if name
        else ""
    )


def _columns_of(members: list[dict[str, Any]]) -> str:
    """What the members of an ensemble, and of ensembles in it, read: genes, dimensions or both."""
    found = [_columns_of(m["members"]) if "members" in m else features(m["setup"]) for m in members]
    return " and ".join(sorted({name for names in found for name in names.split(" and ")}, reverse=True))


def _setup_of(members: list[dict[str, Any]]) -> dict[str, Any]:
    """The columns that the members of an ensemble, and of ensembles in it, share."""
    for member in members:
        found = _setup_of(member["members"]) if "members" in member else member["setup"]
        if found.get("subject_key"):
            return found
    return {}


def _paragraph(meta: dict[str, Any]) -> str:
    """How well the clock predicts, between empty lines; one empty line where it does not tell."""
    text = _how_well(meta)
    return f"\n**How well**: {text}\n" if text else ""


def _trained_on(meta: dict[str, Any]) -> str:
    """Whom a member was trained on, and what it reads."""
    age = meta["age"]
    if "members" in meta:
        return f"{len(meta['members'])} members of its own"
    setup = meta["setup"]
    if "n_subjects" not in age:
        return f"elsewhere, published coefficients; {len(meta['genes']):,} features in {place(setup)} ({_input(meta)})"
    who = f"{age['n_subjects']:,} subjects, {age['n_samples']:,} samples"
    return f"{who}; {len(meta['genes']):,} {features(setup)} in {place(setup)} ({_input(meta)})"


def _scale(meta: dict[str, Any]) -> str:
    """On which scale ages were trained, where it is not their own."""
    name = {"log": "the logarithm of ages", "horvath": "the scale of Horvath (2013)"}.get(meta["age"].get("transform"))
    return f", trained on {name}" if name else ""


def _range(age: dict[str, Any]) -> str:
    """The training ages of an ensemble's members; published ones do not tell theirs."""
    return (
        f"{round(age['min'], 1):g} to {round(age['max'], 1):g} {age['unit']}"
        if "min" in age
        else "as the publications say"
    )


def _input(meta: dict[str, Any]) -> str:
    if meta["setup"]["normalize"] == CLR:
        return "counts, of which centred log-ratios are taken inside"
    return "values as they are" if meta["setup"]["normalize"] == "none" else "raw counts, normalised inside"


def _groups(meta: dict[str, Any]) -> str:
    """One sentence on the groups that are summed apart, or nothing."""
    key = meta["init"].get("pseudocell_groupby")
    return f" Samples are predicted from the sums of their groups in adata.obs[{key!r}]." if key else ""


def _validation_error(meta: dict[str, Any]) -> str:
    """One sentence on the error of validation subjects."""
    curve = meta["history"].get("age_mae_validation")
    if not curve or meta["best_epoch"] is None or meta["best_epoch"] > len(curve):
        return "no validation subjects were held out in the last training."
    n = list(meta["split"].values()).count("validation")
    chose = meta["init"].get("train_unit", "cell") == "cell" and len(curve) > 1  # linear clocks have one value
    if n < _MIN_SUBJECTS:
        role = f"chose the epoch ({meta['best_epoch']})" if chose else "were watched"
        return f"{n} validation subjects {role}, too few to state an error."
    error = (
        f"mean absolute error {curve[meta['best_epoch'] - 1]:.2f} {meta['age']['unit']} over {n} validation subjects"
    )
    if not chose:
        return f"{error}, which did not shape it."
    return f"{error}, which chose the epoch ({meta['best_epoch']}), so expect somewhat more on new ones."


def _how_well(meta: dict[str, Any]) -> str:
    """Error, slope and intervals of held-out subjects; empty where the clock does not tell."""
    parts = []
    evaluation, calibration = meta.get("evaluation"), meta.get("calibration")
    if evaluation is not None:
        parts += [_error(evaluation), _line(evaluation)]
        if "intervals" in evaluation:
            parts.append(_intervals(evaluation["intervals"], evaluation["age_unit"]))
    if calibration is not None:
        cohorts = f" of {_some(calibration['cohorts'])}" if calibration["cohorts"] else ""
        parts.append(
            f"Predictions come with {100 * calibration['level']:.3g} % intervals (`lower`, `upper`), calibrated on "
            f"{calibration['n']:,} subjects{cohorts}; they hold for subjects like those, and for less than that share "
            "in another cohort."
        )
    return " ".join(part for part in parts if part)


def _cohorts(meta: dict[str, Any]) -> str:
    """The training cohorts, with their mean errors where they were held out; empty where the clock does not tell."""
    found = meta.get("training_cohorts")
    if found is None:
        return ""
    errors = [f", left out {error:+.1f}" for error in found["left_out"]] or [""] * len(found["names"])
    rows = zip(found["names"], found["n_subjects"], found["mean_age"], errors, strict=True)
    said = [f"{name} ({n:,} subjects, mean age {age:.1f}{error})" for name, n, age, error in rows]
    return (
        f" Trained on {len(said)} cohort{'s' * (len(said) > 1)} by {found['by']!r}: {_some(said)}. Judge another one "
        'before its ages are predicted: `agevi.tl.check_transport(adata, clock, by="...")`.'
    )


def _error(found: dict[str, Any]) -> str:
    """Who was held out, and the error beside that of the median age."""
    unit = found["age_unit"]
    low, high = found["mae_low"], found["mae_high"]
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    who = f"{found['n_subjects']:,} subjects aged {round(found['age_min'], 1):g} to {round(found['age_max'], 1):g}"
    more = f" ({found['n_samples']:,} samples)" if found["n_samples"] > found["n_subjects"] else ""
    return (
        f"mean absolute error {found['mae']:.2f} {unit}{interval} over {who}{more}, {_held_out(found)}; predicting the "
        f"median age for everyone gives {found['mae_median']:.2f}."
    )


def _held_out(found: dict[str, Any]) -> str:
    """How these subjects were kept from the clock."""
    if "out_of_fold" not in found["roles"]:
        return "which this clock never saw in training"
    by = f" by {found['fold_key']!r} ({_some(found['cohorts'])})" if found["fold_key"] else ""
    by += f", trained on {found['train_on']!r}" if found["train_on"] else ""
    return (
        f"each predicted by a clock of the same recipe that never saw it ({found['n_folds']} folds{by}), before this "
        "one was trained"
    )


def _line(found: dict[str, Any]) -> str:
    """Slope and correlation."""
    if found["slope"] is None or found["pearson"] is None:
        return ""
    return f"Slope of predicted on true age {found['slope']:.2f}, Pearson's r {found['pearson']:.2f}."


def _intervals(found: dict[str, Any], unit: str) -> str:
    """Coverage and width."""
    return (
        f"{100 * found['level']:.3g} % intervals are {found['width']:.1f} {unit} wide on average and held the age of "
        f"{100 * found['coverage']:.1f} % [{100 * found['coverage_low']:.1f}, {100 * found['coverage_high']:.1f}] of "
        "these subjects (cross-calibrated)."
    )


def _gene_examples(meta: dict[str, Any]) -> str:
    """The first genes by name, with their symbols where the clock holds them."""
    names = meta.get("gene_names") or {}
    symbols = names.get(SYMBOLS) or names.get(IDS)
    if not symbols:
        return f'"{meta["genes"][0]}", ...'
    pairs = [f'"{gene}" ({symbol})' for gene, symbol in zip(meta["genes"], symbols, strict=False) if symbol][:3]
    known = " and ".join(KINDS[kind] for kind in names if kind in KINDS)
    return ", ".join([*pairs, "..."]) + f"; it finds them by {known} too, which are in `clock.gene_names`"


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
