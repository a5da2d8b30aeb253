"""Run the Python code of pages of the site, each in a process of its own and an empty folder.

usage: python docs/run_code.py [PAGE.md ...]

Without pages it runs all of the guide and the models but those whose code needs files of the reader's. One line for
each page; the exit code is 1 where one failed. It takes about 15 minutes of one core.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SKETCHES = {"from_disk.md", "large.md", "pathways.md", "speed.md"}
"""Pages whose code reads files of the reader's, downloads something, or goes on from another page."""


def code_of(page: Path) -> str:
    """The blocks of a page as one program; blocks of other languages and ``{code-block}`` are left out."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(blocks)


def run(page: Path) -> bool:
    """Run the code of a page and print how that went."""
    code, start = code_of(page), time.perf_counter()
    if not code:
        return True
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"MPLBACKEND": "Agg"}
        found = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    ok = found.returncode == 0
    said = "" if ok else ": " + "".join(found.stderr.strip().splitlines()[-1:])
    print(f"{'ok' if ok else 'FAILED'} {page.name}, {time.perf_counter() - start:.0f} s{said}", flush=True)
    return ok


if __name__ == "__main__":
    pages = [Path(name).resolve() for name in sys.argv[1:]]
    if not pages:
        every = (page for folder in ("user_guide", "models") for page in sorted((HERE / folder).glob("*.md")))
        pages = [page for page in every if page.name not in SKETCHES]
    failed = [page for page in pages if not run(page)]
    sys.exit(bool(failed))
