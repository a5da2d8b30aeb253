"""The one way in which labels are read and compared."""

from __future__ import annotations

import datetime
import io
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi import _names

SEVEN = [
    pytest.param(7, id="int"),
    pytest.param(7.0, id="float"),
    pytest.param("7", id="text"),
    pytest.param("7.0", id="text-of-a-float"),
    pytest.param(np.int8(7), id="int8"),
    pytest.param(np.uint64(7), id="uint64"),
    pytest.param(np.float16(7), id="float16"),
    pytest.param(np.float32(7), id="float32"),
    pytest.param(np.str_("7"), id="numpy-text"),
    pytest.param(b"7", id="bytes"),
    pytest.param(np.bytes_(b"7.0"), id="numpy-bytes"),
    pytest.param(np.array(7.0), id="array-without-axes"),
    pytest.param(Decimal("7.0"), id="decimal"),
]
KEPT = ["007", " 7", "7 ", "1e3", "nan", "NaN", "None", "True", "", "7.00", "07.0", "7.0.0", "v7.0", "-", "D1", "9007199254740993"]  # fmt: skip


@pytest.mark.parametrize("value", SEVEN)
def test_seven_has_one_name_in_every_type(value):
    assert _names.name(value) == "7"


@pytest.mark.parametrize("text", KEPT)
def test_other_text_is_kept_as_it_is(text):
    assert _names.name(text) == text
    assert _names.name(text.encode()) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(2**53 + 1, "9007199254740993", id="int-beyond-floats"),
        pytest.param(np.uint64(2**64 - 1), "18446744073709551615", id="largest-uint64"),
        pytest.param(1e15, "1000000000000000", id="large-float"),
        pytest.param(1e300, "1e+300", id="float-beyond-columns"),
        pytest.param(-0.0, "0", id="negative-zero"),
        pytest.param(-3.0, "-3", id="negative"),
        pytest.param(0.1, "0.1", id="fraction"),
        pytest.param(np.float32(0.1), "0.1", id="float32-fraction"),
        pytest.param(True, "True", id="true"),
        pytest.param(np.False_, "False", id="numpy-false"),
        pytest.param(float("inf"), "inf", id="infinite"),
        pytest.param("0.0", "0", id="text-of-zero"),
        pytest.param("Zoë".encode(), "Zoë", id="utf-8"),
        pytest.param(b"\xff1", "\\xff1", id="bytes-that-are-no-utf-8"),
        pytest.param(pd.Timestamp("2024-01-31"), "2024-01-31", id="day"),
        pytest.param(datetime.date(2024, 1, 31), "2024-01-31", id="date"),
        pytest.param(pd.Timestamp("2024-01-31 12:30"), "2024-01-31 12:30:00", id="time"),
    ],
)
def test_name_of_other_types(value, expected):
    assert _names.name(value) == expected


def columns(values: list[int]) -> dict[str, pd.Series]:
    """The same ids in the types that columns have."""
    ids = pd.Series(values)
    text = ids.astype(str)
    return {
        "int64": ids,
        "int8": ids.astype("int8"),
        "float64": ids.astype(float),
        "float32": ids.astype("float32"),
        "Int64": ids.astype("Int64"),
        "Float64": ids.astype("Float64"),
        "object-text": text.astype(object),
        "string": text.astype("string"),
        "text-of-floats": ids.astype(float).astype(str),
        "category-of-int": ids.astype("category"),
        "category-of-float": ids.astype(float).astype("category"),
        "category-of-text": text.astype("category"),
        "category-of-string": text.astype("string").astype("category"),
        "reversed-category": pd.Series(pd.Categorical(ids, categories=sorted(set(values), reverse=True))),
        "bytes": pd.Series([str(v).encode() for v in values], dtype=object),
        "mixed": pd.Series([(v, str(v), float(v))[i % 3] for i, v in enumerate(values)], dtype=object),
    }


VALUES = [10, 2, 10, 1, 1, 2, 33]


@pytest.mark.parametrize("kind", columns(VALUES))
def test_columns_of_every_type_have_the_same_names(kind):
    values = columns(VALUES)[kind].set_axis(list("abcdefg"))
    found = _names.names(values, "ids")
    assert found.tolist() == [str(v) for v in VALUES]
    assert found.index.tolist() == list("abcdefg") and found.dtype == object


@pytest.mark.parametrize("kind", ["float64", "Int64", "object-text", "string", "category-of-int", "category-of-text", "mixed"])  # fmt: skip
def test_missing_labels_stay_missing(kind):
    values = columns(VALUES)[kind].copy()
    values.iloc[[0, 3]] = None
    found = _names.names(values, "ids")
    assert found.isna().tolist() == [True, False, False, True, False, False, False]
    assert found.dropna().tolist() == ["2", "10", "1", "2", "33"]


