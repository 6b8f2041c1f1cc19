"""``fastnt doctor``: what is there, what is missing, and the one command that mends it."""

from rich.text import Text

from fastnt.cli.tables import print_table
from fastnt.console import make_console


def doctor() -> None:
    """Show what fastnt finds on this machine; each missing thing with the command that mends it."""
    from fastnt.doctor import diagnose

    rows: list[list[str | Text]] = [
        [
            finding.what,
            Text("yes", "green") if finding.present else Text("no", "yellow"),
            finding.detail,
        ]
        for finding in diagnose()
    ]
    print_table(make_console(), ("what", "here", "found, or how to mend it"), rows)
