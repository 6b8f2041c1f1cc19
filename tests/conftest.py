"""Small data in the official formats, and a cache folder of each test's own."""

import gzip
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure():
    # A shell's background job ignores it, and so would the programs that the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder of this test, so that no test sees or changes the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FASTNT_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    """Small work is done fastest, and the same whatever else runs, by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_files():
    """Make every write beyond so many bytes of a file fail, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture
def shared():
    """The folder of real data and known answers; the test is skipped where there is none."""
    folder = Path(os.environ.get("FASTNT_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared folder")
    return folder


def class_images(count, shape, seed):
    """Images (count, *shape) uint8 with a bright stripe that shows the class, and labels."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 10).astype(np.uint8)
    rng.shuffle(labels)
    images = rng.integers(0, 80, (count, *shape), dtype=np.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        stripe = slice(shape[0] * label // 10, shape[0] * (label + 1) // 10)
        image[stripe] += 150
    return images, labels


@pytest.fixture
def mnist_folder(tmp_path):
    """A folder of MNIST's four IDX files: 200 training and 50 test images."""
    folder = tmp_path / "official" / "mnist"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 200), ("t10k", 50)):
        images, labels = class_images(count, (28, 28), count)
        header = np.array([0x0803, count, 28, 28], ">u4").tobytes()
        with gzip.open(folder / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(header + images.tobytes())
        header = np.array([0x0801, count], ">u4").tobytes()
        with gzip.open(folder / f"{prefix}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(header + labels.tobytes())
    return folder


@pytest.fixture
def cifar10_folder(tmp_path):
    """A folder that holds cifar-10-batches-bin: 5 x 40 training and 50 test images."""
    folder = tmp_path / "official" / "cifar10"
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    for number in range(1, 7):
        name, count = (f"data_batch_{number}", 40) if number < 6 else ("test_batch", 50)
        images, labels = class_images(count, (32, 32, 3), number)
        records = np.concatenate(
            [labels[:, None], images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1
        )
        records.tofile(folder / "cifar-10-batches-bin" / f"{name}.bin")
    return folder


@pytest.fixture
def svhn_folder(tmp_path):
    """A folder of SVHN's three .mat files: 120 training, 80 extra and 50 test images."""
    from scipy.io import savemat

    folder = tmp_path / "official" / "svhn"
    folder.mkdir(parents=True)
    for name, count in (("train", 120), ("extra", 80), ("test", 50)):
        images, labels = class_images(count, (32, 32, 3), count)
        tens = np.where(labels == 0, 10, labels).astype(np.uint8)
        content = {"X": images.transpose(1, 2, 3, 0), "y": tens[:, None]}
        savemat(folder / f"{name}_32x32.mat", content, do_compression=True)
    return folder


@pytest.fixture
def bn_resnet(tmp_path, monkeypatch):
    """The module of this name in the current folder, as a user has it; it is forgotten afterwards."""
    shutil.copy(ROOT / "tests" / "fastnt" / "bn_resnet.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    sys.modules.pop("bn_resnet", None)
    yield tmp_path / "bn_resnet.py"
    sys.modules.pop("bn_resnet", None)


@pytest.fixture
def own_folder(tmp_path):
    """A folder of the user's own data: 60 training and 20 test images of 8 x 9 x 3, three classes."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for prefix, count in (("", 60), ("test_", 20)):
        images, labels = class_images(count, (8, 9, 3), count)
        np.save(folder / f"{prefix}images.npy", images)
        np.save(folder / f"{prefix}labels.npy", labels % 3)
    return folder
