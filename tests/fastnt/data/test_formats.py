"""The official formats are read exactly; a file that is not what it should be gets one sentence."""

import gzip
import io
import tarfile
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fastnt.data import formats
from fastnt.data.mat5 import MatError, read_mat5
from fastnt.errors import UserError


def unzip(path):
    with gzip.open(path) as file:
        return file.read()


def zip_again(path, data):
    with gzip.open(path, "wb") as file:
        file.write(data)


@pytest.fixture
def mnist(mnist_folder):
    return (
        mnist_folder / "train-images-idx3-ubyte.gz",
        mnist_folder / "train-labels-idx1-ubyte.gz",
    )


@pytest.fixture
def mat(svhn_folder):
    return svhn_folder / "train_32x32.mat"


def test_mnist_is_read_as_it_lies(mnist):
    images, labels = formats.read_mnist(*mnist)
    assert (images.shape, images.dtype) == ((200, 28, 28, 1), np.uint8)
    assert images.tobytes() == unzip(mnist[0])[16:]
    assert (labels.dtype, bytes(labels.astype(np.uint8))) == (np.int64, unzip(mnist[1])[8:])


@pytest.mark.parametrize(
    ("which", "damage", "words"),
    [
        (0, lambda path: path.write_bytes(path.read_bytes()[:-900]), "cut short or damaged"),
        (0, lambda path: path.write_bytes(b""), "not an IDX file"),
        (0, lambda path: path.write_bytes(b"PK" * 50), "cut short or damaged"),
        (0, lambda path: zip_again(path, b"\0\0\x08\x01" + unzip(path)[4:]), "not an IDX file"),
        (0, lambda path: zip_again(path, unzip(path)[:-1]), "does not fit the 200 items"),
        (0, lambda path: zip_again(path, unzip(path) + b"\0"), "does not fit the 200 items"),
        (0, lambda path: zip_again(path, b"\0\0\x08"), "not an IDX file"),
        (
            0,
            lambda path: zip_again(path, unzip(path)[:4] + b"\xff" * 4 + unzip(path)[8:]),
            "does not fit the 4294967295 items",
        ),
        (1, lambda path: zip_again(path, unzip(path)[:-1] + b"\x0a"), "label 10 of sample 199"),
        (
            1,
            lambda path: zip_again(path, b"\0\0\x08\x01\0\0\0\xc7" + unzip(path)[8:-1]),
            "199 labels for the 200",
        ),
    ],
)
def test_damaged_idx_files_are_refused(mnist, which, damage, words):
    damage(mnist[which])
    with pytest.raises(UserError, match=words) as caught:
        formats.read_mnist(*mnist)
    assert str(mnist[which]) in str(caught.value)


def test_cifar10_records_become_channels_last(cifar10_folder):
    path = cifar10_folder / "cifar-10-batches-bin" / "data_batch_2.bin"
    images, labels = formats.parse_cifar10(path, path.read_bytes())
    record = path.read_bytes()[3073 * 7 : 3073 * 8]
    assert labels[7] == record[0]
    assert images[7, 5, 6].tolist() == [record[1 + 1024 * c + 32 * 5 + 6] for c in range(3)]


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_a_bin_of_the_wrong_size_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=rf"a.bin cannot be used: its {size} bytes are not whole"):
        formats.parse_cifar10(tmp_path / "a.bin", bytes(size))


def test_a_cifar10_label_out_of_range_is_refused(tmp_path):
    with pytest.raises(UserError, match="label 10 of sample 0 is not in 0 to 9"):
        formats.parse_cifar10(tmp_path / "a.bin", b"\x0a" + bytes(3072))


def archive(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def test_tar_members_are_read_whatever_their_folder(tmp_path):
    path = tmp_path / "a.tar.gz"
    archive(path, {"../../up/a.bin": b"a", "x/b.bin": b"bb", "c": b"c"})
    assert formats.read_tar_members(path, ["a.bin", "b.bin"]) == {"a.bin": b"a", "b.bin": b"bb"}
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_without_a_member_or_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    archive(path, {"x/b.bin": np.random.default_rng(0).bytes(50_000)})
    with pytest.raises(UserError, match=r"it lacks a\.bin"):
        formats.read_tar_members(path, ["a.bin", "b.bin"])
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match="cut short or damaged"):
        formats.read_tar_members(path, ["b.bin"])


def test_a_member_that_promises_more_than_the_archive_holds_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo("x/b.bin")
        member.size, member.type = 1 << 40, kind
        with gzip.open(path, "wb") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT) + b"b" * 5000)
        with pytest.raises(UserError, match=r"a\.tar\.gz cannot be used: it"):
            formats.read_tar_members(path, ["b.bin"])


