"""Numbers and text in the tables of a study."""

import pytest

from fastnt.report.table_files import Column, Table


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("+.2f", 0.42, "+0.42"),
        ("+.2f", -0.001, "0.00"),  # zero has no sign
        (".3g", 0.0517, "0.0517"),
        (".3g", 1523.4, "1,520"),  # no exponent of 10 to read
        (".2g", 0.0000123, "1.2e-05"),
        (",d", 4381864, "4,381,864"),
        (".2f", None, ""),
        ("signed", 0.1549, "+0.15"),
        ("signed", -0.0022, "-0.002"),  # on which side of 0 it lies decides a verdict
        ("signed", -1e-9, "+0.00"),
        ("signed", 0.0, "+0.00"),
    ],
)
def test_a_number_is_shown_as_people_read_it(form: str, value: float | None, text: str) -> None:
    assert Column("x", "x", form).show(value) == text


def test_each_file_has_its_own_escapes_and_the_csv_ten_digits() -> None:
    columns = (
        Column("name", "a|b, %", text=True),
        Column("range", "ends", "+.1f", 100, pair=True, strong=True),
        Column("unused", "never shown"),
    )
    rows = ({"name": "x_1 & 50 %", "range": (-0.0123456789012, 0.02)},)
    table = Table("t", "T", columns, rows, frozenset({0})).used()
    assert table.csv() == "name,range_low,range_high\nx_1 & 50 %,-1.23456789,2\n"
    assert table.markdown().splitlines()[0] == r"| a\|b, % | ends |"
    assert table.markdown().splitlines()[2] == "| x_1 & 50 % | **-1.2 to +2.0** |"
    assert r"x\_1 \& 50 \% & \textbf{-1.2 to +2.0} \\" in table.tex()
