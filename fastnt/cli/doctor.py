"""``fastnt doctor``: what is there, what is missing, and the one command that mends it."""

from rich.table import Table
from rich.text import Text

from fastnt.console import make_console


def doctor() -> None:
    """Show what fastnt finds on this machine; each missing thing with the command that mends it."""
    from fastnt.doctor import diagnose

    table = Table(show_edge=False)
    for column in ("what", "here", "found, or how to mend it"):
        table.add_column(column, overflow="fold")
    for finding in diagnose():
        mark = Text("yes", "green") if finding.present else Text("no", "yellow")
        table.add_row(finding.what, mark, finding.detail)
    make_console().print(table)
