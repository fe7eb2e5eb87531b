"""Progress bars whose names, which may be a user's, are shown as they are."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


def plain(template: str) -> TextColumn:
    """A column whose text is no markup."""
    return TextColumn(template, markup=False)


def named_bars(console: Console, *, transient: bool = False) -> Progress:
    """Bars with what they are called, how far they are and how long they will take."""
    columns = (plain("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient)
