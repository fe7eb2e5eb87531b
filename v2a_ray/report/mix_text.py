"""The table of a planned mix, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich import box
from rich.table import Table
from rich.text import Text


class Row(Protocol):
    """One source of a mix; see `orchestration.mix.MixRow`."""

    @property
    def source(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def behavior(self) -> str: ...
    @property
    def num_episodes(self) -> int | None: ...
    @property
    def num_held_out(self) -> int | None: ...
    @property
    def num_transitions(self) -> int: ...
    @property
    def refused(self) -> str | None: ...


def render_mix(rows: Sequence[Row]) -> Table:
    """One row per source with its share of all transitions, or the reason why it is refused."""
    total = sum(row.num_transitions for row in rows) or 1
    table = Table("source", "domain", "behavior", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("episodes", "held out", "transitions", "share"):
        table.add_column(name, justify="right")
    for row in rows:
        names = [row.source, row.domain, row.behavior]
        if row.refused:
            table.add_row(*names, Text("refused", style="bold red"), "", "", "")
            table.add_row(Text(row.refused, style="red"))
            continue
        episodes = ["to be rolled out" if row.num_episodes is None else f"{row.num_episodes:,}"]
        episodes.append("" if row.num_held_out is None else f"{row.num_held_out:,}")
        table.add_row(*names, *episodes, f"{row.num_transitions:,}", f"{row.num_transitions / total:.1%}")
    return table
