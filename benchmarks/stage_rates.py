"""Seconds of every kind of work in an experiment, for `v2a sweep --dry-run` when the store has no measured times.

Every stage is fitted at two widths and two numbers of steps, on random tables of Hopper's dimensions. The difference
between the numbers of steps gives the cost of a step, the difference between the widths the cost of its arithmetic.
Roll-outs and evaluations are timed with the packaged expert of each stock robot. CPU time of one thread. Writes this
processor's part of `v2a_ray/engine/stage_rates.json`; --quick writes nothing.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import invocation, versions
from benchmarks.tables import write_random_table
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.table.folder import read_table_folder, write_table
from v2a_ray.domains import parse_domain
from v2a_ray.domains.behaviors import load_behavior
from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.rates import RATES_FILE, Cost, Tables
from v2a_ray.evaluation.returns import evaluate
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.files import read_json, write_json
from v2a_ray.processor import processor_name, vector_instructions
from v2a_ray.stages.registered import costs_of, fit_of

SOURCE_TRANSITIONS, TARGET_TRANSITIONS = 20_000, 5_000
WIDTHS = (64, 256)
ROBOTS = ("hopper", "walker2d", "halfcheetah", "ant")
VARIANTS: tuple[dict[str, Any], ...] = (
    {"method": "v2a", "modality": {"encoder": "gru", "optimization": "em"}},
    {"method": "v2a_supported", "modality": {"encoder": "gru", "optimization": "joint"}},
    {"method": "v2a", "modality": {"encoder": "pooled", "optimization": "em"}, "alignment": {"kind": "residual"}},
    {"method": "v2a", "modality": {"encoder": "pooled", "optimization": "joint"}},
    *({"method": name} for name in ("otdf", "dara", "srpo", "bosa", "stc", "droco", "grouped")),
    *({"method": f"{learner}_mixed"} for learner in ("bc", "td3_bc", "awac", "rebrac", "fql", "cql")),
    *({"method": name} for name in ("dmc_nearest", "rb_cql")),
)
"""Together they have every kind of stage and of learner; RLlib's learners are not ours to time."""


Seconds = dict[str, tuple[float, float]]
"""Kind to (seconds of a repetition of size 0, seconds more per size)."""


@dataclass(frozen=True)
class Timed:
    """A stage that was fitted: what it consisted of, and CPU seconds."""

    cost: Cost
    seconds: float


def experiment(variant: dict[str, Any], width: int, factor: float) -> ExperimentConfig:
    """A variant at a width, with few steps times `factor`."""
    section = {"width": width, "num_steps": round(20 * factor)}
    modality = {"encoder_width": width, "decoder_width": width, "num_steps": round(4 * factor), "crop_steps": 100}
    rolled_out = {"domain": "hopper/stock", "behavior": "random"}
    return resolve(
        {
            "name": "rates",
            "target": rolled_out | {"num_transitions": TARGET_TRANSITIONS},
            "sources": [rolled_out | {"num_transitions": SOURCE_TRANSITIONS}],
            "method": variant["method"],
            "modality": modality | variant.get("modality", {}),
            "alignment": section | variant.get("alignment", {}),
            **dict.fromkeys(("advantage", "density", "dynamics", "correction", "policy"), section),
            "evaluation": {"num_episodes": 1, "interval_steps": 0},
        }
    )


