"""Mutate good files and files that once failed, and parse them: ``fuzzing.py SEED COUNT FOLDER``.

It ends with 0 when each was read or refused in the package's own words. A parser that crashes kills this
process alone, which is why the test starts one.
"""

import base64
import dataclasses
import gzip
import io
import json
import random
import resource
import sys
import tarfile
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from fastnt.config import Recipe
from fastnt.data import beton, formats, own, picture
from fastnt.data.preprocess import Preprocess
from fastnt.data.seen import Seen
from fastnt.data.split import read_sidecar
from fastnt.errors import UserError
from fastnt.experiments.study_files import read_study
from fastnt.files import read_json
from fastnt.monitoring.progress import EpochRecord
from fastnt.recipe_files import load_recipe
from fastnt.runs.folder import RunFolder
from fastnt.runs.metrics import Metrics
from fastnt.runs.networks import class_names
from fastnt.runs.predictions import load_predictions
from fastnt.runs.resume import Plan
from fastnt.runs.summary import check_summary
from fastnt.sealed import HASH, seal
from fastnt.tensor_files import Damaged, load_tensors, save_tensors
from fastnt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fastnt.training.compute import Compute
from fastnt.training.model import Model, load_model

ALLOWED = 200 << 20  # bytes of memory, beside ten times the file
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 7, 6, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
DEEP = b"[" * 100_000
DIGITS = b"9" * 400


