"""A prepared split: a .beton file and the JSON sidecar beside it that says what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastnt.data import beton, beton_head
from fastnt.data.beton import ImageRows, Images, Labels
from fastnt.errors import UserError
from fastnt.files import atomic_path, parse_json, sha256_file, write_json

FORMAT = 1
HELD_OUT = "val"  # the name of the part that the user holds out; it is the last of train.beton


@dataclass(frozen=True)
class Split:
    """One split of a data set on disk."""

    path: Path  # the .beton file
    dataset: str
    name: str  # "train" or "test"
    official: bool
    count: int
    shape: tuple[int, int, int]  # H, W, C
    classes: tuple[str, ...]
    parts: Mapping[
        str, int
    ]  # images of each source in file order, e.g. {"train": 73257, "extra": 531131}
    source_sha256: str
    sha256: str
    decoder: str = ""  # the library that decoded pictures, with its version; empty for arrays

    def arrays(self) -> tuple[Images, Labels]:
        """Return all images (count, H, W, C) uint8 and labels (count,) int64, in file order."""
        return beton.read(self.path)

    def labels(self) -> Labels:
        """Return the labels (count,) int64, in file order, without reading the images."""
        return beton.read_labels(self.path)


def sidecar(path: Path) -> Path:
    """Return the name of the JSON file that describes the .beton file ``path``."""
    return path.with_name(path.name + ".json")


def write_split(
    path: Path,
    *,
    dataset: str,
    official: bool,
    classes: Sequence[str],
    parts: Mapping[str, tuple[ImageRows, Labels]],
    source_sha256: str,
    decoder: str = "",
) -> Split:
    """Write one split. The sidecar is written last, so that a .beton file with a sidecar is complete.

    Raises:
        UserError: the folder cannot be written or the disk is full; no incomplete file stays.
    """
    sidecar(path).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        beton.write(temporary, list(parts.values()))
        sha256 = sha256_file(temporary)
    height, width, channels = next(iter(parts.values()))[0].shape[1:]
    split = Split(
        path=path,
        dataset=dataset,
        name=path.stem,
        official=official,
        count=sum(len(labels) for _, labels in parts.values()),
        shape=(height, width, channels),
        classes=tuple(classes),
        parts={part: len(labels) for part, (_, labels) in parts.items()},
        source_sha256=source_sha256,
        sha256=sha256,
        decoder=decoder,
    )
    facts = asdict(split)
    del facts["path"]
    write_json(sidecar(path), {"format": FORMAT, **facts})
    return split


def read_sidecar(path: Path) -> Split | None:
    """Return the split that the sidecar of ``path`` describes; None if it is missing or damaged."""
    try:
        facts: dict[str, Any] = parse_json(sidecar(path).read_text(encoding="utf-8"))
        if facts.pop("format") != FORMAT:
            return None
        facts["shape"], facts["classes"] = tuple(facts["shape"]), tuple(facts["classes"])
        split = Split(path=path, **facts)
        return split if _is_sound(split) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _is_sound(split: Split) -> bool:
    """Tell whether the values have the types and sums that their users rely on."""
    texts = (split.dataset, split.name, split.source_sha256, split.sha256, split.decoder)
    numbers = (split.count, *split.shape, *split.parts.values())
    return (
        all(isinstance(text, str) for text in (*texts, *split.classes))
        and all(type(number) is int and number >= 0 for number in numbers)
        and len(split.shape) == 3
        and sum(split.parts.values()) == split.count
    )


def open_split(path: Path) -> Split:
    """Open a .beton file after checking it against its head and its sidecar.

    Head and size are checked each time, the SHA-256 of the whole file once a process. Hashing leaves the
    file in the system's cache, so that the first epoch reads it faster.

    Raises:
        UserError: the file is missing, cut short, changed, of another format or JPEG-coded.
    """
    remedy = f"delete {path.parent} and run `fastnt prepare` again"
    try:
        found = beton_head.layout(path)
        split = read_sidecar(path)
        if split is None:
            raise UserError(f"{path} has no readable {sidecar(path).name} beside it; {remedy}")
        status = path.stat()
        if status.st_size != found.size or (found.count, found.shape) != (split.count, split.shape):
            raise beton_head.FormatError("it does not agree with its sidecar")
        if _sha256(path, status.st_mtime_ns, status.st_size) != split.sha256:
            raise beton_head.FormatError("its contents have changed since it was written")
    except beton_head.FormatError as error:
        raise UserError(f"{path} cannot be used: {error}; {remedy}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    return split


@lru_cache
def _sha256(path: Path, modified: int, size: int) -> str:
    return sha256_file(path)
