"""``fastnt networks``: the named networks, in the paper's notation."""

import json
from typing import Annotated, Any

import typer


def networks(
    json_: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the named networks: notation, parameters, multiplications of one image.

    Their sizes are those for the images that they were made for. A notation may be given wherever a
    name may: fastnt train --student FC800-FC10.
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
    for row in rows:
        image = "x".join(map(str, row["image"]))
        typer.echo(
            f"{row['name']}: {row['parameters']:,} parameters, {row['multiplies']:,} multiplies "
            f"for {image} and 10 classes"
        )
        typer.echo(f"    {row['notation']}")


# The shape of an image, (channels, height, width), for each beginning of a network's name.
_SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "nin": (3, 32, 32),
    "svhn": (3, 32, 32),
    "cifar10": (3, 32, 32),
    "folder": (3, 32, 32),
}
