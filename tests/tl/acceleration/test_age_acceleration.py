from __future__ import annotations

import logging
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm

import agevi
from agevi import get
from agevi.tl import age_acceleration
from tests.files import stored
from tests.test_gates import check_message, set_obs, snapshot

ARGUMENTS = {"groupby": "condition", "reference": "control", "n_permutations": 0}


def planted(n=24, m=20, delta=6.0, slope=0.6, seed=0, sd=5.0, shift=10.0, visits=1):
    """A cohort with two cells per sample, whose predictions are held out."""
    rng = np.random.default_rng(seed)
    n_samples = (n + m) * visits
    case = np.repeat(np.arange(n + m) >= n, visits)
    names = np.array([f"d{i:03d}" for i in range(n + m)])
    donor = np.repeat(names, visits)
    age = np.repeat(rng.normal(50, 12, n + m), visits) + shift * case + np.tile(2.0 * np.arange(visits), n + m)
    noise = np.repeat(rng.normal(0, sd, n + m), visits) + (rng.normal(0, 2, n_samples) if visits > 1 else 0)
    table = pd.DataFrame({"donor": donor, "age": age, "condition": np.where(case, "case", "control")})
    table["visit"] = [f"{name}_{i % visits}" for i, name in enumerate(donor)]
    table["sex"] = rng.choice(["f", "m"], n + m)[np.repeat(np.arange(n + m), visits)]
    table["bmi"] = rng.normal(25, 3, n_samples)
    table["site"] = np.array(["a", "b", "c"])[np.repeat(np.arange(n + m) % 3, visits)]
    table["agevi_predicted"] = (20 + slope * (age + delta * case) + noise).astype(np.float32)
    cells = table.loc[np.repeat(np.arange(n_samples), 2)].reset_index(drop=True)
    cells.index = [f"c{i}" for i in range(len(cells))]
    adata = ad.AnnData(np.ones((len(cells), 1), np.float32), obs=cells)
    adata.obs["agevi_role"] = "out_of_fold"
    sample_key = "donor" if visits == 1 else "visit"
    adata.uns["agevi"] = {"subject_key": "donor", "sample_key": sample_key, "age_key": "age", "age_unit": "years"}
    agevi.tl.aggregate_subjects(adata)
    return adata, table


def row_of(adata, **arguments):
    age_acceleration(adata, **(ARGUMENTS | arguments))
    return get.acceleration_df(adata).iloc[0]


def reference(table, covariates=(), power=1):
    case = (table["condition"] == "case").to_numpy(float)
    age = table["age"].to_numpy()
    x = np.column_stack([np.ones(len(age)), case, *(age**k for k in range(1, power + 1)), *covariates])
    return sm.OLS(table["agevi_predicted"].to_numpy(np.float64), x).fit(cov_type="HC3", use_t=True)


def check_equal(row, theirs):
    assert row["difference"] == pytest.approx(theirs.params[1], rel=1e-8)
    assert row["se"] == pytest.approx(theirs.bse[1], rel=1e-8)
    assert row["p"] == pytest.approx(theirs.pvalues[1], rel=1e-8)
    assert (row["low"], row["high"]) == pytest.approx(tuple(theirs.conf_int()[1]), rel=1e-8)
    assert row["df"] == theirs.df_resid
    assert row["cohens_d"] == pytest.approx(theirs.params[1] / np.sqrt(theirs.mse_resid))
    assert row["detectable"] == pytest.approx(2.8 * theirs.bse[1])


def test_equals_statsmodels():
    adata, table = planted()
    row, theirs = row_of(adata), reference(table)
    check_equal(row, theirs)
    assert (row["type"], row["group"], row["reference"]) == ("overall", "case", "control")
    assert (row["n"], row["n_reference"], row["n_subjects"]) == (20, 24, 44)
    assert row["slope"] == pytest.approx(theirs.params[2], rel=1e-8)
    assert row["slope_t"] == pytest.approx(theirs.tvalues[2], rel=1e-8)
    assert row["scaled"] == pytest.approx(theirs.params[1] / theirs.params[2])
    assert row["scaled_low"] < row["scaled"] < row["scaled_high"]
    gap = (table["agevi_predicted"] - table["age"]).groupby(table["condition"]).mean()
    assert row["raw_gap"] == pytest.approx(gap["case"] - gap["control"])
    mean = table.groupby("condition")["age"].mean()
    assert (row["age_reference"], row["age_group"]) == pytest.approx((mean["control"], mean["case"]))
    assert np.isnan(row["p_permutation"])
    assert row["p_adjusted"] == row["p"]


def test_adjusts_for_covariates():
    adata, table = planted()
    row = row_of(adata, covariates=["sex", "bmi", "site"])
    columns = [table["sex"] == "m", table["bmi"], table["site"] == "b", table["site"] == "c"]
    check_equal(row, reference(table, columns))
    assert "adjusted for sex, bmi and site; HC3 ANCOVA" in row["sentence"]


