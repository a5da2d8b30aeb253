"""What a page is made of. Every text is shown as it is: the template escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup

_SHORT = 10  # rows of a table


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    small: bool = False


@dataclass(frozen=True)
class Callout:
    """A finding that stands out; ``level`` gives the colour beside the words."""

    kind: ClassVar[str] = "callout"
    level: Literal["good", "warn", "bad", "plain"]
    title: str
    text: str = ""


@dataclass(frozen=True)
class Fact:
    """One number with its name and what to read beside it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    kind: ClassVar[str] = "facts"
    items: Sequence[Fact]
    large: bool = False


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    items: Sequence[str]


@dataclass(frozen=True)
class Quote:
    """A sentence to take along, with a button that copies it."""

    kind: ClassVar[str] = "quote"
    text: str


@dataclass(frozen=True)
class Code:
    """Lines of code, with a button that copies them."""

    kind: ClassVar[str] = "code"
    text: str
    label: str = "Code"


@dataclass(frozen=True)
class Absent:
    """What is not there, and the call that makes it."""

    kind: ClassVar[str] = "absent"
    text: str
    call: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure: its SVG, what it shows in words for those who do not see it, a caption, and its width in pixels."""

    kind: ClassVar[str] = "figure"
    svg: Markup
    alt: str
    caption: str
    width: int


@dataclass(frozen=True)
class Head:
    """Head of a column; ``title`` explains it."""

    label: str
    numeric: bool = False
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """What a cell of a table shows, and the number behind it, "" for text and for what is not known."""

    text: str
    value: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and searched and copied where it is long."""

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    columns: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    @property
    def long(self) -> bool:
        """Whether it has more rows than are taken in at a glance."""
        return len(self.rows) > _SHORT


@dataclass(frozen=True)
class Side:
    """Blocks beside a figure, below it on a narrow screen."""

    kind: ClassVar[str] = "side"
    figure: Figure | Absent | Text
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Text | Callout | Facts | Points | Quote | Code | Absent | Figure | Table | Side | Heading


@dataclass(frozen=True)
class Section:
    """A part of the page; ``name`` is its address on the page, ``short`` its name in the list of contents."""

    name: str
    title: str
    short: str
    blocks: Sequence[Block] = field(default_factory=tuple)
