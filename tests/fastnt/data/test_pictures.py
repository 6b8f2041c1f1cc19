"""Folders of pictures: what a viewer shows, the same file every time, one sentence for what is wrong."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastnt.data import pictures
from fastnt.data.prepare import Dataset, prepare
from fastnt.errors import UserError
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute
from fastnt.training.training_data import TrainingData

CLASSES = ("ant", "bee", "möwe")


def made(path: Path, image_size: int = 0) -> Dataset:
    return prepare(str(path), image_size=image_size, progress=False)


def picture(seed: int, size: tuple[int, int] = (9, 8), mode: str = "RGB") -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    return Image.fromarray(pixels)


def save(folder: Path, split: str, counts: dict[str, int], suffix: str = ".png") -> None:
    for number, (label, count) in enumerate(counts.items()):
        (folder / split / label).mkdir(parents=True)
        for i in range(count):
            seed = 1000 * number + i + len(split)
            picture(seed).save(folder / split / label / f"{i}{suffix}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train, val and test of three classes, 9 x 8 pixels."""
    path = tmp_path / "zoo"
    for split, count in (("train", 12), ("val", 2), ("test", 3)):
        save(path, split, dict.fromkeys(CLASSES, count))
    return path


def pixels_by_class(folder: Path, split: str) -> dict[int, set[bytes]]:
    return {
        label: {np.asarray(Image.open(p)).tobytes() for p in (folder / split / name).iterdir()}
        for label, name in enumerate(CLASSES)
    }


def stored(images: np.ndarray, labels: np.ndarray) -> dict[int, set[bytes]]:
    return {
        int(label): {image.tobytes() for image in images[labels == label]}
        for label in np.unique(labels)
    }


def test_all_three_splits_are_read(folder: Path) -> None:
    dataset = made(folder)
    assert (dataset.name, dataset.official, dataset.classes) == ("zoo", False, CLASSES)
    assert (dataset.shape, dict(dataset.train.parts)) == ((8, 9, 3), {"train": 36, "val": 6})
    images, labels = dataset.train.arrays()
    assert stored(images[:36], labels[:36]) == pixels_by_class(folder, "train")
    assert stored(images[36:], labels[36:]) == pixels_by_class(folder, "val")
    assert stored(*dataset.test.arrays()) == pixels_by_class(folder, "test")
    assert len(set(labels[:8].tolist())) > 1  # classes are mixed


def test_what_is_missing_is_a_tenth_of_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "zoo", "train", {"ant": 20, "bee": 34, "möwe": 2})
    dataset = made(tmp_path / "zoo")
    assert np.bincount(dataset.test.labels()).tolist() == [2, 3, 1]
    assert np.bincount(dataset.train.labels()).tolist() == [18, 31, 1]
    everything = pixels_by_class(tmp_path / "zoo", "train")
    train, test = stored(*dataset.train.arrays()), stored(*dataset.test.arrays())
    for label, pixels in everything.items():
        assert train[label] | test[label] == pixels
        assert not train[label] & test[label]
    prepare(str(tmp_path / "zoo"))
    said = capsys.readouterr().err
    assert (
        "zoo has no test folder: 6 pictures of train are the test set, and no val folder: a tenth of "
        "each class is held out, unless validation is set\n" in said
    )


def test_the_same_folder_gives_the_same_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    first = made(folder)
    again = tmp_path / "copy" / "zoo"
    for source in sorted(folder.rglob("*.png"), reverse=True):  # written in another order
        target = again / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listing(self), reverse=True))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    shutil.rmtree(cache)
    second = made(again)
    assert second == first
    version = json.loads((first.folder / "train.beton.json").read_text())["decoder"]
    assert version == f"Pillow {Image.__version__}"
    assert made(folder) == first


def test_pixels_and_not_the_decoders_release_name_what_is_trained_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[str, str]:
        dataset = made(folder)
        recipe = load_recipe(str(folder))
        return dataset.source_sha256, TrainingData(
            dataset, recipe, Compute(torch.device("cpu"))
        ).digest

    source, digest = found()
    with monkeypatch.context() as patch:
        patch.setattr("fastnt.data.picture.decoder", lambda: "Pillow 99")
        other, same = found()
    assert other != source  # decoded anew
    assert same == digest
    picture(1).save(folder / "train" / "ant" / "0.png")
    assert found()[1] != digest


