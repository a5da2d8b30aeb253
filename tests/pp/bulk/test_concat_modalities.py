from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agevi import pp
from agevi.pp.bulk import _values
from tests.files import stored
from tests.test_gates import check_message, snapshot


def samples(n, features, modality, name, scale=1.0):
    """Uniform values with a column of everything."""
    rng = np.random.default_rng(n)
    obs = pd.DataFrame(index=[f"{name}{i}" for i in range(n)])
    obs["donor"] = [f"d{i}" for i in range(n)]  # the same persons in all data sets
    obs["age"] = rng.uniform(20, 80, n).astype(np.float32)
    obs["tissue"] = pd.Categorical([name] * n)
    obs["modality"] = modality
    x = (scale * rng.uniform(0.1, 0.9, (n, len(features)))).astype(np.float32)
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=features))


@pytest.fixture
def sets():
    return {
        "blood": samples(8, ["A", "B", "C"], "methylation", "blood"),
        "brain": samples(5, ["C", "D", "A"], "methylation", "brain"),
        "muscle": samples(6, ["B", "E"], "expression", "muscle", scale=9.0),
    }


def expected(sets, names):
    """The union by pandas, 0 where a data set lacks a feature, and the mask."""
    frames = {k: a.to_df().set_axis(names[k], axis=1) for k, a in sets.items()}
    mask = pd.DataFrame({k: pd.Series(True, index=f.columns) for k, f in frames.items()})
    return pd.concat(frames.values()).fillna(0), mask.notna()


NAMES = {
    True: {
        "blood": ["methylation:A", "methylation:B", "methylation:C"],
        "brain": ["methylation:C", "methylation:D", "methylation:A"],
        "muscle": ["expression:B", "expression:E"],
    },
    False: {"blood": ["A", "B", "C"], "brain": ["C", "D", "A"], "muscle": ["B", "E"]},
}


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_equals_pandas(sets, prefix, form, monkeypatch):
    monkeypatch.setattr(_values, "_BLOCK", 7)  # a few rows at a time
    values, mask = expected(sets, NAMES[prefix])
    for adata in sets.values():
        adata.X = form(adata.X)
    before = {k: snapshot(a) for k, a in sets.items()}
    out = pp.concat_modalities(sets, subject_key="donor", prefix=prefix)
    assert {k: snapshot(a) for k, a in sets.items()} == before
    np.testing.assert_array_equal(out.to_df()[values.columns], values)
    assert out.X.dtype == np.float32
    assert isinstance(out.X, np.ndarray)
    got = pd.DataFrame(out.varm["agevi_measured"], index=out.var_names, columns=list(out.uns["agevi_measured"]["sets"]))
    assert got.to_numpy().dtype == bool
    pd.testing.assert_frame_equal(got.loc[mask.index], mask, check_names=False)
    assert out.uns["agevi_measured"]["key"] == "agevi_feature_set"
    assert out.obs["agevi_feature_set"].tolist() == ["blood"] * 8 + ["brain"] * 5 + ["muscle"] * 6
    assert out.obs["modality"].tolist() == ["methylation"] * 13 + ["expression"] * 6
    assert out.obs["donor"].nunique() == 8  # the name is the person
    np.testing.assert_array_equal(out.obs["age"], np.concatenate([a.obs["age"] for a in sets.values()]))
    assert out.var["feature"].tolist() == [name.split(":")[-1] for name in out.var_names]
    both = {} if prefix else {"B": "methylation;expression"}
    assert {n: m for n, m in out.var["modality"].items() if ";" in m} == both


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_survives_subsets_and_files(sets, tmp_path, kind):
    out = pp.concat_modalities(sets)
    part = out[[15, 2, 17], ["expression:E", "methylation:C"]].copy()
    back = stored(part, kind, tmp_path)
    np.testing.assert_array_equal(back.varm["agevi_measured"], [[False, False, True], [True, True, False]])
    assert list(back.uns["agevi_measured"]["sets"]) == ["blood", "brain", "muscle"]
    column = [list(back.uns["agevi_measured"]["sets"]).index(k) for k in back.obs[back.uns["agevi_measured"]["key"]]]
    np.testing.assert_array_equal(back.varm["agevi_measured"][:, column].T, back.X != 0)  # no value is 0


