"""``fastnt networks``: the named networks, in the paper's notation."""

import json
import textwrap
from typing import Annotated, Any

import typer

from fastnt.console import make_console


def networks(
    json_: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the named networks: notation, parameters, multiplications of one image.

    Their sizes are those for the images that they were made for (height x width x channels) and 10
    classes. A notation may be given wherever a name may: fastnt train --student FC800-FC10.
    """
    from fastnt.networks import NETWORKS, build_network, count_multiplies, count_parameters

    rows: list[dict[str, Any]] = []
    for name, notation in NETWORKS.items():
        shape = _SHAPES[name.partition("-")[0]]
        network = build_network(name, shape, 10)
        rows.append(
            {
                "name": name,
                "notation": notation,
                "image": shape,
                "parameters": count_parameters(network),
                "multiplies": count_multiplies(network, shape),
            }
        )
    if json_:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = make_console()
    for row in rows:
        channels, height, width = row["image"]
        console.print(
            f"{row['name']}: {row['parameters']:,} parameters, {row['multiplies']:,} multiplies, "
            f"{height}x{width}x{channels}"
        )
        # Lines are broken behind a hyphen, since the notation has no blanks.
        for line in textwrap.wrap(row["notation"].replace("-", "- "), console.width - 4):
            console.print(f"    {line.replace('- ', '-')}", soft_wrap=True)


# The shape of an image, (channels, height, width), for each beginning of a network's name.
_SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "nin": (3, 32, 32),
    "svhn": (3, 32, 32),
    "cifar10": (3, 32, 32),
    "folder": (3, 32, 32),
}
