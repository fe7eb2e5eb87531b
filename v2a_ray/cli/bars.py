"""Progress bars that show names literally, because a name may come from a user."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn


def plain(template: str) -> TextColumn:
    """A column of text without markup."""
    return TextColumn(template, markup=False)


def named_bars(console: Console, *, transient: bool = False) -> Progress:
    """Bars with name, progress and remaining time."""
    columns = (plain("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient)


def bar_of_each_name(bars: Progress, title: str = "{}") -> Callable[[str, int, int], None]:
    """A callback (name, step, num_steps) that gives every name a bar of its own when it first appears."""
    tasks: dict[str, TaskID] = {}

    def progress(name: str, step: int, num_steps: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(title.format(name), total=num_steps)
        bars.update(tasks[name], completed=step)

    return progress
