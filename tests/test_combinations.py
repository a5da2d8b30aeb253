"""Random combinations of what people's files and notebooks hold: the result is that of the plain case, or an error of agevi's own.

A few hundred run as a test; ``python tests/test_combinations.py 3000`` runs more and counts.
"""

from __future__ import annotations

import functools
import itertools
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import agevi
from agevi import model as m

N_SUBJECTS, N_CELLS, N_GENES = 12, 5, 24
KEYS = {"age_key": "age", "subject_key": "donor"}
NETWORK = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}
SMALL: dict[Any, dict[str, Any]] = {
    m.PoissonVAE: {"n_hidden": [8], "n_latent": 2, "n_head": [4]},
    m.GaussianVAE: {"n_hidden": [8], "n_latent": 2, "n_head": [4]},
    m.DenoisingVAE: {"n_hidden": [8], "n_latent": 2, "n_head": [4]},
    m.ElasticNetClock: {"n_folds": 2},
    m.PLSClock: {"n_folds": 2},
    m.MLPClock: {"n_hidden": [8]},
    m.NMFClock: {"n_components": 2, "n_hidden": [4]},
    m.TransformerClock: {"n_tokens": 2, "n_token": 4, "n_heads": 2, "n_layers": 1},
}
TOLERANCE = 0.05  # years; X as float16 or text must not move an age


# --- what a column of ids, a column of ages and a matrix may look like: a function of the plain one ------------------

IDS: dict[str, Callable[[np.ndarray], Any]] = {
    "text": lambda i: i.astype(str).astype(object),
    "int64": lambda i: i,
    "int8": lambda i: i.astype(np.int8),
    "uint16": lambda i: i.astype(np.uint16),
    "float64": lambda i: i.astype(float),
    "float32": lambda i: i.astype(np.float32),
    "nullable int": lambda i: pd.array(i, dtype="Int64"),
    "nullable text": lambda i: pd.array(i.astype(str), dtype="string"),
    "category of text": lambda i: pd.Categorical(i.astype(str)),
    "category of int": lambda i: pd.Categorical(i),
    "category of float": lambda i: pd.Categorical(i.astype(float)),
    "category with more": lambda i: pd.Categorical(i.astype(str), [*map(str, range(50))]),
    "bytes": lambda i: np.array([str(x).encode() for x in i], dtype=object),
    "numpy text": lambda i: pd.Series([np.str_(x) for x in i], dtype=object).to_numpy(),
    "text of floats": lambda i: i.astype(float).astype(str).astype(object),
    "mixed": lambda i: np.array([[int, float, str][k % 3](x) for k, x in enumerate(i)], dtype=object),
}
AGES: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda a: a,
    "float32": lambda a: a.astype(np.float32),
    "int64": lambda a: a.astype(np.int64),
    "uint8": lambda a: a.astype(np.uint8),
    "nullable int": lambda a: pd.array(a.astype(int), dtype="Int64"),
    "nullable float": lambda a: pd.array(a, dtype="Float64"),
    "object": lambda a: a.astype(object),
    "text": lambda a: a.astype(int).astype(str).astype(object),
    "category": lambda a: pd.Categorical(a.astype(int).astype(str)),
}
AGES_REFUSED = {"object", "text", "category"}  # numbers that are not stored as such: agevi.pp.parse_age
FORMATS: dict[str, Callable[[sp.csr_matrix], Any]] = {
    "csr": lambda x: x,
    "csr float64": lambda x: x.astype(np.float64),
    "csr int": lambda x: x.astype(np.int64),
    "csr uint8": lambda x: x.astype(np.uint8),
    "csc": lambda x: x.tocsc(),
    "csr_array": sp.csr_array,
    "dense": lambda x: x.toarray(),
    "dense int16": lambda x: x.toarray().astype(np.int16),
    "fortran": lambda x: np.asfortranarray(x.toarray()),
    "float16": lambda x: x.toarray().astype(np.float16),
    "object": lambda x: x.toarray().astype(object),
    "big-endian": lambda x: x.toarray().astype(">f4"),
    "unsorted": lambda x: _unsorted(x),
    "explicit zeros": lambda x: _with_zeros(x),
    "missing": lambda x: np.where(np.arange(x.shape[1]) == 3, np.nan, x.toarray()),
    "negative": lambda x: x.toarray() - 1,
}
FORMATS_REFUSED = {"object", "float16", "big-endian", "missing", "negative"}
ORDERS = (
    "plain",
    "another set-up before training",
    "another class set up before training",
    "another model trained in between",
    "obs replaced before training",
    "columns added before training",
    "set up twice",
    "saved and loaded",
    "predicted in another order",
    "genes in another order",
    "written and read",
    "backed",
    "view",
    "ids of another type",
    "no ages",
    "subset of cells",
    "cross-validated",
)


def _unsorted(x: sp.csr_matrix) -> sp.csr_matrix:
    """The same values with the columns of each row backwards."""
    out = x.copy()
    for start, end in itertools.pairwise(out.indptr):
        out.indices[start:end], out.data[start:end] = out.indices[start:end][::-1], out.data[start:end][::-1]
    out.has_sorted_indices = False
    return out


