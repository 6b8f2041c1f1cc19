"""How tables look: on terminals of any width, and in a pipe."""

import io

import pytest
from rich.console import Console

from fastnt.cli.tables import print_table
from fastnt.console import make_console

HEADINGS = ("run", "what", "test\nerror", "param-\neters")
NUMBERS = HEADINGS[2:]
ROWS = [
    ["digits-20261125-190058", "a student of a noisy teacher", "12.34", "4,538"],
    ["/a/path/of/mine", "", "7.00", "62,250"],
]


def _printed(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_table(console, HEADINGS, ROWS, numbers=NUMBERS, title="errors")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_numbers_are_aligned_under_their_headings() -> None:
    title, *head, rule, first, second = _printed(100)
    assert title == "errors"
    assert [line.split() for line in head] == [
        ["test", "param-"],
        ["run", "what", "error", "eters"],
    ]
    assert set(rule.strip()) == {"─"}
    assert first.index("12.34") == second.index("7.00") - 1
    assert len({line.rstrip()[-1] for line in (first, second)}) == 2
    assert len(first.rstrip()) == len(second.rstrip())


def test_no_line_ends_in_blanks() -> None:
    lines = _printed(100)
    assert lines == [line.rstrip() for line in lines]


def test_words_go_on_in_a_second_line_and_names_and_numbers_do_not() -> None:
    lines = _printed(50)
    assert max(map(len, lines)) <= 50
    text = "\n".join(lines)
    for whole in ("digits-20261125-190058", "/a/path/of/mine", "12.34", "62,250"):
        assert whole in text
    assert "a student of a noisy teacher" not in text


def test_where_a_row_does_not_fit_each_cell_has_a_line() -> None:
    assert _printed(40) == [
        "errors",
        "digits-20261125-190058",
        "  what: a student of a noisy teacher",
        "  test error: 12.34",
        "  parameters: 4,538",
        "/a/path/of/mine",
        "  test error: 7.00",
        "  parameters: 62,250",
    ]


def test_nothing_is_wrapped_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console, words = make_console(), "many words " * 40
    print_table(console, HEADINGS, [["a", words, "1", "2"]], numbers=NUMBERS)
    console.print(words)
    *_, row, sentence = capsys.readouterr().out.splitlines()
    assert words.strip() in row
    assert sentence == words
