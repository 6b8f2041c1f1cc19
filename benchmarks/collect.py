"""Gather what gpu.sh has measured so far, and draw it: ``collect.py PARTIAL RESULT.json``."""

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
        for row in measured["rows"]:
            if "seconds" in row:
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


def main(partial: Path, path: Path) -> None:
    """Write RESULT.json, and beside it the pictures of rows that are not drawn yet."""
    result = collect(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(result, indent=1) + "\n")
    whole.replace(path)
    drawn, count = partial / "drawn", str(len(result["rows"]))
    if result["rows"] and (not drawn.exists() or drawn.read_text() != count):
        from fastnt.bench.picture import plot_pictures  # with torch, which the figures do not need

        plot_pictures(path.parent, result["rows"], result["machine"], prefix=f"{path.stem}-")
        drawn.write_text(count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
