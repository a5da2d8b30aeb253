"""Changes of predicted ages under perturbations."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from agevi import _checks, _keys, _symbols, get
from agevi.pl import _base
from agevi.pl._attribution import OLDER, YOUNGER
from agevi.pl._figure import figure


@figure
def perturbation(
    adata: AnnData,
    *,
    group: str = "all",
    n_top: int = 20,
    gene_symbols: str | None = None,
    key_added: str = _keys.DEFAULT_KEY,
    ax: Axes | None = None,
) -> Axes:
    """Change of predicted ages when genes are perturbed, with 95 % intervals over subjects, in the unit of age.

    The largest changes are on top. To the right the perturbed cells look older to the clock, to the left younger; to a
    classifier more like cases, and more like controls. It is what the model answers, not what an experiment would.

    Parameters
    ----------
    %(after_perturbation)s
    group
        Group of cells.
    n_top
        Genes or sets to draw at most.
    %(names_of_genes)s
    %(drawn)s

    Raises
    ------
    KeyError
        :func:`agevi.tl.perturb_genes` was not run, or ``gene_symbols`` is absent.
    ValueError
        The group is unknown.

    Examples
    --------
    %(example_model)s
    >>> agevi.tl.perturb_genes(adata, model, factor=0.5)
    >>> agevi.pl.perturbation(adata, n_top=5).get_xlabel()
    'Change of predicted age (years)'
    """
    table = get.perturbation_df(adata, group=group, key_added=key_added).head(_checks.count(n_top, "n_top"))
    params = _base.params_of(adata, "perturbation", key_added)
    ax = _base.axes(ax, 3.4, 0.26 * len(table) + 0.3)
    y, change = np.arange(len(table)), table["change"].to_numpy()
    reach = np.stack([change - table["low"].to_numpy(), table["high"].to_numpy() - change]).clip(0)
    words = _base.wording(_base.unit_of(params))
    for side, color, label in ((change >= 0, OLDER, words.higher), (change < 0, YOUNGER, words.lower)):
        if side.any():
            ax.errorbar(
                change[side], y[side], xerr=reach[:, side], fmt="o", color=color, capsize=2, markersize=5, label=label
            )
    ax.axvline(0, color=_base.LINE_COLOR, linewidth=0.8, zorder=0)
    labels = _symbols.labels(adata, gene_symbols)
    names = _base.shortened([labels.get(gene, gene) for gene in table["gene"]])
    names = [name if n == 1 else f"{name} ({n} genes)" for name, n in zip(names, table["n_genes"], strict=True)]
    ax.set(xlabel=words.change)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    _base.name_rows(ax, names, 50)
    factor = float(params["factor"])
    what = "knocked out" if factor == 0 else f"expression times {factor:g}"
    _base.title(ax, what if group == "all" else f"{_base.shortened([group])[0]}, {what}")
    _base.legend(ax, title="perturbed cells")
    ax.grid(axis="x", color="#e0e0e0", linewidth=0.6)
    return ax
