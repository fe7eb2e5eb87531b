"""How far a run or a sweep is: counted once, for the display, for the status file and for `v2a status`.

Every update takes the same time, however many policies there are: only those that run are kept one by one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from v2a_ray.settings.measures import RANK_SCORE

MAX_LISTED = 20
"""Running nodes and failures that a snapshot names; it counts all."""
SCORE, RETURN = "evaluation/normalized_score_mean", "evaluation/return_mean"


@dataclass
class Running:
    """A node that is being computed; `began` is in seconds since 1970."""

    name: str
    began: float
    step: int = 0
    num_steps: int = 0
    note: str = ""
    first_step: int | None = None
    """The step of its first report, which is later than 0 if it goes on from a checkpoint."""

    @property
    def fraction(self) -> float:
        """Part of its steps that is done."""
        return self.step / self.num_steps if self.num_steps else 0.0


@dataclass
class Tally:
    """The state of one phase, by keys of artifacts.

    Attributes:
        what: is counted, in the plural.
        waits_for: what a node that could run waits for.
        then: what follows this phase.
        num_done: computed or found; `num_found` of them were found in the store.
        num_stopped: policies that a scheduler ended.
        failed: name and reason, over all phases.
        best: score and name of the best policy so far.
        since: when the phase began, in seconds since 1970.
    """

    what: str = "stages"
    total: int = 0
    waits_for: str = ""
    then: str = ""
    num_done: int = 0
    num_found: int = 0
    num_stopped: int = 0
    num_failed: int = 0
    queued: set[str] = field(default_factory=set)
    running: dict[str, Running] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)
    best: tuple[float, str] | None = None
    since: float = field(default_factory=time.time)
    _worked: float = 0.0
    """Nodes that were computed since then, as fractions."""

    def plan(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        """Begin a phase. Failures and the best score stay."""
        fresh = Tally(what, total, waits_for, then, failed=self.failed, best=self.best)
        self.__dict__.update(fresh.__dict__)

    def queue(self, key: str) -> None:
        """A node could run."""
        self.queued.add(key)

    def start(self, key: str, name: str) -> Running:
        """A node runs."""
        self.queued.discard(key)
        return self.running.setdefault(key, Running(name, time.time()))

    def progress(self, key: str, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        """A running node reported."""
        if (node := self.running.get(key)) is None:
            return
        node.step, node.num_steps = step, num_steps
        if num_steps and node.first_step is None:
            node.first_step = step if "resumed" in metrics else 0
        node.note = score_note(metrics) or node.note

    def finish(self, key: str, name: str, found: bool, score: float | None = None) -> None:
        """A node's artifact is there."""
        self._end(key, worked=not found)
        self.num_done += 1
        self.num_found += found
        if score is not None and (self.best is None or score > self.best[0]):
            self.best = (score, name)

    def fail(self, key: str, name: str, reason: str) -> None:
        """A node failed for good."""
        self._end(key)
        self.num_failed += 1
        self.failed.append((name, reason))

    def stop(self, key: str) -> None:
        """A scheduler ended a policy."""
        self._end(key)
        self.num_stopped += 1

    def _end(self, key: str, worked: bool = True) -> None:
        self.queued.discard(key)
        node = self.running.pop(key, None)
        self._worked += worked - ((node.first_step or 0) / (node.num_steps or 1) if node else 0.0)

    @property
    def num_over(self) -> int:
        """Done, failed or stopped."""
        return self.num_done + self.num_failed + self.num_stopped

    @property
    def seconds_left(self) -> float | None:
        """At the rate of this phase so far; None of stages, which are unlike, and before a tenth of one is done."""
        if self.what == "stages":
            return None
        begun = [(node.fraction, (node.first_step or 0) / (node.num_steps or 1)) for node in self.running.values()]
        worked = self._worked + sum(now - first for now, first in begun)
        left = self.total - self.num_over - sum(now for now, _ in begun)
        return max(0.0, left) * (time.time() - self.since) / worked if worked >= 0.1 else None

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON has it."""
        waiting = max(0, self.total - self.num_over - len(self.running))
        ready = min(len(self.queued), waiting) if self.what == "stages" else waiting
        return {
            "what": self.what,
            "total": self.total,
            "done": self.num_done,
            "found": self.num_found,
            "stopped": self.num_stopped,
            "num_running": len(self.running),
            "running": [
                {"name": node.name, "began": node.began, "step": node.step, "num_steps": node.num_steps,
                 "note": node.note}
                for _, node in zip(range(MAX_LISTED), self.running.values(), strict=False)
            ],
            "num_failed": self.num_failed,
            "failed": self.failed[-MAX_LISTED:],
            "waiting": {self.waits_for or "a free core": ready, "what comes before": waiting - ready},
            "then": self.then,
            "seconds_left": self.seconds_left,
            "best": self.best,
        }  # fmt: skip


def total_line(state: Mapping[str, Any]) -> str:
    """A snapshot in one line: `12 of 648 policies done · 4 running · 1 failed · 631 wait for a free core · ...`."""
    parts = [f"{state['done']:,} of {state['total']:,} {state['what']} done"]
    parts += [f"{state[key]:,} {word}" for key, word in _COUNTS if state[key]]
    parts += [f"{count:,} {'waits' if count == 1 else 'wait'} for {what}" for what, count in state["waiting"].items()
              if count]  # fmt: skip
    if state["then"]:
        parts.append(f"then {state['then']}")
    if state["seconds_left"]:
        parts.append(f"{duration(state['seconds_left'])} left")
    if state["best"]:
        score, name = state["best"]
        parts.append(f"best {score:.1f}: {name}")
    return " · ".join(parts)


_COUNTS = (("num_running", "running"), ("num_failed", "failed"), ("stopped", "stopped early"))


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min` or `2 d 5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def score_note(metrics: Mapping[str, float]) -> str | None:
    """The score of an evaluation, the return without references, the held-out score without a simulator, else None."""
    shown = {SCORE: "score", RETURN: "return", f"evaluation/{RANK_SCORE}": "held-out score"}
    return next((f"{title} {metrics[name]:.1f}" for name, title in shown.items() if name in metrics), None)