NUMBERS = np.array([[0, 1, 2], [100, 5, 127]])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_arrays_are_those_that_scipy_reads(tmp_path, kind, packed):
    path = tmp_path / "a.mat"
    content = {"text": "z" * 99, "X": NUMBERS.astype(kind), "s": {"a": 1}, "y": np.arange(3000.0)}
    content |= {"flat": np.zeros((2, 0, 3), kind), "long" * 7: NUMBERS.astype(kind)}
    savemat(path, content, do_compression=packed)
    names = ["X", "y", "flat", "long" * 7]
    ours, theirs = read_mat5(path, [*names, "absent"]), loadmat(path)
    assert sorted(ours) == sorted(names)
    for name in names:
        assert ours[name].dtype == theirs[name].dtype
        assert np.array_equal(ours[name], theirs[name])
    with pytest.raises(MatError, match="text is no array of real numbers"):
        read_mat5(path, ["text"])


def test_arrays_of_machines_of_the_other_kind(tmp_path):
    """By hand: an array y of int16 whose numbers are stored as bytes, with its head's big end first."""
    elements = b"\0\0\0\6\0\0\0\x08" + bytes([0, 0, 0, 10]) + bytes(4)  # the class of int16
    elements += b"\0\0\0\5\0\0\0\x08" + bytes([0, 0, 0, 3, 0, 0, 0, 1])
    elements += b"\0\1\0\1y\0\0\0" + b"\0\3\0\1\7\x08\x09\0"
    array = b"\0\0\0\x0e" + len(elements).to_bytes(4, "big") + elements
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + array)
    assert loadmat(path)["y"].tolist() == [[7], [8], [9]]
    assert read_mat5(path, ["y"])["y"].tolist() == [[7], [8], [9]]


def test_svhn_turns_ten_into_zero(mat):
    images, labels = formats.read_svhn(mat)
    content = loadmat(mat)
    assert (images.shape, images.dtype) == ((120, 32, 32, 3), np.uint8)
    assert np.array_equal(images[17], content["X"][..., 17])
    assert labels.tolist() == [n % 10 for n in content["y"].reshape(-1).tolist()]
    assert 10 in content["y"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": None}, "it lacks the variable y"),
        ({"X": None, "y": None}, "it lacks the variable X and y"),
        ({"X": np.zeros((32, 32, 3, 120))}, "X is float64"),
        ({"X": np.zeros((28, 28, 3, 120), np.uint8)}, r"not uint8 \(32, 32, 3, n\)"),
        ({"y": np.ones((119, 1), np.uint8)}, "119 uint8 labels, 120 images"),
        ({"y": np.full((120, 1), 11, np.uint8)}, "label 11 of sample 0 is not in 1 to 10"),
        ({"y": np.zeros((120, 1), np.uint8)}, "label 0 of sample 0"),
    ],
)
def test_wrong_mat_files_are_refused(mat, change, words):
    content = {name: value for name, value in loadmat(mat).items() if name in ("X", "y")}
    content = {k: v for k, v in (content | change).items() if v is not None}
    savemat(mat, content or {"z": 1})
    with pytest.raises(UserError, match=words):
        formats.read_svhn(mat)


def test_the_byte_that_crashed_scipy(mat):
    content = bytearray(mat.read_bytes())
    content[184] = 0
    mat.write_bytes(content)
    with pytest.raises(UserError, match="is not a MATLAB 5 file or is damaged"):
        formats.read_svhn(mat)


def test_an_array_that_promises_more_than_the_file_holds(mat):
    content = {"X": np.zeros((32, 32, 3, 9), np.uint8), "y": np.ones((9, 1), np.uint8)}
    for packed in (False, True):
        savemat(mat, content, do_compression=packed)
        whole = mat.read_bytes()
        size, shape = (32 * 32 * 3 * 9).to_bytes(4, "little"), b"\3\0\0\0\x09\0\0\0"
        more = (32 * 32 * 3 * 900_000).to_bytes(4, "little")
        plain = zlib.decompress(whole[136:]) if packed else whole[128:]
        plain = plain.replace(shape, b"\3\0\0\0" + (900_000).to_bytes(4, "little"))
        plain = plain.replace(size, more)
        if packed:
            again = zlib.compress(plain)
            plain = b"\x0f\0\0\0" + len(again).to_bytes(4, "little") + again
        mat.write_bytes(whole[:128] + plain)
        with pytest.raises(UserError, match="X promises more numbers than the file can hold"):
            formats.read_svhn(mat)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_mat_that_is_cut_short_is_refused(mat, keep):
    mat.write_bytes(mat.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"train_32x32.mat cannot be used: .*; fetch the official"):
        formats.read_svhn(mat)


def test_digits_span_the_range_of_bytes():
    images, labels = formats.read_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert set(np.unique(images)) == {int(np.rint(level * 255 / 16)) for level in range(17)}
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