def _with_zeros(x: sp.csr_matrix) -> sp.csr_matrix:
    """The same values with a stored zero in every column of the first row."""
    out = x.tolil()
    row = out[0].toarray().ravel()
    dense = sp.csr_matrix((row, (np.zeros(len(row), int), np.arange(len(row)))), shape=(1, len(row)))
    return sp.vstack([dense, x[1:]]).tocsr()


# --- the cohort and its plain result -------------------------------------------------------------------------------


@functools.cache
def plain() -> ad.AnnData:
    """Counts of twelve subjects; ages are whole, ids numbers from 1."""
    adata = agevi.datasets.simulate_cohort(N_SUBJECTS, N_CELLS, N_GENES, library_size=200, rng=5)
    number = adata.obs["donor"].cat.codes.to_numpy() + 1
    obs = pd.DataFrame(
        {
            "donor": number.astype(str),
            "age": np.round(adata.obs["age"].to_numpy(float)),
            "role": np.where(number % 4 == 0, "test", np.where(number % 5 == 0, "validation", "train")),
            "batch": (np.arange(len(number)) % 2).astype(str),
        },
        index=adata.obs_names,
    )
    obs["other age"] = 110 - obs["age"]
    obs["other donor"] = "o" + (number % 6).astype(str)
    obs["other role"] = np.where(number % 6 == 0, "test", "train")
    obs["other age"] = 30.0 + 5 * (number % 6)
    return ad.AnnData(sp.csr_matrix(adata.X), obs=obs, var=pd.DataFrame(index=adata.var_names))


def make(ids: str, ages: str, form: str) -> ad.AnnData:
    """The cohort in another form."""
    base = plain()
    adata = ad.AnnData(FORMATS[form](base.X), obs=base.obs.copy(), var=base.var.copy())
    adata.obs["donor"] = pd.Series(IDS[ids](base.obs["donor"].astype(int).to_numpy()), index=adata.obs_names)
    adata.obs["age"] = pd.Series(AGES[ages](base.obs["age"].to_numpy()), index=adata.obs_names)
    return adata


def fit(cls: Any, adata: ad.AnnData, **setup: Any) -> Any:
    """A small trained clock."""
    cls.setup_anndata(adata, **KEYS | setup)
    return trained(cls(adata, **SMALL[cls]), "other role" if setup else "role")


def trained(clock: Any, split_key: str = "role") -> Any:
    """The clock after one epoch."""
    clock.train(split_key=split_key, **training(type(clock)))
    return clock


def training(cls: Any) -> dict[str, Any]:
    """Arguments of ``train`` that are the same for all."""
    return {} if cls in (m.PLSClock, m.ElasticNetClock) else NETWORK


@functools.cache
def expected(cls: Any) -> pd.DataFrame:
    """Predicted age and role of every cell in the plain case."""
    return predictions(plain().copy(), fit(cls, plain().copy()))


@functools.cache
def expected_out_of_fold(cls: Any) -> pd.DataFrame:
    """The same from a cross-validation."""
    return out_of_fold(plain().copy(), cls)


def out_of_fold(adata: ad.AnnData, cls: Any) -> pd.DataFrame:
    """Predicted age and fold of every cell."""
    agevi.tl.cross_validate(
        adata, cls, **KEYS, n_folds=2, model_kwargs=SMALL[cls] | {"rng": 0}, train_kwargs=training(cls)
    )
    return seen(adata, "agevi_fold")


def predictions(adata: ad.AnnData, clock: Any) -> pd.DataFrame:
    """What a user sees: age and role per cell, and the table of subjects."""
    agevi.tl.predict_age(adata, clock)
    return seen(adata, "agevi_role")


def seen(adata: ad.AnnData, column: str) -> pd.DataFrame:
    """Predicted age and another column of every cell, after the table of subjects was checked."""
    agevi.tl.aggregate_subjects(adata)
    table = agevi.get.subjects_df(adata).set_index("subject")
    donor = pd.Index([str(s) for s in table.index])
    assert set(donor) == set(plain().obs["donor"][plain().obs_names.isin(adata.obs_names)]), sorted(donor)
    return pd.DataFrame(
        {"age": adata.obs["agevi_predicted"].astype(float), "role": adata.obs[column].astype(str)},
        index=adata.obs_names,
    )


def run(cls: Any, ids: str, ages: str, form: str, order: str, rng: np.random.Generator) -> pd.DataFrame:
    """One notebook."""
    adata = make(ids, ages, form)
    if order == "cross-validated":
        return out_of_fold(adata, cls)
    cls.setup_anndata(adata, **KEYS)
    if order == "set up twice":
        cls.setup_anndata(adata, **KEYS)
    clock = cls(adata, **SMALL[cls])
    between(cls, adata, order, rng)
    trained(clock)
    with tempfile.TemporaryDirectory() as folder:
        if order == "saved and loaded":
            clock.save(Path(folder) / "clock")
            clock = agevi.io.load_clock(Path(folder) / "clock")
        data = to_predict(adata, order, Path(folder) / "x.h5ad", rng)
        found = predictions(data, clock)
        if data.isbacked:
            data.file.close()
    return found


