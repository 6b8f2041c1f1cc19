"""Prepared data sets: made once, found again, never half."""

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest

from fastnt.cache import kept, remove
from fastnt.data import sources
from fastnt.data.prepare import list_prepared, open_dataset, prepare
from fastnt.errors import UserError


def contents(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


WHOLE = ["test.beton", "test.beton.json", "train.beton", "train.beton.json"]


def test_digits_need_no_files(cache):
    digits = prepare("digits", progress=False)
    assert (digits.train.count, digits.test.count, digits.shape) == (1437, 360, (8, 8, 1))
    assert digits.official
    assert contents(cache) == WHOLE
    assert prepare("digits", progress=False) == digits


@pytest.mark.parametrize(
    ("name", "shape", "train"),
    [
        ("mnist", (28, 28, 1), {"train": 200}),
        ("cifar10", (32, 32, 3), {"train": 200}),
        ("svhn", (32, 32, 3), {"train": 120, "extra": 80}),
    ],
)
def test_files_that_the_user_brings(name, shape, train, cache, request):
    folder = request.getfixturevalue(f"{name}_folder")
    made = prepare(name, folder, progress=False)
    assert (made.name, made.shape, made.official) == (name, shape, False)
    assert (made.train.parts, made.test.parts) == (train, {"test": 50})
    assert made.folder.parent == cache / "data"
    assert made.folder.name == f"{name}-{made.source_sha256[:12]}"
    # The folder above serves too, and neither makes a second copy; without a folder it is found.
    assert prepare(name, folder.parent, progress=False) == made
    assert prepare(name, progress=False) == made
    assert open_dataset(made.folder) == made
    assert list_prepared() == [made]
    assert contents(cache) == WHOLE


def test_rows_are_those_of_the_files_in_their_order(svhn_folder):
    from scipy.io import loadmat

    images, labels = prepare("svhn", svhn_folder, progress=False).train.arrays()
    extra = loadmat(svhn_folder / "extra_32x32.mat")
    assert np.array_equal(images[120:], extra["X"].transpose(3, 0, 1, 2))
    assert np.array_equal(labels[120:], extra["y"][:, 0] % 10)


def test_cifar10_from_its_archive_equals_cifar10_from_its_files(cifar10_folder, tmp_path):
    loose = prepare("cifar10", cifar10_folder / "cifar-10-batches-bin", progress=False)
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(cifar10_folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    packed = prepare("cifar10", tmp_path / "archive", progress=False)
    assert packed.source_sha256 != loose.source_sha256
    assert packed.train.sha256 == loose.train.sha256
    assert len(list_prepared()) == 2


def test_extra_images_are_taken_left_out_or_demanded(svhn_folder):
    with_extra = prepare("svhn", svhn_folder, progress=False)
    without = prepare("svhn", svhn_folder, extra=False, progress=False)
    assert (with_extra.train.count, without.train.count) == (200, 120)
    assert prepare("svhn", extra=True, progress=False) == with_extra
    assert prepare("svhn", extra=False, progress=False) == without
    (svhn_folder / "extra_32x32.mat").unlink()
    assert prepare("svhn", svhn_folder, progress=False) == without
    with pytest.raises(UserError, match=r"lacks extra_32x32\.mat"):
        prepare("svhn", svhn_folder, extra=True, progress=False)


def test_checksums_decide_what_is_official(mnist_folder, monkeypatch):
    files = {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in mnist_folder.iterdir()
    }
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.SOURCES["mnist"], files=files))
    official = prepare("mnist", mnist_folder, progress=False)
    assert official.official

    # The same training images, zipped again, are official by their contents; other labels are not.
    images = mnist_folder / "train-images-idx3-ubyte.gz"
    pixels = gzip.decompress(images.read_bytes())
    images.write_bytes(gzip.compress(pixels, mtime=1))
    assert not prepare("mnist", mnist_folder, progress=False).official
    unzipped = {images.name: hashlib.md5(pixels).hexdigest()}
    source = replace(sources.SOURCES["mnist"], files=files, unzipped=unzipped)
    monkeypatch.setitem(sources.SOURCES, "mnist", source)
    shutil.rmtree(next(d.folder for d in list_prepared() if not d.official))
    assert prepare("mnist", mnist_folder, progress=False).official
    labels = mnist_folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes()), mtime=1))
    assert not prepare("mnist", mnist_folder, progress=False).official

    # Without a folder, official data come first although others were prepared later.
    assert prepare("mnist", progress=False).official


def test_the_one_prepared_last_is_taken(mnist_folder):
    first = prepare("mnist", mnist_folder, progress=False)
    path = mnist_folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), mtime=1))
    second = prepare("mnist", mnist_folder, progress=False)
    assert first.source_sha256 != second.source_sha256
    os.utime(first.folder / "train.beton.json", (1, 1))
    assert prepare("mnist", progress=False) == second
    os.utime(second.folder / "train.beton.json", (0, 0))
    assert prepare("mnist", progress=False) == first


@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("mnist", "t10k-labels-idx1-ubyte.gz", r"lacks t10k-labels-idx1-ubyte\.gz"),
        ("cifar10", "cifar-10-batches-bin/data_batch_3.bin", r"lacks data_batch_3\.bin"),
        ("svhn", "test_32x32.mat", r"lacks test_32x32\.mat"),
    ],
)
def test_a_missing_file_is_named(name, missing, words, cache, request):
    folder = request.getfixturevalue(f"{name}_folder")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=words):
        prepare(name, folder, progress=False)
    assert not cache.exists()


