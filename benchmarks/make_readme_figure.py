"""The figure of the README: the bundled donors, each predicted while it was held out, and the genes of the clock.

usage: python benchmarks/make_readme_figure.py [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

import agevi

OUT = Path(__file__).resolve().parents[1] / "docs/_static/readme.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    matplotlib.use("Agg")
    adata = agevi.datasets.tcells()
    found = agevi.tl.study(adata, age_key="age", subject_key="donor", quick=True)
    print(found)

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.4), gridspec_kw={"width_ratios": [1, 0.9], "wspace": 0.75}
    )
    agevi.pl.predicted_vs_actual(adata, intervals=True, ax=left)
    left.set_title("300 held-out donors with their intervals", fontsize="medium")
    agevi.pl.attribution(adata, n_top=12, ax=right)
    right.set_title("What each gene adds to predicted ages", fontsize="medium")
    figure.savefig(out, dpi=110, bbox_inches="tight")
    print(f"{out.name}: {out.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
