"""Held-out images: the last ones, or the last of each class in each source file."""

import numpy as np
import pytest

from fastnt.data.holdout import hold_out
from fastnt.errors import UserError


def test_the_last_images_are_held_out() -> None:
    split = hold_out(np.zeros(10, dtype=np.int64), (10,), last=3)
    assert split.train.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert split.validation.tolist() == [7, 8, 9]


def test_the_last_of_each_class_in_each_part_are_held_out() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0])
    split = hold_out(labels, (6, 6), per_class=(1, 2))
    assert split.validation.tolist() == [4, 5, 8, 9, 10, 11]
    assert split.train.tolist() == [0, 1, 2, 3, 6, 7]


def test_the_papers_svhn_counts() -> None:
    rng = np.random.default_rng(0)
    parts = (73_257, 531_131)
    split = hold_out(rng.integers(0, 10, sum(parts)), parts, per_class=(400, 200))
    assert (len(split.validation), len(split.train)) == (6_000, 598_388)


def test_without_the_extra_part_only_the_first_is_held_out_from() -> None:
    split = hold_out(np.array([0, 0, 0, 1, 1, 1]), (6,), per_class=(1, 2))
    assert split.validation.tolist() == [2, 5]


def test_train_samples_keeps_the_first_of_the_training_split() -> None:
    split = hold_out(np.zeros(10, dtype=np.int64), (10,), last=3, train_samples=2)
    assert split.train.tolist() == [0, 1]
    assert split.validation.tolist() == [7, 8, 9]


def test_without_a_count_a_tenth_of_each_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2], [10, 26, 4])  # sorted, as files often are
    split = hold_out(labels, (40,))
    assert split.validation.tolist() == [9, 33, 34, 35]
    assert len(split.train) == 36


@pytest.mark.parametrize(("count", "held"), [(2, [1]), (3, [2]), (10, [9]), (40, [36, 37, 38, 39])])
def test_of_classes_too_small_for_a_tenth_a_tenth_of_all_is_held_out(
    count: int, held: list[int]
) -> None:
    split = hold_out(np.arange(count), (count,))
    assert split.validation.tolist() == held
    assert split.train.tolist() == list(range(count - len(held)))


def test_one_image_alone_cannot_be_split() -> None:
    with pytest.raises(UserError, match="holding out 1 of 1 images leaves none to train on"):
        hold_out(np.zeros(1, dtype=np.int64), (1,))


def test_a_count_of_none_is_refused_with_a_remedy_that_helps() -> None:
    labels = np.arange(10)
    with pytest.raises(UserError, match=r"validation_per_class .*; set at least 1 of it"):
        hold_out(labels, (5, 5), per_class=(0, 0))
    assert len(hold_out(np.repeat(labels, 2), (20,), per_class=(1,)).validation) == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"last": 10}, "leaves none to train on"),
        ({"last": 99}, "leaves none to train on"),
        ({"last": 3, "train_samples": 8}, "the training split has 7 images"),
    ],
)
def test_impossible_splits_are_named(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        hold_out(np.zeros(10, dtype=np.int64), (10,), **arguments)
