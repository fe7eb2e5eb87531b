"""The trial status log: policies without an artifact, because a scheduler ended them or they failed.

It consists of lines of JSON in the sweep's folder, appended at once; a kill can at most tear the last line.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from v2a_ray.checksums import append_sealed, read_sealed_lines
from v2a_ray.engine.trainer import Metrics

TRIAL_STATUS_FILE = "trial_status.jsonl"


@dataclass(frozen=True)
class TrialStatus:
    """The end of one policy without an artifact.

    Attributes:
        policy: the key that its artifact would have.
        status: `stopped` (by the scheduler; the trial is not resumed) or `failed`.
        reason: of the failure.
        metrics: of its last evaluation, with `step`.
    """

    policy: str
    status: Literal["stopped", "failed"]
    reason: str = ""
    metrics: Metrics = field(default_factory=dict)

    def describe(self) -> str:
        """Text for the table of results."""
        return f"failed: {self.reason}" if self.status == "failed" else f"stopped at step {self.metrics['step']:,.0f}"


class TrialStatusLog:
    """The outcomes of one sweep; the newest outcome of a policy counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / TRIAL_STATUS_FILE
        self.by_policy: dict[str, TrialStatus] = {}
        if self.path.exists():
            for content in read_sealed_lines(self.path):
                if content is None:
                    continue  # a damaged line; its policy is trained again
                with suppress(TypeError):
                    outcome = TrialStatus(**content)
                    self.by_policy[outcome.policy] = outcome

    def add(self, outcome: TrialStatus) -> None:
        """Add an outcome, on disk first."""
        append_sealed(self.path, [asdict(outcome)])
        self.by_policy[outcome.policy] = outcome
