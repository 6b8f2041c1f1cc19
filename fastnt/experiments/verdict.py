"""A study's verdict in sentences that a referee would accept."""

from fastnt.experiments.analysis import UNCLEAR, Analysis, SettingResult, comparisons, sees
from fastnt.experiments.results import StudyResults
from fastnt.wording import counted, quoted


def verdicts(results: StudyResults, analysis: Analysis) -> list[str]:
    """Return a sentence for each primary comparison."""
    if results.study.tune and not analysis.chosen_by_pilots:
        return ["No verdict yet: the pilot seeds that choose the setting are not all trained."]
    study = results.study
    family = len(comparisons(study, analysis.chosen_by_pilots or study.primary))
    sentences = [_verdict(results, setting, family) for setting in analysis.primary]
    return sentences or ["No verdict yet: the settings of the verdict have no seeds in common."]


def _verdict(results: StudyResults, result: SettingResult, family: int) -> str:
    """Return the sentence for one of ``family`` comparisons that share Holm's correction."""
    comparison, study = result.comparison, results.study
    if comparison is None:
        return f"{quoted(result.name)} is its own baseline."
    name = results.data["name"]
    whose = "for these teachers" if study.vary_teacher else "for this teacher"
    seeds = counted(comparison.seeds, "seed")
    baseline = result.test_error - comparison.difference
    figures = (
        f"test error {100 * result.test_error:.2f} % against {100 * baseline:.2f} %, "
        f"{comparison.difference_in_images:+.1f} of {comparison.images:,} images, {seeds}"
    )
    if comparison.paired is None:
        return (
            f"No verdict from one seed: {name}, {quoted(result.name)} against "
            f"{quoted(result.baseline)}: {figures}."
        )
    assert comparison.interval is not None
    kind = "" if comparison.crossed else ", for these test images"
    smallest = sees(result)
    seen = (
        ""
        if smallest is None
        else "; a paired t test over so many seeds finds a true difference of "
        f"{100 * smallest:.2f} points with 80 % probability"
    )
    holm = ""
    if result.p_holm_primary is not None and family > 1:
        holm = f", Holm's p {result.p_holm_primary:.3g} over {family} verdicts"
    setting = quoted(result.name)
    word = {
        "better": "is better than",
        "worse": "is worse than",
        "better on these test images": "is better on these test images than",
        "worse on these test images": "is worse on these test images than",
        "no difference seen": "shows no difference from",
        UNCLEAR: "shows no clear difference from",
    }[str(result.verdict)]
    return (
        f"On {name} {setting} {word} {quoted(result.baseline)} {whose}: {figures}; difference "
        f"{100 * comparison.difference:+.2f} points, 95 % interval "
        f"{comparison.interval.in_points()}{kind}{holm}{seen}."
    )
