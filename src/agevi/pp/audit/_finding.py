"""One row of an audit."""

from __future__ import annotations

from typing import NamedTuple

HIGH, MEDIUM, LOW, NONE = SEVERITIES = ("high", "medium", "low", "none")


class Finding(NamedTuple):
    """What was looked at, what was seen, and what to do."""

    check: str
    finding: str
    value: float
    severity: str
    advice: str
