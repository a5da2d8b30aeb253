"""Cross-validation over whole subjects, the leaderboard, and the machinery of folds that other studies call."""

from __future__ import annotations
