"""Prepared data sets: find one in the cache folder, or make it from official files or the user's own."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastnt.console import make_console, working
from fastnt.data import own
from fastnt.data.sources import (
    Contents,
    Source,
    get_source,
    installed_sha256,
    is_official,
    locate,
    read_source,
    source_sha256,
)
from fastnt.data.split import Split, open_split, read_sidecar, sidecar, write_split
from fastnt.errors import UserError
from fastnt.files import cache_dir, locked, sweep
from fastnt.paths import at_home


@dataclass(frozen=True)
class Dataset:
    """A prepared data set: a folder with train.beton and test.beton and their sidecars."""

    name: str
    official: bool
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # H, W, C
    source_sha256: str
    folder: Path
    train: Split
    test: Split


def prepare(
    name: str,
    data_dir: Path | None = None,
    *,
    extra: bool | None = None,
    image_size: int = 0,
    progress: bool = True,
) -> Dataset:
    """Return a prepared data set; prepare it first, and download its files, if need be.

    Without ``data_dir`` it is the data set of this name in the cache: one of official files before
    others, then the one prepared last. If there is none, the official files are downloaded.

    Args:
        name: "digits", "mnist", "svhn" or "cifar10", or the path of the user's own data (see
            ``fastnt.data.own``). Those are read each time, and prepared again if they have changed.
        data_dir: the folder that holds the official files, in it or in its subfolder ``name``. Nothing
            is downloaded then.
        extra: SVHN's extra images: True requires them, False leaves them out, None takes them where
            they are or downloads them.
        image_size: scale and crop pictures of the user's own to so many pixels each way; 0: do not.
        progress: show progress on stderr.

    Raises:
        UserError: unknown name, files missing or damaged, a download or a write that failed.
    """
    if own.is_path(name):
        if data_dir is not None or extra is not None:
            raise UserError(f"{name} is data of your own; leave --data-dir and --extra out")
        return _prepare_own(at_home(name), image_size, progress=progress)
    source = get_source(name)
    if image_size:
        raise UserError(f"image_size is for folders of pictures, which {name} is not; leave it out")
    if extra is not None and not source.optional:
        raise UserError(f"{name} has no extra images; leave --extra and --no-extra out")
    if not source.files and data_dir is not None:
        raise UserError(f"{name} comes with scikit-learn; leave --data-dir out")
    if data_dir is None:
        ready = [d for d in list_prepared() if d.name == name and _has_extra(d, extra)]
        if ready:
            return open_dataset(max(ready, key=lambda d: (d.official, _written(d))).folder)
        data_dir = cache_dir() / "downloads" / name
        if source.files:
            from fastnt.data.download import download

            with locked(data_dir / ".lock"):
                download(source, data_dir, extra=extra is not False, progress=progress)
    with working(f"reading {name}", shown=progress):
        return _make(source, at_home(data_dir), extra)


def open_dataset(folder: Path) -> Dataset:
    """Open a prepared folder, and verify both files.

    Raises:
        UserError: a file is missing, cut short, changed, of another format or JPEG-coded.
    """
    train, test = (open_split(folder / f"{name}.beton") for name in ("train", "test"))
    return _dataset(train, test)


def list_prepared() -> list[Dataset]:
    """Return the prepared data sets in the cache, sorted by folder; only the sidecars are read."""
    folders = sorted((cache_dir() / "data").glob("*-????????????"))
    return [dataset for dataset in map(_listed, folders) if dataset]


def find_prepared(sha256: str | None) -> Dataset | None:
    """Return the prepared data set whose source files have this SHA-256, if it is in the cache."""
    return next((found for found in list_prepared() if found.source_sha256 == sha256), None)


def _make(source: Source, data_dir: Path, extra: bool | None) -> Dataset:
    """Prepare the data set in ``data_dir``, or open it if it was prepared before."""
    if source.files:
        files = locate(source, data_dir, extra=extra)
        sha256 = source_sha256(source, files)
    else:
        files, sha256 = {}, installed_sha256()
    return _made(
        _folder(source.name, sha256),
        lambda folder: _write(
            folder,
            Contents(read_source(source, files), source.classes),
            official=is_official(source, files),
            sha256=sha256,
        ),
    )


def _prepare_own(path: Path, image_size: int, *, progress: bool) -> Dataset:
    """Prepare the user's own data, or open them if they were prepared before."""
    with working(f"reading {path.name}", shown=progress):
        data = own.find(path, image_size)
        sha256 = data.sha256

    def write(folder: Path) -> Dataset:
        with data.reading(progress=progress) as contents:
            return _write(folder, contents, official=False, sha256=sha256)

    made = _made(_folder(data.name, sha256), write)
    if progress and (note := data.note(made.test.count)):
        make_console(stderr=True).print(note, soft_wrap=True)
    return made


def _folder(name: str, sha256: str) -> Path:
    return cache_dir() / "data" / f"{name}-{sha256[:12]}"


def _made(folder: Path, write: Callable[[Path], Dataset]) -> Dataset:
    """Open the data set in ``folder``; if there is none, let one process write it."""
    if not _listed(folder):
        with locked(folder / ".lock"):
            if not _listed(folder):  # another process may have written it while this one waited
                return write(folder)
    with suppress(OSError):  # the cache may belong to another user
        sidecar(folder / "train.beton").touch()  # it now counts as the one prepared last
    return open_dataset(folder)


def _write(folder: Path, contents: Contents, *, official: bool, sha256: str) -> Dataset:
    sweep(folder)
    written = {}
    try:
        for name in ("test", "train"):
            written[name] = write_split(
                folder / f"{name}.beton",
                dataset=folder.name.rpartition("-")[0],
                official=official,
                classes=contents.classes,
                parts=contents.arrays[name],
                source_sha256=sha256,
                decoder=contents.decoder,
            )
    except BaseException:  # for example a picture that cannot be decoded: remove what was written
        for split in written.values():
            sidecar(split.path).unlink(missing_ok=True)
            split.path.unlink(missing_ok=True)
        raise
    return _dataset(written["train"], written["test"])


def _dataset(train: Split, test: Split) -> Dataset:
    return Dataset(
        name=train.dataset,
        official=train.official and test.official,
        classes=train.classes,
        shape=train.shape,
        source_sha256=train.source_sha256,
        folder=train.path.parent,
        train=train,
        test=test,
    )


def _listed(folder: Path) -> Dataset | None:
    """Return the data set in ``folder``, or None unless both splits were finished."""
    train, test = (read_sidecar(folder / f"{name}.beton") for name in ("train", "test"))
    return _dataset(train, test) if train and test else None


def _has_extra(dataset: Dataset, extra: bool | None) -> bool:
    return extra is None or extra == ("extra" in dataset.train.parts)


def _written(dataset: Dataset) -> int:
    return sidecar(dataset.train.path).stat().st_mtime_ns