def fit(config: ExperimentConfig, folder: Path) -> Iterator[Timed]:
    """Fit every stage of an experiment that `folder` has not; what was fitted before is not timed again."""
    plan, sizes = make_plan(config), Tables(SOURCE_TRANSITIONS, TARGET_TRANSITIONS)
    for node in plan.values():
        output = folder / node.key
        if output.exists():
            continue
        output.mkdir()
        if node.stage in ("data", "source"):
            write_random_table(
                output / "table", TARGET_TRANSITIONS if node.name == "data/target" else SOURCE_TRANSITIONS
            )
            continue
        inputs = {role: folder / plan[name].key for role, name in node.inputs.items()}
        seconds = cpu_seconds(
            partial(fit_of(node.stage, config), Job(config, inputs, output, folder / f"{node.key}.work"))
        )
        if node.name == "rows/target":
            continue
        costs = costs_of(node.stage, config, sizes)
        assert costs is not None  # both tables have a number of transitions
        yield from (Timed(work, seconds) for work in costs if work.kind.startswith(node.stage))


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of one call, of all threads of this process."""
    start = time.process_time()
    action()
    return time.process_time() - start


def line(timed: Sequence[Timed]) -> tuple[float, float]:
    """(seconds of a step of size 0, seconds more per size) through what was timed of one kind."""
    groups: dict[float, list[Timed]] = {}
    for each in timed:
        groups.setdefault(each.cost.size, []).append(each)
    steps = {size: _step_seconds(group) for size, group in groups.items()}
    if len(steps) == 1:
        return next(iter(steps.values())), 0.0
    (small, fast), *_, (large, slow) = sorted(steps.items())
    slope = max(0.0, (slow - fast) / (large - small))
    return max(0.0, fast - slope * small), slope


def _step_seconds(timed: Sequence[Timed]) -> float:
    """Of one step: what more steps took more, or simply the share, where there was one number of steps alone."""
    short, long = (pick(timed, key=lambda each: each.cost.repetitions) for pick in (min, max))
    more = long.cost.repetitions - short.cost.repetitions
    return (long.seconds - short.seconds) / more if more else long.seconds / long.cost.repetitions


def stage_lines(variants: Sequence[dict[str, Any]], widths: Sequence[int], factors: Sequence[float]) -> Seconds:
    """Of every kind of fit, by name."""
    timed: dict[str, list[Timed]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        # What a first call pays for all that follow.
        list(fit(experiment(variants[0], widths[0], 1), Path(temporary)))
    with tempfile.TemporaryDirectory() as temporary:
        for variant in variants:
            for width in widths:
                for factor in factors:
                    for each in fit(experiment(variant, width, factor), Path(temporary)):
                        timed.setdefault(each.cost.kind, []).append(each)
    return {kind: line(group) for kind, group in timed.items()}


def table_lines() -> Seconds:
    """Of a transition that is put into the source table, or read from a file: parts read, and one table written."""
    with tempfile.TemporaryDirectory() as temporary:
        parts, folder = Path(temporary) / "parts", Path(temporary) / "table"
        write_random_table(parts, SOURCE_TRANSITIONS)
        seconds = cpu_seconds(lambda: write_table(read_table_folder(parts), folder, robot="hopper"))
    return dict.fromkeys(("source", "read"), (seconds / SOURCE_TRANSITIONS, 0.0))


def robot_lines(robot: str, num_episodes: int) -> Seconds:
    """Of an environment step: when collecting, and when evaluating."""
    domain, policy = parse_domain(robot), load_behavior(robot, "expert")
    tables, results = [], []
    collector = EpisodeCollector(domain, "expert")
    collecting = cpu_seconds(lambda: tables.append(collector.collect(range(num_episodes))))
    collector.close()
    evaluating = cpu_seconds(lambda: results.append(evaluate(policy.act, domain, num_episodes, seed=0)))
    return {
        f"collect {robot}": (collecting / tables[0].num_transitions, 0.0),
        f"evaluate {robot}": (evaluating / float(results[0].lengths.sum()), 0.0),
    }


def start_line() -> tuple[float, float]:
    """(CPU seconds, GiB of its own) of a process that has imported what a trial needs."""
    memory = "print(pathlib.Path('/proc/self/smaps_rollup').read_text())"
    script = f"import v2a_ray.orchestration.train.compute, pathlib; {memory}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    anonymous = next(each for each in run.stdout.splitlines() if each.startswith("Anonymous:"))
    return seconds, int(anonymous.split()[1]) / 2**20


def show(seconds: Seconds) -> None:
    """One row per kind."""
    table = Table("kind", "fixed, µs", "ns per 1,000 of size", box=None)
    for kind, (fixed, slope) in seconds.items():
        table.add_row(kind, f"{1e6 * fixed:,.1f}", f"{1e12 * slope:,.2f}")
    Console().print(table)


def main() -> None:
    """Measure all, and write the package's file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one method, small widths, no writing")
    parser.add_argument("--methods", nargs="+", help="these alone; what else was measured here before stays")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick, chosen = arguments.quick, arguments.methods
    variants = [variant for variant in VARIANTS if not chosen or variant["method"] in chosen]
    seconds = stage_lines(*((variants[:1], (16, 32), (0.5, 1)) if quick else (variants, WIDTHS, (1, 4))))
    if not chosen:
        seconds |= table_lines()
    for robot in [] if chosen else ROBOTS[:1] if quick else ROBOTS:
        seconds |= robot_lines(robot, 2 if quick else 10)
    start, process_gib = start_line()
    seconds["start"] = (start, 0.0)
    show(seconds)
    if not quick:
        before = read_json(RATES_FILE)
        kept = before.get(vector_instructions(), {}).get("seconds", {}) if chosen else {}
        content = {
            "command": invocation(),
            "processor": f"{processor_name()}, {vector_instructions()}",
            "versions": versions(),
            "process_gib": round(process_gib, 2),
            "seconds": kept
            | {kind: [float(f"{value:.3g}") for value in pair] for kind, pair in sorted(seconds.items())},
        }
        write_json(RATES_FILE, before | {vector_instructions(): content})


if __name__ == "__main__":
    main()
