"""The table of a profile."""

import pytest

from fastnt.cli.table import print_profile
from fastnt.monitoring.profile import Section


def test_the_profile_names_each_part_and_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_profile([Section("forward", 3.0, 0.75), Section("other", 1.0, 0.25)], "noisy, 20 steps")
    lines = capsys.readouterr().out.splitlines()
    assert "noisy, 20 steps" in lines[0]
    found = [[word for word in line.split() if word.isascii()] for line in lines]
    for row in (
        ["forward", "3.00", "75.0", "%"],
        ["other", "1.00", "25.0", "%"],
        ["whole", "step", "4.00", "100.0", "%"],
    ):
        assert row in found
