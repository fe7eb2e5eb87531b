"""The records of benchmarks: one entry per name and processor in `results.json`, with versions.

A ratio is always "how much better ours is", so that every target is a lower bound.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from v2a_ray.files import read_json, write_json
from v2a_ray.processor import processor_facts, processor_name

RESULTS = Path(__file__).parent / "results.json"
PACKAGES = ("ray", "torch", "mujoco", "numpy", "gymnasium")


def versions() -> dict[str, str | int]:
    """Versions of the software that timings depend on, and the number of cores that this process may use."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages, "cpus": len(os.sched_getaffinity(0))}


EMULATION = "ATEN_CPU_CAPABILITY"
"""Environment variable with which PyTorch, and its libraries by variables of theirs, leave out what is above AVX2."""


def measured_on() -> str:
    """The processor and its widest vectors, as far as measurements depend on them."""
    flags = processor_facts().get("flags", "").split()
    widest = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    asked = os.environ.get(EMULATION)
    return f"{processor_name()}, {f'{asked} emulated' if asked else widest}"


def invocation() -> str:
    """The command that is running, as a user would type it in the repository's root."""
    module = sys.modules["__main__"].__spec__
    name = module.name if module else Path(sys.argv[0]).stem
    return " ".join(["python -m", name, *sys.argv[1:]])


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        name: what was measured; a new result replaces the one of the same name and processor.
        ours, reference: both in `unit`, medians over repetitions.
        unit: for example "steps/s".
        ratio: how much better ours is, the median of the ratios of repetitions.
        target: what `ratio` has to reach.
        gflop_per_second: of ours, where its arithmetic was counted.
        command: what measures it again.
        versions: see `versions`.
        processor: see `measured_on`.
    """

    name: str
    ours: float
    reference: float
    unit: str
    ratio: float
    target: float
    gflop_per_second: float | None = None
    command: str = field(default_factory=invocation)
    versions: dict[str, str | int] = field(default_factory=versions)
    processor: str = field(default_factory=measured_on)

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the verdict."""
        content = asdict(self) | {"holds": self.holds}
        return content if self.gflop_per_second else {k: v for k, v in content.items() if k != "gflop_per_second"}


def interleaved(
    ours: Callable[[], float], reference: Callable[[], float], repetitions: int, *, less_is_better: bool = False
) -> tuple[float, float, float]:
    """Call the two measurements in turn, which goes first alternating; medians of ours, reference and their ratio.

    What else the machine does then falls on both alike, and one disturbed repetition does not move a median.
    """
    pairs = []
    for repetition in range(repetitions):
        if repetition % 2:
            second = reference()
            pairs.append((ours(), second))
        else:
            pairs.append((ours(), reference()))
    ratios = [theirs / mine if less_is_better else mine / theirs for mine, theirs in pairs]
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(theirs), statistics.median(ratios)


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall time of one call; with `time.process_time` the CPU time, of work that one thread does without waiting."""
    start = clock()
    action()
    return clock() - start


def step_milliseconds(step: Callable[[], object], num_steps: int) -> float:
    """CPU time of one `step` of a single thread, averaged over `num_steps` calls."""

    def steps() -> None:
        for _ in range(num_steps):
            step()

    return 1000 * seconds(steps, time.process_time) / num_steps


def record(results: Sequence[Result], *, write: bool = True, path: Path = RESULTS) -> None:
    """Print the results and put them into `path`, each in place of the same processor's; `write` is false for quick
    runs."""
    Console().print(render([result.to_dict() for result in results]))
    if write:
        entries = {(entry["name"], entry["processor"]): entry for entry in read_results(path)}
        entries |= {(result.name, result.processor): result.to_dict() for result in results}
        write_json(path, list(entries.values()))


def read_results(path: Path = RESULTS) -> list[dict[str, Any]]:
    """All records so far, of all processors."""
    entries: list[dict[str, Any]] = read_json(path) if path.exists() else []
    return entries


def render(entries: Sequence[dict[str, Any]]) -> Table:
    """One row per benchmark, and of each processor what ours reached, its ratio to the reference and the verdict."""
    processors = list(dict.fromkeys(entry["processor"] for entry in entries))
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("benchmark", "unit"):
        table.add_column(name)
    table.add_column("target", justify="right")
    for processor in processors:
        table.add_column(f"{processor}\nours, ratio", justify="right")
    for name in dict.fromkeys(entry["name"] for entry in entries):
        mine = {entry["processor"]: entry for entry in entries if entry["name"] == name}
        newest = list(mine.values())[-1]
        cells = [_measured(mine[processor]) if processor in mine else "" for processor in processors]
        table.add_row(name, newest["unit"], f"{newest['target']:g}", *cells)
    return table


def _measured(entry: dict[str, Any]) -> str:
    verdict = "[green]holds[/]" if entry["holds"] else "[red]missed[/]"
    rate = f" {entry['gflop_per_second']:.0f} GFLOP/s" if "gflop_per_second" in entry else ""
    return f"{entry['ours']:,.4g}{rate}  {entry['ratio']:.2f} {verdict}"