@pytest.mark.parametrize("n, power", [(24, 1), (25, 3)])
def test_age_is_cubic_where_there_are_25_subjects_in_both_groups(n, power):
    adata, table = planted(n=30, m=n)
    automatic, theirs = row_of(adata), reference(table, power=power)
    assert automatic["difference"] == pytest.approx(theirs.params[1])
    line = reference(table)  # steadier than the mean derivative of a cubic
    assert automatic["slope"] == pytest.approx(line.params[2])
    assert automatic["slope_t"] == pytest.approx(line.tvalues[2])
    assert automatic["scaled"] == pytest.approx(theirs.params[1] / line.params[2])
    check_equal(row_of(adata, age_df=power), theirs)


def test_adjusts_for_composition():
    rng = np.random.default_rng(0)
    adata, table = planted()
    kinds = np.array(["B", "NK/T", "mono", "never"])
    obs = adata.obs.iloc[np.repeat(np.arange(0, adata.n_obs, 2), 12)].reset_index(drop=True)
    obs.index = obs.index.astype(str)
    cells = ad.AnnData(np.ones((len(obs), 1), np.float32), obs=obs, uns=adata.uns)
    cells.obs["kind"] = pd.Categorical(rng.choice(kinds[:3], cells.n_obs), categories=kinds)
    agevi.tl.aggregate_subjects(cells)
    counts = pd.crosstab(cells.obs["donor"], cells.obs["kind"]).loc[table["donor"], list(kinds[:3])].to_numpy() + 0.5
    ratios = np.log(counts) - np.log(counts).mean(axis=1, keepdims=True)
    row = row_of(cells, composition_key="kind")
    check_equal(row, reference(table, ratios[:, 1:].T))  # whichever type is dropped
    assert "], adjusted for the shares of kind; HC3" in row["sentence"]


def test_subjects_with_visits_are_left_out_as_a_whole():
    adata, table = planted(visits=2)
    row = row_of(adata)
    x = np.column_stack([np.ones(len(table)), table["condition"] == "case", table["age"]])
    y = table["agevi_predicted"].to_numpy(np.float64)
    left = [
        np.linalg.lstsq(x[keep], y[keep], rcond=None)[0][1]
        for keep in (~(table["donor"] == name).to_numpy() for name in table["donor"].unique())
    ]
    assert row["se"] == pytest.approx(np.sqrt(43 / 44 * np.square(left - np.mean(left)).sum()))
    assert row["df"] == 43
    assert row["p"] == pytest.approx(2 * scipy.stats.t.sf(abs(row["t"]), 43))
    assert "CR3 ANCOVA t(43)" in row["sentence"]
    assert "n = 40 vs 48 samples of 44 subjects" in row["sentence"]
    assert row["se"] > 1.2 * fit_of_rows(table)


def fit_of_rows(table):
    """Standard error when visits are taken for subjects."""
    return reference(table).bse[1]


def test_pairs():
    adata, table = planted(n=30, m=0, visits=2)
    second = adata.obs["visit"].str.endswith("_1")
    adata.obs["condition"] = np.where(second, "after", "before")
    adata.obs["agevi_predicted"] += np.where(second, 3.0, 0.0)
    agevi.tl.aggregate_subjects(adata)
    row = row_of(adata, reference="before", paired=True, n_permutations=500)
    assert row["low"] < 3 < row["high"]
    assert row["p"] < 0.001
    assert row["p_permutation"] < 0.01
    with pytest.raises(ValueError) as raised:
        row_of(adata, reference="before")
    check_message(raised, "subject 'd000' has samples in both 'after' and 'before' (30 in all); pass paired=True")


def test_samples_are_measured_against_the_line_of_others():
    adata, table = planted()
    age_acceleration(adata, **ARGUMENTS)
    samples = get.acceleration_df(adata, "samples").set_index("sample").loc[table["donor"]]
    control = (table["condition"] == "control").to_numpy()
    x, y = sm.add_constant(table["age"].to_numpy()), table["agevi_predicted"].to_numpy(np.float64)
    fitted = sm.OLS(y[control], x[control]).fit()
    theirs = fitted.get_prediction(x[~control]).summary_frame(alpha=0.05)
    cases = samples[~control]
    np.testing.assert_allclose(cases["expected"], theirs["mean"])
    np.testing.assert_allclose(cases["low"], theirs["obs_ci_lower"])
    np.testing.assert_allclose(cases["high"], theirs["obs_ci_upper"])
    np.testing.assert_allclose(cases["acceleration"], y[~control] - theirs["mean"])
    influence = fitted.get_influence()
    np.testing.assert_allclose(samples["z"][control], influence.resid_studentized_external)
    np.testing.assert_allclose(samples["acceleration"][control], influence.resid_press)
    assert ((samples["p"] < 0.05) == ~samples["predicted"].between(samples["low"], samples["high"])).all()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a[np.random.default_rng(0).permutation(a.n_obs)].copy(), id="rows in another order"),
        pytest.param(lambda a: a, id="the same again"),
    ],
)
def test_the_order_of_rows_does_not_matter(change):
    adata, _ = planted()
    arguments = {"n_permutations": 300, "covariates": "sex"}
    first = row_of(adata, **arguments)
    other = change(adata)
    agevi.tl.aggregate_subjects(other)
    pd.testing.assert_series_equal(row_of(other, **arguments), first)


