"""Whether tl.age_acceleration is honest, and what it finds.

``simulate``: 2,000 cohorts of subjects per scenario, predictions = intercept + slope x (age + planted years) + noise: error rate, coverage
and bias of the difference, Fieller's interval, pairs, the permutation test, ten types of cells; the raw gap beside them.
``rivals``: what a missing covariate, a change of composition, and residuals from the controls' line do where nothing is planted.
``end_to_end``: cohorts of simulate_cohort with planted years, cross-validated with PLSClock trained on controls.
``own_file``: 60 donors of 5 types and 3 batches from a simulator in this file, 26 of them 6 years older than their age.
``real``: Parkinson (GSE111629) with both scales of age, Sotos, islets (HbA1c) and COVID-19.

usage: python benchmarks/acceleration.py [--part simulate rivals end_to_end own_file real] [--data FOLDER] [--cohorts N]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scipy.stats

import agevi
from agevi.tl.acceleration import _ancova

DATA = pathlib.Path(os.environ.get("AGEVI_DATA", pathlib.Path(__file__).parents[2] / "shared" / "data"))
PARTS = ("simulate", "rivals", "end_to_end", "own_file", "real")
CONTROLS = "condition == 'control'"
SHOWN = [
    "difference",
    "low",
    "high",
    "p",
    "p_permutation",
    "slope",
    "slope_t",
    "scaled",
    "scaled_low",
    "scaled_high",
    "raw_gap",
]


# --- subjects alone -------------------------------------------------------------------------------------------------


def cohorts(rng, n_draws, n, m, *, slope=0.6, delta=0.0, shift=10.0, spread=1.0):
    """Designs (n_draws, n + m, 4) with group, age and sex, and predictions (n_draws, n + m)."""
    group = np.tile(np.arange(n + m) >= n, (n_draws, 1)).astype(float)
    age = rng.uniform(30, 70, group.shape) + shift * group
    sex = rng.integers(0, 2, group.shape)
    noise = rng.normal(0, 5, group.shape) * np.where(group > 0, spread, 1)
    x = np.stack([np.ones_like(group), group, age, sex], axis=2)
    return x, 20 + slope * (age + delta * group) + 1.5 * sex + noise


def judged(x, y, truth, cluster=None):
    """Rejected at .05, covered, bias."""
    fitted = _ancova.fit(x, y, cluster)
    estimate, se = fitted.contrast(np.eye(x.shape[2])[1])
    p = _ancova.two_sided(estimate / se, fitted.df)
    covered = np.abs(estimate - truth) <= fitted.quantile(0.95) * se
    return {"rejected": (p < 0.05).mean(), "covered": covered.mean(), "bias": estimate.mean() - truth}


def gap_rejected(x, y):
    """Share of Welch tests of the raw gap below .05."""
    case, gap = x[0, :, 1] > 0, y - x[..., 2]
    return (scipy.stats.ttest_ind(gap[:, case], gap[:, ~case], axis=1, equal_var=False).pvalue < 0.05).mean()


def simulate(n_draws: int = 2000, n_permuted: int = 500) -> None:
    """All scenarios on subjects alone."""
    rng = np.random.default_rng(0)
    rows = []
    for n, m, spread in ((20, 20, 1.0), (50, 50, 1.0), (60, 15, 2.0)):
        for slope in (1.0, 0.6):
            for delta in (0.0, 3.0, 6.0):
                x, y = cohorts(rng, n_draws, n, m, slope=slope, delta=delta, spread=spread)
                row = {"subjects": f"{n}/{m}", "sd of cases": f"x{spread:g}", "slope": slope, "planted": delta}
                row |= judged(x, y, slope * delta) | {"raw gap rejected": gap_rejected(x, y)}
                if delta == 0:
                    few = zip(x[:n_permuted], y[:n_permuted], strict=True)
                    p = np.array([_ancova.permutation_p(xi, yi, 1, 199, rng) for xi, yi in few])
                    row["permutation rejected"] = (p <= 0.05).mean()
                rows.append(row)
    print(f"\n{n_draws} cohorts a row ({n_permuted} for permutations), cases 10 years older")
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    rows = []
    for n in (20, 50, 200):
        for slope in (0.6, 0.3):
            x, y = cohorts(rng, n_draws, n, n, slope=slope, delta=6.0)
            fitted = _ancova.fit(x, y)
            (d, se), (b, se_b) = fitted.contrast(np.eye(4)[1]), fitted.contrast(np.eye(4)[2])
            low, high = _ancova.fieller(d, b, se**2, se_b**2, fitted.cov[:, 1, 2], fitted.quantile(0.95))
            known, bounded = b / se_b >= 4, np.isfinite(low)
            covered = ((low <= 6) & (high >= 6))[known & bounded].mean()
            width = np.median((high - low)[known & bounded])
            rows.append(
                {
                    "subjects": f"{n}/{n}",
                    "slope": slope,
                    "t of slope >= 4": known.mean(),
                    "covered": covered,
                    "width": width,
                }
            )
    print("\nscaled difference, 6 years planted, Fieller's interval where t of the slope is 4 or more")
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    rows = []
    for n in (8, 15, 30):
        for delta in (0.0, 3.0):
            x, y, cluster = pairs(rng, n_draws, n, delta)
            rows.append({"pairs": n, "planted": delta} | judged(x, y, 0.6 * delta, cluster))
            rows[-1]["rejected, rows as subjects"] = judged(x, y, 0.6 * delta)["rejected"]
    print("\npairs, slope .6, jackknife over subjects")
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    false = np.array([types(rng) for _ in range(n_draws)])
    print(
        f"\nten types without a difference, 20/20: any p < .05 in {false[:, 0].mean():.3f}, any adjusted in {false[:, 1].mean():.3f}"
    )


def rivals(n_draws: int = 2000) -> None:
    """What goes wrong without a covariate, without the composition, and with residuals from a line through the controls."""
    rng = np.random.default_rng(1)
    rows = []
    group = np.tile(np.repeat([0.0, 1.0], 50), (n_draws, 1))
    lab = (rng.random(group.shape) < np.where(group > 0, 0.7, 0.3)).astype(float)
    age = rng.uniform(30, 70, group.shape)
    y = 20 + 0.6 * age + 6 * lab + rng.normal(0, 5, group.shape)
    x = np.stack([np.ones_like(group), group, age], axis=2)
    rows.append({"scenario": "two cohorts, 6 years apart, 70/30 and 30/70 cases", **both(x, y, lab[..., None])})
    for n_types in (3, 6):
        group = np.tile(np.repeat([0.0, 1.0], 20), (n_draws, 1))
        age = rng.uniform(30, 70, group.shape) + 5 * group
        log_share = rng.normal(0, 0.5, (*group.shape, n_types))
        log_share[..., -1] += group + 0.02 * (age - 50)
        share = np.exp(log_share) / np.exp(log_share).sum(axis=2, keepdims=True)
        ratio = np.log(share) - np.log(share).mean(axis=2, keepdims=True)
        y = 20 + 0.6 * age + share @ np.linspace(-15, 15, n_types) + rng.normal(0, 4, group.shape)
        x = np.stack([np.ones_like(group), group, age], axis=2)
        rows.append({"scenario": f"disease moves shares of {n_types} types alone", **both(x, y, ratio[..., :-1])})
    for shift in (10.0, 20.0):
        x, y = cohorts(rng, n_draws, 20, 20, shift=shift)
        line = _ancova.fit(x[:, :20][..., [0, 2]], y[:, :20]).beta
        residual = y - (x[..., [0, 2]] @ line[..., None])[..., 0]
        p = scipy.stats.ttest_ind(residual[:, 20:], residual[:, :20], axis=1, equal_var=False).pvalue
        scenario = f"residuals from the controls' line, cases {shift:g} years older"
        rows.append(
            {"scenario": scenario, "p < .05, not adjusted": (p < 0.05).mean(), "adjusted": judged(x, y, 0)["rejected"]}
        )
    print(f"\nwhere nothing is planted, {n_draws} cohorts a row")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


def both(x, y, covariates):
    """Rejected at .05 without and with covariates (n_draws, n, k)."""
    adjusted = judged(np.concatenate([x, covariates], axis=2), y, 0)["rejected"]
    return {"p < .05, not adjusted": judged(x, y, 0)["rejected"], "adjusted": adjusted}


def pairs(rng, n_draws, n, delta):
    """Two visits of each subject up to two years apart."""
    age = rng.uniform(30, 70, (n_draws, n))
    ages = np.concatenate([age, age + rng.uniform(0, 2, age.shape)], axis=1)
    group = np.tile(np.repeat([0.0, 1.0], n), (n_draws, 1))
    own = np.tile(rng.normal(0, 4, age.shape), 2)
    y = 20 + 0.6 * (ages + delta * group) + own + rng.normal(0, 3, ages.shape)
    return np.stack([np.ones_like(group), group, ages], axis=2), y, np.tile(np.arange(n), 2)


def types(rng, n_types=10, n=20):
    """Any p, and any adjusted p, below .05 among correlated types."""
    group, age = np.repeat([0.0, 1.0], n), rng.uniform(30, 70, 2 * n)
    shared = rng.normal(size=(1, 2 * n))
    y = 0.6 * age + 5 * np.sqrt(0.5) * (shared + rng.normal(size=(n_types, 2 * n)))
    fitted = _ancova.fit(np.tile(np.stack([np.ones(2 * n), group, age], axis=1), (n_types, 1, 1)), y)
    estimate, se = fitted.contrast(np.array([0.0, 1.0, 0.0]))
    p = _ancova.two_sided(estimate / se, fitted.df)
    return (p < 0.05).any(), (scipy.stats.false_discovery_control(p) < 0.05).any()


# --- from cells -----------------------------------------------------------------------------------------------------


def older_cases(adata: ad.AnnData, seed: int) -> ad.AnnData:
    """The cohort without many of its old controls and young cases."""
    rng = np.random.default_rng(seed)
    donors = adata.obs.drop_duplicates("donor").set_index("donor")
    place = (donors["age"] - 20) / 70
    keep = np.where(donors["condition"] == "case", place, 1 - place)
    kept = donors.index[rng.random(len(donors)) < 0.25 + 0.75 * keep]
    return adata[adata.obs["donor"].isin(kept)].copy()


def from_cells(planted: float, confounded: bool, seed: int) -> dict[str, object]:
    """One cohort, from cells to the table."""
    adata = agevi.datasets.simulate_cohort(
        100 if confounded else 60, 30, 200, case_fraction=0.4, acceleration=planted, subject_sd=0.08, rng=seed, n_jobs=1
    )
    adata = older_cases(adata, seed) if confounded else adata
    agevi.tl.cross_validate(
        adata, agevi.model.PLSClock, age_key="age", subject_key="donor", train_on=CONTROLS, rng=seed
    )
    agevi.tl.aggregate_subjects(adata)
    arguments = {"covariates": "sex", "n_permutations": 0}
    agevi.tl.age_acceleration(adata, groupby="condition", reference="control", **arguments)
    row, table = agevi.get.acceleration_df(adata).iloc[0], agevi.get.subjects_df(adata)
    case = table["sample"].map(adata.obs.groupby("donor", observed=True)["condition"].first()).eq("case")
    gap = table["predicted"] - table["age"]
    truth = planted * np.polyfit(table["age"][~case], table["predicted"][~case], 1)[0]
    return {
        "planted": planted,
        "ages confounded": confounded,
        "slope x planted": truth,
        **row[["difference", "scaled", "raw_gap"]].to_dict(),
        "p < .05": float(row["p"] < 0.05),
        "gap p < .05": float(scipy.stats.ttest_ind(gap[case], gap[~case], equal_var=False).pvalue < 0.05),
        "covered": float(row["low"] <= truth <= row["high"]),
    }


def end_to_end(n_cohorts: int) -> None:
    """Planted years from cells to the table; for every two cohorts without them, two with them."""
    rows = []
    for seed in range(n_cohorts):
        rows.append(from_cells(0.0, True, seed))
        if seed % 2 == 0:
            rows += [from_cells(6.0, confounded, seed) for confounded in (False, True)]
    summary(pd.DataFrame(rows))


def summary(table: pd.DataFrame) -> None:
    """Print means over cohorts."""
    grouped = table.groupby(["planted", "ages confounded"])
    mean = grouped.mean()
    mean.insert(0, "cohorts", grouped.size())
    mean["se of difference"] = grouped["difference"].sem()
    mean["se of scaled"] = grouped["scaled"].sem()
    print("\nend to end, PLSClock trained on controls; means over cohorts")
    print(mean.round(3).T.to_string())


def own_cohort(planted: float, seed: int, effect: float, of_donors: float, of_batches: float) -> ad.AnnData:
    """60 donors (26 cases), 5 types, 3 batches, 20 to 40 cells of each type, 300 genes; numpy alone.

    In each type 80 genes change exponentially with biological age, half of them in all types; cases are ``planted`` years
    older than their age. Donors, batches and types have effects of their own; counts are negative binomial. ``effect`` is the
    standard deviation of log changes per 20 years, ``of_donors`` and ``of_batches`` those of the log effects of each.
    """
    rng = np.random.default_rng(seed)
    n, n_types, n_genes = 60, 5, 300
    case = rng.permutation(np.arange(n) < 26)
    age = rng.uniform(25, 75, n) + 5 * case
    batch = rng.integers(0, 3, n)
    bio = (age + planted * case - 50) / 20
    base = rng.gamma(0.6, 4.0, n_genes)
    of_type = rng.normal(0, 0.8, (n_types, n_genes))
    of_batch = rng.normal(0, of_batches, (3, n_genes))
    of_donor = rng.normal(0, of_donors, (n, n_genes))
    slopes = np.zeros((n_types, n_genes))
    slopes[:, :40] = rng.normal(0, effect, 40)
    for t in range(n_types):
        slopes[t, 40 + 40 * t : 80 + 40 * t] = rng.normal(0, effect, 40)
    donors, kinds = [], []
    for d in range(n):
        for t in range(n_types):
            size = int(rng.integers(20, 41))
            donors += [d] * size
            kinds += [t] * size
    donors, kinds = np.array(donors), np.array(kinds)
    log_mean = of_type[kinds] + of_batch[batch[donors]] + of_donor[donors] + slopes[kinds] * bio[donors, None]
    mean = base * np.exp(log_mean) * rng.lognormal(0, 0.3, (len(donors), 1))
    counts = rng.poisson(mean * rng.gamma(4.0, 0.25, mean.shape)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "donor": np.char.add("P", (donors + 101).astype(str)),
            "age": age[donors],
            "condition": np.where(case, "case", "control")[donors],
            "batch": np.array(["b1", "b2", "b3"])[batch[donors]],
            "cell_type": np.array(["B", "CD4 T", "CD8 T", "mono", "NK"])[kinds],
        },
        index=[f"cell{i}" for i in range(len(donors))],
    )
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]))


def own_file(n_null: int = 100) -> None:
    """A user's file, six lines of code, and the same without planted years."""
    clear, noisy = (0.2, 0.08, 0.1), (0.08, 0.15, 0.15)
    for sizes, seed in ((clear, 0), (clear, 1), (noisy, 0), (noisy, 1)):
        adata = own_cohort(6.0, seed, *sizes)
        start = time.process_time()
        agevi.tl.cross_validate(
            adata, agevi.model.PLSClock, age_key="age", subject_key="donor", groupby="cell_type", train_on=CONTROLS
        )
        agevi.tl.aggregate_subjects(adata)
        agevi.tl.age_acceleration(adata, groupby="condition", reference="control", covariates="batch", by="cell_type")
        table = agevi.get.acceleration_df(adata)
        took = time.process_time() - start
        table["truth on the scale"] = 6 * table["slope"]
        table["holds"] = table["truth on the scale"].between(table["low"], table["high"])
        shown = [
            "type",
            "n",
            "n_reference",
            "difference",
            "low",
            "high",
            "p",
            "p_permutation",
            "p_adjusted",
            "slope",
            "scaled",
        ]
        print(f"\nown file, sd of effects {sizes}, seed {seed}: {adata.n_obs} cells, {took:.1f} CPU s")
        print(table[[*shown, "truth on the scale", "holds", "flags"]].round(4).to_string(index=False))
        print(table["sentence"].iloc[0], flush=True)
    x, y = cohorts(np.random.default_rng(1), n_null, 34, 26, shift=5.0)
    print(
        f"\nwithout planted years, {n_null} draws of 26 and 34 subjects: p > .05 in {n_null * (1 - judged(x, y, 0.0)['rejected']):.0f}"
    )
    x, y = cohorts(np.random.default_rng(2), 20 * n_null, 34, 26, shift=5.0)
    print(f"the same in {20 * n_null} draws: {1 - judged(x, y, 0.0)['rejected']:.3f}")


