"""A page as its reader finds it: parsed strictly, with its tables as data frames."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import html5lib
import pandas as pd

SECTIONS = ["verdict", "data", "ages", "subjects", "acceleration", "types", "genes", "sets", "made"]
ADDRESS = re.compile(r"https?:|//[a-z]|@import|fetch\(|XMLHttpRequest|url\((?!#)", re.IGNORECASE)
"""What would lead out of a page."""


def parsed(text: str) -> ET.Element:
    """The page as a tree; an error of its HTML raises."""
    page = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    for element in page.iter():
        if isinstance(element.tag, str):  # a comment has a function
            element.tag = element.tag.rpartition("}")[2]  # without the namespace of SVG
    return page


def words(element: ET.Element) -> str:
    """All text in an element."""
    return " ".join("".join(element.itertext()).split())


def section(page: ET.Element, name: str) -> ET.Element:
    """A section by its name."""
    (found,) = [e for e in page.iter("section") if e.get("id") == name]
    return found


def table(page: ET.Element, name: str) -> pd.DataFrame:
    """A table by its name: numbers where cells hold numbers, else text."""
    (found,) = [e for e in page.iter("table") if e.find("caption").get("id") == f"c-{name}"]
    heads = [words(e) for e in found.find("thead/tr")]
    rows = [
        [float(c.get("data-v")) if c.get("data-v") else words(c) for c in row] for row in found.find("tbody").iter("tr")
    ]
    return pd.DataFrame(rows, columns=heads)


def has_table(page: ET.Element, name: str) -> bool:
    """Whether there is such a table."""
    return any(e.find("caption").get("id") == f"c-{name}" for e in page.iter("table"))


def ids(page: ET.Element) -> list[str]:
    """Every id of the page."""
    return [str(e.get("id")) for e in page.iter() if e.get("id")]