def test_a_list_and_modalities_by_argument(sets):
    muscle = sets["muscle"].copy()
    del muscle.obs["modality"]
    out = pp.concat_modalities([sets["blood"], muscle], modalities={"1": "rna"})
    assert out.obs["modality"].cat.categories.tolist() == ["methylation", "rna"]
    assert list(out.uns["agevi_measured"]["sets"]) == ["0", "1"]


def test_layers_of_some(sets):
    sets["brain"].layers["m"] = sets["brain"].X.copy()
    sets["brain"].X = sets["brain"].X * 6 - 3
    out = pp.concat_modalities(sets, layer={"brain": "m"})
    np.testing.assert_array_equal(out[8:13, "methylation:D"].X.ravel(), sets["brain"].layers["m"][:, 1])
    loose = pp.concat_modalities(sets, betas=())  # M values beside betas are then the user's affair
    np.testing.assert_array_equal(loose[8:13, "methylation:D"].X.ravel(), sets["brain"].X[:, 1])


def test_columns_of_obs(sets):
    sets["blood"].obs["smoker"] = True
    sets["brain"].obs["age"] = sets["brain"].obs["age"].astype(int)
    sets["muscle"].obs["tissue"] = [1.5, np.nan, 2, 3, 4, 5]  # numbers in one, text in the others
    sets["brain"].obs["batch"], sets["muscle"].obs["batch"], sets["blood"].obs["batch"] = 1, 2, np.nan
    out = pp.concat_modalities(sets)
    assert "smoker" not in out.obs
    assert out.obs["age"].dtype == out.obs["batch"].dtype == np.float64
    assert out.obs["tissue"].dtype == "category"
    assert out.obs["tissue"].isna().sum() == 1
    assert out.obs["tissue"].iloc[-1] == "5"
    few = pp.concat_modalities(sets, obs_keys="age", subject_key="donor", betas="methylation")
    assert few.obs.columns.tolist() == ["age", "donor", "modality", "agevi_feature_set"]


def test_names_of_samples_made_unique(sets):
    sets["brain"].obs_names = sets["blood"].obs_names[:5]
    out = pp.concat_modalities(sets, index_unique="@")
    assert out.obs_names[[0, 8]].tolist() == ["blood0@blood", "blood0@brain"]


def test_persons_in_several_data_sets_are_counted(sets, caplog):
    with caplog.at_level("INFO", logger="agevi"):
        pp.concat_modalities(sets, subject_key="donor")
    assert "6 of 8 subjects are in more than one data set" in caplog.text


def test_one_sample_to_predict(sets):
    one = sets["muscle"][[0]].copy()
    out = pp.concat_modalities({"new": one}, min_samples=1)
    assert out.var_names.tolist() == ["expression:B", "expression:E"]
    assert out.varm["agevi_measured"].tolist() == [[True], [True]]


def nan(s):
    s["brain"].X[1, 2] = np.nan


def several(s):
    s["brain"].obs["modality"] = ["methylation"] * 4 + ["expression"]


def no_subject(s):
    s["muscle"].obs["donor"] = [None, *"abcde"]


