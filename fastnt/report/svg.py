"""Figures as SVG inside a page: text stays text, and the page's style sheet decides the colours."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastnt.report.style import plain_text

# matplotlib draws in these colours; most are then replaced by variables of the page's style sheet.
INK, LINE, BLUE, ORANGE, GREY = "#010203", "#d0d4da", "#0072b2", "#d55e00", "#6b7280"
GREEN, PINK, YELLOW = "#009e73", "#cc79a7", "#e69f00"
SERIES = (
    ORANGE,
    BLUE,
    GREEN,
    PINK,
    YELLOW,
    GREY,
)  # Okabe and Ito's colours, which colour-blind readers can tell apart
_CSS = {
    INK: "currentColor",
    LINE: "var(--line)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREY: "var(--grey)",
}
_FONT = re.compile(r"(font: [^;\"]*?px) [^;\"]*")
WIDTH = 4.8  # inches; on a phone the text is then as large as that of a footnote

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
    width: int = 0  # largest width in the page, in CSS pixels
    file: str = ""  # the figure as a separate SVG file, dark on white, for papers and slides


def render(
    name: str,
    title: str,
    paint: Callable[[Any], None],
    *,
    size: tuple[float, float] = (WIDTH, 3.2),
    caption: str = "",
) -> Picture:
    """Call ``paint`` with axes of ``size`` inches, and return the figure as SVG.

    The same content gives the same bytes: there is no date, and identifiers come from ``name``.
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
    """Return a figure as a separate file: on a white background, in the reader's fonts."""
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    svg = re.sub(r"<svg[^>]*>", lambda found: f"{found[0]}\n {ground}", svg, count=1)
    return _FONT.sub(r"\1 system-ui, sans-serif", svg)


def _inline(svg: str, name: str, title: str) -> str:
    """Return a figure as part of a page: with unique identifiers and the page's colours and fonts."""
    svg = svg[svg.index("<svg") :].strip()
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg {view[0]} role="img" aria-label="{label}">'
    # A function, since the title may contain a backslash.
    svg = re.sub(r"<svg[^>]*>", lambda match: head, svg, count=1)
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#|href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = _FONT.sub(r"\1 system-ui, sans-serif", svg)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # the page has this style once
