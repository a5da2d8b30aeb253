from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = re.compile(r"[A-Za-z0-9._-]+")
OF_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
NOT_IMPORTED = {"pynndescent"}
"""Core dependencies that no line of src imports; CONTRIBUTING.md gives the reason."""
OF_NOTEBOOKS = {"ipython": {"_progress.py"}}
"""Imported where the code runs in a notebook, which has it, and nowhere else."""


def name_of(requirement):
    return NAME.match(requirement)[0].lower().replace("_", "-")


CORE = {name_of(requirement): requirement for requirement in PROJECT["dependencies"]}
EXTRAS = {
    name_of(requirement)
    for requirements in PROJECT["optional-dependencies"].values()
    for requirement in requirements
    if not requirement.startswith("agevi[")
}


def imported():
    """Distributions that src imports, each with the files that do so."""
    of_module, found = packages_distributions(), {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"agevi"}:
                distribution = of_module.get(module, [module])[0].lower()
                found.setdefault(distribution, set()).add(path.relative_to(ROOT / "src" / "agevi").as_posix())
    return found


def rows():
    """The table of dependencies in CONTRIBUTING.md: what each is for."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.-]+)` \| (.+) \|$", section, flags=re.MULTILINE))


def test_what_is_imported_is_declared():
    undeclared = {name: files for name, files in imported().items() if name not in CORE and name not in EXTRAS}
    assert undeclared == OF_NOTEBOOKS


def test_what_is_optional_is_imported_by_the_tools_that_name_it():
    optional = {name: files for name, files in imported().items() if name in EXTRAS - set(CORE)}
    assert sorted(optional) == ["optuna", "sqlalchemy"]
    assert {file.rpartition("/")[0] for files in optional.values() for file in files} == {"tl/tuning"}


def test_what_the_core_requires_is_used():
    assert set(CORE) - set(imported()) == NOT_IMPORTED


def test_every_core_dependency_has_its_reason():
    assert list(rows()) == sorted(CORE) and sorted(CORE) == list(CORE)
    assert all(rows()[name].startswith("not imported: ") for name in NOT_IMPORTED)


def test_extras_are_whole():
    extras = PROJECT["optional-dependencies"]
    assert extras["all"] == [f"agevi[{name}]" for name in sorted(set(extras) - {"all"})]


def test_the_site_names_every_extra():
    page = (ROOT / "docs" / "installation.md").read_text()
    assert all(f'[{name}]"' in page for name in PROJECT["optional-dependencies"])


def test_the_recipe_requires_what_the_package_requires():
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text())
    python, *run = recipe["requirements"]["run"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert recipe["requirements"]["host"][2:] == [requirement.replace(">", " >") for requirement in build]
    expected = []
    for name, requirement in CORE.items():
        expected.append(f"{OF_CONDA.get(name, name)} {requirement[len(name) :]}")
    assert sorted(run) == sorted(expected)
    assert python == "python >=${{ python_min }}"
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["build"]["python"]["entry_points"] == [f"agevi = {PROJECT['scripts']['agevi']}"]
    licences = {str(path.relative_to(ROOT)) for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)}
    assert set(recipe["about"]["license_file"]) == licences


@pytest.mark.parametrize(
    "file",
    [
        "CITATION.cff",
        "README.md",
        "docs/conf.py",
        "packaging/conda/recipe.yaml",
        "packaging/scverse/meta.yaml",
        "pyproject.toml",
    ],
)
def test_every_file_gives_the_addresses_of_the_package(file):
    text, urls = (ROOT / file).read_text(), PROJECT["urls"]
    owner = urlsplit(urls["Source"]).path.split("/")[1]
    owners = re.findall(r"//(?:github|raw\.githubusercontent)\.com/([\w-]+)/agevi\b", text)
    sites = re.findall(r"//(agevi[\w-]*\.readthedocs\.io|[\w.-]+\.github\.io/agevi)", text)
    assert owners + sites and set(owners) <= {owner} and set(sites) <= {urlsplit(urls["Documentation"]).netloc}


def listed():
    return yaml.safe_load((ROOT / "packaging" / "scverse" / "meta.yaml").read_text())


@pytest.mark.parametrize(
    "field", ["name", "description", "project_home", "documentation_home", "license", "version", "category"]
)
def test_the_entry_of_the_registry_has_every_field_that_it_must_have(field):
    assert isinstance(listed()[field], str) and listed()[field]


def test_the_entry_of_the_registry_fits_its_schema():
    entry = listed()
    for field in ("project_home", "documentation_home", "tutorials_home"):
        assert urlsplit(entry[field]).scheme == "https" and urlsplit(entry[field]).netloc, field
    for field in ("tags", "contact"):
        values = entry[field]
        assert values and len(set(values)) == len(values) and all(isinstance(value, str) for value in values), field
    assert set(entry["install"]) <= {"pypi", "conda", "cran", "bioconductor"} and entry["install"]
    assert entry["category"] == "ecosystem"
    assert all(re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Za-z0-9]+", doi) for doi in entry["publications"])


def test_the_entry_of_the_registry_says_what_the_package_says():
    entry, urls = listed(), PROJECT["urls"]
    assert (entry["name"], entry["install"]["pypi"]) == (PROJECT["name"], PROJECT["name"])
    assert (entry["version"], entry["license"]) == (f"v{PROJECT['version']}", PROJECT["license"])
    assert (entry["project_home"], entry["documentation_home"]) == (urls["Source"], urls["Documentation"])
    tutorial = Path(urlsplit(entry["tutorials_home"]).path).stem
    assert (ROOT / "tutorials" / f"{tutorial}.ipynb").exists()


@pytest.mark.parametrize(
    "workflow", sorted((ROOT / ".github" / "workflows").glob("*.yaml")), ids=lambda path: path.stem
)
def test_workflows_pin_actions_and_keep_no_credentials(workflow):
    text = workflow.read_text()
    used = re.findall(r"uses: (.+)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
