"""Names that a package imports when they are first used, as SPEC 1 of Scientific Python describes it."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# Threads that import torch at the same time see it half loaded, or crash. One lock, since packages import each other.
_one_at_a_time = threading.RLock()


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, for the names that its stub imports.

    The stub, ``__init__.pyi`` beside the package's ``file``, is also what type checkers and editors read.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in homes:
            module = sys.modules[package]
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=module)
        with _one_at_a_time:
            if homes[name] == package:
                return import_module(f"{package}.{name}")
            value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # so that it is found at once from now on
        return value

    return get, lambda: sorted(homes), sorted(homes)
