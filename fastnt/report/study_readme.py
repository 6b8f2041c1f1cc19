"""A study's report in Markdown, README.md, which GitHub shows beside the files of the page."""

from typing import Any

_SPECIAL = str.maketrans({"&": "&amp;", "<": "&lt;", "*": "\\*", "_": "\\_", "[": "\\["})


def study_readme(page: dict[str, Any]) -> str:
    """Return verdict, main figure and the table of settings; ``page`` is what the template shows."""

    def plain(text: str) -> str:
        return text.translate(_SPECIAL)

    lines = [f"# {plain(page['title'])}: {plain(page['data_name'])}"]
    lines += [f"{page['setting_count']} settings, {page['seed_text']}. {plain(page['departures'])}"]
    lines += [f"> {plain(sentence)}" for sentence in page["verdicts"]]
    lines += [plain(note) for note in page["verdict_notes"]]
    if (main := page["main"]) is not None:
        lines += [f"![{plain(main.title)}]({main.name}.svg)", plain(main.caption)]
    for table in (page["settings"], page["settings_last"]):
        if table is not None:
            lines += [f"## {plain(table.title)}", table.markdown().rstrip("\n")]
    lines += ["## How to read it", plain(page["terms"]), *map(plain, page["reading"])]
    lines += [
        "index.html beside this file has the rest: differences, curves, sizes, mistakes, teachers, "
        "provenance. Open it in a browser; it needs no network."
    ]
    return "\n\n".join(lines) + "\n"
