"""``fastnt prepare``: make, list or remove prepared data sets."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fastnt.cli import options
from fastnt.console import make_console
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.data.prepare import Dataset


def prepare(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Which data set: digits, mnist, svhn, cifar10, or the path of your own.",
            metavar="NAME|PATH",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    extra: Annotated[
        bool | None,
        typer.Option(help="SVHN's extra images; if not said, taken where present or downloaded."),
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=0, help="Scale your own pictures to so many pixels each way; 0: not.")
    ] = 0,
    show: Annotated[bool, typer.Option("--list", help="List what is prepared.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Empty fastnt's cache folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Turn official files into .beton files, downloading them first if need be."""
    from fastnt import cache
    from fastnt.data import prepare as data

    if (dataset is not None) + show + clean != 1:
        raise UserError("say one of --dataset NAME, --list and --clean")
    if clean:
        print(f"freed {cache.clean() / 1e6:,.1f} MB")
    elif show:
        _print(data.list_prepared())
    elif dataset is not None:
        _print(
            [
                data.prepare(
                    dataset, data_dir, extra=extra, image_size=image_size, progress=not quiet
                )
            ]
        )


def _print(datasets: list["Dataset"]) -> None:
    table = Table("data set", "official", "train", "test", "image", "MB", box=None)
    for found in datasets:
        size = sum(split.path.stat().st_size for split in (found.train, found.test))
        table.add_row(
            found.name,
            "yes" if found.official else "no",
            " + ".join(f"{rows:,}" for rows in found.train.parts.values()),
            f"{found.test.count:,}",
            "x".join(map(str, found.shape)),
            f"{size / 1e6:,.1f}",
        )
    console = make_console()
    console.print(table if datasets else "nothing is prepared")
    for found in datasets:
        console.print(f"{found.name} is in {found.folder}", soft_wrap=True)
