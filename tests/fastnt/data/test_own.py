"""The user's own data: .npy files and FFCV's .beton files become prepared data sets."""

import io
import math
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from fastnt.data import beton, beton_head, own
from fastnt.data.loaders import make_loader
from fastnt.data.prepare import list_prepared, open_dataset, prepare
from fastnt.errors import UserError


def made(path):
    return prepare(str(path), progress=False)


def test_arrays_become_a_prepared_data_set(own_folder, cache):
    dataset = made(own_folder)
    assert (dataset.name, dataset.official) == ("mine", False)
    assert (dataset.shape, dataset.classes) == ((8, 9, 3), ("0", "1", "2"))
    assert dataset.folder == cache / "data" / f"mine-{dataset.source_sha256[:12]}"
    for split, prefix in ((dataset.train, ""), (dataset.test, "test_")):
        images, labels = split.arrays()
        assert np.array_equal(images, np.load(own_folder / f"{prefix}images.npy"))
        assert np.array_equal(labels, np.load(own_folder / f"{prefix}labels.npy"))
    assert open_dataset(dataset.folder) == dataset
    assert made(own_folder) == dataset
    assert list_prepared() == [dataset]


def test_what_changed_is_prepared_anew(own_folder):
    first = made(own_folder)
    images = np.load(own_folder / "images.npy")
    images[0, 0, 0, 0] ^= 1
    np.save(own_folder / "images.npy", images)
    second = made(own_folder)
    assert second.source_sha256 != first.source_sha256
    assert np.array_equal(second.train.arrays()[0], images)


def test_without_test_files_the_last_tenth_is_the_test_set(own_folder, capsys):
    images, labels = (np.load(own_folder / f"{name}.npy") for name in ("images", "labels"))
    for name in ("images", "labels"):
        (own_folder / f"test_{name}.npy").unlink()
    for count, test in ((60, 6), (56, 6), (54, 5), (14, 1)):
        np.save(own_folder / "images.npy", images[:count])
        np.save(own_folder / "labels.npy", labels[:count])
        dataset = made(own_folder)
        assert (dataset.train.count, dataset.test.count) == (count - test, test)
        assert np.array_equal(dataset.test.arrays()[0], images[count - test : count])
        assert np.array_equal(dataset.test.labels(), labels[count - test : count])
    assert capsys.readouterr().err == ""
    prepare(str(own_folder))
    assert "mine has no test set: its last 1 samples serve as one" in capsys.readouterr().err


def test_grey_images_without_channels_and_labels_of_any_integer_type(own_folder):
    for prefix in ("", "test_"):
        images = np.load(own_folder / f"{prefix}images.npy")[..., 0]
        np.save(own_folder / f"{prefix}images.npy", np.asfortranarray(images))
        labels = np.load(own_folder / f"{prefix}labels.npy")
        column = labels[:, None] if prefix else labels  # (n, 1), as MedMNIST has them
        np.save(own_folder / f"{prefix}labels.npy", column.astype(">u2"))
    dataset = made(own_folder)
    assert dataset.shape == (8, 9, 1)
    for split, prefix in ((dataset.train, ""), (dataset.test, "test_")):
        images, labels = split.arrays()
        assert np.array_equal(images[..., 0], np.load(own_folder / f"{prefix}images.npy"))
        assert np.array_equal(labels, np.load(own_folder / f"{prefix}labels.npy").reshape(-1))


def test_classes_have_the_users_names(own_folder):
    (own_folder / "classes.txt").write_text("Katze\nHund\nMöwe\nnever seen\n\n", encoding="utf-8")
    assert made(own_folder).classes == ("Katze", "Hund", "Möwe", "never seen")


def test_data_of_a_known_name_are_not_taken_for_the_known_data(own_folder, tmp_path):
    folder = own_folder.rename(tmp_path / "digits")
    mine = made(folder)
    assert mine.name == "own-digits"
    assert prepare("digits", progress=False).official
    assert made(folder) == mine


