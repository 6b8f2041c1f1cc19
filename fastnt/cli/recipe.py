"""``fastnt recipe``: every key of a recipe, and a .toml file to start from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def recipe(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Whose recipe: digits, mnist, svhn, cifar10, or the path of your own data.",
            show_default="digits",
            metavar="NAME|PATH",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A recipe (.toml), or a run's folder: show its values.", metavar="FILE"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write them as a recipe to start from.", metavar="FILE.toml"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the values as JSON.")] = False,
) -> None:
    """Show every key of a recipe with its value, its range and what it means.

    `fastnt train --config FILE.toml` takes what --output writes; --set KEY=VALUE sets one key.
    """
    from dataclasses import asdict

    from rich.padding import Padding

    from fastnt.cli.tables import print_trimmed
    from fastnt.config import ENTRIES
    from fastnt.console import make_console
    from fastnt.errors import UserError
    from fastnt.files import write_text
    from fastnt.recipe_files import load_recipe, recipe_toml

    if output is not None and json_:
        raise UserError("--output writes a .toml file, and --json prints; leave one out")
    found = load_recipe(dataset, config, trust=None)
    if output is not None:
        if output.exists():
            raise UserError(f"{output} is there already; give --output another name")
        write_text(output, recipe_toml(found))
        typer.echo(f"{output} is written; run it with: fastnt train --config {output}")
        return
    if json_:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    console = make_console()
    for key, value in asdict(found).items():
        console.print(f"{key} = {_text(value)}", soft_wrap=True)
        print_trimmed(console, Padding(ENTRIES[key].text, (0, 0, 0, 4)))


def _text(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value else '""'
    return str(value) if value != "" else '""'
