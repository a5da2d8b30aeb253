"""Blocks to one HTML file: the template with its style and script inside, and nothing that is read from elsewhere."""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from agevi import _compat
from agevi._report._blocks import Section
from agevi.io import _folder

TEMPLATES = Path(__file__).parent / "templates"
GENERATOR = "agevi report"
_HEAD = 4096  # bytes that hold the mark of a report
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_MARK = re.compile(rb'<meta name="generator" content="agevi report [^"]*">')


def printable(text: str) -> str:
    """The text with a mark in place of what neither HTML nor a file may hold, such as control characters."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8").strip() for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return printable(
        environment.get_template("page.html").render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            style=Markup(style),
            script=Markup(script),
            script_digest=digest,
            generator=f"{GENERATOR} {_compat.version('agevi')}",
            date=datetime.date.today().isoformat(),
        )
    )


def check_path(path: Any, *, overwrite: bool) -> Path:
    """Where the page goes; refused where it is not a path of an HTML file, or something is there that has to stay."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path={path!r} is a {type(path).__name__}; pass the path of the page, such as 'report.html'.")
    target = Path(path).expanduser()
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path={str(path)!r} does not end with .html; pass the path of the page, as 'report.html'.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is not a directory; make it, or pass another path.")
    if not os.path.lexists(target):
        return target
    if not overwrite:
        raise FileExistsError(f"{target} already exists; pass overwrite=True to replace it, or another path.")
    if not _is_report(target):
        raise FileExistsError(
            f"{target} is not a report of agevi, which replaces nothing that it did not write, even with "
            "overwrite=True; move it away or pass another path."
        )
    return target


def _is_report(path: Path) -> bool:
    """Whether agevi wrote what is there."""
    if not path.is_file() or path.is_symlink():
        return False
    with open(path, "rb") as file:
        return bool(_MARK.search(file.read(_HEAD)))


def write(path: Path, text: str) -> None:
    """Write the page, whole or not at all, so that others may read it as files that are made here usually are."""
    _folder.write(path, text.encode("utf-8"))
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
