"""Estimates the seconds of an artifact from measured rates: seconds = Σ repetitions (fixed + size × slope).

`stage_rates.json` in this folder has fixed and slope of every kind of work on one thread, for one named processor per
set of vector instructions. `python -m benchmarks.stage_rates` times each kind at two sizes and writes the entry of its
machine. Fixed is the cost of a step independent of the networks' widths; size is proportional to the arithmetic, so
that one line covers every configuration.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from v2a_ray.data.config import DataSpec
from v2a_ray.files import read_json
from v2a_ray.processor import vector_instructions

RATES_FILE = Path(__file__).parent / "stage_rates.json"


@dataclass(frozen=True)
class Cost:
    """A number of equal steps.

    Attributes:
        kind: a name in `stage_rates.json`, for example "alignment contrastive".
        repetitions: number of steps.
        size: size of one step, proportional to its arithmetic beyond the fixed cost.
    """

    kind: str
    repetitions: float
    size: float = 0.0


@dataclass(frozen=True)
class Tables:
    """Numbers of transitions of the two tables; None if only reading the files would tell."""

    source: int | None
    target: int | None


@dataclass(frozen=True)
class Rates:
    """Seconds on one thread.

    Attributes:
        processor, command: the measured processor, and the command that measured it.
        process_gib: memory of a process before it reads data.
        seconds: maps a kind to (seconds of a step of size 0, additional seconds per unit of size).
    """

    processor: str
    command: str
    process_gib: float
    seconds: dict[str, tuple[float, float]]

    def of(self, costs: Iterable[Cost]) -> float | None:
        """Seconds of all `costs`; None if one of them has an unmeasured kind."""
        total = 0.0
        for work in costs:
            if work.kind not in self.seconds:
                return None
            fixed, slope = self.seconds[work.kind]
            total += work.repetitions * (fixed + work.size * slope)
        return total


@cache
def packaged_rates() -> Rates:
    """The package's rates for a processor with this one's vector instructions if one was measured.

    A kind that was not measured on it is taken from the first processor on which it was measured.
    """
    measured = read_json(RATES_FILE)
    content = measured.get(vector_instructions()) or next(iter(measured.values()))
    seconds: dict[str, tuple[float, float]] = {}
    for part in (content, *measured.values()):
        seconds = {kind: (fixed, slope) for kind, (fixed, slope) in part["seconds"].items()} | seconds
    return Rates(content["processor"], content["command"], content["process_gib"], seconds)


def data_costs(spec: DataSpec) -> list[Cost] | None:
    """The cost of reading or collecting a part of the data; None if only reading it would tell its size."""
    if spec.num_transitions is None:
        return None
    kind = "read" if spec.path else f"collect {robot_of(spec.domain)}"
    return [Cost(kind, spec.num_transitions)]


def robot_of(domain: str) -> str:
    """The robot whose simulation speed a domain has."""
    # It imports MuJoCo, so it is imported only when used.
    from v2a_ray.domains import parse_domain

    return parse_domain(domain).base.robot
