"""Live progress in the terminal: a bar for what runs and one line for the whole; elsewhere a dated line per event."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from v2a_ray.cli.bars import plain
from v2a_ray.data.table.folder import read_manifest
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.files import read_json
from v2a_ray.orchestration.data.table_nodes import REFUSED
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.report.tally import Tally, score_note, total_line

if TYPE_CHECKING:
    from rich.progress import Task

MAX_BARS = 8
"""Bars on a terminal. What else runs is counted, so that the display costs the same however much runs."""
REFRESHES_PER_SECOND = 1


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]  # rich's own signature is untyped here
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


class StageDisplay(Listener):
    """A `Listener` that draws progress on a terminal, and otherwise prints a dated line per event.

    Several threads may call it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tally = Tally()
        self._lock = threading.Lock()
        self._print_at = 0.0
        """When lines may be printed again on a terminal, in monotonic seconds."""
        self._lines: list[Text] = []
        """To be printed once the lock is free: rich draws the bars while it holds a lock that printing needs."""
        self.progress = Progress(
            plain("{task.fields[label]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            plain("{task.fields[note]}"),
            console=console,
            auto_refresh=False,
        )
        self._told: set[str] = set()
        """Keys of artifacts that were told of: a later plan of the same command that finds one again is silent."""
        self.bars: dict[str, TaskID] = {}
        """By key of the artifact; a node without a bar gets one when another's ends."""
        self.live = Live(
            get_renderable=self._render, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> StageDisplay:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()
        with self._updating():
            pass  # what still waits is printed

    def planned(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        with self._updating():
            self.tally.plan(what, total, waits_for, then)

    def queued(self, node: Node) -> None:
        with self._updating():
            self.tally.queue(node.key)

    def started(self, node: Node) -> None:
        with self._updating():
            self.tally.start(node.key, node.name)
            self._line(f"{node.name}: started")
            self._fill_bars()

    def progressed(self, event: Event) -> None:
        with self._updating():
            node = self.tally.running.get(event.key)
            if node is None:
                return
            self.tally.progress(event.key, event.step, event.num_steps, event.metrics)
            if "resumed" in event.metrics:
                self._say(f"{node.name}: goes on at step {event.step:,}")
            if "discarded" in event.metrics:
                self._say(_warning(f"{node.name}: its checkpoint was damaged and is left; the stage starts again"))
            for name in event.metrics:
                if name.startswith("streamed/"):
                    table = name.removeprefix("streamed/")
                    self._say(f"{node.name}: the {table} exceeds loading.memory_gib and is streamed")
            if (note := score_note(event.metrics)) is not None:
                self._line(f"{node.name}: step {event.step:,} of {event.num_steps:,}, {note}")
            if (bar := self.bars.get(event.key)) is not None:
                total = event.num_steps or None
                self.progress.update(bar, completed=event.step, total=total, note=node.note)

    def done(self, node: Node, artifact: Artifact, score: float | None = None) -> None:
        with self._updating():
            self.tally.finish(node.key, node.name, artifact.cached, score)
            self._end_bar(node.key)
            if artifact.cached and node.key in self._told:
                return
            self._told.add(node.key)
            result = "" if score is None else f" · score {score:.1f}"
            count = f" · {self.tally.num_over:,} of {self.tally.total:,}" if self.tally.total else ""
            if artifact.cached:
                self._say(Text.assemble(("reused", "cyan"), f"   {node.name}{result}{count} · {artifact.path}"))
            else:
                took = f" {node.name} · {artifact.seconds:,.1f} s{result}{count}"
                self._say(Text.assemble(("computed", "green"), took))
            if node.stage in ("data", "source"):
                self._say_findings(artifact)

    def failed(self, node: Node, reason: str) -> None:
        with self._updating():
            self.tally.fail(node.key, node.name, reason)
            self._end_bar(node.key)
            self._say(Text.assemble(("failed", "bold red"), f"   {node.name}: {reason}"))

    def stopped(self, node: Node, step: float) -> None:
        with self._updating():
            self.tally.stop(node.key)
            self._end_bar(node.key)
            self._say(Text.assemble(("stopped", "yellow"), f"  {node.name} at step {step:,.0f}, by the scheduler"))

    def warned(self, text: str) -> None:
        with self._updating():
            self._say(_warning(text))

    @contextmanager
    def _updating(self) -> Iterator[None]:
        """Change the state in the block; what it says is printed after it.

        On a terminal it waits for its turn, because every print draws all bars anew.
        """
        with self._lock:
            yield
            lines: list[Text] = []
            if not self.live.is_started or time.monotonic() >= self._print_at:
                lines, self._lines = self._lines, []
                self._print_at = time.monotonic() + 1 / REFRESHES_PER_SECOND
        if lines:
            self.console.print(Text("\n").join(lines), soft_wrap=True)

    def _fill_bars(self) -> None:
        """Give bars to the nodes that have run longest."""
        for key, node in self.tally.running.items():
            if len(self.bars) >= MAX_BARS:
                return
            if key not in self.bars:
                self.bars[key] = self.progress.add_task(
                    "", total=node.num_steps or None, completed=node.step, label=node.name, note=node.note
                )

    def _end_bar(self, key: str) -> None:
        if (bar := self.bars.pop(key, None)) is not None:
            self.progress.remove_task(bar)
            self._fill_bars()

    def _render(self) -> RenderableType:
        with self._lock:
            hidden = len(self.tally.running) - len(self.bars)
            more = [Text(f"and {hidden:,} more", style="dim")] if hidden > 0 else []
            return Group(self.progress.get_renderable(), *more, Text(total_line(self.tally.snapshot())))

    def _say_findings(self, artifact: Artifact) -> None:
        """Print the findings of reading and checking, which otherwise stand only in the manifest."""
        if (artifact.path / REFUSED).exists():
            refused = read_json(artifact.path / REFUSED)
            text = f"WARNING: source {refused['source']} is left out of the mix: {refused['reason']}"
            self._say(Text(text, style="bold red"))
            return
        for finding in read_manifest(artifact.path / "table")["findings"]:
            if finding["severity"] == "warning":
                self._say(_warning(f"{finding['where']}: {finding['message']}"))

    def _say(self, text: str | Text) -> None:
        """Print a line, with the date if nobody watches."""
        date = "" if self.console.is_terminal else time.strftime("%Y-%m-%d %H:%M:%S ")
        self._lines.append(Text.assemble((date, "dim"), text))

    def _line(self, text: str) -> None:
        """Print a line if there is no live display."""
        if not self.console.is_terminal:
            self._say(text)


def _warning(text: str) -> Text:
    return Text(f"warning: {text}", style="yellow")