@pytest.mark.parametrize(
    "make, given",
    [
        pytest.param(lambda case: case.astype(int), 0, id="ints"),
        pytest.param(lambda case: case.astype(float), "0", id="floats, named by text"),
        pytest.param(lambda case: case, False, id="booleans"),
        pytest.param(lambda case: pd.Categorical(case.astype(int), categories=[2, 1, 0]), 0.0, id="category"),
    ],
)
def test_labels_of_any_type(make, given):
    adata, table = planted()
    adata.obs["state"] = make((adata.obs["condition"] == "case").to_numpy())
    row = row_of(adata, groupby="state", reference=given)
    check_equal(row, reference(table))


def test_ages_in_days():
    adata, _ = planted()
    years = row_of(adata, n_permutations=300)
    adata.obs[["age", "agevi_predicted"]] = adata.obs[["age", "agevi_predicted"]].astype(np.float64) * 365.25
    adata.uns["agevi"]["age_unit"] = "days"
    agevi.tl.aggregate_subjects(adata)
    days = row_of(adata, n_permutations=300)
    for name in ("difference", "se", "low", "high", "scaled", "scaled_low", "scaled_high", "raw_gap", "detectable"):
        assert days[name] == pytest.approx(365.25 * years[name], rel=1e-5)
    for name in ("t", "p", "p_permutation", "cohens_d", "slope", "slope_t"):
        assert days[name] == pytest.approx(years[name], rel=1e-5)
    assert "days older on the clock's scale" in days["sentence"]


def test_the_sentence(caplog):
    adata, _ = planted()
    with caplog.at_level(logging.INFO, logger="agevi"):
        row = row_of(adata, n_permutations=99)
    d, s = f"{row['difference']:.1f}", row["sentence"]
    assert s.startswith(
        f"case: {d} years older on the clock's scale than control of the same age [95% CI {row['low']:.1f}, "
    )
    assert f"HC3 ANCOVA t(41) = {row['t']:.2f}, p " in s
    assert s.endswith(f"n = 20 vs 24 subjects; difference detectable with 80% power {row['detectable']:.1f} years.")
    assert [record.getMessage() for record in caplog.records] == [s]


def test_the_interval_of_a_younger_group_is_of_years_younger():
    adata, _ = planted()
    adata.obs["other"] = np.where(adata.obs["condition"] == "case", "a", "b")
    older = row_of(adata, n_permutations=0)["sentence"]
    age_acceleration(adata, groupby="other", reference="a", n_permutations=0)
    younger = get.acceleration_df(adata).iloc[0]["sentence"]
    bounds = [re.search(r"(\S+) years (\w+) .*CI (\S+), (\S+)\]", text).groups() for text in (older, younger)]
    assert [found[1] for found in bounds] == ["older", "younger"]
    assert bounds[0][:1] + bounds[0][2:] == bounds[1][:1] + bounds[1][2:]


def test_several_groups_stand_against_the_reference_alone():
    adata, table = planted(n=24, m=40)
    stage = np.where(table["condition"] == "control", "control", np.where(np.arange(64) % 2, "late", "early"))
    adata.obs["stage"] = pd.Categorical(np.repeat(stage, 2), categories=["late", "control", "early"])
    age_acceleration(adata, groupby="stage", reference="control", n_permutations=0)
    rows = get.acceleration_df(adata)
    assert rows["group"].tolist() == ["late", "early"]
    for _, row in rows.iterrows():
        part = table[np.isin(stage, ["control", row["group"]])]
        theirs = reference(part)
        assert row["p"] == pytest.approx(theirs.pvalues[1], rel=1e-8)
    np.testing.assert_allclose(rows["p_adjusted"], scipy.stats.false_discovery_control(rows["p"]))
    assert len(get.acceleration_df(adata, "samples")) == 64


def test_a_group_of_two_subjects_has_a_row_without_a_difference(caplog):
    adata, _ = planted(n=24, m=20)
    names = adata.obs["donor"].unique()
    adata.obs["stage"] = adata.obs["condition"].where(~adata.obs["donor"].isin(names[-2:]), "rare")
    age_acceleration(adata, groupby="stage", reference="control", n_permutations=0)
    rows = get.acceleration_df(adata).set_index("group")
    assert rows.loc["rare", "flags"] == "few_subjects"
    assert np.isnan(rows.loc["rare", "difference"])
    assert rows.loc["rare", "sentence"] == "rare: no comparison with control (few_subjects)."
    assert rows.loc["case", "flags"] == ""
    assert "no difference for 'rare': fewer than 3 subjects" in caplog.text


