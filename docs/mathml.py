"""Sphinx extension: formulas as MathML, which browsers draw themselves, with neither scripts nor a network."""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

NEEDS_ROWS = ("\\\\", "&")


def formula(latex: str, *, block: bool) -> str:
    """MathML of a formula; warns of commands that are not known, which would be shown as they are written."""
    latex = latex.replace("{aligned}", "{split}")  # the same for browsers, and known
    whole = rf"\begin{{split}}{latex}\end{{split}}" if block and _has_rows(latex) else latex
    try:
        found = convert(whole, display="block" if block else "inline")
    except Exception as error:  # the package has one for each way in which a formula can be broken
        logging.getLogger(__name__).warning("a formula cannot be read (%s): %s", type(error).__name__, latex)
        return escape(latex)
    if "\\" in found:
        logging.getLogger(__name__).warning("a command of this formula is not known: %s", latex)
    return found


def _has_rows(latex: str) -> bool:
    """Whether a formula has rows outside of an environment."""
    return "\\begin" not in latex and any(mark in latex for mark in NEEDS_ROWS)


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(formula(node.astext(), block=False))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{formula(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
