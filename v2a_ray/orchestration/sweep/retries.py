"""How often a trial is started again: its own failures count, nodes that were lost do not.

Tune counts all failures of a trial alike. It therefore retries without a limit here, and this callback keeps the count
and tells a trial that has failed too often to give up when it starts the next time.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ray.tune import Callback

from v2a_ray.orchestration.cluster.node_loss import actor_lost_its_node, node_of

GIVEN_UP = "given_up"
"""In a trial's settings: why it is not trained again."""
UNAVAILABLE = "The actor is temporarily unavailable"
"""In what Ray says of an actor whose connection broke before it knew why."""


class Retries(Callback):
    """Counts the failures of each trial."""

    def __init__(self, max_retries: int) -> None:
        self.max_retries = max_retries
        self.failures: Counter[str] = Counter()
        self.places: dict[str, tuple[str, str | None]] = {}
        """Identities of the actor and of the node that each trial runs in."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`."""
        actor = trial.temporary_state.ray_actor._actor_id.hex()
        self.places[trial.trial_id] = actor, node_of(actor)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`. Tune is about to start the trial again."""
        reason = _reason(trial)
        actor, node = self.places.pop(trial.trial_id, (None, None))
        if actor and actor_lost_its_node(actor, node, unclear=UNAVAILABLE in reason):
            return
        self.failures[trial.trial_id] += 1
        if self.failures[trial.trial_id] <= self.max_retries:
            return
        if GIVEN_UP in trial.config:
            trial.max_failures = 0  # its process does not even start
        trial.set_config({**trial.config, GIVEN_UP: reason})

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and we never read that pickle.
        return {}


def _reason(trial: Any) -> str:
    """The last line of the newest error that Tune wrote down."""
    lines = Path(trial.error_file).read_text().strip().splitlines() if trial.error_file else []
    return lines[-1].strip() if lines else "its process died"
