"""The style of the pictures of runs: colours that colour-blind readers can tell apart, plain axes."""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastnt.files import atomic_path

COLOURS = {"teacher": "#6b7280", "clean": "#0072b2", "noisy": "#d55e00"}
# Colours and markers of runs that are compared: Okabe and Ito's colours, with grey instead of yellow.
RUN_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#8c8c8c",
)
RUN_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LOGARITHMIC = 4.0  # from this ratio of largest to smallest value on, the axis is logarithmic

# Fonts with Chinese, Japanese and Korean letters, of which those that are installed are used.
_MORE_LETTERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC")


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw texts as they are: a dollar begins no formula, a letter that no font has is a box."""
    import matplotlib as mpl
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed)]
    style: Any = {"text.parse_math": False, "font.family": fonts}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")
        yield


def style_axes(axes: Any, title: str, ylabel: str) -> None:
    """Give axes over epochs their title, labels and grid."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)  # epochs are counted from 1: the axis needs no zero
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def scale(axes: Any, values: Sequence[float]) -> None:
    """Make the y axis logarithmic, with plain numbers, if ``values`` span a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not values or min(values) <= 0:
        axes.set_ylim(bottom=0)
    elif max(values) >= _LOGARITHMIC * min(values):
        axes.set_yscale("log")
        few = max(values) >= 30 * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1, 2, 3, 5, 7)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))


def run_style(number: int) -> tuple[str, str]:
    """Return the colour and the marker of a run; the first 64 runs have different pairs."""
    colours, markers = len(RUN_COLOURS), len(RUN_MARKERS)
    return RUN_COLOURS[number % colours], RUN_MARKERS[(number + number // colours) % markers]


def noise_text(alpha: Any, sigma: Any) -> str:
    """Return ``α 0.5, σ 0.6``; ``α 0, 0.5`` for an alpha a teacher, ``σ 0.01 to 1`` for a range."""
    alphas, ends = (v if isinstance(v, (list, tuple)) else [v] for v in (alpha, sigma))
    return f"α {', '.join(f'{a:g}' for a in alphas)}, σ {' to '.join(f'{end:g}' for end in ends)}"


def add_note(figure: Any, text: str | None) -> None:
    """Put a sentence under a picture that is 7 inches wide."""
    if text:
        lines = textwrap.fill(text, 100)
        figure.supxlabel(lines, x=0.01, ha="left", fontsize=9, color="#4b5563")


def save(figure: Any, path: Path) -> None:
    """Write the picture (PNG).

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
