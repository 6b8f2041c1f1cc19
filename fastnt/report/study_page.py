"""The page of a study: one self-contained HTML file, with tables and main figures as files beside it."""

from importlib import resources
from pathlib import Path
from typing import Any

from fastnt.experiments.analysis import Analysis, analyse
from fastnt.experiments.results import StudyResults, load_study
from fastnt.experiments.verdict import verdicts
from fastnt.files import write_text
from fastnt.report.mistakes import confusion_figures, disagreements, images_of
from fastnt.report.provenance import departures, provenance, recipe_table
from fastnt.report.study_curves import curve_figures, size_figure, teacher_figures
from fastnt.report.study_figures import main_figure
from fastnt.report.study_marks import seeds_text
from fastnt.report.study_notes import reading, size_notes, terms, verdict_notes
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
    seeds = counted(study.seeds, "seed") + (", a teacher each" if study.vary_teacher else "")
    page: dict[str, Any] = {
        "title": study.title,
        "data_name": results.data["name"],
        "setting_count": len(study.settings),
        "seed_text": seeds + (f" and {study.tune} pilot seeds" if study.tune else ""),
        "departures": departures(results),
        "verdicts": verdicts(results, best),
        "verdict_notes": verdict_notes(results, best),
        "settings": settings_table(results, best) if best.settings else None,
        "settings_last": settings_table(results, last) if last.settings else None,
        "reading": reading(best),
        "main": main_figure(results, best) if best.settings else None,
        "forest": forest_figure(best),
        "curves": curve_figures(results, best),
        "curve_seeds": seeds_text(best.settings) if best.settings else "",
        "networks": networks_table(results),
        "size_notes": size_notes(results),
        "size": size_figure(results, best),
        "teachers": teachers_table(results),
        "teacher_curves": teacher_figures(results),
        "noise": noise_table(results, best),
        "noise_when": "at its epoch of lowest held-out error",
        "terms": terms(study),
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


def _failed_table(results: StudyResults) -> Table | None:
    rows = tuple({k: r[k] for k in ("setting", "seed", "error")} for r in results.failed)
    columns = (
        Column("setting", "setting", text=True),
        Column("seed", "seed", "d"),
        Column("error", "why", text=True),
    )
    return Table("failed", "Trainings that failed", columns, rows) if rows else None
