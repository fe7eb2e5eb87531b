"""Collecting transitions with parallel Ray actors: the same table whatever the number of actors.

Episode indices are handed out in order. The result is the shortest run of episodes 0, 1, 2, ... that reaches the number
of transitions, cut to it exactly; what actors rolled out beyond that is thrown away. `ray.init` was called before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from v2a_ray.config import DataSpec, SourceSpec
from v2a_ray.data.collect import EpisodeCollector
from v2a_ray.data.mixture import TARGET_LABEL, CollectionRequest, collection_requests, relabel
from v2a_ray.data.table import EpisodeTable, concatenate
from v2a_ray.domains import parse_domain

Progress = Callable[[int, int], None]

# About a tenth of a second of simulation, long against a Ray call; and a few seconds: episodes side by side are cheaper
# than one by one, and the last tasks should still end at about the same time.
SMALLEST_TASK_STEPS, LARGEST_TASK_STEPS = 500, 8000


def collect_data(
    specs: Sequence[DataSpec], *, num_actors: int | None = None, progress: Progress | None = None
) -> list[EpisodeTable]:
    """Collect and label what `specs` without path ask for: one table each, components one after another in it.

    Give all specs at once: starting actors takes longer than collecting a small table.

    Args:
        num_actors: by default one per CPU of the cluster.
        progress: called as progress(done_transitions, total) over all specs.

    Raises:
        DomainError: no such domain or behaviour.
    """
    requests = [collection_requests(spec) for spec in specs]
    collected = iter(collect([each for group in requests for each in group], num_actors=num_actors, progress=progress))
    tables = []
    for spec, group in zip(specs, requests, strict=True):
        table = concatenate([next(collected) for _ in group])
        label = spec.label if isinstance(spec, SourceSpec) else TARGET_LABEL
        tables.append(relabel(table, label, parse_domain(spec.domain)))
    return tables


def collect(
    requests: Sequence[CollectionRequest], *, num_actors: int | None = None, progress: Progress | None = None
) -> list[EpisodeTable]:
    """One table per request, with exactly its number of transitions. `progress(done_transitions, total)` over all."""
    num_actors = num_actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
    total = sum(request.num_transitions for request in requests)
    finished = 0

    def report(done_transitions: int) -> None:
        if progress:
            progress(finished + done_transitions, total)

    pool = _Pool(num_actors)
    tables = []
    try:
        for request in requests:
            tables.append(_collect_one(request, pool, report))
            finished += request.num_transitions
    finally:
        pool.close()
    return tables


class _Collector:
    """An actor that keeps the environment of the request it works on."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] = ()
        self.collector: EpisodeCollector | None = None

    def started(self) -> None:
        """Returns once the actor runs."""

    def collect(self, request: CollectionRequest, indices: Sequence[int]) -> EpisodeTable:
        key = (request.domain, request.component, request.seed, request.noise_std, request.policy_domain)
        if self.collector is None or key != self.key:
            domain, policy_domain = parse_domain(request.domain), parse_domain(request.policy_domain)
            self.collector = EpisodeCollector(domain, request.component, request.seed, request.noise_std, policy_domain)
            self.key = key
        return self.collector.collect(indices)


class _Pool:
    """Actors that take tasks as soon as they run: one that finds no free CPU is waited for by nobody."""

    def __init__(self, num_actors: int) -> None:
        actor_class = ray.remote(num_cpus=1)(_Collector)
        self.actors = [actor_class.remote() for _ in range(num_actors)]
        self.idle: list[Any] = []
        self.busy = {actor.started.remote(): actor for actor in self.actors}

    def submit(self, request: CollectionRequest, indices: Sequence[int]) -> Any:
        """Give episodes to an idle actor; returns the reference to wait for."""
        actor = self.idle.pop()
        reference = actor.collect.remote(request, indices)
        self.busy[reference] = actor
        return reference

    def wait(self) -> Any:
        """The next reference that is done; its actor is idle again."""
        ready, _ = ray.wait(list(self.busy), num_returns=1)
        self.idle.append(self.busy.pop(ready[0]))
        return ready[0]

    def close(self) -> None:
        """End the actors, whatever they do."""
        for actor in self.actors:
            ray.kill(actor)


def _collect_one(request: CollectionRequest, pool: _Pool, report: Callable[[int], None]) -> EpisodeTable:
    """Keep the actors busy until the episodes without a gap in their indices are enough."""
    running: dict[Any, int] = {}
    done: dict[int, EpisodeTable] = {}
    run: list[EpisodeTable] = []
    num_transitions = num_in_run = num_requested = 0
    # The first tasks of a request are one episode each, which tells how long episodes are.
    mean_length = 0.0
    while num_transitions < request.num_transitions:
        # At least one task runs; more only while those under way are not expected to be enough.
        while pool.idle and (not running or num_requested * mean_length < request.num_transitions):
            num_missing = request.num_transitions - num_requested * mean_length
            num_per_task = _num_episodes(num_missing, mean_length, len(pool.actors)) if mean_length else 1
            indices = range(num_requested, num_requested + num_per_task)
            running[pool.submit(request, indices)] = indices.start
            num_requested = indices.stop
        reference = pool.wait()
        if reference not in running:
            continue  # An actor that has just started, or one that finished more than the last request needed.
        table = _get(reference)
        done[running.pop(reference)] = table
        mean_length = table.num_transitions / table.num_episodes
        while num_in_run in done:
            run.append(done.pop(num_in_run))
            num_in_run += run[-1].num_episodes
            num_transitions += run[-1].num_transitions
        report(min(num_transitions, request.num_transitions))
    return concatenate(run).head(request.num_transitions)


def _num_episodes(num_missing: float, mean_length: float, num_actors: int) -> int:
    """Episodes of the next task: half an actor's share of the transitions that nobody works on yet, within limits."""
    steps = min(max(num_missing / (2 * num_actors), SMALLEST_TASK_STEPS), LARGEST_TASK_STEPS)
    return max(1, int(steps / mean_length))


def _get(reference: Any) -> EpisodeTable:
    """The result, or the error as the actor raised it: a user's mistake must not arrive wrapped in Ray's traceback."""
    try:
        table: EpisodeTable = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return table
