"""How far domains get from recorded episodes: a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from v2a_ray.data.fidelity.replays import Replays

SHOWN_STEPS = (1, 5, 10, 20, 50, 100)


def render_replays(replays: Sequence[Replays]) -> RenderableType:
    """A row for each domain, the nearest first, with the median distance after some numbers of steps."""
    last = replays[0].num_steps
    steps = [*(step for step in SHOWN_STEPS if step < last), last]
    table = Table(box=None)
    table.add_column("domain", overflow="fold")
    for step in steps:
        table.add_column(f"{step} steps" if step > 1 else "1 step", justify="right", no_wrap=True)
    for each in replays:
        table.add_row(each.domain, *(f"{each.after(step):.2g}" for step in steps))
    legend = (
        f"median of {len(replays[0].distance_RH):,} replays: distance from the recorded state, in standard deviations "
        "of the recorded states. 0 up to rounding: recorded in this domain."
    )
    return Group(table, Text(legend, style="dim"))