def test_booleans_are_no_numbers_even_in_one_column():
    values = pd.Series([1, True, 1.0, "True", 0, False, None], dtype=object)
    assert _names.names(values, "ids").tolist()[:-1] == ["1", "True", "1", "True", "0", "False"]
    nullable = pd.Series([True, None, False], dtype="boolean")
    assert _names.names(nullable, "ids").tolist() == ["True", pytest.approx(np.nan, nan_ok=True), "False"]


@pytest.mark.parametrize("as_type", [object, "category", "string"])
def test_one_name_in_two_spellings_is_refused(as_type):
    values = pd.Series(["1", "1.0", "2"]).astype(as_type)
    with pytest.raises(ValueError, match="has both '1' and '1.0' as text"):
        _names.names(values, "adata.obs['donor']")
    kept = values[values != "1"]  # an unused category is no label
    assert _names.names(kept, "adata.obs['donor']").tolist() == ["1", "2"]


def test_a_table_read_again_has_the_same_names():
    ids = pd.DataFrame({"whole": [3, 1], "met_nan": [3.0, np.nan], "text": ["a", "007"]})
    again = pd.read_csv(io.StringIO(ids.to_csv(index=False)), dtype=str)
    for column in ids:
        expected = _names.names(ids[column], column)
        pd.testing.assert_series_equal(_names.names(again[column], column), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(pd.Series([10, 9, 1]), ["1", "9", "10"], id="numbers"),
        pytest.param(pd.Series(["10", "9", "1"]), ["1", "9", "10"], id="numbers-as-text"),
        pytest.param(pd.Series(["b", "10", "a", None]), ["10", "a", "b"], id="text"),
        pytest.param(pd.Series(pd.Categorical([1, 3, 1], categories=[3, 2, 1])), ["3", "1"], id="categories-in-use"),
    ],
)
def test_order_of_levels(values, expected):
    assert _names.levels(values, "groups") == expected


@pytest.mark.parametrize(
    ("new", "known"),
    [
        pytest.param("01", "1", id="zeros"),
        pytest.param("D007", "d7", id="zeros-and-case"),
        pytest.param("d1 ", "d1", id="space-behind"),
        pytest.param("donor 1", "Donor1", id="space-within"),
        pytest.param("1.00", "1", id="point"),
        pytest.param("00", "0", id="only-zeros"),
    ],
)
def test_lookalikes(new, known):
    assert _names.lookalikes([new, "other"], [known]) == [(new, known)]
    assert _names.lookalikes([known], [new]) == [(known, new)]
    assert _names.lookalikes([new, known], [known]) == []  # the data tell the two apart
    assert _names.twins([known, "other", new, known]) == [(new, known)]
    assert _names.twins([known, "other", known]) == []


@pytest.mark.parametrize(("new", "known"), [("10", "1"), ("1.05", "1.5"), ("d1", "e1"), ("1", "-1"), ("100", "1")])
def test_different_names_are_no_lookalikes(new, known):
    assert _names.lookalikes([new], [known]) == []


def test_names_take_no_time():
    """A million cells, by the number of calls for a single label."""
    calls = 0
    original = _names.name

    def counted(value):
        nonlocal calls
        calls += 1
        return original(value)

    values = pd.Series(np.arange(100_000) % 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_names, "name", counted)
        for column in (values, values.astype(float), values.astype(str), values.astype("category")):
            _names.names(column, "ids")
    assert calls == 4 * 50


# --- in clocks ---------------------------------------------------------------------------------------------------


def with_ids(cohort, kind):
    """The cohort with ids of donors and batches in some type."""
    out = cohort.copy()
    for key, of in (("donor", "donor"), ("batch", "batch")):
        code = pd.factorize(out.obs[of], sort=True)[0] + 1
        out.obs[key] = (
            columns(code.tolist())[kind].to_numpy()
            if kind in ("mixed", "bytes")
            else columns(code.tolist())[kind].array
        )
    return out


KINDS = ["float64", "Int64", "object-text", "string", "text-of-floats", "category-of-int", "category-of-float", "category-of-text", "reversed-category", "bytes", "mixed"]  # fmt: skip


@pytest.fixture(scope="module")
def plain(_cohort):
    """A clock that reads its batch, trained on integer ids."""
    return fitted(with_ids(_cohort, "int64"))


def fitted(adata):
    agevi.model.PoissonVAE.setup_anndata(adata, age_key="age", subject_key="donor", batch_key="batch", categorical_covariate_keys=["sex"])  # fmt: skip
    clock = agevi.model.PoissonVAE(adata, n_hidden=[8], n_latent=3, n_head=[4], encode_covariates=True)
    clock.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return clock


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_reads_the_same_ids_in_every_type(plain, _cohort, kind):
    adata = with_ids(_cohort, kind)
    expected = with_ids(_cohort, "int64")
    assert (plain.roles(adata) == plain.roles(expected)).all() and "new" not in plain.roles(adata)
    np.testing.assert_array_equal(plain.predict_age(adata), plain.predict_age(expected))
    # the verbs of scvi-tools, too
    np.testing.assert_array_equal(plain.get_latent_representation(adata), plain.get_latent_representation(expected))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float64", "object-text", "category-of-float", "reversed-category", "mixed"])
