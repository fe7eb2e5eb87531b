"""V2A from an empty store to an evaluated policy, compared with its published computation; one thread.

    python -m benchmarks.cold_pipeline           # some four minutes on an idle core
    python -m benchmarks.cold_pipeline --quick   # a few steps of everything, to see that it runs; no recording

Ours is method `v2a` at the published steps, batches and widths of advantage, alignment and policy, with the default
modality (docs/modality_cost.md). Our time is the CPU time of every stage, including reading, scoring, evaluation and
writing, plus the wall time of making the tables. The reference's time is only the published number of steps of the same
four stages times the CPU time of its update step (`reference/`). A few of its steps are timed before, between and after
our stages, so that other work on the machine affects both sides.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import training_steps
from benchmarks.learners import PUBLISHED_MODALITY
from benchmarks.record import Result, record, seconds, step_milliseconds
from v2a_ray.engine.plan import Node, make_plan
from v2a_ray.engine.trainer import silent
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve, store_of
from v2a_ray.files import read_json
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.train.compute import compute_all, make_stage
from v2a_ray.orchestration.train.listener import Listener
from v2a_ray.orchestration.train.work import Work, input_paths
from v2a_ray.settings.yaml_files import merge, read_yaml

TARGET = 10.0
MIX = Path(__file__).parents[1] / "tune_configs" / "hopper_nine.yaml"
PUBLISHED_STEPS = {"modality": PUBLISHED_MODALITY.num_steps, "advantage": 5000, "alignment": 7000, "policy": 20_000}
SEPARATING_STEPS = 2500
"""Of the published modality on the real Hopper mix, where z separates the domains."""
QUICK: dict[str, Any] = {stage: {"num_steps": 4} for stage in PUBLISHED_STEPS} | {"evaluation": {"num_episodes": 1}}


def experiment(store: Path, *, quick: bool = False) -> ExperimentConfig:
    """Method `v2a` with its defaults, on the data of `hopper_nine`."""
    mix = read_yaml(MIX)
    few = {"num_transitions": 200} if quick else {}
    data = {"target": mix["target"] | few, "sources": [source | few for source in mix["sources"]]}
    settings = {"name": "cold", "method": "v2a", "store": str(store), **data}
    return resolve(merge(settings, QUICK if quick else {}))


def make_tables(config: ExperimentConfig, plan: Mapping[str, Node]) -> None:
    """Roll out and combine the data, on all cores."""
    with ray_session():
        nodes = [node for node in plan.values() if node.stage in ("data", "source")]
        compute_all([Work(config, plan, node) for node in nodes], store_of(config), Listener())


def reference_steps() -> dict[str, training_steps.Comparison]:
    """The published update step of every stage."""
    return {
        "modality": training_steps.modality("em", 1.0),
        "advantage": training_steps.advantage(),
        "alignment": training_steps.alignment(),
        "policy": training_steps.policy(),
    }


def measure(
    config: ExperimentConfig, plan: Mapping[str, Node], *, quick: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds of our stages, which are computed one after another, and milliseconds of the reference's steps."""
    ours: dict[str, float] = {}
    references = reference_steps()
    rounds: dict[str, list[float]] = {stage: [] for stage in references}

    def time_references() -> None:
        for stage, comparison in references.items():
            num_steps = 1 if quick else comparison.num_reference_steps
            rounds[stage].append(step_milliseconds(comparison.reference, num_steps))

    store = store_of(config)
    for node in plan.values():
        if node.stage in ("data", "source"):
            continue
        time_references()
        work = Work(config, plan, node)
        compute = partial(make_stage, work, input_paths(work, store), store, silent)
        ours[node.stage] = ours.get(node.stage, 0.0) + seconds(compute, time.process_time)
    time_references()
    return ours, {stage: statistics.median(times) for stage, times in rounds.items()}


def report(tables: float, ours: Mapping[str, float], step_ms: Mapping[str, float]) -> None:
    """A markdown table of both sides' time by stage."""
    print("\n| stage | ours, s | reference: steps | ms a step | s |\n| --- | --- | --- | --- | --- |")
    print(f"| tables (wall time) | {tables:.1f} | not counted | | |")
    for stage, own in ours.items():
        if stage not in step_ms:
            print(f"| {stage} | {own:.1f} | not counted | | |")
            continue
        steps = PUBLISHED_STEPS[stage]
        print(f"| {stage} | {own:.1f} | {steps:,} | {step_ms[stage]:.1f} | {steps * step_ms[stage] / 1000:,.0f} |")


def main() -> None:
    """One pipeline from cold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, no recording")
    parser.add_argument("--dry", action="store_true", help="measure all, but do not record it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = experiment(Path(folder), quick=arguments.quick)
        plan = make_plan(config)
        tables = seconds(lambda: make_tables(config, plan))
        ours, step_ms = measure(config, plan, quick=arguments.quick)
        policy = store_of(config).path("policy", plan["policy"].key)
        score = read_json(policy / "evaluation.json")["normalized_score_mean"]
    own = tables + sum(ours.values())
    reference = sum(PUBLISHED_STEPS[stage] * milliseconds / 1000 for stage, milliseconds in step_ms.items())
    result = Result("V2A from cold, at published sizes", own, reference, "s", reference / own, TARGET)
    record([result], write=not (arguments.quick or arguments.dry))
    report(tables, ours, step_ms)
    shorter = reference - (PUBLISHED_STEPS["modality"] - SEPARATING_STEPS) * step_ms["modality"] / 1000
    print(f"\nnormalised score {score:.1f}; against {SEPARATING_STEPS:,} published modality steps: {shorter / own:.1f}")


if __name__ == "__main__":
    main()
