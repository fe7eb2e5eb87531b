"""Estimates a sweep before anything runs: distinct artifacts, hours, memory. No Ray here.

Hours come from `v2a_ray.engine.rates`, corrected by the recorded times of this machine's artifacts of the same kind in
the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from v2a_ray.checksums import read_sealed
from v2a_ray.data.loading.memory_mapped import row_bytes
from v2a_ray.data.mixing.mixture import mix_sources
from v2a_ray.data.table.folder import read_manifest
from v2a_ray.domains import parse_domain
from v2a_ray.engine.plan import Node, mix_key
from v2a_ray.engine.rates import Cost, Rates, Tables, packaged_rates
from v2a_ray.engine.stage import SOURCE, STAGES, artifact_kinds
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.registered import costs_of

Floats = NDArray[np.floating[Any]]
Present = Callable[[str, str], bool]
"""Whether the store has an artifact, by stage and key."""
Basis = Literal["store", "measured", "unknown"]
"""Source of an estimate: artifacts of the same kind in the store, the package's measured rates, or none."""
SHORTEST_SHARE = 0.05
"""An artifact with fewer than this share of the steps tells how long starting takes, but little of the steps."""
MIN_FOR_SPREAD = 4
"""Minimum of artifacts for a spread."""
MAX_RECORDS = 500
"""Maximum of artifacts to read per stage; keys are hashes, so the first ones are a random sample."""


class Experiment(Protocol):
    """A trial; see `Trial` of sweeps."""

    @property
    def config(self) -> ExperimentConfig: ...
    @property
    def plan(self) -> Mapping[str, Node]: ...