def typed(effects, seed=0, n=30, m=30):
    """A cohort with predictions by type: a planted difference in each."""
    adata, table = planted(n=n, m=m, delta=0.0, seed=seed)
    rng = np.random.default_rng(seed + 100)
    case = (table["condition"] == "case").to_numpy()
    parts = []
    for name, effect in effects.items():
        part = pd.DataFrame({"sample": table["donor"], "group": name, "subject": table["donor"], "age": table["age"]})
        part["predicted"] = 20 + 0.6 * (table["age"] + effect * case) + rng.normal(0, 4, len(part))
        parts.append(
            part.assign(n_cells=5, fold="0", validation_mae=4.0, weight=0.5, combined=table["agevi_predicted"])
        )
    long = pd.concat(parts, ignore_index=True).sort_values(["sample", "group"], ignore_index=True)
    adata.obs["kind"] = np.resize(list(effects), adata.n_obs)
    adata.uns["agevi"]["params"] = {"groupby": "kind"}
    adata.uns["agevi_by_group"] = long
    return adata, long


def test_types_of_cells():
    adata, long = typed({"B": 0.0, "CD4/CD8": 12.0, "mono": 0.0})
    age_acceleration(adata, by="kind", **ARGUMENTS)
    rows = get.acceleration_df(adata).set_index("type")
    assert rows.index.tolist() == ["overall", "B", "CD4/CD8", "mono"]
    for name in ("B", "CD4/CD8", "mono"):
        part = long[long["group"] == name].merge(
            adata.obs[["donor", "condition"]].drop_duplicates(), left_on="sample", right_on="donor"
        )
        theirs = reference(part.rename(columns={"predicted": "agevi_predicted"}), power=3)
        assert rows.loc[name, "p"] == pytest.approx(theirs.pvalues[1], rel=1e-8)
    np.testing.assert_allclose(rows["p_adjusted"].iloc[1:], scipy.stats.false_discovery_control(rows["p"].iloc[1:]))
    assert rows["p_adjusted"].iloc[0] == rows["p"].iloc[0]
    p, corrected = (f"{rows.loc['mono', name]:.3f}".removeprefix("0") for name in ("p", "p_adjusted"))
    assert f", p = {p}, {corrected} corrected for 3 types; n = " in rows.loc["mono", "sentence"]
    assert ", < .001 corrected for 3 types" in rows.loc["CD4/CD8", "sentence"]
    assert "corrected" not in rows.loc["overall", "sentence"]
    assert rows.loc["CD4/CD8", "p_adjusted"] < 0.001
    samples = get.acceleration_df(adata, "samples")
    assert samples.groupby("type").size().to_dict() == {"overall": 60, "B": 60, "CD4/CD8": 60, "mono": 60}


def test_a_type_that_few_have_does_not_stop_the_others(caplog):
    adata, long = typed({"B": 0.0, "mono": 0.0})
    rare = long["group"].eq("mono") & ~long["sample"].isin(["d000", "d001", "d040", "d041"])
    adata.uns["agevi_by_group"].loc[rare, "predicted"] = np.nan
    age_acceleration(adata, by="kind", **ARGUMENTS)
    rows = get.acceleration_df(adata).set_index("type")
    assert np.isnan(rows.loc["mono", "p"])
    assert rows.loc["mono", ["n", "n_reference", "flags"]].tolist() == [2, 2, "few_subjects"]
    assert rows.loc["B", "p_adjusted"] == rows.loc["B", "p"]
    assert "mono: no difference for 'case'" in caplog.text


def test_strata_of_samples():
    adata, table = planted(n=60, m=60)
    age_acceleration(adata, by="site", **ARGUMENTS)
    rows = get.acceleration_df(adata).set_index("type")
    assert rows.index.tolist() == ["overall", "a", "b", "c"]
    part = table[table["site"] == "b"]
    assert rows.loc["b", "p"] == pytest.approx(reference(part).pvalues[1], rel=1e-8)


def few(a):
    names = a.obs["donor"].unique()[-2:]
    a.obs.loc[(a.obs["condition"] == "case") & ~a.obs["donor"].isin(names), "agevi_predicted"] = np.nan


def overlap(a):
    a.obs["age"] += np.where(a.obs["condition"] == "case", 60.0, 0.0)
    a.obs["agevi_predicted"] += np.where(a.obs["condition"] == "case", 36.0, 0.0).astype(np.float32)


def noise(slope):
    def change(a):
        rng = np.random.default_rng(1)
        donors = a.obs.groupby("donor")["age"].first()
        predicted = 50 + slope * donors + rng.normal(0, 5, len(donors))
        a.obs["agevi_predicted"] = predicted[a.obs["donor"]].to_numpy().astype(np.float32)

    return change


