"""Early stopping, as a function of the recorded history alone.

The history is part of every checkpoint, so a resumed run decides like an uninterrupted one, and workers that record
equal metrics decide alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from v2a_ray.engine.trainer import History


@dataclass(frozen=True)
class EarlyStopping:
    """Stops when a metric (lower is better) has not improved for a number of evaluations in a row.

    Attributes:
        metric: its name in the history; rows without it are not evaluations.
        patience: number of evaluations without improvement after which training stops.
        min_improvement: decrease that counts as improvement, relative to the magnitude of the best value so far.
    """

    metric: str
    patience: int
    min_improvement: float = 0.0

    def __call__(self, history: History) -> bool:
        """Whether training with this history should stop."""
        values = [row[self.metric] for row in history if self.metric in row]
        best_index = 0
        for index, value in enumerate(values):
            best = values[best_index]
            if value < best - self.min_improvement * abs(best):
                best_index = index
        return len(values) - 1 - best_index >= self.patience
