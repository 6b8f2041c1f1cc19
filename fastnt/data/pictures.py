"""Folders of pictures with a subfolder for each class; Pillow decodes them as a viewer shows them.

    train/CLASS/*.png      and perhaps val/CLASS/*.png, held out, and test/CLASS/*.png

The classes are the subfolders of train, sorted. Without test, a tenth of each class of train, at least
one picture, is the test set. Samples are ordered by the SHA-256 of their names: this mixes them, in the
same way on all systems. If all pictures are grey, images have one channel, else three. Transparent
parts become white. With ``image_size`` N the largest square in the middle is scaled to N x N,
antialiased.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from fastnt.console import LiveProgress, TimeLeftColumn, Words, make_console, shows_bars
from fastnt.data import picture
from fastnt.data.beton import Images, Labels
from fastnt.data.sources import Contents, digest_files
from fastnt.data.split import HELD_OUT
from fastnt.errors import UserError

_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")  # systems leave these beside pictures
# So many pictures are decoded in advance, and so many bytes of them at most.
_AHEAD, _AHEAD_BYTES = 64, 1 << 28
T = TypeVar("T")


@dataclass(frozen=True)
class PictureFolder:
    """The files of the user's own pictures."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]  # of train, val and test those that exist, in order
    has_test: bool  # otherwise a tenth of train is the test set
    image_size: int  # 0: pictures keep their size

    @cached_property
    def sha256(self) -> str:
        """A SHA-256 over all pictures, ``image_size``, and Pillow's version."""
        kept = {p.relative_to(self.folder).as_posix(): p for s in self.splits.values() for p in s}
        return digest_files(f"pictures {self.image_size} {picture.decoder()}", kept)

    @contextmanager
    def reading(self, *, progress: bool) -> Iterator[Contents]:
        """Read the size of each picture; within the block, pictures are decoded when they are used.

        Raises:
            UserError: a file is no picture, or the pictures differ in size; in the block, one cannot be
                decoded.
        """
        columns = Words("{task.description}"), BarColumn(), MofNCompleteColumn()
        every = [path for paths in self.splits.values() for path in paths]
        console = make_console(stderr=True)
        shown = progress and shows_bars(console)
        with (
            warnings.catch_warnings(action="ignore"),  # Pillow's warnings name no file
            ThreadPoolExecutor() as pool,
            LiveProgress(*columns, TimeLeftColumn(), console=console, disable=not shown) as bar,
        ):
            picture.load_decoders()
            look = bar.add_task("looking at pictures", total=len(every))
            shape = self._common_shape(every, _in_order(pool, picture.look, every, look, bar))
            decode = bar.add_task("decoding pictures", total=len(every))
            arrays: dict[str, dict[str, tuple[Decoded, Labels]]] = {"train": {}, "test": {}}
            for split, paths in self.splits.items():
                part = "train" if split == HELD_OUT else split
                labels = [self.classes.index(path.parent.name) for path in paths]
                images = Decoded(paths, shape, self.image_size, pool, lambda: bar.advance(decode))
                arrays[part][split] = images, np.array(labels, np.int64)
            yield Contents(arrays, self.classes, picture.decoder())

    def _common_shape(self, paths: list[Path], heads: list[picture.Head]) -> tuple[int, int, int]:
        channels = 1 if all(head.grey for head in heads) else 3
        if self.image_size:
            return self.image_size, self.image_size, channels
        first = heads[0]
        for path, head in zip(paths, heads, strict=True):
            if (head.width, head.height) != (first.width, first.height):
                raise UserError(
                    f"{path} has {head.width} x {head.height} pixels, {paths[0]} {first.width} x "
                    f"{first.height}; scale and crop all with --set image_size=64 "
                    "(fastnt prepare --image-size 64; in Python image_size=64)"
                )
        return first.height, first.width, channels

    def note(self, test_count: int) -> str:
        """Return a line that says what serves as the splits that are missing; empty if none is."""
        missing = []
        if not self.has_test:
            missing.append(f"no test folder: {test_count:,} pictures of train are the test set")
        if HELD_OUT not in self.splits:
            missing.append(
                "no val folder: a tenth of each class is held out, unless validation is set"
            )
        return f"{self.name} has {', and '.join(missing)}" if missing else ""


