"""Use an installed agevi as a stranger would, in an empty folder outside of any checkout; a few minutes on 2 cores.

usage: python -I .ci/smoke.py    (with the interpreter of the environment that agevi was installed into)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import requires, version
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]


def command(*words: str) -> str:
    """What ``agevi`` prints, the command that was installed beside this interpreter."""
    agevi = Path(sys.executable).with_name("agevi")
    done = subprocess.run([agevi, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"agevi {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def import_it() -> str:
    """The package is the installed one, and not that of a checkout."""
    import agevi

    if HERE in Path(agevi.__file__).resolve().parents and "site-packages" not in agevi.__file__:
        raise SystemExit(f"agevi is taken from the checkout, {agevi.__file__}")
    for name in agevi.__all__:
        getattr(agevi, name)
    return f"agevi {agevi.__version__}, Python {sys.version.split()[0]}"


def extras() -> str:
    """Each package that an extra names is there, where the wheel was installed with ``[all]``."""
    optional = [line.split(";")[0] for line in requires("agevi") or [] if "extra ==" in line and "agevi[" not in line]
    names = sorted({line.split(">")[0].split("[")[0].strip() for line in optional})
    return ", ".join(f"{name} {version(name)}" for name in names)


def ask_the_command() -> str:
    """Version, help and the ready-made clocks, by the command."""
    if command("--version").split() != ["agevi", version("agevi")]:
        raise SystemExit("agevi --version tells another version.")
    if "horvath" not in command("info", "horvath_2013").lower():
        raise SystemExit("agevi info does not know the clock horvath_2013.")
    return f"{len(command('clocks').splitlines())} lines of clocks"


def study() -> str:
    """A quick study of cells that come with the package, its report, and its clock saved and read again."""
    import agevi

    adata = agevi.datasets.tcells(80, 20)
    found = agevi.tl.study(adata, age_key="age", subject_key="donor", quick=True)
    report = Path(agevi.report(adata, "report.html")).read_text(encoding="utf-8")
    if "<html" not in report or len(found.subjects) != 80:
        raise SystemExit("the study or its report is not whole.")
    found.clock.save("clock")
    kept, read = (clock.predict_age(adata, level="sample") for clock in (found.clock, agevi.io.load_clock("clock")))
    if not np.isfinite(kept).all() or not np.allclose(kept, read):
        raise SystemExit("the clock that was read predicts other ages than the one that was saved.")
    return str(found).splitlines()[0]


def ask_of_the_clock() -> str:
    """The card of the saved clock, by the command."""
    return next(line for line in command("info", "clock").splitlines() if line.strip())


def main() -> None:
    """Run all steps, with a line and the seconds of each."""
    steps: list[Callable[[], str]] = [import_it, extras, ask_the_command, study, ask_of_the_clock]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for step in steps:
            start = time.perf_counter()
            said = step()
            print(f"{step.__name__}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
