"""Every number of a study's tables, reckoned again from its database by other means.

No code is shared with the studies or their report: SQL, numpy and scipy alone. It is done for a study
that the test trains and for each that is committed under docs/studies.
"""

import csv
import html.parser
import math
import sqlite3
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

DOCS = Path(__file__).resolve().parents[3] / "docs" / "studies"
COMMITTED = sorted(path.parent for path in DOCS.glob("*/study.toml"))
NUMBERS = ["held_out_error", "test_error", "deviation", "difference", "images", "sees", "gain"]
NUMBERS += ["p_holm", "paper", "paper_gain", "interval_low", "interval_high"]
NUMBERS += ["interval_these_low", "interval_these_high", "epochs_low", "epochs_high"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    patch = pytest.MonkeyPatch()
    patch.setenv("FASTNT_CACHE", str(folder / "cache"))
    words = "study table3 --over sigma=0.3,1.0 --seeds 4 --jobs 1 --quiet --set epochs=2"
    more = ["--set", "train_samples=200", "--set", "teacher_epochs=1", "--studies-dir"]
    command = [sys.executable, "-m", "fastnt", *words.split(), *more, str(folder / "studies")]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    patch.undo()
    return folder / "studies" / "table3-digits"


def _unpack(blob: bytes) -> Any:
    return np.frombuffer(zlib.decompress(blob[2:]), "<" + blob[:2].decode()).astype(int)


class _Study:
    """A study's points, read by SQL."""

    def __init__(self, folder: Path) -> None:
        self.study = tomllib.loads((folder / "study.toml").read_text())
        database = sqlite3.connect(folder.parent / "results.sqlite")
        database.row_factory = sqlite3.Row
        found = database.execute(
            "SELECT s.setting, s.seed AS s_seed, p.* FROM study_points s JOIN points p "
            "ON p.key = s.key WHERE s.study = ? AND p.error IS NULL",
            [folder.name],
        ).fetchall()
        first = self.study["recipe"].get("seed", 0)
        seeds = range(first, first + self.study["seeds"])
        self.points = {(r["setting"], r["s_seed"]): r for r in found if r["s_seed"] in seeds}
        (data,) = {row["data"] for row in found}
        (labels,) = database.execute("SELECT test_labels FROM data WHERE digest = ?", [data])
        self.labels = _unpack(labels[0])
        self.teachers = {
            row["name"]: row
            for row in database.execute(
                "SELECT s.name, t.* FROM study_teachers s JOIN teachers t ON t.digest = s.digest "
                "WHERE s.study = ? AND t.data = ?",
                [folder.name, data],
            )
        }
        self.networks = {row["network"]: row for row in database.execute("SELECT * FROM networks")}

    def settings(self, when: str) -> dict[str, dict[str, Any]]:
        """Return each setting's numbers as the .csv names them."""
        rows = {}
        paper = {s["name"]: s.get("paper") for s in self.study["settings"]}
        for setting in self.study["settings"]:
            name = setting["name"]
            baseline = setting.get("baseline", self.study["baseline"])
            seeds = sorted(
                {s for n, s in self.points if n == name}
                & {s for n, s in self.points if n == baseline}
            )
            if not seeds:
                continue
            wrong, base = (
                np.array(
                    [
                        _unpack(self.points[n, s][f"{when}_predictions"]) != self.labels
                        for s in seeds
                    ]
                )
                for n in (name, baseline)
            )
            for row, seed in zip(wrong, seeds, strict=True):
                assert self.points[name, seed][f"{when}_test_wrong"] == row.sum()
            held_out = [self.points[name, s][f"{when}_held_out_error"] for s in seeds]
            rows[name] = {"held_out_error": 100 * np.mean(held_out), "n": len(seeds)}
            if when == "best":
                epochs = [self.points[name, s]["best_epoch"] for s in seeds]
                rows[name] |= {"epochs_low": min(epochs), "epochs_high": max(epochs)}
            rows[name] |= _errors(wrong, base if baseline != name else None)
            if paper[name] is not None:
                rows[name]["paper"] = paper[name]
                if baseline != name:
                    clean = paper[baseline]
                    rows[name]["paper_gain"] = 100 * (clean - paper[name]) / clean
        compared = [
            s["name"]
            for s in self.study["settings"]
            if s.get("baseline", self.study["baseline"]) != s["name"]
        ]
        _holm(rows, len(compared), "p_holm")
        own = [name for name in self.study["primary"] if name in compared]
        _holm({name: rows[name] for name in own if name in rows}, len(own), "p_holm_primary")
        for name, row in rows.items():
            row["verdict"] = _verdict(row, "p_holm_primary" if name in own else "p_holm")
        return rows


def _errors(wrong: Any, base: Any) -> dict[str, Any]:
    n, m = wrong.shape
    errors = wrong.mean(1)
    row: dict[str, Any] = {"test_error": 100 * errors.mean()}
    if n > 1:
        row["deviation"] = 100 * np.std(errors, ddof=1)
    if base is None:
        return row
    each = wrong.astype(float) - base
    d = each.mean(1)
    row["difference"], row["images"] = 100 * d.mean(), m * d.mean()
    if base.mean():
        row["gain"] = -100 * d.mean() / base.mean()
    if n < 2:
        return row
    deviation = max(np.std(d, ddof=1), 1 / m / math.sqrt(12))
    error = deviation / math.sqrt(n)
    low, high = stats.t.interval(0.95, n - 1, d.mean(), error)
    row |= {"interval_these_low": 100 * low, "interval_these_high": 100 * high}
    row["p"] = 2 * stats.t.sf(abs(d.mean()) / error, n - 1)
    if n < 3:
        return row
    critical = stats.t.ppf(0.975, n - 1)
    shift = optimize.brentq(lambda s: stats.nct.sf(critical, n - 1, s) - 0.8, 0, 200)
    row["sees"] = 100 * shift * error
    # Two-way analysis of variance by sums of squares.
    total = (each**2).sum() - n * m * d.mean() ** 2
    of_seeds = m * (d**2).sum() - n * m * d.mean() ** 2
    of_images = n * (each.mean(0) ** 2).sum() - n * m * d.mean() ** 2
    rest = total - of_seeds - of_images
    ms_seed = max(of_seeds / (n - 1), 1 / (12 * m))
    ms_image, ms_rest = of_images / (m - 1), rest / ((n - 1) * (m - 1))
    variance = ms_seed + ms_image - ms_rest
    parts = (ms_seed, n - 1), (ms_image, m - 1), (ms_rest, (n - 1) * (m - 1))
    df = max(variance**2 / sum(ms**2 / k for ms, k in parts), n - 1)
    half = stats.t.ppf(0.975, df) * math.sqrt(max(variance, ms_seed) / (n * m))
    half = max(half, critical * math.sqrt(ms_seed / (n * m)))
    row |= {"interval_low": 100 * (d.mean() - half), "interval_high": 100 * (d.mean() + half)}
    return row


def _verdict(row: dict[str, Any], p: str) -> str:
    """Return the word that the two intervals and Holm's p allow; empty for a baseline."""
    if "difference" not in row:
        return ""
    for low, high, where in (
        (row.get("interval_low", -1), row.get("interval_high", 1), ""),
        (row.get("interval_these_low"), row.get("interval_these_high"), " on these test images"),
    ):
        if low is None:
            return "no verdict from one seed"
        if not low <= 0 <= high:
            return "unclear" if row[p] >= 0.05 else ("better" if high < 0 else "worse") + where
    return "no difference seen"


def _holm(rows: dict[str, dict[str, Any]], comparisons: int, name: str) -> None:
    ordered = sorted((row["p"], setting) for setting, row in rows.items() if "p" in row)
    largest = 0.0
    for i, (p, setting) in enumerate(ordered):
        largest = max(largest, min(1.0, (comparisons - i) * p))
        rows[setting][name] = largest


class _Tables(html.parser.HTMLParser):
    """The cells of a page's tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _check(folder: Path) -> None:
    study = _Study(folder)
    tables = _Tables()
    tables.feed((folder / "report" / "index.html").read_text())
    for when, file in (("best", "settings"), ("last", "settings-last")):
        expected = study.settings(when)
        found = {row["setting"]: row for row in _csv(folder / "report" / f"{file}.csv")}
        assert list(found) == list(expected)
        for name, row in expected.items():
            assert int(found[name]["seeds"]) == row["n"]
            assert found[name]["verdict"] == row["verdict"], name
            assert (found[name].get("primary") == "*") == (name in study.study["primary"])
            for number in NUMBERS:
                text = found[name].get(number, "")
                if number not in row:
                    assert text == "", (name, number)
                else:
                    close = pytest.approx(row[number], rel=1e-6, abs=1e-9)
                    assert float(text) == close, (name, number)
        _check_page(tables.tables[when == "last"], expected)
    for row in _csv(folder / "report" / "teachers.csv"):
        stored = study.teachers[row["teacher"]]
        wrong = int((_unpack(stored["predictions"]) != study.labels).sum())
        assert int(row["test_wrong"]) == stored["test_wrong"] == wrong
        assert float(row["test_error"]) == pytest.approx(100 * wrong / len(study.labels))
        assert float(row["logit_rms"]) == pytest.approx(stored["logit_rms"], rel=1e-6)
    if (folder / "report" / "networks.csv").exists():
        for row in _csv(folder / "report" / "networks.csv"):
            stored = study.networks[row["network"]]
            assert int(row["parameters"]) == stored["parameters"]
            assert int(row["multiplies"]) == stored["multiplies"]
            assert float(row["latency_256"]) == pytest.approx(
                1000 * stored["latency_256"], rel=1e-6
            )


def _check_page(table: list[list[str]], expected: dict[str, dict[str, Any]]) -> None:
    """The page's cells are the same numbers, rounded."""
    head, *rows = table
    columns = {"held out, %": "held_out_error", "test, %": "test_error", "difference": "difference"}
    columns |= {"Holm's p": "p_holm", "would see": "sees", "gain, %": "gain"}
    columns |= {"95 % interval": "interval", "these images alone": "interval_these"}
    assert [row[0] for row in rows] == list(expected)
    for heading, number in columns.items():
        ends = [f"{number}_low", f"{number}_high"] if number.startswith("interval") else [number]
        if heading not in head:  # a column without numbers is left out
            assert not any(row.get(end) is not None for row in expected.values() for end in ends)
            continue
        for row in rows:
            texts = row[head.index(heading)].split(" to ")
            values = [expected[row[0]].get(end) for end in ends]
            if values[0] is None:
                assert texts == [""]
                continue
            for text, value in zip(texts, values, strict=True):
                digits = len(text.partition("e")[0].partition(".")[2])
                power = int(text.partition("e")[2] or 0)
                assert float(text) == pytest.approx(value, abs=0.51 * 10.0 ** (power - digits))


def test_a_trained_study_has_the_numbers_of_its_database(trained: Path):
    _check(trained)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: str(folder.name))
def test_a_committed_study_has_the_numbers_of_its_database(folder: Path):
    _check(folder)
