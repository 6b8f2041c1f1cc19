"""What runs found, in sentences: within a run, over the seeds of one recipe, between recipes."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from fastnt.monitoring.progress import STUDENTS
from fastnt.report.differences import values
from fastnt.report.runs import SavedRun
from fastnt.report.sentences import counts_text, difference_text, seeds_text
from fastnt.runs.predictions import Predictions
from fastnt.statistics import compare, holm, mcnemar


def findings(runs: Sequence[SavedRun]) -> list[str]:
    """Return sentences on what the differences between the networks of the finished runs mean."""
    finished = [run for run in runs if run.summary is not None]
    tested = [(run, run.predictions) for run in finished if run.predictions is not None]
    return [*_within(finished), *_over_seeds(tested), *_between(tested)]


_Tested = list[tuple[SavedRun, Predictions]]


def _within(runs: Sequence[SavedRun]) -> Iterator[str]:
    """Compare the two students of each run."""
    for run in runs:
        if (text := difference_text(run.summary or {})) is not None:
            yield f"{run.name}: {text}"


def _over_seeds(tested: _Tested) -> Iterator[str]:
    """Compare the students of runs that differ in their seed alone, paired by seed."""
    groups: dict[str, _Tested] = {}
    for run, predictions in tested:
        if set(STUDENTS) <= predictions.networks.keys():
            groups.setdefault(_but_seed(run), []).append((run, predictions))
    for group in groups.values():
        seeds = {run.recipe.get("seed"): (run, found) for run, found in reversed(group)}
        if len(seeds) < 2 or not all(_same_images(group[0][1], found) for _, found in group):
            continue
        clean, noisy = (
            np.stack([found.wrong(student) for _, found in seeds.values()]) for student in STUDENTS
        )
        recipe = group[0][0].recipe
        one_teacher = bool(recipe.get("teacher")) or recipe.get("teacher_seed") is not None
        names = ", ".join(run.name for run, _ in reversed(seeds.values()))
        yield f"{names}: {seeds_text(compare(noisy, clean), one_teacher=one_teacher)}"


def _between(tested: _Tested) -> Iterator[str]:
    """Compare the noisy students of other recipes with the first run's; p values are adjusted by Holm."""
    noisy = [(run, predictions) for run, predictions in tested if "noisy" in predictions.networks]
    if not noisy:
        return
    (first, found), *rest = noisy
    others = [
        (run, predictions)
        for run, predictions in rest
        if _but_seed(run) != _but_seed(first) and _same_images(found, predictions)
    ]
    wrong = found.wrong("noisy")
    p_values = holm([mcnemar(wrong, predictions.wrong("noisy")) for _, predictions in others])
    for (run, predictions), p in zip(others, p_values, strict=True):
        names = first.name, run.name
        counts = int(wrong.sum()), int(predictions.wrong("noisy").sum())
        text = counts_text(names, counts, len(wrong), p, tests=len(others))
        yield f"{first.name} against {run.name}, students of noisy teachers: {text}"


def _but_seed(run: SavedRun) -> str:
    """Return everything that decides a run's result except its seed."""
    kept = {key: value for key, value in values(run).items() if key != "seed"}
    return json.dumps(kept, sort_keys=True)


def _same_images(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.labels, other.labels)