def test_training_gives_the_same_clock_with_ids_of_every_type(plain, _cohort, kind):
    clock = fitted(with_ids(_cohort, kind))
    assert clock.split_ == plain.split_
    np.testing.assert_array_equal(clock.predict_age(), plain.predict_age())


def test_a_saved_clock_reads_ids_of_another_type(plain, _cohort, tmp_path):
    plain.save(tmp_path / "clock")
    clock = agevi.io.load_clock(tmp_path / "clock")
    adata = with_ids(_cohort, "category-of-float")
    assert (clock.roles(adata) == plain.roles(adata)).all()
    np.testing.assert_array_equal(clock.predict_age(adata), plain.predict_age(adata))
    agevi.io.load_clock(tmp_path / "clock", with_ids(_cohort, "text-of-floats")).train(
        max_epochs=1, enable_progress_bar=False
    )


def test_a_donor_in_three_spellings_has_one_role(_cohort):
    adata = with_ids(_cohort, "mixed")
    agevi.pp.split_subjects(adata, subject_key="donor", age_key="age")
    code = pd.factorize(_cohort.obs["donor"])[0]
    assert (adata.obs["agevi_split"].astype(str).groupby(code).nunique() == 1).all()
    expected = with_ids(_cohort, "object-text")
    agevi.pp.split_subjects(expected, subject_key="donor", age_key="age")
    assert adata.obs["agevi_split"].tolist() == expected.obs["agevi_split"].tolist()


def test_new_names_that_differ_in_spelling_are_announced_once(plain, _cohort):
    adata = with_ids(_cohort, "int64")
    adata.obs["donor"] = adata.obs["donor"].map("{:03d}".format)
    with pytest.warns(
        UserWarning, match=r"24 names in adata.obs\['donor'\] are new to the clock.*'001' for '1'"
    ) as found:
        agevi.tl.predict_age(adata, plain)
    ours = [warning for warning in found if "new to the clock" in str(warning.message)]
    assert len(ours) == 1 and ours[0].filename == __file__
    assert set(adata.obs["agevi_role"]) == {"new"}


def test_a_batch_that_differs_in_spelling_is_named(plain, _cohort):
    adata = with_ids(_cohort, "int64")
    adata.obs["batch"] = adata.obs["batch"].map("0{}".format)
    with pytest.raises(
        ValueError, match=r"never saw; it knows '1', '2'.* \(only zeros, spaces, case or '.0' differ in '01' for '1'"
    ):
        plain.predict_age(adata)


def test_a_bundle_of_raw_labels_is_read(plain, _cohort, tmp_path):
    """Earlier versions saved labels as they stood in the table."""
    from agevi.io import _bundle
    from agevi.model.base import _save

    meta = plain._meta()
    raw = {name: role for name, role in meta["split"].items() if name != "1"} | {"1.0": "test", "1": "train"}
    meta |= {
        "split": raw,
        "categories": meta["categories"] | {"batch": [float(v) for v in meta["categories"]["batch"]]},
    }
    _bundle.write_bundle(tmp_path / "old", meta, plain.module.state_dict(), "", overwrite=False)
    clock = agevi.io.load_clock(tmp_path / "old")
    assert clock.split_ == {name: "train" if name == "1" else role for name, role in plain.split_.items()}
    adata = with_ids(_cohort, "object-text")
    np.testing.assert_array_equal(clock.predict_age(adata), plain.predict_age(adata))
    assert _save.categories(clock.registry_) == _save.categories(plain.registry_)


def test_saved_categories_keep_their_order(plain, _cohort, tmp_path):
    """The codes of a bundle follow its own order, whatever order names have today."""
    from agevi.io import _bundle

    meta = plain._meta()
    turned = meta | {"categories": meta["categories"] | {"batch": meta["categories"]["batch"][::-1]}}
    _bundle.write_bundle(tmp_path / "turned", turned, plain.module.state_dict(), "", overwrite=False)
    clock = agevi.io.load_clock(tmp_path / "turned")
    adata = with_ids(_cohort, "int64")
    swapped = adata.copy()
    levels = sorted(set(adata.obs["batch"]))
    swapped.obs["batch"] = adata.obs["batch"].map(dict(zip(levels, levels[::-1], strict=True)))
    np.testing.assert_array_equal(clock.predict_age(adata), plain.predict_age(swapped))


@pytest.mark.parametrize(
    ("names", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_in_a_sentence(names, said):
    assert _names.in_words(names) == said
