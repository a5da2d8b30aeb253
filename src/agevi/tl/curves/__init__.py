"""How the error falls with more subjects and more cells."""

from __future__ import annotations
