"""The page of a study: one self-contained HTML file, with tables and main figures as files beside it."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fastnt.experiments.analysis import Analysis, analyse
from fastnt.experiments.results import StudyResults, load_study
from fastnt.experiments.verdict import verdicts
from fastnt.files import write_text
from fastnt.report.mistakes import confusion_figures, disagreements, images_of
from fastnt.report.provenance import as_text, departures, provenance, recipe_table
from fastnt.report.study_curves import curve_figures, size_figure, teacher_figures
from fastnt.report.study_figures import main_figure
from fastnt.report.study_marks import seeds_text
from fastnt.report.study_readme import study_readme
from fastnt.report.study_rows import forest_figure
from fastnt.report.study_tables import (
    networks_table,
    noise_table,
    settings_table,
    teachers_table,
)
from fastnt.report.table_files import Column, Table
from fastnt.wording import counted, quoted

TERMS = (
    "A setting is a recipe: the values of all that decides a training but its seed. Clean: the student "
    "is taught the teacher's logits z as they are. Noisy: with probability alpha an image's logits are "
    "(1 + xi) z, with xi drawn from N(0, sigma²) for each logit. Held out: images of the training set "
    "that no network is trained on; a training's best epoch is the one with the lowest error on them."
)


def write_study_page(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write ``index.html``, ``README.md``, the tables as .csv, .md and .tex, and the main figures.

    Returns:
        The page's path.

    The same database gives the same bytes, if the same test images are on the machine.

    Args:
        folder: the study's.
        output: folder to write to; by default ``report`` in the study's folder.

    Raises:
        UserError: the folder holds no study, no point is trained yet, or a file cannot be written.
    """
    results = load_study(folder)
    return write_page(results, analyse(results, "best"), output)


def write_page(results: StudyResults, best: Analysis, output: str | Path | None = None) -> Path:
    """Write the page of a study whose best epochs are analysed already.

    Raises:
        UserError: a file cannot be written.
    """
    output = Path(output) if output is not None else results.folder / "report"
    page = _page(results, best, analyse(results, "last"))
    for part in page.values():
        if isinstance(part, Table) and part.rows:
            part.write(output)
    for picture in (page["main"], page["forest"]):
        if picture is not None:
            write_text(output / f"{picture.name}.svg", picture.file)
    write_text(output / "README.md", study_readme(page))
    path = output / "index.html"
    write_text(path, _render(page))
    return path


def _render(page: dict[str, Any]) -> str:
    import jinja2

    text = (
        resources.files("fastnt")
        .joinpath("report", "templates", "study.html.j2")
        .read_text("utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(text).render(page)


def _page(results: StudyResults, best: Analysis, last: Analysis) -> dict[str, Any]:
    """Return everything that the template shows, by name."""
    study = results.study
    seeds = counted(study.seeds, "seed")
    page: dict[str, Any] = {
        "title": study.title,
        "data_name": results.data["name"],
        "setting_count": len(study.settings),
        "seed_text": seeds + (f" and {study.tune} pilot seeds" if study.tune else ""),
        "departures": departures(results),
        "verdicts": verdicts(results, best),
        "verdict_notes": _verdict_notes(results, best),
        "settings": settings_table(results, best) if best.settings else None,
        "settings_last": settings_table(results, last) if last.settings else None,
        "reading": _reading(best),
        "main": main_figure(results, best) if best.settings else None,
        "forest": forest_figure(best),
        "curves": curve_figures(results, best),
        "curve_seeds": seeds_text(best.settings) if best.settings else "",
        "networks": networks_table(results),
        "size_notes": _size_notes(results),
        "size": size_figure(results, best),
        "teachers": teachers_table(results),
        "teacher_curves": teacher_figures(results),
        "noise": noise_table(results, best),
        "noise_when": "at its epoch of lowest held-out error",
        "terms": f"{TERMS} Where a setting does not say otherwise, alpha is {study.recipe.alpha:g} and "
        f"sigma {as_text(study.recipe.sigma)}.",
        "beside_paper": any(setting.paper is not None for setting in study.settings),
        "provenance": provenance(results),
        "recipe": recipe_table(results),
        "failed": _failed_table(results),
    }
    return page | _mistakes(results, best)


def _mistakes(results: StudyResults, analysis: Analysis) -> dict[str, Any]:
    """Compare the first setting of the verdict with its baseline, image by image."""
    compared = [setting for setting in analysis.primary if setting.comparison is not None]
    baseline = analysis.setting(compared[0].baseline) if compared else None
    if baseline is None:
        return {"mistakes": None}
    setting = compared[0]
    table = disagreements(results, analysis, baseline, setting)
    seeds = len(results.seeds(baseline.name, setting.name))
    return {
        "mistakes": table,
        "mistakes_text": f"{quoted(setting.name)}, a setting of the verdict, beside "
        f"{quoted(baseline.name)}; {counted(seeds, 'seed')} of each.",
        "mistakes_seeds": seeds,
        "mistakes_names": f"{baseline.name} → {setting.name}",
        "confusions": confusion_figures(results, analysis, [baseline, setting]),
        "images": images_of(results, table),
    }


def _verdict_notes(results: StudyResults, analysis: Analysis) -> list[str]:
    """Return notes on the verdict: missing points, and the bias from choosing the best epoch."""
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
        notes.append("The settings of the verdict were fixed before this study's first training.")
    best = analysis.best
    if best is not None and best.gain <= 0:
        notes.append("No setting has a lower mean test error than its baseline.")
    elif best is not None:
        own = ", each setting against its own baseline" if len(analysis.baselines) > 1 else ""
        notes.append(
            f"Choosing after the fact, by test error: {quoted(analysis.best_name)} gains most, "
            f"{100 * best.gain:.2f} points (n = {best.seeds}){own}. If each seed's differences had "
            f"random signs, the best of {best.settings} settings would gain "
            f"{100 * best.expected_gain:.2f} points on average, losses counting as gains; "
            f"p = {best.p:.3g} (with {best.seeds} seeds none is below {best.least_p:.2g})."
        )
    return notes


def _reading(analysis: Analysis) -> list[str]:
    lines = [
        "n: seeds that the setting and its baseline have. Difference: setting minus baseline, paired "
        "by seed, so that below 0 is better, in percentage points like all deviations and intervals, "
        "and as a number of test images. 95 % interval: for other seeds and other test images (two-way, "
        "from 3 seeds on). Beside it the t interval over seeds for these test images alone. Would see "
        "(from 3 seeds on): the true difference that a paired t test over so many seeds finds with 80 % "
        "probability if differences deviate as in this row. The intervals are not adjusted for their "
        "number; Holm's p (paired t test over seeds, these test images) is, over all settings of the "
        "study: bold below .05.",
    ]
    if analysis.settings and all(len(s.seeds) == 1 for s in analysis.settings):
        lines.append("One seed gives no interval, no p value and no verdict.")
    return lines


def _size_notes(results: StudyResults) -> list[str]:
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


def _failed_table(results: StudyResults) -> Table | None:
    rows = tuple({k: r[k] for k in ("setting", "seed", "error")} for r in results.failed)
    columns = (
        Column("setting", "setting", text=True),
        Column("seed", "seed", "d"),
        Column("error", "why", text=True),
    )
    return Table("failed", "Trainings that failed", columns, rows) if rows else None
