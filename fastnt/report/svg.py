"""Figures as SVG inside a page: text stays text, colours are the page's, light, dark or printed."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnt.report.style import plain_text

# Stand-ins while matplotlib draws; the page's style sheet says how each looks.
INK, LINE, BLUE, ORANGE, GREY = "#010203", "#d0d4da", "#0072b2", "#d55e00", "#6b7280"
GREEN, PINK, YELLOW = "#009e73", "#cc79a7", "#e69f00"
SERIES = (
    ORANGE,
    BLUE,
    GREEN,
    PINK,
    YELLOW,
    GREY,
)  # Okabe and Ito's, told apart by the colour-blind
_CSS = {
    INK: "currentColor",
    LINE: "var(--line)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREY: "var(--grey)",
}
_FONT = re.compile(r"(font: [^;\"]*?px) [^;\"]*")
WIDTH = 4.8  # inches: on a telephone the text of a figure is as large as that of a footnote

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlecolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    name: str
    svg: str
    title: str = ""
    caption: str = ""
    width: int = 0  # in the page, CSS pixels at most
    file: str = ""  # the figure as a file of its own: dark on white, for papers and slides


def draw(
    name: str,
    title: str,
    paint: Callable[[Any], None],
    *,
    size: tuple[float, float] = (WIDTH, 3.2),
    caption: str = "",
) -> Picture:
    """Let ``paint`` draw on axes of ``size`` inches, and return the figure as SVG.

    The same drawing gives the same bytes: no date, and identifiers that come from ``name``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}
    with plain_text(), mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        paint(axes)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    width = round(size[0] * 118)
    return Picture(name, _inline(svg, name, title), title, caption, width, _alone(svg))


def _alone(svg: str) -> str:
    """Put a white ground behind a figure, and let the reader's own fonts write its text."""
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    svg = re.sub(r"<svg[^>]*>", lambda found: f"{found[0]}\n {ground}", svg, count=1)
    return _FONT.sub(r"\1 system-ui, sans-serif", svg)


def _inline(svg: str, name: str, title: str) -> str:
    """Make a part of a page of an SVG file: unique identifiers, the page's colours and fonts."""
    svg = svg[svg.index("<svg") :].strip()
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg {view[0]} role="img" aria-label="{label}">'
    svg = re.sub(r"<svg[^>]*>", lambda found: head, svg, count=1)  # a title may hold a backslash
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#|href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = _FONT.sub(r"\1 system-ui, sans-serif", svg)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # the page has it, once
