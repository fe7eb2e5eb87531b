"""The parts of a source mix and the target: from a specification to a labelled table.

A part is read from a file or collected by roll-outs. This module reads files and lists the roll-outs to collect.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks import Severities, found, regrade
from v2a_ray.data.checks.findings import Finding, Reading, place, raise_errors
from v2a_ray.data.config import DataSpec, ExperimentData, SourceSpec
from v2a_ray.data.formats.location import Location, locate
from v2a_ray.data.formats.readers import read_table, resolve_location
from v2a_ray.data.table.episodes import LABELS, EpisodeTable
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behaviors import behavior_components, require_same_robot
from v2a_ray.errors import ConfigError, DataError


@dataclass(frozen=True)
class CollectionRequest:
    """Transitions to be collected by one policy.

    Attributes:
        domain: canonical name.
        policy_domain: canonical name of the domain whose policy acts.
        component: a policy that `load_behavior` knows.
        num_transitions: exact number.
        seed: of the episodes.
        noise_std: standard deviation of the Gaussian action noise; actions are in [-1, 1].
    """

    domain: str
    policy_domain: str
    component: str
    num_transitions: int
    seed: int
    noise_std: float


def load_source(spec: SourceSpec, data_root: str | Path = ".", checks: Severities | None = None) -> Reading:
    """Read, check, subsample and label a source that has a `path`. Raises DataError, also for unordered transitions."""
    reading = load_data(spec, spec.label, data_root, checks)
    if not reading.ordered:
        raise unordered_source(spec, data_root)
    return reading


def unordered_source(spec: DataSpec, data_root: str | Path) -> DataError:
    """The error for a source whose rows are not in order of time."""
    return DataError(
        "the transitions are not in order of time, but a source needs whole episodes",
        where=str(resolve(spec, data_root)),
        remedy="use the recording it was drawn from; unordered data can only be a target",
    )


def load_data(spec: DataSpec, label: str, data_root: str | Path = ".", checks: Severities | None = None) -> Reading:
    """Read, check, subsample and label the file of `spec`; it may be unordered. Raises DataError.

    `checks` gives severities that differ from the default.
    """
    domain = parse_domain(spec.domain)
    path = resolve(spec, data_root)
    table, findings = read_table(
        path,
        robot=domain.robot_spec,
        checks=checks,
        columns=spec.columns,
        reward=spec.reward,
        action_bounds=spec.action_bounds,
    )
    if not spec.replacement and table.num_transitions < (spec.num_transitions or 0):
        message = f"holds {table.num_transitions} transitions where {spec.num_transitions} are asked for"
        fewer = regrade([found("fewer", message, place(path))], checks or {})
        raise_errors(fewer)
        findings = [*findings, *fewer]
    table = take(table, spec)
    if spec.subsample == "transitions":
        message = "transitions were drawn one by one, as asked for"
        findings = [*findings, Finding("unordered", "info", message, place(path))]
    return Reading(relabel(table, label, domain, spec.labelled_behavior), findings)


def take(table: EpisodeTable, spec: DataSpec) -> EpisodeTable:
    """The part of a table that `spec` selects: at most `num_episodes`, and exactly `num_transitions` if it has enough.

    `subsample: first` keeps the order of the file; `episodes` draws whole episodes by `seed` and truncates the last one
    at `num_transitions`; `transitions` draws rows, and each becomes an episode of one step.
    """
    if spec.num_transitions is None and spec.num_episodes is None:
        return table
    generator = np.random.default_rng(spec.seed)
    if spec.subsample == "transitions":
        assert spec.num_transitions is not None, "the configuration requires it"
        count = spec.num_transitions if spec.replacement else min(spec.num_transitions, table.num_transitions)
        return _single_steps(table, generator.choice(table.num_transitions, count, replace=spec.replacement))
    if spec.replacement:
        # An episode has at least one transition, so `num_transitions` draws are always enough.
        drawn = generator.integers(0, table.num_episodes, spec.num_episodes or spec.num_transitions)
    elif spec.subsample == "episodes":
        drawn = generator.permutation(table.num_episodes)
    else:
        drawn = np.arange(table.num_episodes)
    drawn = drawn[: spec.num_episodes]
    if spec.num_transitions is None:
        return table.select(drawn)
    enough = int(np.searchsorted(np.cumsum(table.lengths[drawn]), spec.num_transitions)) + 1
    return table.select(drawn[:enough]).head(spec.num_transitions)


def _single_steps(table: EpisodeTable, rows: NDArray[np.int64]) -> EpisodeTable:
    """The given transitions, each as its own episode; a transition that is not terminal is truncated."""
    terminated, episode = table.terminal_rows[rows] > 0.5, table.episode_of_row[rows]
    return table.replace(
        **{name: getattr(table, name)[rows] for name in ("observation", "action", "reward", "next_observation")},
        offsets=np.arange(len(rows) + 1),
        terminated=terminated,
        truncated=~terminated,
        episode_id=tuple(f"{index:06d}" for index in range(len(rows))),
        **{name: tuple(getattr(table, name)[index] for index in episode) for name in LABELS},
    )


def mix_sources(config: ExperimentData) -> list[SourceSpec]:
    """The sources of an experiment with weights turned into numbers of transitions.

    The numbers sum to `mix.num_transitions`, and each is within one transition of its weight's share.
    Raises ConfigError when a share is less than one transition.
    """
    total = config.mix.num_transitions
    if total is None:
        return list(config.sources)
    weights = [source.weight or 0.0 for source in config.sources]
    counts = apportion(np.asarray(weights) / sum(weights), total)
    for source, count in zip(config.sources, counts, strict=True):
        if not count:
            raise ConfigError(
                f"a weight of {source.weight:g} is less than one of {total:,} transitions",
                where=f"sources · {source.label}",
                remedy="leave the source out, or raise its weight or mix.num_transitions",
            )
    return [
        source.model_copy(update={"weight": None, "num_transitions": int(count)})
        for source, count in zip(config.sources, counts, strict=True)
    ]


def skips(config: ExperimentData, spec: DataSpec) -> bool:
    """Whether the mix goes on without this source if it cannot be used; never true for the target."""
    return isinstance(spec, SourceSpec) and (spec.on_error or config.mix.on_error) == "skip"


def held_out_episodes(num_episodes: int, fraction: float, seed: int, source: str) -> NDArray[np.int64]:
    """Episodes of a source (sorted indices) that are held out for validation; they depend on seed and name alone.

    With a fraction above 0 and at least two episodes, at least one is held out and at least one is left.
    """
    if not fraction or num_episodes < 2:
        return np.empty(0, dtype=np.int64)
    count = min(max(round(fraction * num_episodes), 1), num_episodes - 1)
    generator = np.random.default_rng([seed, zlib.crc32(source.encode())])
    return np.sort(generator.permutation(num_episodes)[:count])


def mix_name(config: ExperimentData, key: str) -> str:
    """A mix in one line: its parts, and the first digits of the `key`, which hashes everything in it."""
    if not config.sources:
        return "no sources: the target alone"
    parts = [
        f"{source.label} {source.num_transitions:,}" if source.num_transitions else source.label
        for source in mix_sources(config)
    ]
    held_out = config.mix.validation_fraction
    return f"mix {key[:8]}: {' + '.join(parts)}" + (f", {held_out:.0%} of the episodes held out" if held_out else "")


def mix_manifest(
    config: ExperimentData,
    key: str,
    refused: Sequence[Mapping[str, str]] = (),
    held_out: Mapping[str, NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """The entries about the mix in the manifest of a combined table.

    Args:
        key: hashes everything that determines the mix.
        refused: `source` and `reason` of each source that was left out.
        held_out: source name to the indices of its episodes that are in `validation` instead of the table.
    """
    validation = {
        "fraction": config.mix.validation_fraction,
        "seed": config.mix.seed,
        "episodes": {name: episodes.tolist() for name, episodes in (held_out or {}).items()},
    }
    return {"mix": {"name": mix_name(config, key), "hash": key}, "refused": list(refused), "validation": validation}


def apportion(fractions: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers that sum to `total`, in proportion to `fractions`; the largest remainders round up."""
    exact = fractions * total
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def relabel(table: EpisodeTable, label: str, domain: Domain, behavior: str | None = None) -> EpisodeTable:
    """Label every episode. Without `behavior`, each keeps its own label, such as the component that collected it."""
    labelled = table.labelled(source=label, domain=domain.name, behavior=behavior or "unknown")
    return labelled if behavior else labelled.replace(behavior=table.behavior)


