"""The map of the package: imports point one way, and files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import agevi

SRC = Path(agevi.__file__).parent
LAYERS = [
    {
        "_keys",
        "_names",
        "_checks",
        "_compat",
        "_lazy",
        "_settings",
        "_progress",
        "_threads",
        "_subjects",
        "_units",
        "_docs",
        "_options",
        "_values",
        "_stored",
        "_ages",
        "_symbols",
        "_gene_names",
    },
    {"nn", "metrics", "io._bundle"},
    {"dataloaders"},
    {"model"},
    {"pp", "datasets", "tl", "clocks"},
    {"get"},
    {"pl"},
    {"_report"},
    {"cli"},
]
WITH_MODELS = ("_golden", "_load", "_shelf", "_verify")  # what io offers, which makes models
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(SRC.rglob("*.py"))


def layer_of(module: str) -> str | None:
    """``"model"`` for ``agevi.model.vae._module``; None for ``agevi`` itself and what stands outside the layers."""
    parts = module.split(".")[1:]
    if parts[:1] == ["io"]:
        return "io._bundle" if parts[1:] and parts[1] not in WITH_MODELS else None
    return parts[0] if parts and parts[0] in RANK else None


def module_of(path: Path) -> str:
    relative = path.relative_to(SRC.parent).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def imported(path: Path) -> list[str]:
    """Modules of agevi that a file imports: when it is loaded, inside of functions, or for types."""
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agevi"):
            out += [
                f"{node.module}.{a.name}" if layer_of(f"{node.module}.{a.name}") else node.module for a in node.names
            ]
        elif isinstance(node, ast.Import):
            out += [a.name for a in node.names if a.name.startswith("agevi.")]
    return out


def arrows_from(path: Path, modules: set[str]) -> set[str]:
    """Modules of agevi that a file imports, each by its whole name."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            out |= {name if name in modules else node.module for name in whole}
    return (out & modules) - {module_of(path)}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_one_way(path):
    own = layer_of(module_of(path))
    if own is None:
        return
    for target in map(layer_of, imported(path)):
        assert target is None or RANK[target] <= RANK[own], f"{module_of(path)} imports {target}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_no_imports_go_in_circles():
    modules = {module_of(path) for path in FILES}
    arrows = {module_of(path): arrows_from(path, modules) for path in FILES}
    while leaves := {module for module, targets in arrows.items() if not targets}:
        arrows = {module: targets - leaves for module, targets in arrows.items() if module not in leaves}
    assert not arrows


def test_the_map_names_every_folder():
    folders = {p.name for p in SRC.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders == {name for name in RANK if "." not in name and (SRC / name).is_dir()} | {"io"}


@pytest.mark.slow
def test_only_compat_imports_scvi():
    users = [module_of(p) for p in FILES if "scvi" in {n.split(".")[0] for n in _third_party(p)}]
    assert users == ["agevi._compat.scvi"]


def test_nn_never_sees_anndata():
    for path in (SRC / "nn").rglob("*.py"):
        assert not {"anndata", "scvi", "scanpy"} & {n.split(".")[0] for n in _third_party(path)}


def _third_party(path: Path) -> list[str]:
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            out.append(node.module or "")
        elif isinstance(node, ast.Import):
            out += [a.name for a in node.names]
    return out
