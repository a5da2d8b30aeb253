"""Another version of agevi in a process of its own, so that ``speed.py`` can let two versions take turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from speed_race import Times

_HERE = Path(__file__).resolve().parent


@contextlib.contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """Folder with the repository at ``ref``, which is removed afterwards."""
    git = ["git", "-C", str(_HERE.parent), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "before"
        subprocess.run([*git, "add", "--quiet", "--detach", str(place), ref], check=True)
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True)


class Before:
    """A process with the version in ``place`` and the same simulated data."""

    def __init__(self, place: Path, n_cells: int, n_genes: int, seed: int) -> None:
        path = os.pathsep.join([str(place / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, str(_HERE / "speed_race.py"), *map(str, (n_cells, n_genes, seed))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        used = Path(self._answer()["agevi"])
        if not used.is_relative_to(place.resolve()):
            raise RuntimeError(f"the process imported agevi from {used} and not from {place}.")

    def _answer(self) -> dict:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError("the process with the version before ended; see its message above.")
        return json.loads(line)

    def ours(self, threads: int, batch_size: int, precision: str, epochs: int) -> Times:
        """Seconds of a training."""
        asked = {"threads": threads, "batch_size": batch_size, "precision": precision, "epochs": epochs}
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()
