"""What the Python code of a page returns, so that figures which a page prints below its own code can be compared with it.

usage: python benchmarks/page_code.py PAGE TEXT

Runs the first block of code of PAGE that contains TEXT, and prints what those of its lines return that are expressions.
"""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path
from typing import Any

import matplotlib

ROOT = Path(__file__).resolve().parents[1]


def block(page: str, text: str) -> str:
    """The first block of Python code that contains a text."""
    found = re.findall(r"```python\n(.+?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    having = [code for code in found if text in code]
    if not having:
        raise SystemExit(f"{page} has no Python code with {text!r}")
    return having[0]


def main() -> None:
    """Run the block, statement by statement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page")
    parser.add_argument("text")
    args = parser.parse_args()
    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    exec("import agevi", names)
    for statement in ast.parse(block(args.page, args.text)).body:
        if isinstance(statement, ast.Expr):
            print(eval(compile(ast.Expression(statement.value), args.page, "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), args.page, "exec"), names)


if __name__ == "__main__":
    main()
