"""A table of a study: shown in the page, and written as .csv, .md and .tex."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnt.files import write_text
from fastnt.wording import signed

_TEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"} | {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
)


@dataclass(frozen=True)
class Column:
    """A column of numbers, intervals (pairs) or text."""

    name: str  # in the .csv file, where an interval has two columns, name_low and name_high
    heading: str  # in the page, .md and .tex
    form: str = ""  # the format of a number; "signed": as fastnt.wording.signed writes it
    scale: float = 1  # values are multiplied by this
    text: bool = False
    pair: bool = False
    strong: bool = False  # bold in the rows of Table.strong

    def show(self, value: Any) -> str:
        """Return the value as text; empty for None."""
        if value is None:
            return ""
        if self.text:
            return str(value)
        return " to ".join(map(self._number, value if self.pair else (value,)))

    def _number(self, value: float) -> str:
        if self.form == "signed":
            return signed(self.scale * value)
        text = format(self.scale * value, self.form)
        if "e+" in text:  # 1.52e+03 reads better as 1,520
            text = format(float(text), ",.0f")
        return text if text.strip("+-0.,") else text.strip("+-")  # zero has no sign

    def plain(self, value: Any) -> list[str]:
        """Return the value's fields in the .csv file, with ten digits."""
        if value is None:
            return ["", ""] if self.pair else [""]
        if self.text:
            return [str(value)]
        return [f"{self.scale * part:.10g}" for part in (value if self.pair else (value,))]


@dataclass(frozen=True)
class Table:
    """Rows of values by column name."""

    name: str  # of the files, without suffix
    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    strong: frozenset[int] = frozenset()  # the numbers of the rows whose strong columns are bold

    def used(self) -> "Table":
        """Return the table without the columns in which no row has a value."""
        kept = tuple(c for c in self.columns if any(r.get(c.name) is not None for r in self.rows))
        return Table(self.name, self.title, kept, self.rows, self.strong)

    @property
    def cells(self) -> list[list[tuple[str, bool, bool]]]:
        """Return each row's cells: the text, whether it is a number, whether it is bold."""
        return [
            [
                (column.show(row.get(column.name)), not column.text, self._bold(number, column))
                for column in self.columns
            ]
            for number, row in enumerate(self.rows)
        ]

    def _bold(self, row: int, column: Column) -> bool:
        return column.strong and row in self.strong

    def csv(self) -> str:
        """Return comma-separated values: numbers with ten digits, in the units of the headings."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        ends = ("_low", "_high")
        writer.writerow(c.name + end for c in self.columns for end in (ends if c.pair else ("",)))
        for row in self.rows:
            writer.writerow(f for c in self.columns for f in c.plain(row.get(c.name)))
        return file.getvalue()

    def markdown(self) -> str:
        """Return a table in GitHub's Markdown."""
        lines = [[column.heading for column in self.columns]]
        lines.append(["---" if column.text else "---:" for column in self.columns])
        lines += [[f"**{t}**" if bold and t else t for t, _, bold in row] for row in self.cells]
        escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def tex(self) -> str:
        """Return a LaTeX tabular that needs the package booktabs."""
        kinds = "".join("l" if column.text else "r" for column in self.columns)
        head = " & ".join(column.heading.translate(_TEX) for column in self.columns)
        lines = [f"\\begin{{tabular}}{{{kinds}}}", "\\toprule", f"{head} \\\\", "\\midrule"]
        for row in self.cells:
            texts = [(text.translate(_TEX), bold) for text, _, bold in row]
            cells = [f"\\textbf{{{text}}}" if bold and text else text for text, bold in texts]
            lines.append(f"{' & '.join(cells)} \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def write(self, folder: Path) -> None:
        """Write name.csv, name.md and name.tex.

        Raises:
            UserError: a file cannot be written.
        """
        for suffix, text in (("csv", self.csv()), ("md", self.markdown()), ("tex", self.tex())):
            write_text(folder / f"{self.name}.{suffix}", text)