def test_folders_without_the_files_are_refused(tmp_path, cache):
    with pytest.raises(UserError, match=r"no files of mnist in .*; put train-images"):
        prepare("mnist", tmp_path, progress=False)
    with pytest.raises(UserError, match="nowhere is not a folder"):
        prepare("mnist", tmp_path / "nowhere", progress=False)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match=r"put cifar-10-binary\.tar\.gz there \(the Python version"):
        prepare("cifar10", tmp_path, progress=False)
    with pytest.raises(UserError, match="digits comes with scikit-learn; leave --data-dir out"):
        prepare("digits", tmp_path, progress=False)
    with pytest.raises(UserError, match="unknown data set 'minst'; choose one of digits, mnist"):
        prepare("minst", tmp_path, progress=False)
    assert not cache.exists()


def test_a_damaged_source_leaves_nothing(mnist_folder, cache):
    path = mnist_folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short or damaged"):
        prepare("mnist", mnist_folder, progress=False)
    assert not cache.exists()


def test_a_beton_that_was_cut_short_is_refused_and_made_anew_after_the_remedy(mnist_folder):
    made = prepare("mnist", mnist_folder, progress=False)
    os.truncate(made.train.path, 3_000_000)
    for data_dir in (None, mnist_folder):
        with pytest.raises(UserError, match=f"it is cut short: .*; delete {made.folder} and run"):
            prepare("mnist", data_dir, progress=False)
    shutil.rmtree(made.folder)
    assert prepare("mnist", mnist_folder, progress=False) == made


def test_clean_removes_what_fastnt_made_and_nothing_else(mnist_folder, cache, tmp_path):
    prepare("mnist", mnist_folder, progress=False)
    mine = ("data/mine/a.txt", "data/set-experiment12/b.txt", "downloads/b.iso", "teachers/my.bin")
    keep = [cache / "mine.txt", *(cache / name for name in mine), cache / "logits" / "n-1.bin"]
    for path in keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    (cache / "downloads" / "svhn").symlink_to(mnist_folder)
    size = sum(path.stat().st_size for path in cache.glob("data/mnist-*/*"))
    link = (cache / "downloads" / "svhn").lstat().st_size
    assert remove(kept()) == size + link
    assert contents(cache) == sorted(path.name for path in keep)
    assert len(contents(mnist_folder)) == 4
    assert (list_prepared(), kept()) == ([], [])


CHILD = """
import os, resource, sys, time
from pathlib import Path
import fastnt.data.prepare, fastnt.data.split
from fastnt.data.prepare import prepare
from fastnt.errors import UserError

def hang(*_, **__):
    print("here", flush=True)
    time.sleep(60)

class Slow:
    \"\"\"Images that are never read to their end.\"\"\"

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __getitem__(self, rows):
        if rows.start:
            hang()
        return self.images[rows.start : rows.start + 9]

def slow(source, files):
    arrays = read(source, files)
    return {s: {p: (Slow(i), l) for p, (i, l) in parts.items()} for s, parts in arrays.items()}

stage, read = sys.argv[1], fastnt.data.prepare.read_source
if stage == "pages":
    fastnt.data.prepare.read_source = slow
elif stage == "sidecar":
    fastnt.data.split.write_json = hang
elif stage == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    prepare("mnist", Path(sys.argv[2]), progress=False)
except UserError as error:
    print(error)
    sys.exit(2)
"""


def start(stage, folder):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), stage, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stage", ["pages", "sidecar"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_leaves_nothing_that_passes_for_whole(
    stage, number, mnist_folder, cache
):
    with start(stage, mnist_folder) as child:
        assert child.stdout.readline() == "here\n"
        child.send_signal(number)
        child.wait(30)
    assert child.returncode != 0
    assert list_prepared() == []
    left = contents(cache)
    if number == signal.SIGINT or stage == "sidecar":
        assert not [name for name in left if name.endswith(".part")]
    for folder in (cache / "data").glob("*"):
        with pytest.raises(UserError):
            open_dataset(folder)
    made = prepare("mnist", mnist_folder, progress=False)
    assert made.train.count == 200
    assert set(WHOLE) <= set(contents(cache))


def test_temporary_files_of_a_killed_run_are_swept(mnist_folder):
    made = prepare("mnist", mnist_folder, progress=False)
    left = made.folder / ".train.beton.00000000-1.abc.part"
    left.touch()
    (made.folder / "test.beton.json").unlink()
    prepare("mnist", mnist_folder, progress=False)
    assert contents(made.folder) == WHOLE


def test_of_two_that_prepare_at_once_one_reads_and_the_other_finds_it_made(
    mnist_folder, monkeypatch
):
    reading, go_on, made = threading.Event(), threading.Event(), []

    def read(*arguments):
        assert not reading.is_set()  # once
        reading.set()
        assert go_on.wait(60)
        return sources.read_source(*arguments)

    monkeypatch.setattr("fastnt.data.prepare.read_source", read)

    def make():
        made.append(prepare("mnist", mnist_folder, progress=False))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert reading.wait(60)
    assert not made
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert made[0] == made[1]
    assert contents(made[0].folder) == WHOLE


def test_the_lock_of_a_killed_preparation_is_free(mnist_folder, cache):
    with start("pages", mnist_folder) as first:
        assert first.stdout.readline() == "here\n"  # it has begun to write, and waits
        first.kill()
    assert prepare("mnist", mnist_folder, progress=False).train.count == 200
    assert contents(cache) == WHOLE


def test_a_full_disk_is_one_sentence_and_leaves_nothing(mnist_folder, cache):
    with start("limit", mnist_folder) as child:
        said = child.stdout.read()
    assert child.returncode == 2
    assert said.startswith(f"cannot write {cache}")
    assert "File too large; raise the file size limit" in said
    assert contents(cache) == []
