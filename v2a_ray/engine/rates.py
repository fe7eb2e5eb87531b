"""How long computing an artifact takes, from what was measured: seconds = Σ repetitions (fixed + size × slope).

`stage_rates.json` beside this file holds fixed and slope of every kind of work on one thread, once for each set of
vector instructions, of a named processor. `python -m benchmarks.stage_rates` times each kind at two sizes and writes
the part of the machine that it runs on. Fixed is what a step costs whatever its networks' widths; size is
proportional to its arithmetic, so that one line serves every configuration.
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
    """Equal steps.

    Attributes:
        kind: a name in `stage_rates.json`, for example "alignment contrastive".
        repetitions: how many.
        size: of one, proportional to its arithmetic beyond a fixed cost.
    """

    kind: str
    repetitions: float
    size: float = 0.0


@dataclass(frozen=True)
class Tables:
    """Transitions of the two tables; None where only reading the files would tell."""

    source: int | None
    target: int | None


@dataclass(frozen=True)
class Rates:
    """Seconds on one thread.

    Attributes:
        processor, command: what was measured, and by what.
        process_gib: memory of a process before it has read anything.
        seconds: kind to (seconds of a repetition of size 0, seconds more per size).
    """

    processor: str
    command: str
    process_gib: float
    seconds: dict[str, tuple[float, float]]

    def of(self, costs: Iterable[Cost]) -> float | None:
        """Seconds of all `costs`; None when one of them is of a kind that was not measured."""
        total = 0.0
        for work in costs:
            if work.kind not in self.seconds:
                return None
            fixed, slope = self.seconds[work.kind]
            total += work.repetitions * (fixed + work.size * slope)
        return total


@cache
def packaged_rates() -> Rates:
    """The rates that come with the package, of a processor with this one's vector instructions if one was measured.

    A kind that was not measured there is taken from the first processor on which it was.
    """
    measured = read_json(RATES_FILE)
    content = measured.get(vector_instructions()) or next(iter(measured.values()))
    seconds: dict[str, tuple[float, float]] = {}
    for part in (content, *measured.values()):
        seconds = {kind: (fixed, slope) for kind, (fixed, slope) in part["seconds"].items()} | seconds
    return Rates(content["processor"], content["command"], content["process_gib"], seconds)


def data_costs(spec: DataSpec) -> list[Cost] | None:
    """Reading or collecting a part of the data; None when only reading it would tell how much that is."""
    if spec.num_transitions is None:
        return None
    kind = "read" if spec.path else f"collect {robot_of(spec.domain)}"
    return [Cost(kind, spec.num_transitions)]


def robot_of(domain: str) -> str:
    """The robot that a domain's simulation takes as long as."""
    # It imports MuJoCo, which a table of methods need not wait for.
    from v2a_ray.domains import parse_domain

    return parse_domain(domain).base.robot