# --- real data ------------------------------------------------------------------------------------------------------


def compared(adata: ad.AnnData, name: str, reference: str, *, groupby: str = "condition", **arguments) -> None:
    """Print the rows of a comparison."""
    agevi.tl.age_acceleration(adata, groupby=groupby, reference=reference, **arguments)
    for _, row in agevi.get.acceleration_df(adata).iterrows():
        print(f"{name}: {row['sentence']}")
        print("   " + ", ".join(f"{column} {row[column]:.4g}" for column in SHOWN), flush=True)
    table = agevi.get.subjects_df(adata)
    group = table["sample"].map(adata.obs.groupby("donor", observed=True)[groupby].first().astype(object))
    gap = table["predicted"] - table["age"]
    for other in sorted(set(group.dropna()) - {reference}):
        p = scipy.stats.ttest_ind(gap[group == other], gap[group == reference], equal_var=False).pvalue
        print(f"   raw gap of {other}: Welch p {p:.4f}")


def real(data: pathlib.Path) -> None:
    """Parkinson, Sotos, islets, COVID-19."""
    whole = ad.read_h5ad(data / "dnam_blood_horvath_cpgs" / "dnam_blood_horvath_cpgs.h5ad")
    for transform in ("horvath", "auto"):
        start = time.process_time()
        agevi.tl.cross_validate(
            whole, agevi.model.PLSClock, age_key="age", subject_key="donor", train_on="group == 'control'",
            setup_kwargs={"normalize": "none", "age_transform": transform},
        )  # fmt: skip
        for disease in ("Parkinson", "Sotos"):
            studies = whole.obs["dataset"][whole.obs["disease"] == disease].unique()
            kept = whole.obs["dataset"].isin(studies) & whole.obs["disease"].isin([disease, "Control"])
            part = whole[kept.to_numpy()].copy()
            part.obs["condition"] = part.obs["disease"].astype(str)
            agevi.tl.aggregate_subjects(part)
            name = f"{disease}, age_transform={transform!r}"
            compared(part, name, "Control", age_df=1)
            if disease == "Parkinson":
                compared(part, f"{name}, with sex", "Control", age_df=1, covariates="sex", n_permutations=0)
                compared(part, f"{name}, as by default (cubic), with sex", "Control", covariates="sex")
        print(f"{time.process_time() - start:.0f} CPU s", flush=True)
    adata = ad.read_h5ad(data / "bulk_fadista_islets_77" / "bulk_fadista_islets_77.h5ad")
    adata.var_names_make_unique()
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    agevi.tl.aggregate_subjects(adata)
    compared(adata, "islets", "Normal", groupby="hba1c_class", n_permutations=0)
    adata.obs["condition"] = np.where(adata.obs["hba1c_class"] == "Normal", "normal", "raised HbA1c")
    compared(adata, "islets", "normal")
    adata = ad.read_h5ad(data / "sc_covid_mild_severe_15donors" / "sc_covid_mild_severe_15donors.h5ad")
    agevi.tl.cross_validate(adata, agevi.model.PLSClock, age_key="age", subject_key="donor")
    agevi.tl.aggregate_subjects(adata)
    compared(adata, "COVID-19", "mild")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--cohorts", type=int, default=100, help="cohorts end to end without planted years")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    agevi.settings.verbosity = 0
    for part in arguments.part:
        start = time.process_time()
        if part == "simulate":
            simulate()
        elif part == "rivals":
            rivals()
        elif part == "end_to_end":
            end_to_end(arguments.cohorts)
        elif part == "own_file":
            own_file()
        else:
            real(arguments.data)
        print(f"{part}: {time.process_time() - start:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main()