def test_images_larger_than_a_page(tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (4, 900, 1000, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", [0, 1, 0, 1])
    assert np.array_equal(made(folder).train.arrays()[0], images[:3])


# --- .beton files


def write_beton(
    path, images, labels, *, extra=False, order=("image", "label"), page=1 << 23, image=None
):
    """Write a file with FFCV's own DatasetWriter."""
    pytest.importorskip("ffcv")
    from ffcv.fields import FloatField, IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    kinds = {
        "image": image or NDArrayField(np.dtype("uint8"), images.shape[1:]),
        "label": IntField(),
        "weight": FloatField(),
    }
    names = [*order, *(["weight"] if extra else [])]
    columns = {"image": images, "label": labels.tolist(), "weight": [0.5] * len(labels)}
    writer = DatasetWriter(
        str(path), {name: kinds[name] for name in names}, page_size=page, num_workers=1
    )
    writer.from_indexed_dataset(list(zip(*(columns[name] for name in names), strict=True)))


@pytest.mark.parametrize("order", [("image", "label"), ("label", "image")])
@pytest.mark.parametrize("extra", [False, True])
def test_a_beton_of_ffcvs_own_writer(own_folder, tmp_path, order, extra):
    images, labels = (np.load(own_folder / f"{name}.npy") for name in ("images", "labels"))
    write_beton(tmp_path / "one.beton", images, labels, order=order, extra=extra)
    dataset = made(tmp_path / "one.beton")
    assert (dataset.name, dataset.classes) == ("one", ("0", "1", "2"))
    for split, part in ((dataset.train, slice(54)), (dataset.test, slice(54, 60))):
        assert np.array_equal(split.arrays()[0], images[part])
        assert np.array_equal(split.labels(), labels[part])


@pytest.mark.parametrize("order", [("image", "label"), ("label", "image")])
@pytest.mark.parametrize("extra", [False, True])
def test_a_beton_of_ffcvs_tutorial(own_folder, tmp_path, order, extra):
    """Raw RGBImageFields, whose records are not of 8 bytes a field."""
    pytest.importorskip("ffcv")
    from ffcv.fields import RGBImageField

    folder = tmp_path / "tutorial"
    folder.mkdir()
    images, labels = (np.load(own_folder / f"{name}.npy") for name in ("images", "labels"))
    options = {"order": order, "extra": extra, "image": RGBImageField()}
    write_beton(folder / "train.beton", images, labels, **options)
    write_beton(folder / "test.beton", images[:9], labels[:9], **options)
    dataset = made(folder)
    for kind in ("resident", "ffcv"):
        for split, count in ((dataset.train, 60), (dataset.test, 9)):
            loader = make_loader(
                *(kind, split),
                positions=np.arange(count),
                batch_size=count,
                order_seed=None,
                device=torch.device("cpu"),
            )
            (batch,) = loader.epoch(0)
            assert np.array_equal(batch.images, images[:count])
            assert np.array_equal(batch.labels, labels[:count])


def test_images_that_lie_in_any_order(own_folder, tmp_path):
    """Several workers of FFCV's writer leave them so."""
    images, labels = (np.load(own_folder / f"{name}.npy") for name in ("images", "labels"))
    path = tmp_path / "one.beton"
    beton.write(path, [(images, labels)])
    found, size = beton_head.layout(path), images[0].size
    content = np.fromfile(path, np.uint8)
    records = content[found.records : found.records + 60 * 24].view(found.record)
    order = np.random.default_rng(0).permutation(60)
    start = int(records["image"][0])
    content[start : start + 60 * size] = images[order].reshape(-1)
    records["image"][order] = start + np.arange(60) * size
    content.tofile(path)
    assert np.array_equal(beton.read(path)[0], images)


def test_a_folder_of_two_betons(own_folder, tmp_path):
    folder = tmp_path / "pair"
    folder.mkdir()
    for name, prefix in (("train", ""), ("test", "test_")):
        images = np.load(own_folder / f"{prefix}images.npy")
        write_beton(folder / f"{name}.beton", images, np.load(own_folder / f"{prefix}labels.npy"))
    arrays, betons = made(own_folder), made(folder)
    assert (betons.train.sha256, betons.test.sha256) == (arrays.train.sha256, arrays.test.sha256)


def test_large_images_as_ffcv_writes_them(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (3, 900, 1000, 3), dtype=np.uint8)
    labels = np.array([0, 1, 1])
    beton.write(tmp_path / "ours", [(images, labels)])
    found = beton_head.layout(tmp_path / "ours")
    assert found.page == 1 << 22
    write_beton(tmp_path / "ffcv", images, labels, page=found.page)
    for name in ("ours", "ffcv"):
        again, classes = beton.read(tmp_path / name)
        assert np.array_equal(again, images)
        assert np.array_equal(classes, labels)


def test_other_fields_are_refused_with_the_remedy(own_folder, tmp_path):
    pytest.importorskip("ffcv")
    from ffcv.fields import BytesField, IntField, NDArrayField, RGBImageField
    from ffcv.writer import DatasetWriter

    image = np.load(own_folder / "images.npy")[0]
    array = NDArrayField(np.dtype("uint8"), image.shape)
    floats = NDArrayField(np.dtype("float32"), image.shape)
    jpeg = RGBImageField(write_mode="jpg")
    cases = {
        "its images are JPEG-coded": ({"image": jpeg, "label": IntField()}, image, 1),
        "the fields image": ({"picture": array, "label": IntField()}, image, 1),
        "and label": ({"image": array, "label": array}, image, image),
        "not uint8": ({"image": floats, "label": IntField()}, image.astype(np.float32), 1),
        "other fields": (
            {"image": array, "label": IntField(), "name": BytesField()},
            *(image, 1, np.zeros(3, np.uint8)),
        ),
    }
    for number, (words, (fields, *sample)) in enumerate(cases.items()):
        path = tmp_path / f"{number}.beton"
        writer = DatasetWriter(str(path), fields, page_size=beton.PAGE, num_workers=1)
        writer.from_indexed_dataset([tuple(sample)])
        with pytest.raises(UserError, match=words) as error:
            made(path)
        assert "write it with FFCV's DatasetWriter and the fields image=" in str(error.value)


@pytest.mark.parametrize(
    ("mode", "shapes", "words"),
    [
        ("raw", [(8, 9), (8, 9), (9, 8)], "image 2 has 8 x 9 pixels, the first 9 x 8, .* one size"),
        ("smart", [(8, 9), (80, 90)], "image 1 is JPEG-coded, and fastnt reads raw images only"),
        ("jpg", [(8, 9)], "its images are JPEG-coded, and fastnt reads raw images only"),
    ],
)
def test_rgb_images_of_other_kinds_are_refused_for_their_true_reason(tmp_path, mode, shapes, words):
    pytest.importorskip("ffcv")
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    field = RGBImageField(write_mode=mode, smart_threshold=1000)
    path = tmp_path / "a.beton"
    writer = DatasetWriter(
        str(path), {"image": field, "label": IntField()}, page_size=beton.PAGE, num_workers=1
    )
    images = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
    writer.from_indexed_dataset([(image, i) for i, image in enumerate(images)])
    with pytest.raises(UserError, match=words):
        made(path)


def test_damaged_betons_are_refused(own_folder, tmp_path, cache):
    path = tmp_path / "a.beton"
    beton.write(path, [tuple(np.load(own_folder / f"{n}.npy") for n in ("images", "labels"))])
    whole = path.read_bytes()
    found = beton_head.layout(path)
    far = bytearray(whole)
    far[found.records : found.records + 8] = (1 << 40).to_bytes(8, "little")
    none = bytearray(whole)
    none[8:16] = bytes(8)
    many, count = bytearray(whole), 2_000_000  # that all point at one image
    many[8:16] = count.to_bytes(8, "little")
    many += bytes(count * 24)
    for content, words in (
        (whole[:-1], "it is cut short"),
        (whole[:100], "it is cut short"),
        (b"", "it is cut short"),
        (b"\x93NUMPY" * 999, "not a .beton file of format 2"),
        (far, "an image lies beyond its end"),
        (none, "it holds no samples"),
        (many, r"bytes cannot hold 2,000,000 images of \(8, 9, 3\)"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            made(path)
    assert not cache.exists()


# --- .npz files


def npz_arrays():
    """Arrays by the names of MedMNIST's files: images without channels, labels (n, 1)."""
    rng = np.random.default_rng(4)
    arrays = {}
    for split, count in (("train", 30), ("val", 6), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 7, 6), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return arrays


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_medmnists_files(tmp_path, write):
    arrays = npz_arrays()
    arrays["test_images"] = np.asfortranarray(arrays["test_images"])
    write(tmp_path / "bloodmnist.npz", **arrays)
    dataset = made(tmp_path / "bloodmnist.npz")
    assert (dataset.name, dataset.shape) == ("bloodmnist", (7, 6, 1))
    assert dict(dataset.train.parts) == {"train": 30, "val": 6}
    images, labels = dataset.train.arrays()
    both = [
        arrays[f"{split}_{kind}"] for kind in ("images", "labels") for split in ("train", "val")
    ]
    assert np.array_equal(images[..., 0], np.concatenate(both[:2]))
    assert np.array_equal(labels, np.concatenate(both[2:])[:, 0])
    assert np.array_equal(dataset.test.arrays()[0][..., 0], arrays["test_images"])
    del arrays["test_images"], arrays["test_labels"], arrays["val_images"], arrays["val_labels"]
    np.savez(tmp_path / "b.npz", **arrays)
    assert made(tmp_path / "b.npz").test.count == 3


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_in_a_packing_that_is_inflated_at_once_is_refused(tmp_path, packing):
    """A kilobyte of either may be gigabytes."""
    np.savez(tmp_path / "plain.npz", **npz_arrays())
    with (
        zipfile.ZipFile(tmp_path / "plain.npz") as plain,
        zipfile.ZipFile(tmp_path / "m.npz", "w", packing) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(UserError, match="is packed in a way"):
        made(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_labels": None}, r"m\.npz lacks the array train_labels"),
        ({"val_images": None}, r"m\.npz lacks the array val_images"),
        (
            {f"train_{kind}": None for kind in ("images", "labels")},
            "holds the arrays test_images, test_labels, val_images, val_labels; name them train_images",
        ),
        ({"train_labels": np.eye(30, 14, dtype=int)}, r"m\.npz: train_labels holds int64 .*argmax"),
        ({"train_labels": np.array([None] * 30)}, "train_labels holds Python objects"),
        ({"val_images": np.zeros((6, 8, 6), np.uint8)}, r"holds val images of shape \(8, 6, 1\)"),
    ],
)
def test_bad_npz_files_are_named(tmp_path, cache, changes, words):
    arrays = {k: v for k, v in (npz_arrays() | changes).items() if v is not None}
    np.savez(tmp_path / "m.npz", **arrays, allow_pickle=True)
    with pytest.raises(UserError, match=words):
        made(tmp_path / "m.npz")
    assert not cache.exists()


@pytest.mark.parametrize("shape", [(0, 10**30), (1,) * 100])
def test_a_shape_that_is_no_arrays_is_refused(tmp_path, shape):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"shape": shape, "fortran_order": False, "descr": "|u1"}
    )
    arrays = {name: array for name, array in npz_arrays().items() if name != "train_images"}
    np.savez(tmp_path / "m.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.writestr("train_images.npy", head.getvalue() + bytes(math.prod(shape)))
    with pytest.raises(UserError, match=r"train_images is not a whole \.npz file"):
        made(tmp_path / "m.npz")


def test_a_head_that_promises_more_than_the_file_can_hold_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **npz_arrays())
    for kind, save in (("npz", zipfile.ZIP_DEFLATED), ("npz", zipfile.ZIP_STORED)):
        with (
            zipfile.ZipFile(tmp_path / "a.npz") as whole,
            zipfile.ZipFile(tmp_path / f"b.{kind}", "w", save) as spoiled,
        ):
            for name in whole.namelist():
                content = whole.read(name).replace(b"(30, 7, 6), ", b"(%d, 7, 6), " % (1 << 40))
                spoiled.writestr(name, content)
        with pytest.raises(
            UserError, match=r"b\.npz: train_images is not a whole \.npz .*than it can"
        ):
            made(tmp_path / f"b.{kind}")


def test_a_held_out_set_that_is_given(own_folder, tmp_path):
    images, labels = np.load(own_folder / "images.npy"), np.load(own_folder / "labels.npy")
    np.save(own_folder / "val_images.npy", images[:9])
    np.save(own_folder / "val_labels.npy", labels[:9])
    dataset = made(own_folder)
    assert dict(dataset.train.parts) == {"train": 60, "val": 9}
    pair = tmp_path / "pair"
    pair.mkdir()
    for name, prefix in (("train", ""), ("val", "val_"), ("test", "test_")):
        files = (own_folder / f"{prefix}images.npy", own_folder / f"{prefix}labels.npy")
        beton.write(pair / f"{name}.beton", [tuple(map(np.load, files))])
    assert made(pair).train.sha256 == dataset.train.sha256
    (own_folder / "val_labels.npy").unlink()
    with pytest.raises(UserError, match=r"mine lacks val_labels\.npy$"):
        made(own_folder)


# --- what is wrong is one sentence


def save(name, value):
    return lambda folder: np.save(folder / f"{name}.npy", value, allow_pickle=True)


IMAGES = np.zeros((60, 8, 9, 3), np.uint8)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (save("images", IMAGES / 255), r"images.npy holds float64 images; save them as uint8"),
        (save("images", IMAGES[:, :, 0, 0]), r"shape \(60, 8\); images have the shape \(n, H"),
        (save("images", IMAGES[:0]), r"shape \(0, 8, 9, 3\)"),
        (save("images", np.zeros((60, 3, 9, 9), np.uint8)), r"as \(n, C, H, W\)"),
        (save("images", np.zeros((60, 3, 48, 64), np.uint8)), r"as \(n, C, H, W\)"),
        (save("images", IMAGES[:59]), "labels.npy holds 60 labels for 59 images"),
        (save("images", IMAGES[:, :5]), r"shape \(8, 9, 3\), .*images.npy of \(5, 9, 3\)"),
        (
            save("images", np.array([{}, 1], object)),
            r"images.npy holds Python objects, .*: save .*np.stack\(list\(array\)\)",
        ),
        (
            save("labels", np.zeros(60)),
            r"labels.npy holds float64 .*: save labels.astype\(np.int64\)",
        ),
        (save("labels", np.zeros(60, bool)), r"holds bool .*: save labels.astype\(np.int64\)"),
        (save("labels", np.eye(60, dtype=int)), r"shape \(60, 60\).* one-hot .*labels.argmax\(1\)"),
        (save("labels", np.eye(60)), r"shape \(60, 60\).* one-hot rows save labels.argmax\(1\)"),
        (save("labels", np.zeros((60, 1, 1), int)), r"holds int64 of shape \(60, 1, 1\)"),
        (
            save("labels", np.array(["cat", "dog"] * 30)),
            r"holds <U3 .*: save np.unique\(labels, return_inverse=True\)\[1\]",
        ),
        (save("labels", np.array(["cat", 1] * 30, object)), "labels.npy holds Python objects"),
        (save("labels", np.array([0, -1] * 30)), "label -1 of sample 1 is not from 0 to"),
        (save("labels", np.array([2**64 - 1] * 60, np.uint64)), "label 18446744073709551615 of"),
        (save("test_labels", np.full(20, 1 << 20)), "test_labels.npy: label 1048576 of sample 0"),
        (lambda f: os.truncate(f / "images.npy", 5000), "images.npy is not a whole .npy file"),
        (lambda f: (f / "labels.npy").write_bytes(b"PK\3\4" * 30), "labels.npy is not a whole"),
        (lambda f: (f / "labels.npy").write_bytes(b""), "labels.npy is not a whole"),
        (lambda f: (f / "labels.npy").unlink(), "mine lacks labels.npy$"),
        (lambda f: (f / "test_images.npy").unlink(), "mine lacks test_images.npy$"),
        (lambda f: (f / "train.beton").touch(), "both .npy and .beton files; keep one kind"),
        (
            lambda f: (f / "classes.txt").write_text("a\nb\n"),
            "names 2 classes, but there are labels",
        ),
        (lambda f: (f / "classes.txt").write_text("a\na\nb\nc\n"), "names 'a' twice"),
        (lambda f: (f / "classes.txt").write_bytes(b"\xff\n"), "classes.txt is not UTF-8"),
        (lambda f: [path.unlink() for path in f.iterdir()], "mine holds no data: images.npy and"),
        (shutil.rmtree, "mine is not there; give a folder, or a .beton or .npz"),
    ],
)
def test_bad_data_are_named(own_folder, cache, spoil, words):
    spoil(own_folder)
    with pytest.raises(UserError, match=words):
        made(own_folder)
    assert not cache.exists()


