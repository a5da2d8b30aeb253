"""``python -m agevi``: the command line."""

from __future__ import annotations

from agevi.cli._main import main

if __name__ == "__main__":
    main()
