"""``fastnt predict RUN IMAGE...``: classify images with a trained network."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fastnt.cli import options
from fastnt.cli.tables import print_table
from fastnt.console import make_console
from fastnt.output import results_alone


def predict(
    run: options.RunFolder,
    images: Annotated[
        list[Path],
        typer.Argument(help="Pictures (PNG, JPEG), or .npy of uint8.", metavar="IMAGE..."),
    ],
    network: options.Network = "noisy",
    top: Annotated[
        int, typer.Option(help="Show so many classes of each image.", min=1, metavar="N")
    ] = 3,
    json_: Annotated[
        bool, typer.Option("--json", help="Print every class's probability as JSON.")
    ] = False,
    trust_code: options.TrustCode = False,
) -> None:
    """Show the likeliest classes of IMAGE, with their probabilities."""
    from fastnt.runs.predict import predict_run

    with results_alone():
        predictions, names = predict_run(run, images, network, trust_code=trust_code)
    if json_:
        rows = [
            {
                "image": found.image,
                "classes": dict(zip(names, found.probabilities, strict=True)),
            }
            for found in predictions
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = []
    for found in predictions:
        likeliest = sorted(zip(found.probabilities, names, strict=True), reverse=True)[:top]
        for place, (share, name) in enumerate(likeliest):
            cells.append(["" if place else found.image, name, f"{100 * share:.1f} %"])
    title = f"by the {network} network" if network == "teacher" else f"by the {network} student"
    headings = ("image", "class", "probability")
    print_table(make_console(), headings, cells, numbers=["probability"], title=title)
