"""The pictures of a benchmark: time against size, log-log, one line a rival, the floor below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastnt.files import atomic_path

COLOURS = {
    "fastnt": "#c2410c",
    "fastnt 2 threads": "#f59e0b",
    "pytorch": "#1d6fb8",
    "compile": "#15803d",
    "compile fallback": "#65a30d",
    "compile graph": "#65a30d",
    "kd_lib": "#7c3aed",
    "mse": "#0891b2",
    "floor": "#6b7280",
    "node": "#9ca3af",
}
_LABELS = {
    "pytorch": "plain PyTorch, its fastest form",
    "compile": "torch.compile",
    "compile fallback": "torch.compile, fallback_random",
    "compile graph": "torch.compile, reduce-overhead",
    "kd_lib": "KD_Lib's loss",
    "mse": "MSE without noise",
    "floor": "floor: inputs read, a gradient written",
    "node": "an empty autograd.Function",
}
_LINES = {"compile fallback": "-.", "compile graph": "-.", "floor": "--", "node": ":"}
_MODES = {
    "loss": "Loss alone",
    "value_and_grad": "Loss and gradient",
    "autograd": "Forward and backward through autograd",
}


def plot_pictures(
    folder: Path, rows: Sequence[dict[str, Any]], machine: dict[str, Any], *, prefix: str = ""
) -> None:
    """Plot a picture for each mode, dtype and alpha: FOLDER/PREFIXmode-dtype-alpha.png.

    Raises:
        UserError: a file cannot be written.
    """
    threads = f"{machine['threads']} thread" + ("" if machine["threads"] == 1 else "s")
    name = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    for kind in {(r["mode"], r["dtype"], r["alpha"]) for r in rows}:
        same = [r for r in rows if (r["mode"], r["dtype"], r["alpha"]) == kind]
        mode, dtype, alpha = kind
        title = f"{_MODES.get(mode, mode)}, {dtype}, alpha {alpha:g}: {name}, {threads}"
        plot_benchmark(folder / f"{prefix}{mode}-{dtype}-alpha{alpha:g}.png", same, title)


def plot_benchmark(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Plot the rows of one mode, dtype and alpha: microseconds against elements.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.8), dpi=160, layout="constrained")
    axes = figure.subplots()
    for name, colour in COLOURS.items():
        measured = [r for r in rows if r["rival"] == name and "seconds" in r]
        measured.sort(key=lambda r: r["samples"] * r["classes"])
        if not measured:
            continue
        axes.plot(
            [r["samples"] * r["classes"] for r in measured],
            [1e6 * r["seconds"] for r in measured],
            color=colour,
            label=_LABELS.get(name, name),
            linewidth=2.6 if name == "fastnt" else 1.6,
            linestyle=_LINES.get(name, "-"),
            marker="o",
            markersize=4,
        )
    sizes = sorted({(r["samples"] * r["classes"], r["samples"], r["classes"]) for r in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = [f"{samples:,} x {classes:,}" for _, samples, classes in sizes]
    axes.set_xticks([size for size, _, _ in sizes], labels, fontsize=8, rotation=45, ha="right")
    axes.minorticks_off()
    axes.set_xlabel("samples x classes")
    axes.set_ylabel("microseconds, median")
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
    axes.grid(color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