def test_a_changed_picture_a_new_one_and_another_size_are_prepared_anew(folder: Path) -> None:
    seen = {
        made(folder).source_sha256,
        made(folder, 8).source_sha256,
        made(folder, 7).source_sha256,
    }
    picture(1).save(folder / "train" / "ant" / "0.png")
    seen.add(made(folder).source_sha256)
    picture(2).save(folder / "train" / "ant" / "new.png")
    seen.add(made(folder).source_sha256)
    shutil.move(folder / "train" / "ant" / "1.png", folder / "train" / "bee" / "other.png")
    seen.add(made(folder).source_sha256)
    assert len(seen) == 6


def test_what_systems_leave_beside_pictures_is_passed_over(folder: Path) -> None:
    before = made(folder)
    for name in (".DS_Store", "Thumbs.db", "._0.png", "desktop.ini"):
        (folder / "train" / "ant" / name).write_bytes(b"?")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "readme.txt").write_text("mine")
    (folder / "licence.txt").write_text("mine")
    assert made(folder) == before


def test_pictures_of_many_formats_and_sizes_become_one_size(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    for split, count in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                suffix = (".jpg", ".JPEG", ".webp", ".bmp", ".PNG")[i % 5]
                size = (20 + 7 * i, 41 - 3 * i)
                picture(i, size).save(folder / split / label / f"{i}{suffix}")
    with pytest.raises(UserError, match=r"pixels, .*; scale and crop all with --set image_size=64"):
        made(folder)
    dataset = made(folder, 16)
    assert (dataset.shape, dataset.train.count, dataset.test.count) == ((16, 16, 3), 16, 4)


def shown(path: Path, channels: int = 3, size: int = 0) -> Any:
    from fastnt.data import picture as one

    head = one.look(path)
    shape = (size or head.height, size or head.width, channels)
    return head, one.decode(path, shape, size)


def test_a_camera_held_sideways(tmp_path: Path) -> None:
    image, path = picture(0), tmp_path / "a.png"
    upright = np.asarray(image)
    views = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright),
        9: upright,  # no orientation: a viewer turns nothing
    }
    for orientation, view in views.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
        head, pixels = shown(path)
        assert (head.height, head.width) == view.shape[:2]
        assert np.array_equal(pixels, view)
    image.save(path, exif=b"Exif\0\0damaged")
    assert np.array_equal(shown(path)[1], upright)


def test_transparency_shows_white(tmp_path: Path) -> None:
    path, image = tmp_path / "a.png", picture(0, mode="RGBA")
    alpha = np.asarray(image)[..., 3:].astype(float) / 255
    image.save(path)
    expected = np.asarray(image)[..., :3] * alpha + 255 * (1 - alpha)
    head, pixels = shown(path)
    assert not head.grey
    assert np.abs(pixels - expected).max() <= 1

    palette = picture(1).quantize(8)
    palette.info["transparency"] = 3
    palette.save(path, transparency=3)
    indices = np.asarray(palette)
    _, pixels = shown(path)
    assert (pixels[indices == 3] == 255).all()
    colours = np.asarray(palette.convert("RGB"))
    assert np.array_equal(pixels[indices != 3], colours[indices != 3])

    grey = picture(2, mode="L")
    grey.putalpha(Image.new("L", grey.size, 0))
    grey.save(path)
    head, pixels = shown(path, channels=1)
    assert head.grey
    assert (pixels == 255).all()


def test_grey_pictures_have_one_channel_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    levels = np.array([[0, 128, 65535], [257, 32768, 40000]], np.uint16)
    Image.fromarray(levels).save(path)
    head, pixels = shown(path, channels=1)
    assert head.grey
    assert pixels[..., 0].tolist() == [[0, 0, 255], [1, 128, 156]]
    Image.fromarray(levels > 300).save(path)  # one bit
    assert shown(path, channels=1)[1][..., 0].tolist() == [[0, 0, 255], [0, 255, 255]]
    picture(3, mode="L").save(tmp_path / "grey.jpg")
    head, pixels = shown(tmp_path / "grey.jpg")  # beside colours it has three alike
    assert head.grey
    assert (pixels == pixels[..., :1]).all()
    picture(3).convert("CMYK").save(tmp_path / "print.jpg")
    assert not shown(tmp_path / "print.jpg")[0].grey


def test_few_large_pictures_are_decoded_ahead() -> None:
    class Pool:
        asked = 0

        def submit(self, *arguments: Any) -> Any:
            self.asked += 1
            return SimpleNamespace(result=lambda: np.zeros(1, np.uint8))

    for side, ahead in ((32, 64), (6000, 2), (20_000, 1)):
        pool = Pool()
        paths = tuple(Path(f"{number}.png") for number in range(100))
        files = pictures.Decoded(paths, (side, side, 3), 0, pool, lambda: None)  # type: ignore[arg-type]
        files[0:0]
        assert pool.asked == ahead