def folds(a):
    case = (a.obs["condition"] == "case").to_numpy()
    code = pd.factorize(a.obs["donor"])[0]
    a.obs["agevi_fold"] = pd.Categorical(np.where(case, "5", (code % 4).astype(str)))


def site_of_cases(a):
    case = (a.obs["condition"] == "case").to_numpy()
    swapped = a.obs["donor"].isin(["d000", "d024"]).to_numpy()
    a.obs["site"] = np.where(case ^ swapped, "x", "y")


def trained_on_cases(a):
    a.uns["agevi"]["params"] = {"train_on": "condition == 'case'"}


def trained_on_everybody(a):
    a.uns["agevi"]["params"] = {"n_folds": 5}


def trained_on_some(a):
    a.uns["agevi"]["params"] = {"train_on": "site != 'a'", "n_folds": 5}


def trained_at_equal_age(a):
    trained_on_everybody(a)
    case = a.obs["condition"] == "case"
    a.obs["age"] -= np.where(case, a.obs.loc[case, "age"].mean() - a.obs.loc[~case, "age"].mean(), 0.0)


def trained_on_controls(a):
    a.uns["agevi"]["params"] = {"train_on": "condition == 'control'"}


def trained_on_what_is_gone(a):
    a.uns["agevi"]["params"] = {"train_on": "nowhere == 'x'"}


def two_numbers(a):
    """Numbers whose sum is the group."""
    a.obs["one"] = np.where(a.obs["sex"] == "f", 0.5, 0.0)
    a.obs["two"] = (a.obs["condition"] == "case") - a.obs["one"]


FLAGS = {
    "none": (lambda a: None, {}, ""),
    "no slope": (noise(0.0), {}, "no_age_signal"),
    "a falling slope": (noise(-0.8), {}, "no_age_signal"),
    "a weak slope": (noise(0.2), {}, "weak_age_signal"),
    "ages apart": (overlap, {}, "ages_do_not_overlap"),
    "few subjects": (
        set_obs("agevi_predicted", lambda a: a.obs["agevi_predicted"].where(
            (a.obs["condition"] == "control") | a.obs["donor"].isin(a.obs["donor"].unique()[-9:]))), {}, "few_subjects",
    ),
    "cases in one fold": (folds, {}, "confounded"),
    "cases predicted by another clock": (
        set_obs("agevi_role", lambda a: np.where(a.obs["condition"] == "case", "new", "out_of_fold")), {},
        "confounded",
    ),
    "trained on cases": (trained_on_cases, {}, "confounded"),
    "trained on everybody": (trained_on_everybody, {}, "trained_on_group"),
    "trained on some of both": (trained_on_some, {}, "trained_on_group"),
    "trained at equal age": (trained_at_equal_age, {}, ""),
    "trained on controls": (trained_on_controls, {}, ""),
    "trained by a column that is gone": (trained_on_what_is_gone, {}, ""),
    "a covariate that is almost the group": (site_of_cases, {"covariates": "site"}, "confounded"),
}  # fmt: skip


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, caplog):
    change, arguments, expected = FLAGS[case]
    adata, _ = planted(shift=5.0)
    change(adata)
    agevi.tl.aggregate_subjects(adata)
    caplog.clear()
    row = row_of(adata, **arguments)
    assert row["flags"] == expected
    assert bool(expected) == any("'case' against 'control'" in record.getMessage() for record in caplog.records)
    if expected.endswith("signal"):
        assert np.isnan(row["scaled"])
        assert np.isnan(row["scaled_low"]) == (expected == "no_age_signal")


def test_the_flag_of_a_clock_that_learnt_from_cases_names_what_to_do(caplog):
    adata, _ = planted(shift=10.0)
    trained_on_everybody(adata)
    row = row_of(adata)
    assert row["flags"] == "trained_on_group"
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "trained on 'case', too, whose subjects are " in line
    assert line.endswith("tl.cross_validate(train_on=\"condition == 'control'\").")


