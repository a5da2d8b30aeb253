"""Check the wheel and the source distribution that were built: their size, and that they hold what they should.

usage: python .ci/check_dist.py [FOLDER]    (by default dist)
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL_LIMIT, SDIST_LIMIT = 7_000_000, 14_000_000  # bytes
CODE = {".py", ".pyi"}
NEEDED = (  # of the source distribution, from which the wheel is built and the tests are run
    "CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
    "conftest.py", "constraints.txt", "docs/conf.py", "packaging/conda/recipe.yaml", "pyproject.toml",
    "src/agevi/__init__.py", "tests/test_packaging.py",
)  # fmt: skip


def one(folder: Path, pattern: str) -> Path:
    """The only file of the folder that fits."""
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise SystemExit(f"{folder} has {len(files)} files {pattern}, not one; empty it and build again.")
    return files[0]


def small(path: Path, limit: int) -> None:
    """The size of a file is printed, and an error from the limit on."""
    size = path.stat().st_size
    print(f"{path.name}: {size / 1e6:.2f} MB")
    if size >= limit:
        raise SystemExit(f"{path.name} has {size:,} bytes, {limit:,} or more.")


def shipped() -> set[str]:
    """Every file of ``src/agevi``, as it is called in the wheel."""
    files = (path for path in (ROOT / "src" / "agevi").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def check_wheel(path: Path) -> None:
    """Package, data, clocks, licences and the command, and nothing else."""
    small(path, WHEEL_LIMIT)
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        entry = next((name for name in names if name.endswith(".dist-info/entry_points.txt")), None)
        command = wheel.read(entry).decode() if entry else ""
        about = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    relative = re.findall(r"\]\((?!https?:|#)[^)]*\)", about)
    if relative:
        raise SystemExit(
            f"{path.name} describes itself with links that lead nowhere on a package index: {relative[:5]}."
        )
    package = {name for name in names if name.startswith("agevi/")}
    rest = {name for name in names - package if ".dist-info/" not in name}
    if package != shipped() or rest:
        wrong = sorted((package ^ shipped()) | rest)
        raise SystemExit(f"{path.name} differs from src/agevi in {len(wrong)} files, such as {wrong[:5]}.")
    clocks = {name.split("/")[3] for name in package if name.startswith("agevi/clocks/data/") and name.count("/") > 3}
    licences = [name for name in names if ".dist-info/licenses/" in name]
    for what, found, least in (
        ("ready-made clocks", clocks, 25),
        (
            "data sets",
            [name for name in package if name.startswith("agevi/datasets/data/") and name.endswith(".npz")],
            2,
        ),
        ("licences", licences, 4),
        ("py.typed", package & {"agevi/py.typed"}, 1),
    ):
        if len(found) < least:
            raise SystemExit(f"{path.name} has {len(found)} {what}, not {least}.")
    if "agevi = agevi.cli._main:main" not in command:
        raise SystemExit(f"{path.name} does not bring the command agevi.")
    print(f"{path.name}: {len(package)} files of agevi, {len(clocks)} clocks, {len(licences)} licences, no tests")


def check_sdist(path: Path) -> None:
    """All that the wheel is built from, with tests and documentation."""
    small(path, SDIST_LIMIT)
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    missing = [name for name in NEEDED if name not in names] + sorted({f"src/{name}" for name in shipped()} - names)
    built = sorted(
        name for name in names if "__pycache__" in name or name.startswith(("docs/_build", "docs/generated"))
    )
    if missing or built:
        raise SystemExit(f"{path.name} lacks {missing[:5]}, or has what was built: {built[:5]}.")
    print(f"{path.name}: {len(names)} files")


if __name__ == "__main__":
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else "dist")
    check_wheel(one(dist, "*.whl"))
    check_sdist(one(dist, "*.tar.gz"))