CASES = {
    "betas": (lambda s: setattr(s["brain"], "X", s["brain"].X * 2), {}, ValueError, "check how the data were read"),
    "M values": (lambda s: setattr(s["brain"], "X", s["brain"].X * 6 - 3), {}, ValueError, "data set 'brain': adata.X has values outside [0, 1]"),
    "NaN": (nan, {}, ValueError, "the mask shows only features that a whole data set lacks"),
    "one sample": (lambda s: s.update(muscle=s["muscle"][[0]]), {}, ValueError, "modality 'expression' has 1 sample, and at least 2"),
    "no modality": (lambda s: s["brain"].obs.pop("modality"), {}, KeyError, "data set 'brain': modality_key='modality' is not a column"),
    "two modalities": (several, {}, ValueError, "holds 2 modalities ('methylation', 'expression')"),
    "unknown set": (None, {"modalities": {"heart": "rna"}}, ValueError, "modalities names 'heart', which is not a data set"),
    "unknown layer": (None, {"layer": "beta"}, KeyError, "data set 'blood': layer='beta' is not in adata.layers"),
    "missing column": (lambda s: s["muscle"].obs.pop("age"), {"obs_keys": ["age"]}, KeyError, "data set 'muscle': obs_keys='age' is not a column"),
    "missing subject column": (lambda s: s["muscle"].obs.pop("donor"), {"subject_key": "donor"}, KeyError, "data set 'muscle': subject_key='donor'"),
    "missing subject": (no_subject, {"subject_key": "donor"}, ValueError, "must name every cell's unit"),
    "repeated names": (lambda s: setattr(s["brain"], "obs_names", s["blood"].obs_names[:5]), {}, ValueError, "5 names of samples occur in two data sets"),
    "repeated features": (lambda s: setattr(s["brain"], "var_names", ["A", "A", "B"]), {}, ValueError, "data set 'brain': adata.var_names has 1 repeated"),
    "no data sets": (lambda s: s.clear(), {}, ValueError, "adatas is empty"),
    "no AnnData": (lambda s: s.update(brain=s["brain"].to_df()), {}, TypeError, "data set 'brain': adata is a DataFrame"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_errors(sets, case):
    change, arguments, error, words = CASES[case]
    if change:
        change(sets)
    with pytest.raises(error) as raised:
        pp.concat_modalities(sets, **arguments)
    check_message(raised, words)


def test_a_single_anndata_is_refused(sets):
    with pytest.raises(TypeError) as raised:
        pp.concat_modalities(sets["blood"])
    check_message(raised, "pass the data sets by name")


@pytest.mark.realdata
def test_all_real_bulk_sets(data_dir):
    files = {
        "ba11": "bulk_ba11_brain_146/bulk_ba11_brain_146",
        "cd4": "pb_tcells_cd4/cd4t_donors",
        "islets": "bulk_fadista_islets_77/bulk_fadista_islets_77",
        "blood": "dnam_blood_horvath_cpgs/dnam_blood_horvath_cpgs",
        "carpentries": "dnam_carpentries_37/dnam_carpentries_37",
        "cortex": "dnam_cortex_38/gse88890_cortex",
    }
    sets = {k: ad.read_h5ad(data_dir / f"{f}.h5ad") for k, f in files.items()}
    modalities = {k: "expression" if k in ("ba11", "cd4", "islets") else "methylation" for k in sets}
    arguments = {"modalities": modalities, "subject_key": "donor", "obs_keys": ["age"]}
    with pytest.raises(ValueError, match="data set 'carpentries': adata.X has values outside .* as M values do"):
        pp.concat_modalities(sets, **arguments)
    out = pp.concat_modalities(sets, **arguments, layer={"carpentries": "beta"})
    assert out.n_obs == sum(a.n_obs for a in sets.values())
    assert out.varm["agevi_measured"].sum(0).tolist() == [a.n_vars for a in sets.values()]
    for name, start in zip(sets, np.cumsum([0, *(a.n_obs for a in sets.values())]), strict=False):
        values = sets[name].layers["beta"] if name == "carpentries" else sets[name].X
        columns = [f"{modalities[name]}:{n}" for n in sets[name].var_names[:50]]
        part = out[start : start + sets[name].n_obs, columns].X
        np.testing.assert_array_equal(part, values[:, :50].toarray() if sp.issparse(values) else values[:, :50])