def between(cls: Any, adata: ad.AnnData, order: str, rng: np.random.Generator) -> None:
    """What happens between making a clock and training it."""
    other = [c for c in SMALL if c is not cls][rng.integers(len(SMALL) - 1)]
    if order == "another set-up before training":
        cls.setup_anndata(adata, age_key="other age", subject_key="other donor")
        cls(adata, **SMALL[cls])
    elif order == "another class set up before training":
        other.setup_anndata(adata, age_key="other age", subject_key="other donor", batch_key="batch")
    elif order == "another model trained in between":
        fit(other, adata, age_key="other age", subject_key="other donor", sample_key="other donor")
    elif order == "obs replaced before training":
        adata.obs = adata.obs[[*KEYS.values(), "role"]].copy()
    elif order == "columns added before training":
        adata.obs["new"] = 1.0
        adata.obs = adata.obs[sorted(adata.obs.columns)]


def to_predict(adata: ad.AnnData, order: str, path: Path, rng: np.random.Generator) -> ad.AnnData:
    """The data that are predicted."""
    if order == "predicted in another order":
        return adata[rng.permutation(adata.n_obs)].copy()
    if order == "genes in another order":
        return adata[:, rng.permutation(adata.n_vars)].copy()
    if order in ("written and read", "backed"):
        plain().copy().write_h5ad(path)
        return ad.read_h5ad(path, backed="r" if order == "backed" else None)
    if order == "view":
        return adata[:]
    if order == "ids of another type":
        return make([*IDS][rng.integers(len(IDS))], "float64", "csr")
    if order == "no ages":
        data = adata.copy()
        del data.obs["age"]
        return data
    if order == "subset of cells":
        return adata[np.isin(plain().obs["donor"], ["1", "4", "7"])].copy()
    return adata


def verdict(cls: Any, ids: str, ages: str, form: str, order: str, rng: np.random.Generator) -> str:
    """``"same"``, ``"refused"``, or what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = run(cls, ids, ages, form, order, rng)
        except Exception as error:
            frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
            text = str(error.args[0]) if error.args else str(error)
            if "agevi" not in Path(frames[-1]).parts or "\n" in text or "_scvi" in text:
                return f"foreign {type(error).__name__} from {Path(frames[-1]).name}: {text[:120]}"
            if ages in AGES_REFUSED or form in FORMATS_REFUSED:
                return "refused"
            return f"needless refusal: {text[:160]}"
    counts = form == "negative" and cls is not m.TransformerClock  # which reads any values
    if form == "missing" or counts or ages in ("text", "category"):
        return "read what is not a count or an age"
    if form == "negative":
        return "same"
    want = (expected_out_of_fold if order == "cross-validated" else expected)(cls).loc[found.index]
    if (found["role"] != want["role"]).any():
        return f"other roles: {Counter(zip(found['role'], want['role'], strict=True))}"
    apart = float((found["age"] - want["age"]).abs().max())
    return "same" if apart <= TOLERANCE else f"ages differ by {apart:.2f} years"


def draw(n: int, seed: int) -> list[tuple[Any, str, str, str, str]]:
    """Random combinations, each option about equally often, those that are refused a quarter as often."""
    rng = np.random.default_rng(seed)
    ages = [a for a in AGES for _ in range(1 if a in AGES_REFUSED else 4)]
    formats = [f for f in FORMATS for _ in range(1 if f in FORMATS_REFUSED else 4)]
    options = ([*SMALL], [*IDS], ages, formats, [*ORDERS])
    columns = []
    for of in options:
        times = rng.permutation(np.resize(rng.permutation(len(of)), n))
        columns.append([of[i] for i in times])
    return [*zip(*columns, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_combinations_equal_the_plain_case_or_are_refused_in_our_words(part):
    rng = np.random.default_rng(part)
    bad = {}
    for cls, *rest in draw(24, seed=part):
        found = verdict(cls, *rest, rng)
        if found not in ("same", "refused"):
            bad[cls.__name__, *rest] = found
    assert not bad


def main() -> None:
    """Count what many combinations give."""
    n, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    agevi.settings.verbosity = 0
    rng, counts, bad = np.random.default_rng(seed), Counter(), Counter()
    for cls, *rest in draw(n, seed):
        found = verdict(cls, *rest, rng)
        counts[found if found in ("same", "refused") else "wrong"] += 1
        if found not in ("same", "refused"):
            bad[found] += 1
            print(cls.__name__, *rest, found, sep=" | ", flush=True)  # noqa: T201
    print(f"{n} combinations: {dict(counts)}")  # noqa: T201
    sys.exit(int(counts["wrong"] > 0))


if __name__ == "__main__":
    main()
