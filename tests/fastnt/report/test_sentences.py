"""What is said of errors and of differences between networks."""

from typing import Any

import pytest

from fastnt.report.sentences import difference_text, error_text, percents, seeds_text
from fastnt.statistics import Comparison, Interval, Paired


def _summary(clean: int, noisy: int, p: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"test_error": wrong / 10_000, "test_wrong": wrong, "test_images": 10_000}
        for name, wrong in (("clean", clean), ("noisy", noisy))
    }
    return found | {"mcnemar_p": p, "relative_improvement": (clean - noisy) / clean}


@pytest.mark.parametrize(
    ("clean", "noisy", "p", "words"),
    [
        (97, 86, 0.33, "these two networks are not distinguishable (McNemar p = 0.33)"),
        (97, 60, 0.0042, "the noisy teacher's student is better (McNemar p = 0.0042)"),
        (60, 1200, 1e-9, "the clean teacher's student is better (McNemar p < 0.001)"),
        (97, 86, 0.05, "not distinguishable"),
        (97, 86, 0.0499, "is better"),
    ],
)
def test_a_difference_is_said_as_what_it_means(
    clean: int, noisy: int, p: float, words: str
) -> None:
    text = difference_text(_summary(clean, noisy, p))
    assert text is not None
    assert text.startswith(
        f"Clean against noisy teacher: {clean:,} against {noisy:,} of 10,000 wrong"
    )
    assert words in text


def test_a_relative_improvement_is_said_where_the_students_can_be_told_apart() -> None:
    apart = _summary(200, 100, 1e-9)
    assert "; relative improvement +50.0 %" in str(difference_text(apart))
    assert "relative" not in str(difference_text(apart | {"relative_improvement": None}))
    assert "relative" not in str(difference_text(_summary(35, 28, 0.45)))


def test_an_error_is_said_with_its_interval() -> None:
    assert error_text({"test_error": 31 / 360, "test_wrong": 31, "test_images": 360}) == (
        "8.61 % (6.1 to 12.0)"
    )
    assert error_text({"test_error": 0.0097, "test_wrong": 97, "test_images": 10_000}) == (
        "0.97 % (0.80 to 1.18)"  # two digits, since the ends are near
    )
    assert error_text({"test_error": 0.0861}) == "8.61 %"
    assert percents(None) == ""


def test_seeds_are_said_with_the_intervals_that_they_allow() -> None:
    paired = Paired(-0.01, 0.001, 2, Interval(-0.02, 0.005), 0.2)
    two = Comparison(-0.01, 2, 1000, paired, None, "no difference seen")
    assert seeds_text(two, one_teacher=True) == (
        "2 seeds of one teacher, noisy against clean: no difference seen; error -1.00 points, -10.0 of "
        "1,000 images (95 %: -2.00 to +0.50 for these images)"
    )
