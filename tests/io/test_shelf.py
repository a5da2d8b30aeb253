from __future__ import annotations

import http.server
import json
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import agevi
from agevi.io import _fetch, _files, _index
from agevi.io._files import BundleError, BundleExistsError, BundleMissingError
from tests.io.bundles import every_file, names, sign

FILES = {"README.md", "clock.json", "weights.safetensors", "golden.safetensors", "_scvi_required_metadata.json"}


def clock(number: float = 1.0):
    table = pd.Series({"A": number, "B": -0.5, "C": 0.25})
    return agevi.model.LinearClock.from_coefficients(table, 40.0)


@pytest.fixture(scope="module")
def _shelf(tmp_path_factory) -> Path:
    about = {"c0": {"cells": "CD4 T", "licence": "MIT", "donors": 12, "mae": 5, "interval": 20.5}}
    folder = tmp_path_factory.mktemp("made")
    agevi.io.write_shelf(folder / "shelf", {f"c{i}": clock(i) for i in range(3)}, about)
    return folder / "shelf"


@pytest.fixture
def shelf(_shelf, tmp_path) -> Path:
    """A shelf of three clocks that a test may change."""
    return Path(shutil.copytree(_shelf, tmp_path / "shelf"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AGEVI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Handler(http.server.SimpleHTTPRequestHandler):
    leads: dict[str, str] = {}
    endless: set[str] = set()

    def do_GET(self):
        if self.path in self.leads:
            self.send_response(302)
            self.send_header("Location", self.leads[self.path])
            self.end_headers()
        elif self.path in self.endless:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" " * (1 << 20))
            except OSError:
                pass
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    own = type("Own", (Handler,), {"leads": {}, "endless": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(own, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.handler, running.url = own, f"http://127.0.0.1:{running.server_address[1]}/shelf"
        yield running
        running.shutdown()
        thread.join()


def edit(shelf: Path, change) -> None:
    """Change an index, and make its digest right, as who can write a shelf can."""
    document = json.loads((shelf / "index.json").read_text())
    change(document)
    document.pop("digest")
    document["digest"] = _index.sha256(_index.canonical(document))
    (shelf / "index.json").write_text(json.dumps(document))


# what is written is what is read


@pytest.mark.slow
def test_twenty_clocks_are_listed_and_verified_and_a_changed_byte_is_named(tmp_path):
    made = {f"clock_{i:02d}": clock(i) for i in range(20)}
    agevi.io.write_shelf(tmp_path / "shelf", made)
    assert list(agevi.io.list_shelf(tmp_path / "shelf").index) == list(made)
    found = agevi.io.verify(tmp_path / "shelf")
    assert len(found) == 20 and (found["n_golden"] == 4).all() and (found["difference"] == 0).all()
    for name in sorted(FILES):
        path = tmp_path / "shelf" / "clock_13" / name
        good = path.read_bytes()
        path.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])
        with pytest.raises(BundleError, match=f"clock_13/{name} is not the file that index.json describes"):
            agevi.io.verify(tmp_path / "shelf")
        path.write_bytes(good)


def test_list(shelf):
    table = agevi.io.list_shelf(shelf)
    assert table.loc["c0", ["cells", "licence", "donors", "mae", "interval"]].tolist() == [
        "CD4 T",
        "MIT",
        12,
        5.0,
        20.5,
    ]
    assert (table["unit"] == "years").all() and (table["features"] == 3).all() and (table["where"] == "folder").all()
    assert table.loc["c1", "size"] == sum(len(data) for data in every_file(shelf / "c1").values())
    assert pd.isna(table.loc["c1", "mae"]) and table["donors"].dtype == "Int64"
    assert set(names(shelf / "c0")) == FILES
    card = (shelf / "c0" / "README.md").read_text()
    assert "- **cells**: CD4 T" in card and "- **mae**: 5.00 years, mean absolute error" in card


def test_a_clock_of_a_shelf_predicts_the_same(shelf):
    adata = agevi.datasets.simulate_cohort(n_subjects=4, n_cells=2, n_genes=20)[:, :3].copy()
    adata.var_names = ["A", "B", "C"]
    loaded = agevi.io.load_clock("c2", shelf=shelf)
    np.testing.assert_array_equal(loaded.predict_age(adata), clock(2).predict_age(adata))
    np.testing.assert_array_equal(agevi.io.load_clock(shelf / "c2").predict_age(adata), loaded.predict_age(adata))


def test_a_shelf_of_saved_clocks_keeps_their_golden_values(shelf, tmp_path):
    agevi.io.write_shelf(tmp_path / "again", {name: shelf / name for name in ("c0", "c1")})
    for name in ("clock.json", "golden.safetensors", "weights.safetensors"):
        if name != "clock.json":
            assert (tmp_path / "again" / "c1" / name).read_bytes() == (shelf / "c1" / name).read_bytes()
    assert len(agevi.io.verify(tmp_path / "again")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("cls", agevi.model.MODELS, ids=lambda c: c.__name__)
def test_golden_values_of_every_clock(cls, cohort, trained, tmp_path):
    keys = {"age_key": "age", "subject_key": "donor"}
    if cls is agevi.model.LinearClock:
        model = clock()
    elif cls is agevi.model.EnsembleClock:
        model = cls([trained, trained], weights=[0.5, 0.5])
    elif not cls.trainable:
        pytest.skip("it is made from a clock, not from data")
    else:
        params = cls.test_params()
        cls.setup_anndata(cohort, **keys, **params.get("setup", {}))
        model = cls(cohort, **params["init"])
        model.train(**params["train"])
    agevi.io.write_shelf(tmp_path / "shelf", {"one": model})
    found = agevi.io.verify(tmp_path / "shelf").loc["one"]
    assert found["n_golden"] >= 4 and found["difference"] <= found["tolerance"] / 10


def test_the_hub_of_scvi_tools_finds_its_metadata(shelf):
    import scvi

    source = (Path(scvi.__file__).parent / "hub" / "_metadata.py").read_text()
    document = json.loads((shelf / "c0" / "_scvi_required_metadata.json").read_text())
    assert document["model_cls_name"] == "LinearClock" and document["model_parent_module"] == "agevi.model"
    assert "_scvi_required_metadata.json" in (Path(scvi.__file__).parent / "hub" / "_constants.py").read_text()
    fields = source.split("class HubMetadata")[1].split('"""')[2].split("@classmethod")[0]
    assert set(document) == {line.split(":")[0].strip() for line in fields.splitlines() if ":" in line}


# golden values


def test_verify_names_the_row_that_differs(shelf):
    bundle = agevi.io._bundle.read_bundle(shelf / "c1")
    golden = {name: tensor.clone() for name, tensor in bundle.golden.items()}
    golden["predicted"][2] += 0.01
    agevi.io._bundle.write_bundle(shelf.parent / "edited", bundle.meta, bundle.tensors, bundle.card, golden=golden)
    with pytest.raises(BundleError, match="edited predicts row 2 of its 4 golden values 0.01 years off"):
        agevi.io.verify(shelf.parent / "edited")


@pytest.mark.parametrize("odd", [{"predicted": [0, 1]}, {"input": [0]}], ids=["rows", "features"])
def test_verify_refuses_golden_values_of_another_shape(shelf, odd):
    bundle = agevi.io._bundle.read_bundle(shelf / "c1")
    golden = {name: t[odd[name]] if name == "predicted" and name in odd else t for name, t in bundle.golden.items()}
    golden = {name: t[:, odd[name]] if name == "input" and name in odd else t for name, t in golden.items()}
    agevi.io._bundle.write_bundle(shelf.parent / "edited", bundle.meta, bundle.tensors, bundle.card, golden=golden)
    with pytest.raises(
        BundleError, match="cannot be replayed: its golden values are not rows of the clock's 3 features"
    ):
        agevi.io.verify(shelf.parent / "edited")


def test_a_clock_without_golden_values_is_checked_all_the_same(tmp_path):
    clock().save(tmp_path / "clock")
    found = agevi.io.verify(tmp_path / "clock").loc["clock"]
    assert found["n_golden"] == 0 and np.isnan(found["difference"])
    (tmp_path / "clock" / "README.md").write_text("edited")
    with pytest.raises(BundleError, match=r"README\.md has 6 bytes where clock\.json says"):
        agevi.io.verify(tmp_path / "clock")


# writing


@pytest.mark.parametrize(
    "name", ["../out", "/abs", "a/b", "a\\b", "C:x", "%2e%2e", "..", "", ".hidden", "a b", "a" * 81, "ä", 3]
)
def test_names_that_are_no_folder_are_refused(tmp_path, name):
    with pytest.raises(BundleError, match="cannot be the name of a clock on a shelf"):
        agevi.io.write_shelf(tmp_path / "shelf", {name: clock()})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("about", "message"),
    [
        pytest.param({"b": {}}, "about describes 'b', which is not in clocks; those are 'a'", id="another clock"),
        pytest.param({"a": {"color": "red"}}, "the entry 'color'; known are cells, tissue", id="unknown"),
        pytest.param({"a": {"mae": "5"}}, "'mae' of 'a' is '5'; it takes a number", id="text for a number"),
        pytest.param({"a": {"mae": float("nan")}}, "'mae' of 'a' is nan", id="nan"),
        pytest.param({"a": {"licence": "a\nb"}}, "it takes text on one line", id="lines"),
        pytest.param({"a": 3}, "said about 'a' is a int and not a dict", id="no dict"),
    ],
)
def test_what_is_said_of_clocks_is_checked(tmp_path, about, message):
    with pytest.raises(ValueError, match=message):
        agevi.io.write_shelf(tmp_path / "shelf", {"a": clock()}, about)
    assert names(tmp_path) == []


def test_only_clocks_are_written(tmp_path):
    with pytest.raises(TypeError, match=r"clocks\['a'\] is a int; pass a trained clock"):
        agevi.io.write_shelf(tmp_path / "shelf", {"a": 3})
    with pytest.raises(TypeError, match="by the name of a clock; a list was given"):
        agevi.io.write_shelf(tmp_path / "shelf", [clock()])
    assert names(tmp_path) == []


def test_a_shelf_is_replaced_only_when_asked_and_nothing_else_is(shelf):
    with pytest.raises(BundleExistsError, match="already exists; pass overwrite=True"):
        agevi.io.write_shelf(shelf, {"new": clock()})
    agevi.io.write_shelf(shelf, {"new": clock()}, overwrite=True)
    assert names(shelf) == ["index.json", "new"] and names(shelf.parent) == ["shelf"]
    (shelf / "thesis.txt").write_text("mine")
    with pytest.raises(BundleExistsError, match=r"is not a shelf alone \('thesis.txt'\)"):
        agevi.io.write_shelf(shelf, {"a": clock()}, overwrite=True)


# over the network


def test_a_shelf_on_a_web_server(shelf, server, cache):
    table = agevi.io.list_shelf(server.url)
    assert (table["where"] == "download").all() and list(table.index) == ["c0", "c1", "c2"]
    loaded = agevi.io.load_clock("c1", shelf=server.url)
    assert loaded.coefficients().to_dict() == clock(1).coefficients().to_dict()
    assert len(names(cache)) == 2  # the index, and one clock
    assert len(agevi.io.verify(server.url)) == 3
    before = sorted(cache.rglob("*"))
    agevi.io.load_clock("c1", shelf=server.url + "/index.json")
    assert sorted(cache.rglob("*")) == before


def test_what_was_downloaded_is_there_offline(shelf, server, cache):
    agevi.io.load_clock("c1", shelf=server.url)
    server.server_close()
    server.shutdown()
    with pytest.warns(UserWarning, match=r"cannot be reached .* The index that was read last is used"):
        assert list(agevi.io.load_clock("c1", shelf=server.url).genes) == ["A", "B", "C"]
    with pytest.warns(UserWarning), pytest.raises(BundleMissingError, match="clock was not downloaded before; connect"):
        agevi.io.load_clock("c2", shelf=server.url)
    shutil.rmtree(cache)
    with pytest.raises(BundleMissingError, match="Nothing of this shelf was downloaded before"):
        agevi.io.list_shelf(server.url)
    assert not cache.exists()


def test_a_damaged_cache_is_downloaded_again(shelf, server, cache):
    agevi.io.load_clock("c1", shelf=server.url)
    weights = next(cache.rglob("weights.safetensors"))
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"x")
    agevi.io.load_clock("c1", shelf=server.url)
    assert weights.read_bytes() == good and len(names(cache)) == 2


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_damaged_file_on_the_server_is_named_and_not_kept(shelf, server, cache, name):
    data = (shelf / "c1" / name).read_bytes()
    (shelf / "c1" / name).write_bytes(data[:-1] + b"x")
    with pytest.raises(BundleError, match=f"c1/{name} is not the file that index.json describes.*nothing was kept"):
        agevi.io.load_clock("c1", shelf=server.url)
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_more_bytes_than_the_index_says_are_not_read(shelf, server, cache):
    server.handler.endless.add("/shelf/c1/weights.safetensors")
    with pytest.raises(BundleError, match=r"weights\.safetensors has more than [\d,]+ bytes; it was not read further"):
        agevi.io.load_clock("c1", shelf=server.url)
    server.handler.endless.add("/shelf/index.json")
    with pytest.raises(BundleError, match=r"index\.json has more than 4,194,304 bytes"):
        agevi.io.list_shelf(server.url)
    assert [path.suffix for path in cache.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "target", ["http://localhost:1/x", "https://127.0.0.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"]
)
@pytest.mark.parametrize("file", ["index.json", "c1/clock.json"])
def test_other_servers_are_not_followed_to(shelf, server, cache, target, file):
    server.handler.leads[f"/shelf/{file}"] = target
    with pytest.raises(BundleError, match="leads to another server|cannot be reached|is not there"):
        agevi.io.load_clock("c1", shelf=server.url)
    assert not cache.exists() or [path.suffix for path in cache.iterdir()] == [".json"]


def test_a_server_may_name_another_address_of_its_own(shelf, server, cache):
    server.handler.leads["/old/index.json"] = "/shelf/index.json"
    assert len(agevi.io.list_shelf(server.url.replace("shelf", "old"))) == 3


@pytest.mark.parametrize(
    ("shelf", "message"),
    [
        pytest.param("ftp://example.org/shelf", "is not an address that agevi reads", id="ftp"),
        pytest.param("file:///etc", "is not an address that agevi reads", id="file"),
        pytest.param("http://example.org/shelf?x=1", "has a query, a fragment or a user", id="query"),
        pytest.param("http://me:secret@example.org/", "has a query, a fragment or a user", id="user"),
    ],
)
def test_addresses(shelf, message):
    with pytest.raises(BundleError, match=message):
        agevi.io.list_shelf(shelf)


# hostile indices


def rename(name):
    def change(document):
        document["clocks"][name] = document["clocks"].pop("c1")

    return change


def entry(change):
    return lambda document: change(document["clocks"]["c1"])


HOSTILE = {
    "way out": (rename("../../out"), "cannot be the name"),
    "absolute": (rename("/etc/cron.d/x"), "cannot be the name"),
    "backslash": (rename("..\\out"), "cannot be the name"),
    "drive": (rename("C:out"), "cannot be the name"),
    "encoded": (rename("%2e%2e%2fout"), "cannot be the name"),
    "null": (rename("a\0b"), "cannot be the name"),
    "case": (rename("C0"), "names 'c0' twice"),
    "file out": (entry(lambda c: c["files"].update({"../x": c["files"]["clock.json"]})), "the files of 'c1' are"),
    "pickle": (entry(lambda c: c["files"].update({"model.pt": c["files"]["clock.json"]})), "the files of 'c1' are"),
    "no weights": (entry(lambda c: c["files"].pop("weights.safetensors")), "the files of 'c1' are"),
    "huge": (entry(lambda c: c["files"]["README.md"].update(size=10**15)), "more than the 16,777,216"),
    "huge sum": (
        entry(lambda c: c["files"]["weights.safetensors"].update(size=7 << 30)),
        "more than the 2,147,483,648",
    ),
    "negative": (entry(lambda c: c["files"]["README.md"].update(size=-1)), "the files of 'c1' are"),
    "size text": (entry(lambda c: c["files"]["README.md"].update(size="9")), "the files of 'c1' are"),
    "about": (entry(lambda c: c["about"].update(licence=["MIT"])), "it takes text on one line"),
    "no about": (entry(lambda c: c.pop("about")), "does not have the entries"),
    "list": (lambda d: d.update(clocks=[1]), "was edited or damaged"),
    "number": (lambda d: d["clocks"].update(c1=3), "does not have the entries"),
    "format": (lambda d: d.update(format="other"), "is not the index of a shelf"),
    "newer": (lambda d: d.update(schema=9), "has schema 9.*upgrade agevi"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_index_is_refused_and_nothing_is_written(shelf, server, cache, how):
    change, message = HOSTILE[how]
    edit(shelf, change)
    before = sorted(shelf.parent.rglob("*"))
    for place in (shelf, server.url):
        with pytest.raises(BundleError, match=message):
            agevi.io.load_clock("c0", shelf=place)
    assert sorted(shelf.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"a":' * 100_000, "is not plain JSON", id="deep"),
        pytest.param('{"format": "agevi-shelf", "format": "agevi-shelf"}', "a key is there twice", id="twice"),
        pytest.param('{"format": 1e999}', "is not plain JSON", id="infinite"),
        pytest.param("[]", "holds no object", id="list"),
        pytest.param("\xff", "is not plain JSON|no index", id="bytes"),
        pytest.param(" " * ((4 << 20) + 1), "more than the 4,194,304 bytes", id="large"),
    ],
)
def test_a_text_that_is_no_index_is_refused(shelf, text, message):
    (shelf / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=message):
        agevi.io.list_shelf(shelf)


def test_links_are_not_followed(shelf):
    shutil.move(shelf / "c1", shelf.parent / "elsewhere")
    (shelf / "c1").symlink_to(shelf.parent / "elsewhere")
    with pytest.raises(BundleError, match="c1 is a link; a shelf holds its clocks itself"):
        agevi.io.load_clock("c1", shelf=shelf)
    (shelf / "c1").unlink()
    shutil.move(shelf.parent / "elsewhere", shelf / "c1")
    shutil.move(shelf / "c1" / "clock.json", shelf.parent / "clock.json")
    (shelf / "c1" / "clock.json").symlink_to(shelf.parent / "clock.json")
    with pytest.raises(BundleError, match=r"c1/clock\.json is not a regular file"):
        agevi.io.verify(shelf)


def test_a_signed_clock_of_another_class_is_refused(shelf):
    sign(shelf / "c1", **{"class": "Evil"})
    files = every_file(shelf / "c1")
    edit(shelf, entry(lambda c: [c["files"][n].update(sha256=_index.sha256(d), size=len(d)) for n, d in files.items()]))
    with pytest.raises(BundleError, match="holds a clock of class 'Evil'"):
        agevi.io.load_clock("c1", shelf=shelf)


def test_absent_clocks_and_shelves(shelf, tmp_path):
    with pytest.raises(BundleMissingError, match=r"'c9' is not a clock of the shelf .*; it has 'c0', 'c1', 'c2'"):
        agevi.io.load_clock("c9", shelf=shelf)
    with pytest.raises(BundleMissingError, match=r"is not a shelf: it has no index\.json"):
        agevi.io.list_shelf(tmp_path / "nowhere")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("AGEVI_CACHE", str(tmp_path))
    assert _fetch.cache() == tmp_path
    monkeypatch.delenv("AGEVI_CACHE")
    assert _fetch.cache().name == "agevi"
    assert _files.GOLDEN in _index.MOST
