"""Configuration of the site. Only on Read the Docs does it use a network, for links into the docs of other packages."""

import os
import re
import shutil
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

from docutils import nodes
from sphinx.util import inspect, logging

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

_info = metadata("agevi")
project = _info["Name"]
author = "agevi developers"
copyright = f"2026, {author}"
version = release = _info["Version"]

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build", "_single_cells.md", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
# The function in autosummary_context cannot be pickled, and need not be.
suppress_warnings = ["config.cache"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

# Pages: the notebooks are stored with their outputs and are not run again here.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# API pages: types stand only in the signatures, from where they are taken over into the lists of parameters.
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_type_aliases = {"ArrayLike": "numpy.typing.ArrayLike"}
inspect.TypeAliasForwardRef.__repr__ = lambda alias: alias.name  # as it is shown where None is allowed, too
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
# As text: taken for fields, lines of a list that goes on would be joined by dashes.
napoleon_custom_sections = ["Returns"]

# Links: every name has to be found, but for those of other packages where their docs are not at hand.
nitpicky = True
_PACKAGES = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "joblib": "https://joblib.readthedocs.io/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.readthedocs.io/en/stable/",
    "scvi": "https://docs.scvi-tools.org/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
intersphinx_mapping = {name: (url, None) for name, url in _PACKAGES.items()} if "READTHEDOCS" in os.environ else {}
_ELSEWHERE = "|".join(
    [*(set(_PACKAGES) - {"python"}), "collections", "lightning", "np", "optuna", "os", "pathlib", "pd"]
)
nitpick_ignore_regex = [
    ("py:.*", rf"({_ELSEWHERE})\..*"),
    ("py:class", r"agevi(\.\w+)*\._.*|AnnData|Path"),  # private classes in annotations, and names without a module
]
# Where other packages define what they name otherwise in public.
_PUBLIC = {
    "anndata._core.anndata.AnnData": "anndata.AnnData",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "numpy.random._generator.Generator": "numpy.random.Generator",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pandas.core.series.Series": "pandas.Series",
    "AnnData": "anndata.AnnData",
    "Path": "pathlib.Path",
    "np.random.Generator": "numpy.random.Generator",
}
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
ogp_site_url = os.environ.get("READTHEDOCS_CANONICAL_URL", "https://agevi.readthedocs.io/")
ogp_image = "_static/readme.png"
ogp_enable_meta_description = True

html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_baseurl = ogp_site_url
html_title = "agevi"
html_favicon = "_static/favicon.svg"
html_theme_options = {"navbar_persistent": [], "use_download_button": False, "use_fullscreen_button": False}
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["agevi.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def _copy_tutorials() -> None:
    """Copy the notebooks beside the pages, since Sphinx reads nothing outside its own folder."""
    target = HERE / "tutorials"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
        shutil.copy2(notebook, target)


def _written_in_agevi(class_name: str, members: list[str]) -> list[str]:
    """Members of a class that it or one of its bases in agevi defines: neither those of scvi-tools nor absent ones."""
    module, _, name = class_name.rpartition(".")
    documented = getattr(import_module(module), name)
    bases = [vars(base) for base in documented.__mro__ if base.__module__.startswith("agevi")]
    own = {
        member
        for base in bases
        for member, value in base.items()
        if (getattr(value, "__module__", None) or "agevi").startswith("agevi")  # else wrapped verbs of scvi-tools
    }
    own -= {field.name for field in fields(documented)} if is_dataclass(documented) else set()  # told as attributes
    return [member for member in members if hasattr(documented, member) and member in own]


def _write_slots(app) -> None:
    """Write the page of all slots, made from the one table that declares them."""
    from agevi._keys import SLOTS

    rows = [f"| `{s.where}` | `{s.pattern}` | {s.writers} | {s.content} |" for s in SLOTS.values()]
    intro = "`{key}` is the argument `key_added`, by default `agevi`. Made from `SLOTS` in `src/agevi/_keys.py`."
    head = ["| where | name | written by | content |", "| --- | --- | --- | --- |"]
    (HERE / "developer").mkdir(exist_ok=True)
    (HERE / "developer" / "slots.md").write_text("\n".join(["# Slots of AnnData", "", intro, "", *head, *rows, ""]))


def _make_gallery(app) -> None:
    """Draw the gallery, and write its page, where what it is made from is newer."""
    import make_gallery

    source = [Path(make_gallery.__file__), *(HERE.parent / "src" / "agevi").rglob("*.py")]
    pictures = [make_gallery.PICTURES / f"{entry.name}.png" for entry in make_gallery.ENTRIES]
    newest = max(file.stat().st_mtime for file in source)
    if not all(file.exists() and file.stat().st_mtime > newest for file in pictures):
        make_gallery.draw(make_gallery.PICTURES)
    (HERE / "gallery.md").write_text(make_gallery.page(), encoding="utf-8")


def _check_api_page(app) -> None:
    """Warn, which fails the build, of public names that the API page does not list."""
    listed = set((HERE / "api.md").read_text(encoding="utf-8").split())
    agevi = import_module("agevi")
    for module in agevi.__all__:
        for name in getattr(getattr(agevi, module), "__all__", ()):
            if f"{module}.{name}" not in listed:
                logging.getLogger(__name__).warning("api.md does not list the public name agevi.%s.%s", module, name)


def _public_name(app, env, node, contnode) -> None:
    """Look a class of another package up by its public name."""
    node["reftarget"] = _PUBLIC.get(node["reftarget"], node["reftarget"])


def _et_al(app, doctree, docname) -> None:
    """Shorten the authors of works, of whom the bibliography names the first."""
    for text in list(doctree.findall(nodes.Text)):
        short = re.sub(r"(?<=\w) and others(?=\.| \[|$)", " et al.", text)
        short = short.replace("et al..", "et al.")
        if short != text:
            text.parent.replace(text, nodes.Text(short))


def setup(app) -> None:
    """Connect to Sphinx."""
    app.connect("missing-reference", _public_name, priority=1)
    app.connect("doctree-resolved", _et_al)
    app.connect("builder-inited", _write_slots)
    app.connect("builder-inited", _make_gallery)
    app.connect("builder-inited", _check_api_page)


autosummary_context = {"written_in_agevi": _written_in_agevi}
_copy_tutorials()