class Decoded:
    """Pictures as images (n, H, W, C) uint8, which threads decode a little in advance."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        paths: tuple[Path, ...],
        shape: tuple[int, int, int],
        image_size: int,
        pool: ThreadPoolExecutor,
        advance: Callable[[], None],
    ) -> None:
        self.shape = (len(paths), *shape)
        self._paths, self._size, self._pool, self._advance = paths, image_size, pool, advance
        self._ahead = max(1, min(_AHEAD, _AHEAD_BYTES // math.prod(shape)))
        self._pending: dict[int, Future[Images]] = {}

    def __getitem__(self, places: slice) -> Images:
        start, stop, _ = places.indices(len(self._paths))
        for place in range(start, min(stop + self._ahead, len(self._paths))):
            if place not in self._pending:
                self._pending[place] = self._pool.submit(
                    picture.decode, self._paths[place], self.shape[1:], self._size
                )
        images = np.empty((stop - start, *self.shape[1:]), np.uint8)
        for place in range(start, stop):
            images[place - start] = self._pending.pop(place).result()
            self._advance()
        return images


def find(name: str, folder: Path, image_size: int) -> PictureFolder:
    """Find the pictures in ``folder``.

    Raises:
        UserError: there is no train folder, a class is empty or missing in a split, or the name of a
            file is not a picture's.
    """
    if not (folder / "train").is_dir():
        raise UserError(
            f"{folder} has no folder train; put the training pictures into train/CLASS/"
        )
    found = {
        split: _classes(folder / split)
        for split in ("train", HELD_OUT, "test")
        if (folder / split).is_dir()
    }
    classes = tuple(sorted(found["train"]))
    for split, its in found.items():
        if odd := sorted(set(its) ^ set(classes)):
            here, there = (split, "train") if odd[0] in its else ("train", split)
            raise UserError(
                f"{folder / here} has the class {odd[0]}, {folder / there} has not; give all the same"
            )
    if len(classes) < 2:
        raise UserError(
            f"{folder / 'train'} has one class alone; a network needs two to tell apart"
        )
    if has_test := "test" in found:
        splits = found
    else:
        train, test = {}, {}
        for label, paths in found["train"].items():
            if len(paths) < 2:
                raise UserError(
                    f"{paths[0].parent} has one picture, and the test set wants one, as there is no "
                    "test folder; add pictures"
                )
            cut = len(paths) - max(round(len(paths) / 10), 1)
            train[label], test[label] = paths[:cut], paths[cut:]
        splits = found | {"train": train, "test": test}
    ordered = {
        split: tuple(sorted((p for paths in its.values() for p in paths), key=_place))
        for split, its in splits.items()
    }
    return PictureFolder(name, folder, classes, ordered, has_test, image_size)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures of each class, in order."""
    classes = {path.name: _pictures(path) for path in _visible(folder) if path.is_dir()}
    for path in _visible(folder):
        if path.name not in classes and path.suffix.lower() in picture.SUFFIXES:
            raise UserError(f"{path} is in no class; move it into a subfolder, one a class")
    if not classes:
        raise UserError(f"{folder} has no subfolders; put the pictures into one a class")
    return classes


def _pictures(folder: Path) -> list[Path]:
    paths = _visible(folder)
    for path in paths:
        if path.suffix.lower() not in picture.SUFFIXES or not path.is_file():
            raise UserError(
                f"{path} is no picture by its name (*{', *'.join(picture.SUFFIXES)}); move it away"
            )
    if not paths:
        raise UserError(f"{folder} has no pictures; add some, or remove the class")
    return sorted(paths, key=_place)


def _visible(folder: Path) -> list[Path]:
    paths = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _OF_THE_SYSTEM
    ]
    for path in paths:
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{folder} holds {path.name!r}, whose name is not UTF-8; rename it"
            ) from error
    return paths


def _place(path: Path) -> bytes:
    """Return the key by which pictures are sorted."""
    return hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).digest()


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[Path], T],
    paths: list[Path],
    task: object,
    bar: Progress,
) -> list[T]:
    """Call ``work`` with each path in several threads; yield the results in order."""
    done = []
    for result in pool.map(work, paths):
        done.append(result)
        bar.advance(task)  # type: ignore[arg-type]
    return done
