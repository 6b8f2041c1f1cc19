"""``fastnt doctor``: what is there, what is missing, and the one command that mends it."""

from rich.console import Console
from rich.table import Table


def doctor() -> None:
    """Show what fastnt finds on this machine; each missing thing with the command that mends it."""
    from fastnt.doctor import diagnose

    table = Table(show_edge=False)
    for column in ("what", "here", "found, or how to mend it"):
        table.add_column(column, overflow="fold")
    for finding in diagnose():
        mark = "[green]yes[/]" if finding.present else "[yellow]no[/]"
        table.add_row(finding.what, mark, finding.detail)
    Console(highlight=False).print(table)