@dataclass(frozen=True)
class StageEstimate:
    """The distinct artifacts of one stage.

    Attributes:
        num_artifacts: artifacts that the trials need; `num_found` of them are in the store.
        seconds: core seconds for the missing ones, without `num_unknown` artifacts of unknown cost.
        basis: sources of the estimate.
        spread_seconds: 10th and 90th percentile, as artifacts of this kind scatter in the store; both equal
            `seconds` if there are too few.
    """

    stage: str
    num_artifacts: int
    num_found: int
    seconds: float
    num_unknown: int
    basis: tuple[Basis, ...]
    spread_seconds: tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of all trials.

    Attributes:
        stages: in the order of computation, policies last.
        longest_seconds: seconds of the longest chain of missing upstream artifacts of one trial, and of one policy.
        num_cpus: cores for the hours; one trial uses `threads_per_trial` of them.
        num_at_once: policies trained at a time.
        process_gib, table_gib: memory of a trial, and of the largest memory-mapped tables, which all trials of a node
            share; None if a file would have to be read to know it.
        gpus_per_trial: as configured.
        processor, command: processor and command of the measured rates.
    """

    num_trials: int
    stages: list[StageEstimate]
    longest_seconds: tuple[float, float]
    num_cpus: int
    threads_per_trial: int
    num_at_once: int
    process_gib: float
    table_gib: float | None
    gpus_per_trial: float | str
    processor: str
    command: str

    @property
    def cpu_hours(self) -> float:
        """Core hours of all stages."""
        return sum(stage.seconds for stage in self.stages) / 3600

    @property
    def hours(self) -> float:
        """Duration on `num_cpus` cores: first the upstream stages, then the policies."""
        policies = sum(stage.seconds for stage in self.stages if stage.stage == "policy")
        upstream = sum(stage.seconds for stage in self.stages) - policies
        chain, policy = self.longest_seconds
        return (max(chain, upstream / self.num_cpus) + max(policy, policies / self.num_at_once)) / 3600

    @property
    def spread_hours(self) -> tuple[float, float] | None:
        """Lowest and highest `hours`; None where too little is known of how far they scatter."""
        seconds = sum(stage.seconds for stage in self.stages)
        low, high = (sum(stage.spread_seconds[end] for stage in self.stages) for end in (0, 1))
        if not seconds or low == high:
            return None
        return self.hours * low / seconds, self.hours * high / seconds


def estimate(
    trials: Sequence[Experiment],
    store: ArtifactStore,
    num_cpus: int,
    *,
    probes: Sequence[Experiment] = (),
    policies_per_cell: int = 1,
    max_concurrent_trials: int | None = None,
    gpus_per_trial: float | str = 0,
    rates: Rates | None = None,
) -> Estimate:
    """Estimate the cost of `trials` on `num_cpus` cores from records in the store, without computing anything.

    Args:
        probes: trials that need only their upstream stages; their policies are not trained.
        policies_per_cell: number of policies per trial, if a search draws them while it runs.
        max_concurrent_trials: limit for policies at a time, below the number of cores.
        rates: by default the package's rates.
    """
    history, present = _History(store, rates or packaged_rates()), store.lookup()
    tables_by_key: dict[str, Tables] = {}
    gib: list[float | None] = []
    nodes: dict[str, dict[str, tuple[Node, ExperimentConfig, Tables]]] = {}
    for number, trial in enumerate([*trials, *probes]):
        key = mix_key(trial.plan) + trial.plan["data/target"].key
        if key not in tables_by_key:
            tables_by_key[key] = _tables(trial.plan, store, present)
            gib.append(_gib(trial.config, tables_by_key[key]))
        for node in trial.plan.values():
            if number < len(trials) or node.stage != "policy":
                nodes.setdefault(node.stage, {}).setdefault(node.key, (node, trial.config, tables_by_key[key]))
    seconds: dict[str, float] = {}
    stages = []
    for stage in (stage for stage in artifact_kinds() if stage in nodes):
        times = policies_per_cell if stage == "policy" else 1
        # Policies drawn by a search are not known beforehand, so assume that none is in the store.
        missing = [key for key in nodes[stage] if times > 1 or not present(stage, key)]
        guesses = {key: history.guess(*nodes[stage][key]) for key in missing}
        seconds |= {key: guess.seconds or 0.0 for key, guess in guesses.items()}
        stages.append(
            StageEstimate(
                stage,
                num_artifacts=len(nodes[stage]) * times,
                num_found=len(nodes[stage]) - len(missing),
                seconds=sum(seconds[key] for key in missing) * times,
                spread_seconds=(
                    sum(seconds[key] * guesses[key].spread[0] for key in missing) * times,
                    sum(seconds[key] * guesses[key].spread[1] for key in missing) * times,
                ),
                num_unknown=sum(guess.seconds is None for guess in guesses.values()) * times,
                basis=tuple(sorted({guess.basis for guess in guesses.values()})),
            )
        )
    threads = max(trial.config.policy.num_threads * STAGES["policy"].num_workers(trial.config) for trial in trials)
    at_once = max(1, num_cpus // threads)
    return Estimate(
        num_trials=len(trials) * policies_per_cell,
        stages=stages,
        longest_seconds=(
            max(_chain(trial.plan, seconds) for trial in trials),
            max(seconds.get(trial.plan["policy"].key, 0.0) for trial in trials),
        ),
        num_cpus=num_cpus,
        threads_per_trial=threads,
        num_at_once=min(at_once, max_concurrent_trials or at_once, len(trials) * policies_per_cell),
        process_gib=history.rates.process_gib,
        table_gib=None if None in gib else max(each for each in gib if each is not None),
        gpus_per_trial=gpus_per_trial,
        processor=history.rates.processor,
        command=history.rates.command,
    )


def _tables(plan: Mapping[str, Node], store: ArtifactStore, present: Present) -> Tables:
    """Numbers of transitions of the two tables: as requested, or as stored."""
    names = plan[SOURCE].inputs.values() if SOURCE in plan else ()
    parts = [_num_transitions(plan[name], store, present) for name in names]
    known = [part for part in parts if part is not None]
    return Tables(
        sum(known) if len(known) == len(parts) else None, _num_transitions(plan["data/target"], store, present)
    )


def _num_transitions(node: Node, store: ArtifactStore, present: Present) -> int | None:
    if node.spec and node.spec.num_transitions:
        return node.spec.num_transitions
    if present(node.stage, node.key):
        with suppress(DataError):  # a damaged table will be recomputed
            return int(read_manifest(store.path(node.stage, node.key) / "table")["num_transitions"])
    return None


def _chain(plan: Mapping[str, Node], seconds: Mapping[str, float]) -> float:
    """Seconds of the longest chain of dependent artifacts before a plan's policy."""
    ends: dict[str, float] = {}
    for name, node in plan.items():
        start = max((ends[each] for each in node.inputs.values()), default=0.0)
        ends[name] = start + seconds.get(node.key, 0.0)
    return max(end for name, end in ends.items() if name != "policy")


