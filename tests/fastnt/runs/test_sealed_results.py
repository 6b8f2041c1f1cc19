"""A changed summary or a changed time is found."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastnt.errors import UserError
from fastnt.runs.folder import RunFolder
from fastnt.sealed import seal

from .stopping import PHASES


def _summary(values: dict[str, Any] | None = None, **counts: Any) -> dict[str, Any]:
    network = {"test_error": 0.1, "parameters": 1, "multiplies": 2} | counts
    found = {"dataset": "digits", "official": True, "seed": 0} | dict.fromkeys(PHASES, network)
    return found | (values or {})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", seal({}), "lacks dataset, official, seed, teacher"),
        ("summary.json", [1], "has no SHA-256"),
        ("summary.json", _summary(), "has no SHA-256"),
        ("summary.json", seal(_summary()) | {"seed": 1}, "s SHA-256 is another"),
        (
            "summary.json",
            seal(_summary(test_wrong=3, test_images=2)),
            "lacks teacher, clean, noisy",
        ),
        ("summary.json", seal(_summary(test_wrong="3", test_images=9)), "lacks teacher, clean, no"),
        ("timings.json", [1], "has no SHA-256"),
        ("timings.json", {"a": 1.0}, "has no SHA-256"),
        ("timings.json", seal({"a": "b"}), "holds no seconds by name"),
        (
            "summary.json",
            seal(_summary({"relative_improvement": "much"})),
            "lacks a number as relative",
        ),
    ],
)
def test_a_damaged_summary_is_one_sentence(
    tmp_path: Path, name: str, content: Any, words: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_summary(_summary())
    folder.write_timings({"clean_seconds": 1.5})
    assert (folder.summary(), folder.timings()) == (_summary(), {"clean_seconds": 1.5})
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{name} is damaged: it ?{words}"):
        folder.summary()
        folder.timings()


@pytest.mark.parametrize("name", ["summary.json", "timings.json"])
def test_a_flipped_bit_of_a_result_is_found_or_says_nothing_else(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    summary, timings = _summary(), {"clean_seconds": 1.5, "noisy_images_per_second": 1e-7}
    folder.write_summary(summary)
    folder.write_timings(timings)
    path = tmp_path / name
    whole = path.read_bytes()
    found = 0
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytes([whole[place] ^ (1 << bit)])
            path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
            try:
                assert (folder.summary(), folder.timings()) == (summary, timings)
            except UserError:
                found += 1
    assert found > 8 * len(whole) * 0.98  # but for 1e-07 and 1E-07, or a last newline
