"""A .beton file and its sidecar: what was written is read, and what is not whole is refused."""

import json

import numpy as np
import pytest

from fastnt.data import beton, beton_head, split
from fastnt.errors import UserError


def parts_of(*counts, shape=(32, 32, 3)):
    rng = np.random.default_rng(5)
    return {
        f"part {n}": (
            rng.integers(0, 256, (count, *shape), dtype=np.uint8),
            rng.integers(0, 9, count),
        )
        for n, count in enumerate(counts)
    }


@pytest.fixture
def written(tmp_path):
    """A split of 700 + 50 images: its first page holds 682, so a page spans both parts."""
    parts = parts_of(700, 50)
    path = tmp_path / "set-0123456789ab" / "train.beton"
    facts = {"dataset": "set", "official": False, "classes": "abcdefghi", "source_sha256": "0" * 64}
    return split.write_split(path, parts=parts, **facts), parts


@pytest.mark.parametrize("counts", [(1,), (681,), (682,), (683,), (600, 1, 900), (1364, 5)])
def test_images_and_labels_come_back_bit_for_bit(tmp_path, counts):
    parts = list(parts_of(*counts).values())
    beton.write(tmp_path / "a.beton", parts)
    images, labels = beton.read(tmp_path / "a.beton")
    assert images.tobytes() == b"".join(images.tobytes() for images, _ in parts)
    assert labels.tolist() == np.concatenate([labels for _, labels in parts]).tolist()
    assert beton_head.layout(tmp_path / "a.beton").size == (tmp_path / "a.beton").stat().st_size


def test_memory_layout_does_not_matter(tmp_path):
    images, labels = parts_of(9)["part 0"]
    columns = np.asfortranarray(images)
    for name, given in (("c", images), ("f", columns)):
        beton.write(tmp_path / name, [(given, labels)])
    assert (tmp_path / "c").read_bytes() == (tmp_path / "f").read_bytes()


def test_a_split_knows_what_it_holds(written):
    made, parts = written
    opened = split.open_split(made.path)
    assert opened == made
    assert (opened.name, opened.count, opened.shape) == ("train", 750, (32, 32, 3))
    assert opened.parts == {"part 0": 700, "part 1": 50}
    assert np.array_equal(opened.arrays()[0][700:], parts["part 1"][0])
    assert np.array_equal(opened.labels(), np.concatenate([labels for _, labels in parts.values()]))


def cut(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def flip(path):
    with path.open("r+b") as file:
        file.seek(-50, 2)
        last = file.read(1)
        file.seek(-50, 2)
        file.write(bytes([last[0] ^ 1]))


def jpeg(path):
    """Mark the image field as FFCV's RGBImageField, which may hold JPEG."""
    with path.open("r+b") as file:
        file.seek(24)
        file.write(b"\x02")


def other_count(path):
    facts = json.loads(split.sidecar(path).read_text())
    split.sidecar(path).write_text(json.dumps(facts | {"count": 749, "parts": {"train": 749}}))


def spoilt(key, value):
    """Put a value of another kind into the sidecar."""

    def spoil(path):
        facts = json.loads(split.sidecar(path).read_text())
        split.sidecar(path).write_text(json.dumps(facts | {key: value}))

    return spoil


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, r"it is cut short: [\d,]+ of [\d,]+ bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "it is cut short"),
        (lambda path: path.write_bytes(b""), "it is cut short"),
        (lambda path: path.write_bytes(b"\x89PNG" * 9000), "not a .beton file of format 2"),
        (lambda path: path.open("ab").write(b"more"), "does not agree with its sidecar"),
        (flip, "its contents have changed"),
        (jpeg, "JPEG"),
        (lambda path: split.sidecar(path).unlink(), "has no readable train.beton.json"),
        (lambda path: split.sidecar(path).write_text('{"format": 1'), "has no readable"),
        (lambda path: split.sidecar(path).write_text('{"format": 99}'), "has no readable"),
        (lambda path: split.sidecar(path).write_text("[" * 100_000), "has no readable"),
        (lambda path: split.sidecar(path).write_text("[1]"), "has no readable"),
        (lambda path: split.sidecar(path).write_bytes(b"\xff"), "has no readable"),
        (spoilt("parts", [750]), "has no readable"),
        (spoilt("parts", {"train": "750"}), "has no readable"),
        (spoilt("parts", {"train": 10**400}), "has no readable"),
        (spoilt("shape", [5, 6]), "has no readable"),
        (spoilt("shape", 5), "has no readable"),
        (spoilt("classes", [[]]), "has no readable"),
        (spoilt("sha256", None), "has no readable"),
        (other_count, "does not agree with its sidecar"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_what_is_not_whole_is_refused_with_the_remedy(written, damage, words):
    path = written[0].path
    damage(path)
    with pytest.raises(UserError, match=words) as caught:
        split.open_split(path)
    assert str(path) in str(caught.value)
    assert f"delete {path.parent} and run `fastnt prepare` again" in str(caught.value)


def test_a_change_after_opening_is_noticed_at_the_next_opening(written):
    path = written[0].path
    split.open_split(path)
    flip(path)
    with pytest.raises(UserError, match="its contents have changed"):
        split.open_split(path)


class Failing:
    """Images that cannot be read any more once the first page is written."""

    def __init__(self, images, error):
        self.images, self.error = images, error
        self.shape, self.dtype = images.shape, images.dtype

    def __getitem__(self, rows):
        if rows.start:
            raise self.error
        return self.images[rows]


def test_a_write_that_fails_leaves_nothing(written):
    path = written[0].path.with_name("test.beton")
    images, labels = written[1]["part 0"]
    parts = {"part 0": (Failing(images, OSError(28, "No space left on device")), labels)}
    with pytest.raises(
        UserError, match=r"cannot write .*test\.beton: No space left on device; free"
    ):
        split.write_split(
            path, dataset="set", official=True, classes="ab", parts=parts, source_sha256=""
        )
    names = {"train.beton", "train.beton.json"}
    assert {found.name for found in path.parent.iterdir()} == names
