"""The explanations on a study's page: what its words mean, and how to read verdict, tables and sizes."""

import json

from fastnt.experiments.analysis import Analysis
from fastnt.experiments.results import StudyResults
from fastnt.experiments.study import Study
from fastnt.report.provenance import as_text
from fastnt.report.study_tables import networks_table
from fastnt.wording import counted, listed, quoted

TERMS = (
    "A setting is a recipe: the values of all that decides a training but its seed. Clean: the student "
    "is taught the teacher's logits z as they are. Noisy: with probability alpha an image's logits are "
    "(1 + xi) z, with xi drawn from N(0, sigma²) for each logit. Held out: images of the training set "
    "that no network is trained on; a training's best epoch is the one with the lowest error on them."
)


def terms(study: Study) -> str:
    """Return what the words of a study's page mean, and the study's base recipe."""
    recipe = study.recipe
    lengths = any({"epochs", "lr_decay"} <= set(setting.changes) for setting in study.settings)
    own = " Trainings of other lengths have decays of their own, to the same last rate."
    return (
        f"{TERMS} Where a setting does not say otherwise: student {recipe.student_network}, alpha "
        f"{recipe.alpha:g}, sigma {as_text(recipe.sigma)}, {counted(recipe.epochs, 'epoch')}, learning "
        f"rate {recipe.lr:g}, times {recipe.lr_decay:g} after each epoch, batch size {recipe.batch_size}."
        f"{own if lengths else ''}"
    )


def verdict_notes(results: StudyResults, analysis: Analysis) -> list[str]:
    """Return notes on the verdict: missing points, when it was fixed, what the best setting shows."""
    notes = []
    study = results.study
    wanted = len(study.settings) * len(study.all_seeds)
    have = len(results.records)
    if have < wanted:
        failed = f", {len(results.failed)} failed" if results.failed else ""
        notes.append(
            f"Unfinished: {have} of {wanted} trainings are done{failed}. Each comparison uses the "
            "seeds that it has; these are its n."
        )
    if study.tune:
        chosen = ", ".join(map(quoted, analysis.chosen_by_pilots)) or "not yet"
        notes.append(
            f"Chosen by the mean held-out error of {study.tune} pilot seeds, which are in no table: "
            f"{chosen}."
        )
    else:
        notes.append(_fixed_before(results))
    best = analysis.best
    among = ", among the settings that are no baseline" if len(analysis.baselines) > 1 else ""
    if best is not None and best.gain <= 0:
        notes.append(f"No setting has a lower mean test error than its baseline{among}.")
    elif best is not None:
        notes.append(
            f"Choosing after the fact, by test error{among}: {quoted(analysis.best_name)} gains most, "
            f"{100 * best.gain:.2f} points (n = {best.seeds}). If each seed's differences had random "
            f"signs, the best of {best.settings} settings would gain "
            f"{100 * best.expected_gain:.2f} points on average, losses counting as gains; "
            f"p = {best.p:.3g} (with {best.seeds} seeds none is below {best.least_p:.2g})."
        )
    return notes


def _fixed_before(results: StudyResults) -> str:
    """Return when the verdict was fixed: students of another study may have been seen by then."""
    text = "The settings of the verdict were fixed before this study trained a student of its own."
    shared = [record["key"] for record in results.records if record["key"] in results.elsewhere]
    if not shared:
        return text
    names = sorted(set[str]().union(*(results.elsewhere[key] for key in shared)))
    return (
        f"{text} {len(shared)} of its {counted(len(results.records), 'student')} are also in "
        f"{listed(names)}: their results are the same, and no second evidence."
    )


def reading(analysis: Analysis) -> list[str]:
    """Return how to read the tables of settings."""
    lines = [
        "*: a setting of the verdict. n: seeds that the setting and its baseline have. Deviation: "
        "standard deviation of the test error over seeds. Difference: setting minus baseline, paired "
        "by seed, so that below 0 is better, in percentage points like all deviations and intervals, "
        "and as a number of test images. Gain: the fall in error as a part of the baseline's, so that "
        "above 0 is better.",
        "95 % interval: for other seeds and other test images (two-way, from 3 seeds on). These images "
        "alone: the t interval over seeds; the other is never narrower, and equals it where other "
        "images would add nothing to what seeds vary by. The intervals are not adjusted for their "
        "number; Holm's p (paired t test over seeds, these test images) is, over all settings of the "
        "study: bold below .05.",
        "Verdict: better or worse where the interval leaves 0 out and Holm's p is below .05; unclear "
        "where Holm's p is not, since among so many settings that is no finding. Settings of the "
        "verdict are held to Holm's correction among themselves alone.",
        "Would see (from 3 seeds on): the true difference that a paired t test over so many seeds finds "
        "with 80 % probability at p below .05, unadjusted, if differences deviate as in this row; from "
        "few seeds a rough estimate. Best epochs: from the earliest to the latest epoch of lowest "
        "held-out error.",
    ]
    if analysis.settings and all(len(s.seeds) == 1 for s in analysis.settings):
        lines.append("One seed gives no interval, no p value and no verdict.")
    return lines


def size_notes(results: StudyResults) -> list[str]:
    """Return what the table of networks does not show: storage, and where latencies were measured."""
    rows = networks_table(results).rows
    machines = [json.loads(results.networks[row["network"]]["machine"]) for row in rows]
    own = [row for row in rows if row["role"] == "student" and row["smaller"] is not None]
    larger = [row["network"] for row in own if row["smaller"] <= 1]
    notes = []
    if larger:
        notes.append(
            f"No fewer parameters than the teacher: {', '.join(larger)}. These students save "
            "multiplies at most, and no storage."
        )
    latencies = (
        f"Latencies: medians of 20 forward passes on {m['processor']}, {m['device']}, torch {m['torch']}."
        for m in machines
    )
    return [*notes, *dict.fromkeys(latencies)]
