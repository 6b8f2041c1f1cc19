"""The four data sets: their official files, where they are downloaded, and how they are read."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastnt.data import formats
from fastnt.data.beton import ImageRows, Images, Labels
from fastnt.errors import UserError
from fastnt.files import sha256_file

# {"train": {"train": (images, labels), "extra": ...}, "test": {"test": ...}}
Arrays = Mapping[str, Mapping[str, tuple[ImageRows, Labels]]]
_DIGITS = tuple("0123456789")


class Contents(NamedTuple):
    """The images, labels and class names of a data set."""

    arrays: Arrays
    classes: tuple[str, ...]
    decoder: str = ""  # the library that decoded pictures, with its version; empty for arrays


@dataclass(frozen=True)
class Source:
    """A data set as its authors publish it."""

    name: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)  # names of the files, and their MD5
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes of each
    # MD5 of the unzipped contents, for files that are also published with another zip header.
    unzipped: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()  # files that may be missing
    unpacked: tuple[str, ...] = ()  # files that a user may have instead of the archive
    folders: tuple[str, ...] = (".",)  # subfolders of the data folder to look in


SOURCES = {
    source.name: source
    for source in (
        Source("digits", _DIGITS),
        Source(
            "mnist",
            _DIGITS,
            mirrors=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            files={
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
            sizes={
                "train-images-idx3-ubyte.gz": 9_912_422,
                "train-labels-idx1-ubyte.gz": 28_881,
                "t10k-images-idx3-ubyte.gz": 1_648_877,
                "t10k-labels-idx1-ubyte.gz": 4_542,
            },
            unzipped={"train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb"},
        ),
        Source(
            "svhn",
            _DIGITS,
            mirrors=("http://ufldl.stanford.edu/housenumbers/",),
            files={
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
                "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
            },
            sizes={
                "train_32x32.mat": 182_040_794,
                "test_32x32.mat": 64_275_384,
                "extra_32x32.mat": 1_329_278_602,
            },
            optional=("extra_32x32.mat",),
        ),
        Source(
            "cifar10",
            (
                "airplane",
                "automobile",
                "bird",
                "cat",
                "deer",
                "dog",
                "frog",
                "horse",
                "ship",
                "truck",
            ),
            mirrors=("https://www.cs.toronto.edu/~kriz/",),
            files={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
            sizes={"cifar-10-binary.tar.gz": 170_052_171},
            unpacked=(*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"),
            folders=("cifar-10-batches-bin", "."),
        ),
    )
}


def get_source(name: str) -> Source:
    """Return the data set of this name.

    Raises:
        UserError: there is none; the message lists the names.
    """
    if name not in SOURCES:
        raise UserError(f"unknown data set {name!r}; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def full_name(name: str, *, official: bool) -> str:
    """Return a data set's name; where other files bear a known name, it says so."""
    return name if official or name not in SOURCES else f"{name} (not the official files)"


def locate(source: Source, data_dir: Path, *, extra: bool | None = None) -> dict[str, Path]:
    """Find a data set's files in ``data_dir`` or in the folder of its name there.

    Args:
        source: the data set.
        data_dir: the folder that the user names.
        extra: whether files that may be missing must be there (True) or are left out (False).

    Raises:
        UserError: the folder or some of the files are missing.
    """
    if not data_dir.is_dir():
        raise UserError(
            f"{data_dir} is not a folder; give one that holds the files of {source.name}"
        )
    roots = [data_dir / source.name, data_dir]
    folders = [root / below for root in roots for below in source.folders]
    optional = () if extra else source.optional
    skipped = source.optional if extra is False else ()
    lack = ""
    for wanted in filter(None, (source.unpacked, tuple(source.files))):
        names = [name for name in wanted if name not in skipped]
        for folder in folders:
            found = {name: folder / name for name in names if (folder / name).is_file()}
            if all(name in found or name in optional for name in names):
                return found
            if found and not lack:
                missing = [name for name in names if name not in found and name not in optional]
                lack = f"{folder} lacks {', '.join(missing)}"
    if lack:
        raise UserError(f"{lack}; {source.name} needs all of its files")
    hint = ""
    if any((root / "cifar-10-batches-py").exists() for root in roots) and source.unpacked:
        hint = " (the Python version is pickled and never read; fetch the binary version)"
    names = [name for name in source.files if name not in source.optional]
    raise UserError(f"no files of {source.name} in {data_dir}; put {', '.join(names)} there{hint}")


def source_sha256(source: Source, files: Mapping[str, Path]) -> str:
    """Return one SHA-256 for all source files, names and contents."""
    return digest_files(source.name, files)


def digest_files(name: str, files: Mapping[str, Path]) -> str:
    """Return one SHA-256 for a name and for files, their names and their contents."""
    digest = hashlib.sha256(name.encode())
    for name in sorted(files):
        digest.update(f"\n{name} {sha256_file(files[name])}".encode())
    return digest.hexdigest()


def installed_sha256() -> str:
    """Return the SHA-256 of the digits as scikit-learn installs them: there is no file to hash."""
    images, labels = formats.read_digits()
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def is_official(source: Source, files: Mapping[str, Path]) -> bool:
    """Tell whether every file is the published one, bit for bit."""
    return all(_is_official(source, name, path) for name, path in files.items())


def _is_official(source: Source, name: str, path: Path) -> bool:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() == source.files.get(name):
            return True
    if name not in source.unzipped:
        return False
    with gzip.open(path) as unzipped:
        digest = hashlib.file_digest(unzipped, "md5")
    return digest.hexdigest() == source.unzipped[name]


def read_source(source: Source, files: Mapping[str, Path]) -> Arrays:
    """Read a data set's files, and check their structure.

    Raises:
        UserError: a file is damaged, or has other contents than its name says.
    """
    match source.name:
        case "digits":
            images, labels = formats.read_digits()
            cut = -formats.DIGITS_TEST
            return {
                "train": {"train": (images[:cut], labels[:cut])},
                "test": {"test": (images[cut:], labels[cut:])},
            }
        case "mnist":
            pairs = {
                split: formats.read_mnist(
                    files[f"{prefix}-images-idx3-ubyte.gz"], files[f"{prefix}-labels-idx1-ubyte.gz"]
                )
                for split, prefix in (("train", "train"), ("test", "t10k"))
            }
        case "svhn":
            pairs = {name.split("_")[0]: formats.read_svhn(path) for name, path in files.items()}
        case _:
            pairs = _read_cifar10(source, files)
    test = {"test": pairs.pop("test")}
    return {"train": pairs, "test": test}


def _read_cifar10(source: Source, files: Mapping[str, Path]) -> dict[str, tuple[Images, Labels]]:
    names = list(source.unpacked)
    archive = files.get("cifar-10-binary.tar.gz")
    if archive:
        places = {name: archive / name for name in names}
        content = formats.read_tar_members(archive, names)
    else:
        places = {name: files[name] for name in names}
        content = {name: path.read_bytes() for name, path in places.items()}
    *batches, test = (formats.parse_cifar10(places[name], content[name]) for name in names)
    images, labels = zip(*batches, strict=True)
    return {"train": (np.concatenate(images), np.concatenate(labels)), "test": test}
