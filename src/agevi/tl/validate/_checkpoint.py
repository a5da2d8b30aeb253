"""Finished folds on disk, so that a run that was killed resumes where it stopped. No pickle is written or read."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from agevi.io._folder import check_path, claim, recorded, write
from agevi.model.base._seed import as_seed
from agevi.tl.validate._fit_fold import FoldJob, FoldResult

logger = logging.getLogger(__name__)

MANIFEST = "cross_validation.json"


class Checkpoint:
    """The finished folds of one run."""

    def __init__(self, directory: str | Path, fingerprint: dict[str, Any]) -> None:
        self.directory = claim(directory, MANIFEST, fingerprint, "folds of another run")

    def read(self, job: FoldJob) -> FoldResult | None:
        """The result of a finished fold; None where it is not there or damaged."""
        path = self.directory / f"{job.name}.npz"
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            if not np.array_equal(arrays.pop("test"), job.test) or len(arrays["predicted"]) != len(job.test):
                raise ValueError("it holds other cells")
            return FoldResult(**{name: value if value.ndim else value.item() for name, value in arrays.items()})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
            logger.warning("%s cannot be used (%s); the fold is run again.", path, reason)
            return None

    def write(self, job: FoldJob, result: FoldResult) -> None:
        """Keep the result of a finished fold; one that failed is run again next time."""
        if result.error:
            return
        arrays = {name: np.asarray(value) for name, value in vars(result).items() if value is not None}
        buffer = io.BytesIO()
        np.savez(buffer, **{"test": job.test, **arrays})  # type: ignore[arg-type]
        write(self.directory / f"{job.name}.npz", buffer.getvalue())


def seed_of(rng: int | np.random.Generator | None, directory: Any) -> int:
    """One number for ``rng``, or that of the run in ``directory``, which must be the path of a directory."""
    if directory is None:
        return as_seed(rng)
    check_path(directory)
    stored = recorded(Path(directory), MANIFEST) if rng is None else None
    return int(stored["rng"]) if stored and "rng" in stored else as_seed(rng)
