"""How long computing an artifact takes, from what was measured: seconds = Σ repetitions (fixed + size × slope).

`stage_rates.json` beside this file holds fixed and slope of every kind of work on one thread, once for each set of
vector instructions, of a named processor. `python -m benchmarks.stage_rates` times each kind at two sizes and writes
the part of the machine that it runs on. Fixed is what a step costs whatever its networks' widths; size is
proportional to its arithmetic, so that one line serves every configuration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from v2a_ray.config import DataSpec, ExperimentConfig, ModalityConfig, PolicyConfig
from v2a_ray.domains import parse_domain
from v2a_ray.files import read_json
from v2a_ray.processor import vector_instructions

RATES_FILE = Path(__file__).parent / "stage_rates.json"


@dataclass(frozen=True)
class Work:
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

    def of(self, works: Iterable[Work]) -> float | None:
        """Seconds of all `works`; None when one of them is of a kind that was not measured."""
        total = 0.0
        for work in works:
            if work.kind not in self.seconds:
                return None
            fixed, slope = self.seconds[work.kind]
            total += work.repetitions * (fixed + work.size * slope)
        return total


@cache
def packaged_rates() -> Rates:
    """The rates that come with the package, of a processor with this one's vector instructions if one was measured."""
    measured = read_json(RATES_FILE)
    content = measured.get(vector_instructions()) or next(iter(measured.values()))
    seconds = {kind: (fixed, slope) for kind, (fixed, slope) in content["seconds"].items()}
    return Rates(content["processor"], content["command"], content["process_gib"], seconds)


def works_of(stage: str, config: ExperimentConfig, tables: Tables, spec: DataSpec | None = None) -> list[Work] | None:
    """What computing a stage consists of; None when it depends on a table whose size is not known.

    `spec` is that of a data node. Of `rows` those of the source are laid out.
    """
    source, target = tables.source, tables.target
    if stage == "data":
        return _data(spec) if spec else None
    if stage in ("source", "rows"):
        return None if source is None else [Work(stage, source)]
    if stage == "modality":
        return [_modality(config.modality)]
    if stage == "alignment":
        return _alignment(config, source, target)
    if stage == "policy":
        return _policy(config)
    section = getattr(config, stage)
    return [Work(stage, section.num_steps, _layers(section))]


def _data(spec: DataSpec) -> list[Work] | None:
    if spec.num_transitions is None:
        return None
    kind = "read" if spec.path else f"collect {_robot(spec.domain)}"
    return [Work(kind, spec.num_transitions)]


def _layers(section: Any, members: int = 1) -> float:
    """Arithmetic of networks with two hidden layers: the product between those decides."""
    return float(section.batch_size * section.width**2 * members * getattr(section, "num_members", 1))


def _modality(config: ModalityConfig) -> Work:
    """Three gates of a GRU, or the layer between two hidden ones, and an ensemble of decoders, at every time step."""
    encoder = (3 if config.encoder == "gru" else 1) * config.encoder_width**2
    decoders = config.num_decoders * config.decoder_layers * config.decoder_width**2
    # An episode that is not cropped has a thousand steps at most.
    steps = config.crop_steps or 1000
    kind = f"modality {config.optimization}" + ("" if config.encoder == "gru" else f" {config.encoder}")
    return Work(kind, config.num_steps, float(config.batch_size * steps * (encoder + decoders)))


def _alignment(config: ExperimentConfig, source: int | None, target: int | None) -> list[Work] | None:
    section = config.alignment
    kind = f"alignment {section.kind}"
    if section.kind == "modality":
        return None if source is None else [Work(kind, source)]
    if section.kind == "optimal_transport":
        if source is None or target is None:
            return None
        return [Work(kind, source * min(target, section.max_target_transitions))]
    size = section.batch_size * section.width**2
    members = section.num_members if section.kind in ("residual", "dynamics_density") else 1
    return [Work(kind, section.num_steps, float(size * members))]


def _policy(config: ExperimentConfig) -> list[Work]:
    policy, evaluation = config.policy, config.evaluation
    robot = parse_domain(config.target.domain).robot_spec
    times = math.ceil(policy.num_steps / evaluation.interval_steps) if evaluation.interval_steps else 1
    # A policy that falls ends its episodes sooner; what is counted is the most that they can take.
    steps = times * evaluation.num_episodes * robot.max_episode_steps
    return [
        Work("start", 1),
        Work(_policy_kind(policy), policy.num_steps, _layers(policy)),
        Work(f"evaluate {robot.variant_of or robot.name}", steps),
    ]


def _policy_kind(policy: PolicyConfig) -> str:
    return f"policy {policy.learner}" + (" in support" if policy.density_weight else "")


def _robot(domain: str) -> str:
    spec = parse_domain(domain).robot_spec
    return spec.variant_of or spec.name
