"""Errors and differences in words, with their intervals and tests."""

from collections.abc import Mapping
from typing import Any

from fastnt.statistics import Comparison, Interval, wilson

LEVEL = 0.05  # from this p of McNemar's test on, two networks are called not distinguishable


def error_interval(network: Mapping[str, Any]) -> Interval | None:
    """Return Wilson's 95 % interval of a network's test error, a fraction; None without counts.

    ``network`` is the network's part of a summary.
    """
    wrong, images = network.get("test_wrong"), network.get("test_images")
    return None if wrong is None or not images else wilson(wrong, images)


def error_text(network: Mapping[str, Any]) -> str:
    """Return a network's test error with its interval: ``8.61 % (6.1 to 12.0)``."""
    interval = error_interval(network)
    return f"{100 * network['test_error']:.2f} %" + (f" ({percents(interval)})" if interval else "")


def percents(interval: Interval | None, to: str = " to ") -> str:
    """Return ``6.1 to 12.0``, or ``0.85 to 1.28`` if the ends are near; empty for None."""
    if interval is None:
        return ""
    digits = 1 if interval.high - interval.low >= 0.01 else 2
    return f"{100 * interval.low:.{digits}f}{to}{100 * interval.high:.{digits}f}"


def counts_text(
    names: tuple[str, str], wrong: tuple[int, int], images: int, p: float, tests: int = 1
) -> str:
    """Return a sentence on what two networks' errors on the same images mean.

    ``35 against 31 of 360 wrong: these two networks are not distinguishable (McNemar p = 0.45)``

    Args:
        names: the two networks' names.
        wrong: how many images each gets wrong.
        images: number of test images.
        p: McNemar's p, adjusted by Holm if there are several ``tests``.
        tests: number of pairs that are compared.
    """
    meaning = "these two networks are not distinguishable"
    if p < LEVEL:
        meaning = f"of these two networks {names[wrong[0] > wrong[1]]} is better"
    p_text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    holm = f", by Holm over {tests}" if tests > 1 else ""
    return (
        f"{wrong[0]:,} against {wrong[1]:,} of {images:,} wrong: {meaning} (McNemar {p_text}{holm})"
    )


def difference_text(summary: Mapping[str, Any]) -> str | None:
    """Return a sentence on the difference between a run's two students; None without counts."""
    clean, noisy = summary.get("clean", {}), summary.get("noisy", {})
    p = summary.get("mcnemar_p")
    if p is None or "test_wrong" not in clean or "test_wrong" not in noisy:
        return None
    text = counts_text(
        ("the clean teacher's student", "the noisy teacher's student"),
        (clean["test_wrong"], noisy["test_wrong"]),
        clean["test_images"],
        p,
    )
    improvement = summary.get("relative_improvement")
    if improvement is not None and p < LEVEL:  # a percentage that is chance would look like a gain
        text += f"; relative improvement {100 * improvement:+.1f} %"
    return f"Clean against noisy teacher: {text}"


def seeds_text(comparison: Comparison, *, one_teacher: bool) -> str:
    """Return a sentence on noisy against clean over several seeds: verdict, difference, intervals."""
    intervals = []
    if comparison.paired is not None:
        intervals.append(f"{comparison.paired.interval.in_points()} for these images")
    if comparison.crossed is not None:
        intervals.append(f"{comparison.crossed.in_points()} for others too")
    teachers = "one teacher" if one_teacher else "a teacher each"
    return (
        f"{comparison.seeds} seeds of {teachers}, noisy against clean: {comparison.verdict}; error "
        f"{100 * comparison.difference:+.2f} points, {comparison.difference_in_images:+.1f} of "
        f"{comparison.images:,} images (95 %: {', '.join(intervals)})"
    )