def test_sorted_samples_without_test_files_are_refused(own_folder):
    for name in ("images", "labels"):
        (own_folder / f"test_{name}.npy").unlink()
    np.save(own_folder / "labels.npy", np.repeat(np.arange(10), 6))
    with pytest.raises(UserError, match="holds class 9, which the rest does not; shuffle"):
        made(own_folder)


def test_labels_from_1_are_refused_unless_all_classes_are_named(own_folder):
    for prefix in ("", "test_"):
        labels = np.load(own_folder / f"{prefix}labels.npy")
        np.save(own_folder / f"{prefix}labels.npy", labels + 1)
    with pytest.raises(
        UserError, match=r"labels\.npy holds no label 0: labels up to 3 would make 4"
    ):
        made(own_folder)
    (own_folder / "classes.txt").write_text("background\na\nb\nc\n")
    assert len(made(own_folder).classes) == 4


def test_one_class_alone_is_refused(own_folder):
    for name, count in (("labels", 60), ("test_labels", 20)):
        np.save(own_folder / f"{name}.npy", np.zeros(count, int))
    with pytest.raises(UserError, match="one class alone"):
        made(own_folder)


def test_other_options_and_other_files_are_refused(own_folder):
    with pytest.raises(UserError, match="data of your own; leave --data-dir"):
        prepare(str(own_folder), own_folder, progress=False)
    with pytest.raises(UserError, match=r"images.npy is no .beton or .npz file"):
        made(own_folder / "images.npy")


def test_no_pickle_is_loaded(own_folder):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.save(own_folder / "labels.npy", np.array([Trap()] * 60, object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects, which are never read"):
        made(own_folder)


def test_names_of_data_sets_go_before_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert prepare("digits", progress=False).official
    assert own.name_of(tmp_path / "a.b" / "c.beton") == "c"
    assert own.name_of(tmp_path / "v1.5") == "v1.5"
