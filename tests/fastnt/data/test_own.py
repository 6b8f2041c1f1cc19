"""The user's own data: .npy files and FFCV's .beton files become prepared data sets."""

import os
import shutil

import numpy as np
import pytest

from fastnt.data import beton, own
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
    assert "mine has no test files: its last 1 samples are the test set" in capsys.readouterr().err


def test_grey_images_without_channels_and_labels_of_any_integer_type(own_folder):
    for prefix in ("", "test_"):
        images = np.load(own_folder / f"{prefix}images.npy")[..., 0]
        np.save(own_folder / f"{prefix}images.npy", np.asfortranarray(images))
        labels = np.load(own_folder / f"{prefix}labels.npy")
        np.save(own_folder / f"{prefix}labels.npy", labels.astype(">u2"))
    dataset = made(own_folder)
    assert dataset.shape == (8, 9, 1)
    assert np.array_equal(dataset.train.arrays()[0][..., 0], np.load(own_folder / "images.npy"))
    assert np.array_equal(dataset.train.labels(), np.load(own_folder / "labels.npy"))


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


def write_beton(path, images, labels, *, extra=False, order=("image", "label"), page=1 << 23):
    """Write a file with FFCV's own DatasetWriter."""
    pytest.importorskip("ffcv")
    from ffcv.fields import FloatField, IntField, NDArrayField
    from ffcv.writer import DatasetWriter

    kinds = {
        "image": NDArrayField(np.dtype("uint8"), images.shape[1:]),
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
    found = beton.layout(tmp_path / "ours")
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
    cases = {
        "JPEG-coded": ({"image": RGBImageField(write_mode="raw"), "label": IntField()}, image, 1),
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


def test_damaged_betons_are_refused(own_folder, tmp_path, cache):
    path = tmp_path / "a.beton"
    beton.write(path, [tuple(np.load(own_folder / f"{n}.npy") for n in ("images", "labels"))])
    whole = path.read_bytes()
    found = beton.layout(path)
    far = bytearray(whole)
    far[found.records : found.records + 8] = (1 << 40).to_bytes(8, "little")
    none = bytearray(whole)
    none[8:16] = bytes(8)
    for content, words in (
        (whole[:-1], "it is cut short"),
        (whole[:100], "it is cut short"),
        (b"", "it is cut short"),
        (b"\x93NUMPY" * 999, "not a .beton file of format 2"),
        (far, "an image lies beyond its end"),
        (none, "it holds no samples"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=words):
            made(path)
    assert not cache.exists()


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
        (save("images", np.array([{}, 1], object)), "images.npy is not a whole .npy file"),
        (save("labels", np.zeros(60)), r"labels.npy holds float64 of shape \(60,\)"),
        (save("labels", np.zeros((60, 1), int)), r"holds int64 of shape \(60, 1\)"),
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
        (lambda f: (f / "classes.txt").write_bytes(b"\xff\n"), "classes.txt is not UTF-8"),
        (lambda f: [path.unlink() for path in f.iterdir()], "mine holds no data: images.npy and"),
        (shutil.rmtree, "mine is not there; give a folder or a .beton file"),
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
    with pytest.raises(UserError, match=r"images.npy is no .beton file"):
        made(own_folder / "images.npy")


def test_no_pickle_is_loaded(own_folder):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    np.save(own_folder / "labels.npy", np.array([Trap()] * 60, object), allow_pickle=True)
    with pytest.raises(UserError, match="not a whole"):
        made(own_folder)


def test_names_of_data_sets_go_before_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert prepare("digits", progress=False).official
    assert own.name_of(tmp_path / "a.b" / "c.beton") == "c"
    assert own.name_of(tmp_path / "v1.5") == "v1.5"
