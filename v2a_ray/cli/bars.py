"""Progress bars that show names literally, because a name may come from a user."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def plain(template: str) -> TextColumn:
    """A column of text without markup."""
    return TextColumn(template, markup=False)


def named_bars(console: Console, *, transient: bool = False) -> Progress:
    """Bars with name, progress and remaining time."""
    columns = (plain("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient)
