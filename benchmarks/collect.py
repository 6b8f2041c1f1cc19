"""Gather what gpu.sh has measured so far, ``collect.py PARTIAL RESULT.json``; or draw it.

``collect.py RESULT.json`` draws the pictures beside that file.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def collect(partial: Path) -> dict[str, Any]:
    """Return what there is of the exit codes, machine, launches, benchmarks, tests and training."""
    result: dict[str, Any] = {"exit_codes": {}, "last_words": {}, "rows": []}
    for line in _lines(partial / "codes"):
        name, code = line.split()
        result["exit_codes"][name] = int(code)
        if code != "0":
            result["last_words"][name] = _lines(partial / f"{name}.log")[-20:]
    for name, path in (
        ("launches", partial / "launches.json"),
        ("summary", partial / "runs" / "digits" / "summary.json"),
        ("timings", partial / "runs" / "digits" / "timings.json"),
    ):
        if path.exists():
            result[name] = json.loads(path.read_text())
    for path in sorted(partial.glob("*/bench.json")):
        measured = json.loads(path.read_text())
        result.setdefault("machine", measured["machine"])
        copy = measured["machine"]["copy_bytes_per_second"]  # each run's rows beside its own
        # Calls repeat on the same logits: what fits in the GPU's cache does not come from its memory.
        least = 3 * measured["machine"].get("cache_bytes", 0)
        for row in measured["rows"]:
            if "seconds" in row and row["traffic_bytes"] >= least:
                row["of_copy_bandwidth"] = row["traffic_bytes"] / row["seconds"] / copy
            result["rows"].append(row)
    tests = [json.loads(line) for line in _lines(partial / "tests.jsonl")]
    if tests:
        result["tests"] = Counter(test["outcome"] for test in tests)
        result["failed"] = [test for test in tests if test["outcome"] == "failed"]
    return result


def _lines(path: Path) -> list[str]:
    """Return a file's lines, of which a process that was killed may have left half a one."""
    text = path.read_text(errors="replace") if path.exists() else ""
    whole, _, _ = text.rpartition("\n")
    return whole.splitlines()


def write(partial: Path, path: Path) -> None:
    """Write RESULT.json, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(collect(partial), indent=1) + "\n")
    whole.replace(path)


def draw(path: Path) -> None:
    """Draw the pictures of RESULT.json beside it."""
    from fastnt.bench.picture import plot_pictures  # with torch, which the figures do not need

    result = json.loads(path.read_text())
    plot_pictures(path.parent, result["rows"], result["machine"], prefix=f"{path.stem}-")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    write(*given) if len(given) == 2 else draw(*given)
