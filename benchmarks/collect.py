"""Gather what gpu.sh measured into one JSON file: ``collect.py WORK OUTPUT``."""

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any


def collect(work: Path) -> dict[str, Any]:
    """Return the exit codes, the machine, the rows of every benchmark, the tests and the training."""
    codes = dict(line.split() for line in (work / "codes").read_text().splitlines())
    result: dict[str, Any] = {"exit_codes": codes, "rows": []}
    for name in ("bench", "autograd"):
        file = work / name / "bench.json"
        if file.exists():
            measured = json.loads(file.read_text())
            result["machine"] = measured["machine"]
            result["rows"] += measured["rows"]
    if (work / "pytest.xml").exists():
        suite = ET.parse(work / "pytest.xml").getroot().find("testsuite")
        assert suite is not None
        names = ("tests", "failures", "errors", "skipped", "time")
        result["pytest"] = {name: float(suite.attrib[name]) for name in names}
        result["failed"] = [
            f"{case.attrib['classname']}::{case.attrib['name']}"
            for case in suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
    for name in ("summary", "timings"):
        file = work / "runs" / "digits" / f"{name}.json"
        if file.exists():
            result[name] = json.loads(file.read_text())
    return result


def main(work: Path, output: Path) -> None:
    """Write OUTPUT/<gpu>-<date>.json and copy the pictures beside it."""
    result = collect(work)
    machine = result.get("machine", {"device": "unknown", "date": "undated"})
    name = re.sub(r"\W+", "-", f"{machine['device']}-{machine['date']}").strip("-").lower()
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    for picture in (work / "bench").glob("*.png"):
        shutil.copyfile(picture, output / f"{name}-{picture.name}")
    print(output / f"{name}.json", json.dumps(result["exit_codes"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
