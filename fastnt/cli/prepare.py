"""``fastnt prepare``: make, list or remove prepared data sets."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fastnt.cli import options
from fastnt.cli.tables import print_table
from fastnt.console import make_console
from fastnt.errors import UserError

if TYPE_CHECKING:
    from fastnt.cache import Kept
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
        int,
        typer.Option(
            min=0, help="Scale your own pictures to so many pixels each way; 0: not.", metavar="N"
        ),
    ] = 0,
    show: Annotated[bool, typer.Option("--list", help="List what is prepared.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Empty fastnt's cache folder, after a question.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Turn official files into .beton files, downloading them first if need be."""
    from fastnt import cache
    from fastnt.data import prepare as data

    if (dataset is not None) + show + clean != 1:
        raise UserError("say one of --dataset NAME, --list and --clean")
    console = make_console()
    if clean:
        found = cache.kept()
        _print_kept(console, found)
        if found and (yes or _agreed()):
            typer.echo(f"freed {cache.remove(found) / 1e6:,.1f} MB")
    elif show:
        _print(console, data.list_prepared())
        rest = [thing for thing in cache.kept() if thing.kind in ("teachers", "logits")]
        if rest:
            console.print()
            _print_kept(console, rest)
    elif dataset is not None:
        made = data.prepare(
            dataset, data_dir, extra=extra, image_size=image_size, progress=not quiet
        )
        _print(console, [made])


def _agreed() -> bool:
    """Ask whether all that was shown shall be deleted.

    Raises:
        UserError: nobody can answer.
    """
    if not sys.stdin.isatty():
        raise UserError("--clean asks before it deletes, and nobody can answer here; give --yes")
    return typer.confirm("Delete all of it?")


def _print_kept(console: Console, found: "Sequence[Kept]") -> None:
    """Print what the cache folder holds, a line each."""
    from fastnt.files import cache_dir

    rows = [
        [
            thing.kind,
            thing.path.name,
            f"{thing.bytes / 1e6:,.1f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(thing.written)),
        ]
        for thing in found
    ]
    if rows:
        print_table(console, ("kind", "name", "MB", "written"), rows, numbers=("MB",))
    what = f"is in {cache_dir()}" if rows else f"nothing is in {cache_dir()}"
    console.print(f"All of it {what}" if rows else what, soft_wrap=True)


def _print(console: Console, datasets: "Sequence[Dataset]") -> None:
    headings = ("data set", "official", "train", "test", "image", "MB")
    rows = [
        [
            found.name,
            "yes" if found.official else "no",
            " + ".join(f"{rows:,}" for rows in found.train.parts.values()),
            f"{found.test.count:,}",
            "x".join(map(str, found.shape)),
            f"{sum(s.path.stat().st_size for s in (found.train, found.test)) / 1e6:,.1f}",
        ]
        for found in datasets
    ]
    if rows:
        print_table(console, headings, rows, numbers=headings[2:])
    for found in datasets:
        console.print(f"{found.name} is in {found.folder}", soft_wrap=True)
    if not datasets:
        console.print("nothing is prepared")
