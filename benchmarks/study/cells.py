"""Cells of Part A of the study: a target and a source, and which of all combinations are run.

Shape suffixes: C cells, T terms of the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_CELLS, NUM_STARTS = 20, 20
SOURCE_TRANSITIONS = 30_000
QUALITIES = ("random", "medium-replay", "medium", "expert")
SIZES = (1_000, 10_000, 100_000)
DRAWS = ("rows", "episodes")
DYNAMICS = ("same", "near", "far", "both")
BEHAVIORS = ("medium-replay", "medium", "expert")
NEAR = {
    "hopper": "kinematic-footjnt-easy",
    "walker2d": "friction-0.5",
    "halfcheetah": "friction-0.5",
    "ant": "friction-0.5",
}
FAR = ("gravity-0.5", "otdf-morph")


@dataclass(frozen=True)
class Cell:
    """What a policy is trained from.

    Attributes:
        quality, size, draw: of the target: who collected it, how many transitions, single rows or the first episodes.
        dynamics, behavior: of the source. `same` is the target's dynamics, with another behaviour: the control.
    """

    quality: str
    size: int
    draw: str
    dynamics: str
    behavior: str

    @property
    def label(self) -> str:
        """Names the cell in tables."""
        return f"{self.quality} {self.size} {self.draw} from {self.dynamics} {self.behavior}"


def all_cells() -> list[Cell]:
    """Every combination but those in which source and target are the same data."""
    cells = [Cell(*levels) for levels in itertools.product(QUALITIES, SIZES, DRAWS, DYNAMICS, BEHAVIORS)]
    return [cell for cell in cells if not (cell.dynamics == "same" and cell.behavior == cell.quality)]


def effects(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """(C, T) model matrix: main effects, and dynamics × (log10 of the size, random target)."""

    def is_level(name: str, levels: Sequence[str | int]) -> list[list[float]]:
        return [[float(getattr(cell, name) == level) for cell in cells] for level in levels[1:]]

    size = [np.log10(cell.size) - 4.0 for cell in cells]
    dynamics = is_level("dynamics", DYNAMICS)
    random = [float(cell.quality == "random") for cell in cells]
    products = [np.multiply(one, other) for one in dynamics for other in (size, random)]
    factors = (("quality", QUALITIES), ("size", SIZES), ("draw", DRAWS), ("behavior", BEHAVIORS))
    main = [column for name, levels in factors for column in is_level(name, levels)]
    return np.asarray([np.ones(len(cells)), *main, *dynamics, *products]).T


def design(num_cells: int = NUM_CELLS, seed: int = 0) -> list[Cell]:
    """The cells whose model matrix has the largest determinant, by exchange from `NUM_STARTS` random beginnings."""
    cells, generator = all_cells(), np.random.default_rng(seed)
    matrix = effects(cells)
    best: tuple[float, list[int]] = (-np.inf, [])
    for _ in range(NUM_STARTS):
        chosen = generator.choice(len(cells), num_cells, replace=False).tolist()
        value, improved = _log_determinant(matrix[chosen]), True
        while improved:
            improved = False
            for place in range(num_cells):
                for other in set(range(len(cells))) - set(chosen):
                    tried = [*chosen[:place], other, *chosen[place + 1 :]]
                    if (new := _log_determinant(matrix[tried])) > value + 1e-9:
                        chosen, value, improved = tried, new, True
        best = max(best, (value, sorted(chosen)))
    return [cells[index] for index in best[1]]


def _log_determinant(matrix: NDArray[np.float64]) -> float:
    # What is singular is compared too: no start is lost.
    return float(np.linalg.slogdet(matrix.T @ matrix + 1e-6 * np.eye(matrix.shape[1]))[1])


def corners() -> list[Cell]:
    """The ends of what is asked: a bad and a middling target, little and much, from near and from far."""
    combinations = itertools.product(("random", "medium"), (1_000, 100_000), ("near", "far"))
    return [Cell(quality, size, "rows", dynamics, "medium") for quality, size, dynamics in combinations]


def source_domains(cell: Cell, robot: str) -> list[str]:
    """The dynamics of a cell's source."""
    near, far = [NEAR[robot]], list(FAR)
    return {"same": ["stock"], "near": near, "far": far, "both": [*near, *far]}[cell.dynamics]


def layer(cell: Cell, robot: str, domains: Sequence[str], size: int = SOURCE_TRANSITIONS) -> dict[str, Any]:
    """A cell's settings with `size` source transitions, shared out equally among `domains`."""
    drawn: dict[str, dict[str, Any]] = {
        "rows": {"subsample": "transitions", "replacement": True},
        "episodes": {"subsample": "first"},
    }
    target = {"domain": f"{robot}/stock", "behavior": cell.quality, "num_transitions": cell.size}
    # A source of the target's own dynamics is another draw of its policies than the target's pool.
    sources = [
        {
            "domain": f"{robot}/{domain}",
            "behavior": cell.behavior,
            "num_transitions": size // len(domains),
            "seed": 1,
        }
        for domain in domains
    ]
    return {"target": target | drawn[cell.draw] | {"path": f"{robot}_{cell.quality}"}, "sources": sources}
