"""The public names as a contract: documented, listed, and with docstrings that match their signatures."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import agevi

API_PAGE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = ["clocks", "datasets", "get", "io", "metrics", "model", "pl", "pp", "tl"]
PUBLIC = {
    f"{module}.{name}": getattr(getattr(agevi, module), name)
    for module in MODULES
    for name in getattr(agevi, module).__all__
    if callable(getattr(getattr(agevi, module), name))
} | {"report": agevi.report}
VERBS = {
    f"model.{cls.__name__}.{name}": getattr(cls, name)
    for cls in agevi.model.MODELS
    for name in ("setup_anndata", "train", "predict_age", "save", "load")
    if hasattr(cls, name)
}


def sections(doc: str) -> dict[str, str]:
    """The numpydoc sections of a docstring by title."""
    parts = re.split(r"\n([A-Z][A-Za-z ]+)\n-{3,}\n", inspect.cleandoc(doc))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(doc: str) -> list[str]:
    """Parameter names in the order of the docstring."""
    lines = sections(doc).get("Parameters", "").splitlines()
    names = [line.strip() for line in lines if line and not line.startswith(" ")]
    return [n.strip().lstrip("*") for line in names for n in line.split(",")]


# Dataclasses that functions return are built by agevi alone and document their attributes.
CALLED = {n: t for n, t in (PUBLIC | VERBS).items() if not dataclasses.is_dataclass(t)}


@pytest.mark.parametrize("name", CALLED)
def test_docstring_matches_the_signature(name):
    thing = CALLED[name]
    signature = inspect.signature(thing)
    parameters = [p for p in signature.parameters if p not in ("self", "cls")]
    assert documented(thing.__doc__ or "") == parameters


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_summary_and_returns(name):
    thing = PUBLIC[name]
    first = inspect.cleandoc(thing.__doc__ or "").splitlines()[0]
    assert first.endswith((".", ":"))
    if inspect.isfunction(thing):
        assert "Returns" in sections(thing.__doc__)


@pytest.mark.parametrize("name", ["", *MODULES])
def test_completion_offers_public_names_alone(name):
    module = getattr(agevi, name) if name else agevi
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, public) for public in dir(module))


@pytest.mark.parametrize("name", PUBLIC)
def test_is_listed_in_the_api_docs(name):
    assert re.search(rf"\b{re.escape(name)}$", API_PAGE.read_text(), flags=re.MULTILINE), f"{name} is not in {API_PAGE}"


RETURNS = ("tl.tune", "tl.rank_targets", "tl.TargetRanking", "tl.check_transport")  # they write nothing
RETURNS += ("tl.study", "tl.StudyResult")  # writes, and returns what it found
READ_AND_WRITE = ("tl.recalibrate",)  # predictions under another key than those that are read


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.startswith("tl.") and n not in RETURNS])
def test_tools_take_the_common_arguments(name):
    parameters = inspect.signature(PUBLIC[name]).parameters
    assert next(iter(parameters)) == "adata"
    assert parameters["key" if name in READ_AND_WRITE else "key_added"].default == "agevi"
    assert parameters["copy"].default is False


@pytest.mark.parametrize("name", [n for n in PUBLIC if n.startswith("pl.")])
def test_plots_take_ax(name):
    assert "ax" in inspect.signature(PUBLIC[name]).parameters


@pytest.mark.parametrize("name", CALLED)
def test_at_most_three_positional_parameters(name):
    kinds = [p for n, p in inspect.signature(CALLED[name]).parameters.items() if n not in ("self", "cls")]
    if name.endswith(".load"):
        return  # the signature of scvi-tools
    assert sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in kinds) <= 3


def test_version():
    assert agevi.__version__ == agevi._compat.version("agevi")


@pytest.mark.parametrize("cls", agevi.model.MODELS, ids=lambda c: c.__name__)
def test_models_say_what_they_are(cls):
    assert cls.expects in ("counts", "continuous", "any")
    assert isinstance(cls.trainable, bool)
