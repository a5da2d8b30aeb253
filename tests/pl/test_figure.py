"""What all figures promise: axes are returned, ``show`` and ``save`` work, and nothing covers data or leaves the figure."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from matplotlib.axes import Axes
from matplotlib.text import Text

from agevi import pl
from agevi.pl import _base
from tests.pl.figures import cohort, drawings

DRAWINGS = drawings()
OF_FUNCTION = {name.split("-")[0]: drawing for name, drawing in reversed(DRAWINGS.items())}
DEFAULT, SCANPY, LARGE = "default", "scanpy", "font size 18"


@pytest.fixture
def layout():
    """New figures are laid out, as users see them."""


def test_every_function_has_a_figure():
    assert set(OF_FUNCTION) == set(pl.__all__)


def style(look):
    """Matplotlib's defaults with some changes, or what scanpy sets; to be used in ``rc_context``."""
    mpl.rcParams.update({k: v for k, v in mpl.rcParamsDefault.items() if k != "backend"})
    if look == SCANPY:
        sc.set_figure_params()
    elif look == LARGE:
        mpl.rcParams["font.size"] = 18


def as_list(drawn):
    return list(drawn.values()) if isinstance(drawn, dict) else [drawn]


def children(artist):
    """Everything that is drawn, at any depth."""
    for child in artist.get_children():
        yield child
        yield from children(child)


def texts(figure):
    """Every visible text with its box, without ticks beyond the limits of their axis."""
    ticks = {
        id(tick)
        for ax in figure.axes
        for axes in (ax, *ax.child_axes)
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_ticklabels(which="both")
        if not in_view(axis, tick)
    }
    for text in children(figure):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and id(text) not in ticks:
            yield text, text.get_window_extent()


def in_view(axis, tick):
    """Whether the label of a tick stands within the limits of its axis."""
    low, high = sorted(axis.get_view_interval())
    at = tick.get_position()[axis.axis_name == "y"]
    return low - 1e-9 <= at <= high + 1e-9


def drawn_at(ax):
    """Places of the points of an axes in pixels, (n_points, 2)."""
    offsets = [ax.transData.transform(np.asarray(c.get_offsets())) for c in ax.collections if len(c.get_offsets())]
    lines = [
        ax.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
        for line in ax.lines
        if line.get_marker() not in ("None", "", None) and len(line.get_xdata())
    ]
    return np.concatenate([np.zeros((0, 2)), *offsets, *lines])


def check(figure, axes):
    """No text or legend leaves the figure, covers a point or another text beside it."""
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in texts(figure):
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
        assert inside, f"{text.get_text()!r} at {box} leaves {figure.bbox}"
    for ax in axes:
        legend = ax.get_legend()
        boxes = [*([legend.get_window_extent()] if legend else []), *(t.get_window_extent() for t in ax.texts)]
        points = drawn_at(ax)
        for box in boxes:
            covered = (points > [box.x0, box.y0]) & (points < [box.x1, box.y1])
            assert not covered.all(axis=1).any()
        for axis in (ax.xaxis, ax.yaxis):
            labels = [t for t in axis.get_ticklabels() if t.get_text() and in_view(axis, t)]
            upright = [t.get_window_extent() for t in labels if t.get_rotation() in (0, 90)]
            ends = np.array([(b.x0, b.x1) if axis is ax.xaxis else (b.y0, b.y1) for b in upright])
            ends = ends[np.argsort(ends[:, 0])] if len(ends) else ends.reshape(0, 2)
            assert (ends[1:, 0] > ends[:-1, 1] - 1.5).all(), [t.get_text() for t in labels]
        title, above = ax.title.get_window_extent(), [b for b in boxes if b.y0 >= ax.get_window_extent().y1]
        assert not ax.get_title() or not any(title.overlaps(b) for b in above)


FIRST = [next(name for name in DRAWINGS if name.startswith(f"{function}-")) for function in OF_FUNCTION]
CASES = [(name, LARGE) for name in DRAWINGS] + [(name, look) for look in (DEFAULT, SCANPY) for name in FIRST]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "look"), CASES)
def test_text_leaves_nothing_and_covers_nothing(name, look, monkeypatch):
    function, make, arguments = DRAWINGS[name]
    data = make()
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("shown without show"))
    with mpl.rc_context():
        style(look)
        axes = as_list(function(data, **arguments))
        assert all(isinstance(ax, Axes) for ax in axes)
        check(axes[0].figure, axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OF_FUNCTION if name != "learning_curve"])  # which has two panels
