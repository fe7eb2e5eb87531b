"""Live progress in the terminal: one line per stage with step, rate, time left and the latest score."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
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
from v2a_ray.orchestration.train.compute import Listener
from v2a_ray.orchestration.train.progress_actor import Event

if TYPE_CHECKING:
    from rich.progress import Task

_SHOWN = {
    "evaluation/normalized_score_mean": "score",
    "evaluation/return_mean": "return",
    "evaluation/rank_score": "held-out score",
}
"""Metrics of an evaluation, of which the first that is there is shown, and its name."""


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]  # rich's own signature is untyped here
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


class StageDisplay(Listener):
    """A `Listener` that draws progress on a terminal, and otherwise prints a line per stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            plain("{task.fields[label]:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            plain("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> StageDisplay:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.stop()

    def started(self, node: Node) -> None:
        self.tasks[node.name] = self.progress.add_task("", total=None, label=node.name, note="")
        self._line(f"{node.name}: started")

    def progressed(self, event: Event) -> None:
        task = self.tasks.get(event.name)
        if task is None:
            return
        if "resumed" in event.metrics:
            self._say(f"{event.name}: goes on at step {event.step:,}")
        if "discarded" in event.metrics:
            self.warned(f"{event.name}: its checkpoint was damaged and is left; the stage starts again")
        for name in event.metrics:
            if name.startswith("streamed/"):
                table = name.removeprefix("streamed/")
                self._say(f"{event.name}: the {table} exceeds loading.memory_gib and is streamed")
        found = next((name for name in _SHOWN if name in event.metrics), None)
        if found:
            note = f"{_SHOWN[found]} {event.metrics[found]:.1f}"
            self._line(f"{event.name}: step {event.step:,} of {event.num_steps:,}, {note}")
            self.progress.update(task, note=note)
        self.progress.update(task, completed=event.step, total=event.num_steps)

    def done(self, node: Node, artifact: Artifact) -> None:
        task = self.tasks.pop(node.name, None)
        if task is not None:
            self.progress.remove_task(task)
        if artifact.cached:
            self._say(Text.assemble(("reused", "cyan"), f"   {node.name:<34} {artifact.path}"))
        else:
            self._say(Text.assemble(("computed", "green"), f" {node.name:<34} {artifact.seconds:,.1f} s"))
        if node.stage in ("data", "source"):
            self._warn(artifact)

    def warned(self, text: str) -> None:
        """Print a warning; the computation continues."""
        self.console.print(f"warning: {text}", style="yellow", soft_wrap=True)

    def _warn(self, artifact: Artifact) -> None:
        """Print the findings of reading and checking, which otherwise stand only in the manifest."""
        if (artifact.path / REFUSED).exists():
            refused = read_json(artifact.path / REFUSED)
            text = f"WARNING: source {refused['source']} is left out of the mix: {refused['reason']}"
            self.console.print(text, style="bold red", soft_wrap=True)
            return
        for finding in read_manifest(artifact.path / "table")["findings"]:
            if finding["severity"] == "warning":
                text = f"warning: {finding['where']}: {finding['message']}"
                self.console.print(text, style="yellow", soft_wrap=True)

    def _say(self, text: str | Text) -> None:
        self.console.print(text, soft_wrap=True)

    def _line(self, text: str) -> None:
        """Print a line if there is no live display."""
        if not self.console.is_terminal:
            self._say(text)