ERRORS = {
    "no groupby": (None, {"groupby": None}, ValueError, "groupby=None; pass the column with the groups to compare, such as 'condition'"),
    "no such column": (None, {"groupby": "Condition"}, KeyError, "groupby='Condition' is not a column of adata.obs; closest: 'condition'"),
    "no reference": (None, {"reference": None}, ValueError, "one of 'case', 'control'"),
    "another reference": (None, {"reference": "Control"}, ValueError, "reference='Control' is not a group of groupby='condition'; closest: 'control'"),
    "one group": (set_obs("condition", lambda a: "control"), {}, ValueError, "has 'control' alone"),
    "reference of nobody": (
        set_obs("agevi_predicted", lambda a: a.obs["agevi_predicted"].where(a.obs["condition"] == "case")), {},
        ValueError, "reference='control' selects none of the 20 held-out samples",
    ),
    "reference of everybody": (
        set_obs("agevi_predicted", lambda a: a.obs["agevi_predicted"].where(a.obs["condition"] == "control")), {},
        ValueError, "reference='control' selects all 24 held-out samples",
    ),
    "two cases": (few, {}, ValueError, "needs 3 subjects in each of two groups"),
    "fitted": (
        set_obs("agevi_role", lambda a: np.where(a.obs["condition"] == "case", "new", "train")), {}, ValueError,
        "24 of 44 samples have the role 'train' in adata.uns['agevi_subjects']: their ages shaped the clock",
    ),
    "validation": (set_obs("agevi_role", lambda a: "validation"), {}, ValueError, "agevi.tl.cross_validate(adata, ..., train_on="),
    "covariate constant": (set_obs("lab", lambda a: "x"), {"covariates": "lab"}, ValueError, "covariates: 'lab' is 'x' in all 44 samples"),
    "covariate missing": (set_obs("lab", lambda a: np.nan), {"covariates": "lab"}, ValueError, "covariates: 'lab' is missing in all 44 samples"),
    "covariate infinite": (set_obs("lab", lambda a: np.inf), {"covariates": "lab"}, ValueError, "covariates: 'lab' is infinite in 44 samples"),
    "covariate absent": (None, {"covariates": ["lab"]}, KeyError, "covariates='lab' is not a column of adata.obs"),
    "covariate is the group": (None, {"covariates": ["condition"]}, ValueError, "which is what is compared"),
    "covariate is age": (set_obs("months", lambda a: 12 * a.obs["age"]), {"covariates": "months"}, ValueError, "'months' adds nothing to 'age' among the samples"),
    "covariate is the age of the model": (None, {"covariates": ["sex", "age"]}, ValueError, "has 'age', and age is in the model already; leave it out"),
    "covariate is the donor": (None, {"covariates": ["donor"]}, ValueError, "has 'donor', the names of subjects or samples, which measure nothing"),
    "covariate tells groups apart": (
        set_obs("lab", lambda a: np.where(a.obs["condition"] == "case", "x", np.where(a.obs["sex"] == "f", "y", "z"))),
        {"covariates": "lab"}, ValueError, "covariates: 'lab' tells the samples of 'case' and 'control' apart",
    ),
    "two covariates tell groups apart": (
        two_numbers,
        {"covariates": ["one", "two"]}, ValueError, "'age', 'one', 'two' together tell the samples",
    ),
    "ages tell groups apart": (
        set_obs("age", lambda a: np.where(a.obs["condition"] == "case", 24.0, 3.0)), {}, ValueError,
        "ages alone tell the samples of 'case' and 'control' apart, so that their difference cannot be separated; compare samples of shared",
    ),
    "predictions as a covariate": (None, {"covariates": "agevi_predicted"}, ValueError, "follow exactly from 'age', 'agevi_predicted', so that"),
    "gaps as a covariate": (
        set_obs("gap", lambda a: a.obs["agevi_predicted"].astype(float) - a.obs["age"]), {"covariates": ["sex", "gap"]}, ValueError,
        "leave out covariates that were made of predictions",
    ),
    "predictions that are ages": (set_obs("agevi_predicted", lambda a: a.obs["age"]), {}, ValueError, "follow exactly from 'age', so that"),
    "nobody has a group": (set_obs("condition", lambda a: np.nan), {}, ValueError, "groupby='condition' has no values; a comparison"),
    "two columns of groups": (None, {"groupby": ["condition"]}, TypeError, "groupby=['condition'] is a list; pass the name of one column"),
    "a list in covariates": (None, {"covariates": [["sex"]]}, TypeError, "covariates=['sex'] is a list; pass the name of one column"),
    "a number as covariates": (None, {"covariates": 3}, TypeError, "covariates=3 is a int; pass the name of a column, or a list"),
    "two columns of strata": (None, {"by": ["sex"]}, TypeError, "by=['sex'] is a list; pass the name of one column"),
    "strata of one group": (None, {"by": "condition"}, ValueError, "by='condition' has 2 values, and none has 3 subjects of 'control' and 3"),
    "strata of one subject": (None, {"by": "donor"}, ValueError, "by='donor' has 44 values, and none has 3 subjects of 'control' and 3"),
    "a stratum called overall": (
        set_obs("site", lambda a: a.obs["site"].replace("a", "overall")), {"by": "site"}, ValueError,
        "by='site' has a value 'overall', which names the row of all samples; rename it",
    ),
    "two columns of one name": (
        set_obs("role", lambda a: a.obs["sex"]), {"covariates": "role"}, ValueError,
        "covariates='role' is a column of the subject table and another one of adata.obs (sample 'd000': out_of_fold and ",
    ),
    "level of one subject": (
        set_obs("lab", lambda a: np.where(a.obs["donor"] == "d007", "only", a.obs["site"])), {"covariates": "lab"}, ValueError,
        "covariates: lab='only' has one subject, 'd007'",
    ),
    "a number of one subject": (
        set_obs("lab", lambda a: np.where(a.obs["donor"] == "d007", 0.5, 0.0)), {"covariates": "lab"}, ValueError,
        "subject 'd007' alone decides a term of the model",
    ),
    "paired without pairs": (None, {"paired": True}, ValueError, "paired=True, and no subject has samples in both"),
    "ages of one value": (set_obs("age", lambda a: 50.0), {}, ValueError, "all 44 samples of 'case' and 'control' have the age 50"),
    "cubic in three ages": (set_obs("age", lambda a: 10 * (a.obs["age"] // 30)), {"age_df": 3}, ValueError, "needs more than 3 different ages"),
    "constant predictions": (set_obs("agevi_predicted", lambda a: 40.0), {}, ValueError, "are predicted 40.0"),
    "age_df": (None, {"age_df": 2}, ValueError, "age_df=2 is not known"),
    "level": (None, {"level": 95}, ValueError, "level=95 is not a coverage"),
    "permutations": (None, {"n_permutations": -1}, ValueError, "n_permutations=-1 is out of range"),
    "one type": (set_obs("kind", lambda a: "B"), {"composition_key": "kind"}, ValueError, "composition_key='kind' has 1 type of cells"),
    "types without clocks": (
        set_obs("kind", lambda a: np.resize(["B", "T"], a.n_obs)), {"by": "kind"}, ValueError,
        "by='kind' has several values in a sample, as types of cells do, and the predictions are those of one clock",
    ),
    "a group per cell": (
        set_obs("kind", lambda a: np.resize(["B", "T"], a.n_obs)), {"groupby": "kind", "reference": "B"}, ValueError,
        "groupby takes columns with one value per sample",
    ),
    "no subject table": (lambda a: a.uns.pop("agevi_subjects"), {}, KeyError, "run agevi.tl.aggregate_subjects(adata) first"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_compared_is_refused(case):
    change, arguments, error, words = ERRORS[case]
    adata, _ = planted()
    if change:
        change(adata)
    if "agevi_subjects" in adata.uns:
        agevi.tl.aggregate_subjects(adata)
    before = snapshot(adata)
    with pytest.raises(error) as raised:
        row_of(adata, **arguments)
    check_message(raised, words)
    assert snapshot(adata) == before


def test_no_covariates_and_strata_that_share_a_name_with_the_table():
    adata, _ = planted()
    row = row_of(adata)
    assert row["difference"] == row_of(adata, covariates=None)["difference"]
    adata.obs["n_cells"] = 2
    adata.obs["subject"] = adata.obs["donor"]  # the same in both, as age is
    adata.obs["role"] = pd.Categorical(adata.obs["agevi_role"])
    assert row["difference"] == row_of(adata, by="role")["difference"]
    adata.uns["agevi_subjects"].index.name = "subject"
    assert row["difference"] == row_of(adata)["difference"]
    with pytest.raises(
        ValueError, match="groupby='subject' has|reference='control' is not a group of groupby='subject'"
    ):
        row_of(adata, groupby="subject")


def test_the_line_of_a_reference_of_few_ages():
    adata, table = planted(n=40, m=40)
    rng = np.random.default_rng(0)
    age = np.where(table["condition"] == "case", rng.uniform(60, 90, 80), rng.uniform(20, 22, 80))
    adata.obs["age"] = np.repeat(age, 2)
    agevi.tl.aggregate_subjects(adata)
    row_of(adata, age_df=3)
    samples = get.acceleration_df(adata, "samples").set_index("sample")
    x = np.vander(age - 21, 4)
    for i in (0, 7, 60):
        used = (table["condition"] == "control") & (np.arange(80) != i)
        theirs = sm.OLS(table["agevi_predicted"][used].to_numpy(float), x[used]).fit()
        expected = theirs.predict(x[i : i + 1])[0]
        assert samples["expected"].iloc[i] == pytest.approx(expected, rel=1e-6)


def test_the_level_in_the_sentence():
    adata, _ = planted()
    assert "[99.5% CI " in row_of(adata, level=0.995)["sentence"]
    assert "interval" not in row_of(adata)["sentence"]


def test_the_way_from_the_start_is_named_where_nothing_is_predicted():
    adata, _ = planted()
    adata.uns.clear()
    with pytest.raises(KeyError) as raised:
        row_of(adata)
    check_message(
        raised,
        "run agevi.tl.aggregate_subjects(adata) first, after agevi.tl.cross_validate(adata, ...), which predicts",
    )


def test_too_many_terms():
    adata, _ = planted(n=5, m=5)
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(7)]
    for name in names:
        adata.obs[name] = np.repeat(rng.normal(size=10), 2)
    with pytest.raises(ValueError) as raised:
        row_of(adata, covariates=names)
    check_message(raised, "10 samples of 'case' and 'control' are too few for 10 terms")


def test_what_is_left_out_is_counted(caplog):
    adata, table = planted()
    donor = adata.obs["donor"]
    adata.obs.loc[donor == "d000", "age"] = np.nan
    adata.obs.loc[donor.isin(["d001", "d000"]), "agevi_predicted"] = np.nan
    adata.obs["condition"] = adata.obs["condition"].astype(object).where(donor != "d002", None)
    adata.obs.loc[donor == "d003", "bmi"] = np.nan
    adata.obs.loc[donor == "d004", "agevi_role"] = "recalibration"
    agevi.tl.aggregate_subjects(adata)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="agevi"):
        row = row_of(adata, covariates="bmi")
    assert (row["n"], row["n_reference"]) == (20, 19)
    assert caplog.records[0].getMessage() == (
        "5 of 44 samples are left out of the comparison: 1 without an age, 1 without a prediction, 1 without a condition, "
        "1 without a value of bmi, 1 without a role that allows it."
    )
    assert adata.uns["agevi_acceleration_params"]["n_left_out"] == 5
    assert "; n = 20 vs 19 subjects (5 samples with missing values left out); " in row["sentence"]
    check_equal(row, reference(table.iloc[5:], [table["bmi"].iloc[5:]]))


def test_codes_of_batches_are_noticed(caplog):
    adata, _ = planted()
    adata.obs["plate"] = pd.factorize(adata.obs["site"])[0]
    row_of(adata, covariates="plate")
    assert "covariates: 'plate' holds 3 whole numbers and enters as one slope" in caplog.text


def test_ids_are_noticed(caplog):
    adata, _ = planted()
    adata.obs["number"] = 1001 + np.random.default_rng(0).permutation(44)[pd.factorize(adata.obs["donor"])[0]]
    row_of(adata, covariates="number")
    assert "covariates: 'number' holds 44 whole numbers, another for every subject" in caplog.text
    caplog.clear()
    row_of(adata, covariates="bmi")
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("format", ["h5ad", "zarr"])
def test_survives_a_file(tmp_path, format):
    adata, _ = typed({"B": 0.0, "CD4/CD8": 12.0, "a b": 0.0})
    long = adata.uns["agevi_by_group"]
    long.loc[long["group"].eq("B") & ~long["sample"].isin(["d000", "d040"]), "predicted"] = np.nan
    age_acceleration(adata, by="kind", rng=np.random.default_rng(0), **ARGUMENTS)
    back = stored(adata, format, tmp_path)
    for table in ("groups", "samples"):
        pd.testing.assert_frame_equal(
            get.acceleration_df(back, table), get.acceleration_df(adata, table), check_dtype=False
        )
    assert back.uns["agevi_acceleration_params"]["reference"] == "control"


def test_copy_leaves_the_data_alone():
    adata, _ = planted()
    before = snapshot(adata)
    out = age_acceleration(adata, copy=True, **ARGUMENTS)
    assert snapshot(adata) == before
    assert "agevi_acceleration" in out.uns


def test_the_table_has_to_be_known():
    adata, _ = planted()
    with pytest.raises(KeyError, match=r"run agevi.tl.age_acceleration\(adata, groupby=..., reference=...\) first"):
        get.acceleration_df(adata)
    row_of(adata)
    with pytest.raises(ValueError, match="table='sample' is not known"):
        get.acceleration_df(adata, "sample")


@pytest.mark.realdata
def test_parkinson(data_dir):
    adata = ad.read_h5ad(data_dir / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    agevi.tl.cross_validate(
        adata, agevi.model.PLSClock, age_key="age", subject_key="donor", train_on="group == 'control'",
        setup_kwargs={"normalize": "none", "age_transform": "horvath"},
    )  # fmt: skip
    study = adata[(adata.obs["dataset"] == "GSE111629") & adata.obs["disease"].isin(["Parkinson", "Control"])].copy()
    agevi.tl.aggregate_subjects(study)
    row = row_of(study, groupby="disease", reference="Control", age_df=1, n_permutations=2000)
    assert (row["n"], row["n_reference"], row["flags"]) == (334, 235, "")
    assert 1.0 <= row["difference"] <= 1.8
    assert row["p"] < 0.03
    assert row["p_permutation"] < 0.03
    samples = get.acceleration_df(study, "samples")
    gap = (samples["predicted"] - samples["age"]).groupby(samples["group"])
    assert scipy.stats.ttest_ind(*(part for _, part in gap), equal_var=False).pvalue > 0.05


@pytest.mark.realdata
def test_covid_is_flagged(data_dir):
    adata = ad.read_h5ad(data_dir / "sc_covid_mild_severe_15donors" / "sc_covid_mild_severe_15donors.h5ad")
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    agevi.tl.aggregate_subjects(adata)
    assert row_of(adata, reference="mild")["flags"] == "no_age_signal;trained_on_group;few_subjects"