def test_given_axes_stay_within_their_figure(name):
    function, make, arguments = OF_FUNCTION[name]
    arguments = {k: v for k, v in arguments.items() if k != "groupby"} | ({"kind": "box"} if "correl" in name else {})
    figure, ax = plt.subplots(figsize=(7, 6))
    assert function(make(), ax=ax, **arguments) is ax
    assert len(plt.get_fignums()) == 1
    check(figure, [ax])


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_FUNCTION)
def test_show_and_save(name, tmp_path, monkeypatch):
    function, make, arguments = DRAWINGS[next(case for case in FIRST if case.startswith(f"{name}-"))]
    data, shown = make(), []
    monkeypatch.setattr(plt, "show", lambda *_, **__: shown.append(len(plt.get_fignums())))
    before = mpl.rcParams.copy()
    path = tmp_path / "new folder" / f"{name}.png"
    drawn = function(data, show=True, save=path, **arguments)
    assert shown == [1]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert all(ax.figure.number in plt.get_fignums() for ax in as_list(drawn))  # still there to be changed
    assert mpl.rcParams == before


@pytest.fixture
def scanpy_settings():
    """Restore where scanpy puts figures."""
    before = sc.settings.figdir, sc.settings.file_format_figs
    yield
    sc.settings.figdir, sc.settings.file_format_figs = before


@pytest.mark.parametrize(
    ("save", "name"),
    [
        pytest.param("own.svg", "own.svg", id="a path is taken as given"),
        pytest.param("own", "own.png", id="no format"),
        pytest.param("a.b/own.pdf", "a.b/own.pdf", id="folder"),
        pytest.param(True, "figs/age_distribution.png", id="True"),
        pytest.param("_mine.pdf", "figs/age_distribution_mine.pdf", id="ending of scanpy"),
        pytest.param(".svg", "figs/age_distribution.svg", id="format of scanpy"),
        pytest.param("_mine", "figs/age_distribution_mine.png", id="ending without a format"),
        pytest.param("cells.v2", "cells.v2.png", id="a dot that is no format"),
    ],
)
def test_names_of_files(save, name, tmp_path, monkeypatch, scanpy_settings):
    monkeypatch.chdir(tmp_path)
    sc.settings.figdir, sc.settings.file_format_figs = tmp_path / "figs", "png"
    pl.age_distribution(cohort(8), age_key="age", groupby=None, save=save)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [name]
    assert (tmp_path / name).stat().st_size > 1000


def test_nothing_is_saved_without_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("shown"))
    pl.age_distribution(cohort(8), age_key="age", save=False, show=False)
    assert not list(tmp_path.iterdir())


def test_save_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="save is a int; pass the path of a file, or True."):
        pl.age_distribution(cohort(8), age_key="age", save=3)
    assert not plt.get_fignums()


def pathways(middle):
    return [f"REGULATION OF THE CELL CYCLE BY {m} IN THE FIRST PHASE OF A VERY LONG DIVISION" for m in middle]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["short", "names"], ["short", "names"], id="short"),
        pytest.param(["a" * 34], ["a" * 34], id="as long as there is room"),
        pytest.param(
            [f"Regulation of a very long name that ends with {i}" for i in (1, 2)],
            ["Regulation of a very…ends with 1", "Regulation of a very…ends with 2"],
            id="different ends",
        ),
    ],
)
def test_long_names_are_shortened(names, expected):
    assert _base.shortened(names) == expected


@pytest.mark.parametrize("width", [20, 34, 48])
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(pathways(["FOXO", "MYC", "E2F"]), id="different middles"),
        pytest.param(["x" * 60 + str(i) + "y" * 60 for i in range(12)], id="one word"),
        pytest.param([f"{'same beginning ' * 5}{'m' * i}{' same end' * 5}" for i in range(9)], id="number of letters"),
        pytest.param([f"{a}{'z' * 90}" for a in "abc"], id="different beginnings"),
    ],
)
def test_shortened_names_stay_different_and_short(names, width):
    short = _base.shortened(names, width)
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= width
    assert all("…" in name for name in short)


def test_shortened_names_keep_what_tells_them_apart():
    for name, middle in zip(_base.shortened(pathways(["FOXO", "MYC", "E2F"])), ["FOXO", "MYC", "E2F"], strict=True):
        assert middle in name


@pytest.mark.parametrize(
    ("p", "n", "text"),
    [
        pytest.param(1 / 1000, 999, "p ≤ 0.001", id="floor"),
        pytest.param(2 / 1000, 999, "p = 0.002", id="above"),
        pytest.param(0.5, None, "p = 0.5", id="no permutations"),
    ],
)
def test_p_is_a_limit_at_the_floor_of_permutations(p, n, text):
    assert _base.p_text(p, n) == text
