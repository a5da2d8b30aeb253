"""Check a built site: every link within it leads to a page, a file or a heading that is there.

usage: python docs/check_links.py [FOLDER]

Reads the HTML alone, so that neither a browser nor a network is needed. `sphinx -b linkcheck` tries the links that lead
elsewhere.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the places in it that links can lead to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep links and ids."""
        found = dict(attrs)
        self.places |= {value for name in ("id", *(["name"] if tag == "a" else [])) if (value := found.get(name))}
        self.links += [value for name in ("href", "src") if (value := found.get(name))]
        self.links += [part.split()[0] for part in (found.get("srcset") or "").split(",") if part.strip()]


def dead_links(site: Path) -> list[str]:
    """One line for each link within a site that leads nowhere."""
    files = (file for file in sorted(site.rglob("*.html")) if "_static" not in file.relative_to(site).parts)
    pages = {file.resolve(): Page(file) for file in files}
    dead = []
    for file, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            start = site if parts.path.startswith("/") else file.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            found = place in ("", "top") or target not in pages or place in pages[target].places
            if not (target.exists() and target.is_relative_to(site.resolve()) and found):
                dead.append(f"{file.relative_to(site.resolve())}: {link}")
    return dead


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "_build" / "html")
    if not (root / "index.html").exists():
        sys.exit(f"{root} holds no site; build it with `make docs`.")
    if lines := dead_links(root):
        sys.exit("\n".join(["links that lead nowhere:", *lines]))