def _gib(config: ExperimentConfig, tables: Tables) -> float | None:
    """Memory of both tables' rows in GiB."""
    if tables.source is None or tables.target is None:
        return None
    robot = parse_domain(config.target.domain).robot_spec
    return (tables.source + tables.target) * row_bytes(robot.observation_dim, robot.action_dim) / 2**30


@dataclass(frozen=True)
class _Guess:
    """Seconds of one artifact; `spread` are the factors between which such artifacts lay."""

    seconds: float | None
    basis: Basis
    spread: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class _Record:
    """A computed artifact: its main cost, its seconds, and the seconds by the rates (None: no rate is known)."""

    cost: Cost
    seconds: float
    modelled: float | None


class _History:
    """Compares the recorded times of a store's artifacts with the measured rates."""

    def __init__(self, store: ArtifactStore, rates: Rates) -> None:
        self.store = store
        self.rates = rates
        self._records: dict[str, list[_Record]] = {}

    def guess(self, node: Node, config: ExperimentConfig, tables: Tables) -> _Guess:
        """Core seconds for a node: a start and a slope fitted to artifacts of its kind, else the measured rates.

        Artifacts of the same size are preferred; far shorter ones are left out.
        """
        if node.name == "rows/target":
            tables = Tables(tables.target, tables.target)
        costs = costs_of(node.stage, config, tables, node.spec)
        if costs is None:
            return _Guess(None, "unknown")
        main, modelled = _main(node.stage, costs), self.rates.of(costs)
        shortest = SHORTEST_SHARE * main.repetitions
        kind = [
            record
            for record in self._of(node.stage)
            if record.cost.kind == main.kind and record.cost.repetitions >= shortest
        ]
        past = [record for record in kind if record.cost.size == main.size] or kind
        if not past:
            return _Guess(modelled, "unknown" if modelled is None else "measured")
        # Of a kind that was not measured, the number of steps is all that is known.
        works = np.array([each.cost.repetitions if modelled is None else each.modelled or 1.0 for each in past])
        seconds = np.array([each.seconds for each in past])
        start, slope = _line(works, seconds)
        found = start + slope * (main.repetitions if modelled is None else modelled)
        if len(past) < MIN_FOR_SPREAD:
            return _Guess(found, "store")
        low, high = np.quantile(seconds / (start + slope * works), (0.1, 0.9))
        return _Guess(found, "store", (float(low), float(high)))

    def _of(self, stage: str) -> list[_Record]:
        if stage not in self._records:
            files = islice(sorted((self.store.root / stage).glob("*/artifact.json")), MAX_RECORDS)
            self._records[stage] = [record for file in files if (record := self._read(stage, file))]
        return self._records[stage]

    def _read(self, stage: str, file: Path) -> _Record | None:
        """The record in a file; None if it is damaged, incomplete, or has settings of another version."""
        try:
            record = read_sealed(file)
        except (OSError, ValueError):
            return None
        # Records of rollouts and mixes have no settings: these stages use all cores, so their time is not that of one
        # core. Records of rows do not name their table.
        if "config" not in record or stage == "rows":
            return None
        try:
            config = ExperimentConfig.model_validate(record["config"])
        except ValidationError:
            return None
        parts = [spec.num_transitions for spec in mix_sources(config)]
        source = sum(part for part in parts if part) if all(parts) else None
        costs = costs_of(stage, config, Tables(source, config.target.num_transitions))
        return _Record(_main(stage, costs), float(record["seconds"]), self.rates.of(costs)) if costs else None


def _main(stage: str, costs: Sequence[Cost]) -> Cost:
    """The cost of the stage itself, without those of starting and evaluating."""
    return next((cost for cost in costs if cost.kind.startswith(stage)), costs[0])


def _line(works: Floats, seconds: Floats) -> tuple[float, float]:
    """Start and slope of seconds over work: medians, which a few odd artifacts do not move.

    Where all did about the same work, the start cannot be told, and the line goes through zero.
    """
    if works.max() >= 2 * works.min():
        # Most estimates need no line, and it takes half a second to import.
        from scipy.stats import theilslopes

        slope = float(theilslopes(seconds, works).slope)
        start = float(np.median(seconds - slope * works))
        if slope > 0 and start >= 0:
            return start, slope
    return 0.0, float(np.median(seconds / works))