def _bytes_of(write: Callable[[Path], Any], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        write(path)
        return path.read_bytes()


def _idx(shape: tuple[int, ...], *dimensions: int) -> bytes:
    head = bytes((0, 0, 8, len(dimensions))) + np.array(dimensions, ">u4").tobytes()
    return gzip.compress(head + RNG.integers(0, 10, shape, np.uint8).tobytes())


def _tar(size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    member = tarfile.TarInfo("a/data_batch_1.bin")
    member.size = 3073 * 2 if size is None else size
    member.type = kind
    buffer.write(member.tobuf(tarfile.GNU_FORMAT))
    buffer.write(bytes(3073 * 2).ljust(6656, b"\0") + bytes(1024))
    return gzip.compress(buffer.getvalue())


def _mat(packed: bool) -> bytes:
    from scipy.io import savemat

    content = {"X": RNG.integers(0, 256, (32, 32, 3, 2), np.uint8), "y": np.ones((2, 1), np.uint8)}
    return _bytes_of(lambda path: savemat(path, content, do_compression=packed), "a.mat")


def _mat_with(place: int, value: int) -> bytes:
    content = bytearray(_mat(packed=True))
    content[place] = value
    return bytes(content)


def _npz(save: Callable[..., None], **changes: Any) -> bytes:
    arrays = {f"{s}_{k}": v for s in ("train", "test") for k, v in _arrays().items()} | changes
    return _bytes_of(lambda path: save(path, **arrays), "a.npz")


def _arrays() -> dict[str, np.ndarray]:
    return {"images": IMAGES, "labels": LABELS.astype(np.uint8)[:, None]}


def _beton() -> bytes:
    return _bytes_of(lambda path: beton.write(path, [(IMAGES, LABELS)]), "a.beton")


def _beton_at_one_image() -> bytes:
    content, count = bytearray(_beton()), 200_000
    content[8:16] = count.to_bytes(8, "little")
    return bytes(content) + bytes(count * 24)


def _rgb_beton() -> bytes:
    """The head, the records and the images of an RGBImageField's file, as FFCV lays them out."""
    record = np.dtype(
        [
            ("image", [("mode", "u1"), ("w", "<u2"), ("h", "<u2"), ("at", "<u8")]),
            ("label", "<i8"),
        ],
        align=True,
    )
    head = np.zeros(
        1, np.dtype([("v", "<u2"), ("f", "<u2"), ("p", "<u4"), ("n", "<u8"), ("a", "<u8")])
    )
    fields = np.zeros(2, np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")]))
    fields["type"], fields["name"] = (2, 1), (b"image", b"label")
    start = head.nbytes + fields.nbytes + 12 * record.itemsize
    records = np.zeros(12, record)
    records["label"], records["image"]["mode"] = LABELS, 1
    records["image"]["w"], records["image"]["h"] = 6, 7
    records["image"]["at"] = start + np.arange(12) * 126
    head[0] = (2, 2, 1 << 21, 12, start + IMAGES.nbytes)
    parts = (head, fields, records, IMAGES)
    return b"".join(part.tobytes() for part in parts) + bytes(12 * 24)


def _picture(name: str, mode: str = "RGB", **options: Any) -> bytes:
    image = Image.fromarray(IMAGES[0]).resize((20, 30)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    return _bytes_of(lambda path: image.save(path, exif=exif, **options), name)


def _tensors() -> bytes:
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 3, dtype=torch.uint8)}
    return _bytes_of(
        lambda path: save_tensors(path, {"holds": "network"}, tensors), "a.safetensors"
    )


def _json(**changes: Any) -> bytes:
    facts = {"format": 1, "dataset": "a", "name": "train", "official": True, "count": 12}
    facts |= {"shape": [7, 6, 3], "classes": ["a", "b"], "parts": {"train": 12}}
    return json.dumps(facts | {"source_sha256": "", "sha256": "", "decoder": ""} | changes).encode()


def _summary(**changes: Any) -> bytes:
    network = {"test_error": 0.1, "parameters": 3, "multiplies": 4}
    named = dict.fromkeys(("teacher", "clean", "noisy"), network)
    summary = {"dataset": "a", "official": True, "seed": 0, "relative_improvement": 0.1}
    return json.dumps(summary | named | changes).encode()


RECORD = EpochRecord("clean", 1, 0.1, 1.0, 1.0, 0.1, 2.0, 3.0)
EPOCH = json.dumps(dataclasses.asdict(RECORD)).encode()
ENVIRONMENT = json.dumps(
    {"only": "noisy", "loader": "resident", "classes": ["a", "b"]}
    | {"compute": Compute(torch.device("cpu"), threads=1).describe()}
).encode()
STUDY = b"""name = "a"
baseline = "b"
seeds = 2
[teachers.t]
teacher_seed = 3
[recipe]
epochs = 1
[[settings]]
name = "b"
changes = {sigma = 0.3}
teachers = ["t"]
"""


def _read_own(path: Path) -> None:
    with own.find(path).reading(progress=False):
        pass


def _read_npy(path: Path) -> None:
    """The file stands for the images and for the labels."""
    folder = path.parent / "arrays"
    folder.mkdir(exist_ok=True)
    for name in ("images", "labels"):
        for kind, good in _arrays().items():
            (folder / f"{kind}.npy").unlink(missing_ok=True)
            np.save(folder / f"{kind}.npy", good)
        (folder / f"{name}.npy").unlink()
        (folder / f"{name}.npy").write_bytes(path.read_bytes())
        with suppress(UserError):
            _read_own(folder)


def _read_picture(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        head = picture.look(path)
        picture.decode(path, (head.height, head.width, 1 if head.grey else 3))
        picture.decode(path, (8, 8, 3), 8)


def _read_tensors(path: Path) -> None:
    """The file stands for a network, for a checkpoint and for a run's predictions."""
    with suppress(Damaged):
        load_tensors(path)
    for read in (load_model, load_checkpoint, load_predictions):
        with suppress(UserError):
            read(path)


def _described(
    write: Callable[[Path], Any], read: Callable[[Path], Any], *changes: dict[str, Any]
) -> tuple[str, Callable[[Path], Any], Callable[[], list[bytes]]]:
    """A parser of a file of tensors whose description is mutated, and its SHA-256 then set right."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "a"))
        description, tensors = load_tensors(Path(folder, "a"))

    def parse(changed: Path) -> None:
        try:
            found = json.loads(changed.read_bytes())
        except (ValueError, RecursionError):
            return
        if isinstance(found, dict):
            save_tensors(changed.with_suffix(".safetensors"), found, tensors)
            read(changed.with_suffix(".safetensors"))

    seeds = [json.dumps(description | change).encode() for change in ({}, *changes)]
    return "a.json", parse, lambda: seeds


BOMB = base64.b64encode(zlib.compress(bytes(1 << 28))).decode()


def _network(path: Path) -> None:
    model = Model("C3(S1P1)@4-MP2(S2)-FC8-FC3", Preprocess("pixel_mean", (6, 6, 1)), 3)
    model.seen = Seen("a", np.arange(40) % 3 > 0)
    model.save(path, [RECORD])


def _checkpoint(path: Path) -> None:
    tensors = {"model.weight": torch.ones(3), "number": torch.tensor(7)}
    save_checkpoint(Checkpoint("clean", 2, 7, 0.5, (RECORD,), {"a": 1.0}, tensors), path)


def _read_metrics(path: Path) -> None:
    """Set the hashes of the lines right, so that what they say is read."""
    lines, before = [], ""
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                value = seal({k: v for k, v in value.items() if k != HASH}, before)
                line, before = json.dumps(value).encode(), value[HASH]
        lines.append(line)
    path.write_bytes(b"\n".join(lines))
    Metrics(path).read()


def _read_environment(path: Path) -> None:
    folder = RunFolder(path.parent)
    plan = Plan(folder, Recipe(), resume=True)
    for read in (folder.phases, folder.loader, lambda: class_names(folder, 2)):
        with suppress(UserError):
            read()
    plan.device("auto")
    plan.compute(Compute(torch.device("cpu")), amp=None, compile=None)


# A parser's file name, what reads it, and what is mutated: good files, and those that once failed.
PARSERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[], list[bytes]]]] = {
    "idx": (
        "a-ubyte.gz",
        lambda path: formats.read_mnist(path, path),
        lambda: [
            _idx((3, 28, 28), 3, 28, 28),
            _idx((3, 28, 28), 2**32 - 1, 28, 28),
            _idx((5,), 5),
            gzip.compress(b"\0\0\x08"),
        ],
    ),
    "cifar10": (
        "data_batch_1.bin",
        lambda path: formats.parse_cifar10(path, path.read_bytes()),
        lambda: [bytes(3073 * 3), bytes(3072)],
    ),
    "tar": (
        "a.tar.gz",
        lambda path: formats.read_tar_members(path, ["data_batch_1.bin"]),
        lambda: [_tar(), _tar(1 << 40), _tar(1 << 40, tarfile.XHDTYPE)],
    ),
    "mat": (
        "train_32x32.mat",
        formats.read_svhn,
        lambda: [_mat(packed=True), _mat(packed=False), _mat_with(184, 0)],
    ),
    "npy": (
        "a.npy",
        _read_npy,
        lambda: [_bytes_of(lambda p, a=a: np.save(p, a), "a.npy") for a in (IMAGES, LABELS)],
    ),
    "npz": (
        "a.npz",
        _read_own,
        lambda: [_npz(np.savez), _npz(np.savez_compressed), _npz(np.savez, train_labels=[None])],
    ),
    "beton": ("a.beton", _read_own, lambda: [_beton(), _beton_at_one_image()]),
    "rgb beton": ("a.beton", _read_own, lambda: [_rgb_beton()]),
    "png": (
        "a.png",
        _read_picture,
        lambda: [_picture("a.png", m) for m in ("RGB", "P", "LA", "1")],
    ),
    "jpeg": ("a.jpg", _read_picture, lambda: [_picture("a.jpg"), _picture("a.jpg", "CMYK")]),
    "webp": ("a.webp", _read_picture, lambda: [_picture("a.webp"), _picture("a.webp", "RGBA")]),
    "bmp": ("a.bmp", _read_picture, lambda: [_picture("a.bmp"), _picture("a.bmp", "P")]),
    "sidecar": (
        "a.beton.json",
        lambda path: read_sidecar(path.with_suffix("")),
        lambda: [_json(), DEEP, _json(parts=[1]), _json(count=int(DIGITS)), b"[1]"],
    ),
    "toml": (
        "a.toml",
        lambda path: load_recipe(None, path),
        lambda: [
            b'dataset = "mnist"\nlr = 0.1\nsigma = [0.1, 1]\ncrop = 2',
            *(b"a = " + DEEP, b"crop = 1e300", b"lr = " + DIGITS),
        ],
    ),
    "recipe": (
        "a.json",
        lambda path: load_recipe(None, path),
        lambda: [
            b'{"dataset": "mnist", "lr": 0.1, "validation_per_class": [1, 2]}',
            *(DEEP, b'{"crop": 1e300}', b'{"lr": %s}' % DIGITS, b"[]"),
        ],
    ),
    "safetensors": (
        "a.safetensors",
        _read_tensors,
        lambda: [_tensors(), safetensors.torch.save({"a": torch.ones(2)}, {"fastnt": "[1]"})],
    ),
    "network's description": _described(
        _network,
        load_model,
        {"shape": [700, 700, 3], "network": "GAP-FC10"},
        {"shape": [999_999, 999_999, 2], "network": "C1(S999999P0)@2-FC10"},
        {"network": "FC90000-FC90000-FC3"},
        {"network": "C1(S1P9999)@1-FC3"},
        {"seen": {"source": "a", "images": -8, "bits": BOMB}},
    ),
    "checkpoint's description": _described(_checkpoint, load_checkpoint),
    "summary": (
        "summary.json",
        lambda path: check_summary(read_json(path), path),
        lambda: [_summary(), DEEP, _summary(relative_improvement="much"), b"[]"],
    ),
    "timings": (
        "timings.json",
        lambda path: RunFolder(path.parent).timings(),
        lambda: [
            json.dumps(seal(timings)).encode()
            for timings in ({"noisy_seconds": 1.5}, {"noisy_seconds": [1]}, {"a": int(DIGITS)})
        ],
    ),
    "environment": (
        "environment.json",
        _read_environment,
        lambda: [
            ENVIRONMENT,
            DEEP,
            b"[1]",
            ENVIRONMENT.replace(b'"threads": 1', b'"threads": [1]'),
            ENVIRONMENT.replace(b"threads", b"thread"),
        ],
    ),
    "study": (
        "a.toml",
        read_study,
        lambda: [STUDY, b"a = " + DEEP, STUDY.replace(b"0.3", DIGITS), STUDY + b"[[settings]]"],
    ),
    "metrics": (
        "metrics.jsonl",
        _read_metrics,
        lambda: [EPOCH + b"\n" + EPOCH, DEEP, EPOCH.replace(b"2.0", DIGITS) + b"\n"],
    ),
}


def mutated(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Yield the seeds, then without end mutations of them; deflated ones also within."""
    yield from seeds
    while True:
        content = bytearray(chance.choice(seeds))
        inside = chance.random() < 0.5
        if inside and content[:2] == b"\x1f\x8b":
            yield gzip.compress(bytes(_mutate(bytearray(gzip.decompress(content)), chance)))
        elif inside and content[126:130] == b"IM\x0f\0":
            element = _mutate(bytearray(zlib.decompressobj().decompress(content[136:])), chance)
            packed = zlib.compress(bytes(element))
            yield bytes(content[:132]) + len(packed).to_bytes(4, "little") + packed
        elif inside and content[:2] == b"PK":
            yield _mutate_member(bytes(content), chance)
        else:
            yield bytes(_mutate(content, chance))


def _mutate(content: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 1, 2, 8))):
        reach = len(content) if chance.random() < 0.3 else min(len(content), 400)
        place, kind = chance.randrange(reach + 1), chance.randrange(6)
        if kind == 0:
            content[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice((0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1))
            order = chance.choice(("little", "big"))
            content[place : place + width] = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
        elif kind == 2:
            del content[place:]
        elif kind == 3:
            del content[place : place + chance.randrange(1, 20)]
        elif kind == 4:
            start = chance.randrange(len(content) + 1)
            content[place:place] = content[start : start + chance.randrange(1, 50)]
        else:
            word = chance.choice(
                (b"[", b"{", b"9" * 30, b"1e999", b"null", b"-", b'"', b"\xff", b"NaN")
            )
            content[place:place] = word
    return content


def _mutate_member(content: bytes, chance: random.Random) -> bytes:
    """Mutate one array of a .npz file and zip it again, its checksum right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        spoiled = chance.choice(old.namelist())
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == spoiled:
                data = bytes(_mutate(bytearray(data), chance))
            new.writestr(entry.filename, data, entry.compress_type)
    return buffer.getvalue()


def fuzz(parser: str, seed: int, count: int, folder: Path) -> int:
    """Parse ``count`` inputs; return how many went wrong."""
    name, read, seeds = PARSERS[parser]
    path, wrong = folder / name, 0
    inputs = mutated(seeds(), random.Random(f"{parser} {seed}"))
    before = most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for number, content in zip(range(count), inputs, strict=False):
        path.unlink(missing_ok=True)  # a file that is mapped keeps its own bytes
        path.write_bytes(content)
        try:
            read(path)
        except UserError:
            pass
        except BaseException:
            wrong += 1
            print(f"{parser} {number}: {content[:300]!r}")
            traceback.print_exc(limit=-4, file=sys.stdout)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        if peak > most and peak > before + ALLOWED + 10 * len(content):
            wrong += 1
            print(f"{parser} {number}: {(peak - before) >> 20} MB for {content[:300]!r}")
        most = max(most, peak)
        if wrong >= 5:
            break
    return wrong


if __name__ == "__main__":
    wrong = 0
    for known in PARSERS:
        print(known, flush=True)  # the last to be named is the one that crashed
        wrong += fuzz(
            known, int(sys.argv[1]), -(-int(sys.argv[2]) // len(PARSERS)), Path(sys.argv[3])
        )
    sys.exit(wrong)
