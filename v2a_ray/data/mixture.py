"""The parts of a source mix and the target: from a specification to a labelled table.

A part is read from a file or collected by roll-outs; this module reads, and says what has to be collected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v2a_ray.config import DataSpec, SourceSpec
from v2a_ray.data.findings import Finding, Reading, place
from v2a_ray.data.readers import read_table
from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.domains.behaviors import behavior_components
from v2a_ray.errors import DataError

TARGET_LABEL = "target"


@dataclass(frozen=True)
class CollectionRequest:
    """Transitions to be collected by one policy.

    Attributes:
        domain: canonical name.
        policy_domain: canonical name of the domain whose policy acts.
        component: the policy, one that `load_behavior` knows.
        num_transitions: exactly as many.
        seed: of the episodes.
        noise_std: standard deviation of the Gaussian action noise; actions are in [-1, 1].
    """

    domain: str
    policy_domain: str
    component: str
    num_transitions: int
    seed: int
    noise_std: float


def load_source(spec: SourceSpec, data_root: str | Path = ".") -> Reading:
    """Read, check, cut and label a source that has a `path`. Raises DataError, also for unordered transitions."""
    reading = load_data(spec, spec.label, data_root)
    if not reading.ordered:
        raise DataError(
            "the transitions are not in order of time, so whole episodes, which tell dynamics apart, cannot be had",
            where=str(resolve(spec, data_root)),
            remedy="use the recording it was drawn from; unordered data can only be a target",
        )
    return reading


def load_data(spec: DataSpec, label: str, data_root: str | Path = ".") -> Reading:
    """Read and check the file of `spec`, take what it asks for, and label it; it may be unordered. Raises DataError."""
    domain = parse_domain(spec.domain)
    path = resolve(spec, data_root)
    table, findings = read_table(path, robot=domain.robot_spec)
    if spec.num_transitions is not None:
        if table.num_transitions < spec.num_transitions:
            message = f"holds {table.num_transitions} transitions where {spec.num_transitions} are asked for"
            findings = [*findings, Finding("fewer", "warning", message, place(path), "lower num_transitions")]
        table = take(table, spec)
    return Reading(relabel(table, label, domain, spec.behavior), findings)


def take(table: EpisodeTable, spec: DataSpec) -> EpisodeTable:
    """Exactly `num_transitions` of a table (all of it, if it has fewer); the last episode is cut where they end.

    `subsample: first` keeps the order of the file, `episodes` draws whole episodes without replacement by `seed`.
    """
    if spec.num_transitions is None:
        return table
    if spec.subsample == "first":
        return table.head(spec.num_transitions)
    drawn = np.random.default_rng(spec.seed).permutation(table.num_episodes)
    enough = int(np.searchsorted(np.cumsum(table.lengths[drawn]), spec.num_transitions)) + 1
    return table.select(drawn[:enough]).head(spec.num_transitions)


def relabel(table: EpisodeTable, label: str, domain: Domain, behavior: str | None = None) -> EpisodeTable:
    """Label every episode; without `behavior` each keeps its own, such as the component that collected it."""
    labelled = table.labelled(source=label, domain=domain.name, behavior=behavior or "unknown")
    return labelled if behavior else labelled.replace(behavior=table.behavior)


def resolve(spec: DataSpec, data_root: str | Path) -> Path:
    """Absolute path of the file of `spec`: Ray workers run in another directory."""
    assert spec.path is not None, "only data with a path is read"
    return (Path(data_root) / Path(spec.path).expanduser()).absolute()


def collection_requests(spec: DataSpec) -> list[CollectionRequest]:
    """What has to be collected for a `spec` without path: one request per policy of its behaviour.

    Fractions become whole numbers that sum to `num_transitions`; the largest remainders round up.
    """
    assert spec.path is None and spec.num_transitions is not None, "config.py requires one of the two"
    domain, policy_domain = parse_domain(spec.domain), parse_domain(spec.policy_domain or spec.domain)
    components = behavior_components(policy_domain, spec.behavior)
    exact = np.asarray([fraction for _, fraction in components]) * spec.num_transitions
    counts = np.floor(exact).astype(int)
    missing = spec.num_transitions - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return [
        CollectionRequest(domain.name, policy_domain.name, component, int(count), spec.seed, spec.noise_std)
        for (component, _), count in zip(components, counts, strict=True)
        if count
    ]
