"""``fastnt export RUN``: a trained network as one file for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fastnt.cli import options
from fastnt.output import results_alone


def export(
    run: options.RunFolder,
    format_: Annotated[
        Literal["onnx", "pt2", "safetensors"],
        typer.Option("--format", help="ONNX, torch.export's, or fastnt's own."),
    ],
    network: options.Network = "noisy",
    output: Annotated[
        Path | None, typer.Option(help="The file; by default it lies in RUN.", metavar="FILE")
    ] = None,
    trust_code: options.TrustCode = False,
) -> None:
    """Write a network of RUN as one file, from raw uint8 images to logits, and check it."""
    from fastnt.runs.networks import export_run
    from fastnt.training.export import BATCHES

    with results_alone():
        made, real = export_run(run, format_, network, output, trust_code=trust_code)
    kind = "test images" if real else "images drawn at random"
    typer.echo(
        f"wrote {made.path}; its logits differ from the original's by at most {made.difference:.2g}, on "
        f"{made.images} {kind} in batches of {', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    )