def resolve(spec: DataSpec, data_root: str | Path) -> Location:
    """The location of the data of `spec`: its path or URI, relative to `data_root` (path or URI) unless absolute.

    Local paths become absolute, because Ray workers run in another directory. A published Minari dataset
    (`minari://ID`) is downloaded once. Raises DataError for an address that cannot be used.
    """
    assert spec.path is not None, "only data with a path is read"
    if "://" in spec.path:
        return resolve_location(spec.path)
    if "://" in str(data_root):
        return locate(f"{str(data_root).rstrip('/')}/{spec.path}")
    return locate((Path(data_root) / Path(spec.path).expanduser()).absolute())


def collection_requests(spec: DataSpec) -> list[CollectionRequest]:
    """The roll-outs that a `spec` without path needs: one request per policy of its behaviour.

    Fractions become whole numbers that sum to `num_transitions`.
    """
    assert spec.path is None and spec.num_transitions is not None, "the configuration requires one of the two"
    domain, policy_domain = parse_domain(spec.domain), parse_domain(spec.policy_domain or spec.domain)
    require_same_robot(policy_domain, domain)
    components = behavior_components(policy_domain, spec.behavior)
    counts = apportion(np.asarray([fraction for _, fraction in components]), spec.num_transitions)
    return [
        CollectionRequest(domain.name, policy_domain.name, component, int(count), spec.seed, spec.noise_std)
        for (component, _), count in zip(components, counts, strict=True)
        if count
    ]