def test_all_grey_folders_have_one_channel(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "grey" / "train" / label).mkdir(parents=True)
        for i in range(4):
            picture(i, mode="L").save(tmp_path / "grey" / "train" / label / f"{i}.png")
    assert made(tmp_path / "grey").shape == (8, 9, 1)
    picture(9).save(tmp_path / "grey" / "train" / "a" / "colour.png")
    assert made(tmp_path / "grey").shape == (8, 9, 3)


def test_scaling_takes_the_middle_and_is_antialiased(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :32], pixels[:, 96:] = 200, 100  # cropped away
    pixels[::2, 32:96] = 255  # stripes of a pixel: their mean is 128
    Image.fromarray(pixels).save(path)
    _, small = shown(path, size=8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small[1:-1, 1:-1].astype(int) - 128).max() <= 2


def rename(new: str) -> Any:
    return lambda f: (f / "train" / "ant").rename(f / "train" / new)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda f: (f / "train" / "ant" / "0.png").write_bytes(b"no picture"),
            r"ant/0\.png cannot be read as a picture; leave it out, or give a PNG or JPEG file",
        ),
        (
            lambda f: os.truncate(f / "train" / "ant" / "0.png", 150),
            r"ant/0\.png cannot be decoded \(.*\); leave it out, or save it again",
        ),
        (
            lambda f: (f / "train" / "ant" / "a.gif").touch(),
            r"a\.gif is no picture by its name \(\*\.png",
        ),
        (lambda f: (f / "train" / "ant" / "b.png").mkdir(), r"b\.png is no picture by its name"),
        (
            lambda f: (f / "train" / "fly").mkdir(),
            "fly has no pictures; add some, or remove the class",
        ),
        (
            lambda f: save(f, "train", {"fly": 2}),
            r"zoo/train has the class fly, \S+zoo/val has not; give all the same",
        ),
        (
            lambda f: save(f, "test", {"fly": 2}),
            r"zoo/test has the class fly, \S+zoo/train has not; give all the same",
        ),
        (
            lambda f: shutil.rmtree(f / "test" / "bee"),
            r"zoo/train has the class bee, \S+zoo/test has not",
        ),
        (
            lambda f: shutil.rmtree(f / "train"),
            "zoo has no folder train; put the training pictures",
        ),
        (
            lambda f: picture(0).save(f / "test" / "0.png"),
            r"test/0\.png is in no class; move it into a subfolder",
        ),
        (
            lambda f: [shutil.rmtree(p) for p in (f / "val").iterdir()],
            "zoo/val has no subfolders; put the pictures into one a class",
        ),
        (
            lambda f: [
                shutil.rmtree(f / s / c) for s in ("train", "val", "test") for c in CLASSES[1:]
            ],
            "zoo/train has one class alone",
        ),
        (
            lambda f: np.save(f / "images.npy", np.zeros(3)),
            r"both pictures and \.npy files; keep one",
        ),
        (lambda f: (f / "train.beton").touch(), r"both pictures and \.beton files; keep one"),
        (
            lambda f: (
                picture(0, (4000, 4000))
                .resize((9000, 9000))
                .convert("1")
                .save(f / "train" / "ant" / "0.png")
            ),
            r"0\.png cannot be decoded .*its 9000 x 9000 pixels are more than it can hold",
        ),
    ],
)
def test_what_is_wrong_is_named(folder: Path, cache: Path, spoil: Any, words: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=words):
        made(folder)
    assert not list(cache.rglob("*"))  # nothing half-written stays


def test_a_single_picture_makes_no_test_set(tmp_path: Path) -> None:
    save(tmp_path / "zoo", "train", {"ant": 9, "bee": 1})
    with pytest.raises(UserError, match="bee has one picture, and the test set wants one"):
        made(tmp_path / "zoo")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_a_name_that_is_no_text_is_named(folder: Path) -> None:
    os.mkdir(os.fsencode(folder / "train") + b"/\xff")  # noqa: PTH102
    with pytest.raises(UserError, match=r"holds '\\udcff', whose name is not UTF-8; rename it"):
        made(folder)


def test_image_size_is_for_pictures(own_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"image_size is for folders of pictures, which .*mine is not"
    ):
        made(own_folder, 8)
    with pytest.raises(
        UserError, match="image_size is for folders of pictures, which digits is not"
    ):
        prepare("digits", image_size=8, progress=False)
