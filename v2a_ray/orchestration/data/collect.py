"""Collects transitions with parallel Ray actors: the table does not depend on the number of actors.

Actors get episode indices in order. The result is the shortest run of episodes 0, 1, 2, ... that reaches the number of
transitions, cut to it exactly; further episodes are thrown away. `ray.init` must have been called.

If an actor dies, with its node or alone, another actor collects its current episodes again. A journal keeps finished
episodes as they arrive: a killed collection loses only its actors' current episodes (a few seconds), and gives the same
table when it is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from v2a_ray.data.collection.journal import EpisodeJournal
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.config import TARGET_LABEL, DataSpec, SourceSpec
from v2a_ray.data.mixing.mixture import CollectionRequest, collection_requests, relabel
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.domains import parse_domain
from v2a_ray.engine.plan import weights_digest
from v2a_ray.engine.store import STAGE_VERSION
from v2a_ray.errors import DataError
from v2a_ray.experiments.plugins import all_sources, load_shipped
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.orchestration.cluster.node_loss import node_was_lost
from v2a_ray.settings.environment_names import without_folders

Progress = Callable[[int, int], None]

# The smallest task simulates for about a tenth of a second, long against a Ray call. The largest takes a few seconds:
# episodes side by side are cheaper than one by one, and the last tasks should still end at about the same time.
SMALLEST_TASK_STEPS, LARGEST_TASK_STEPS = 500, 8000
MAX_DEATHS = 3
"""How many actors may die on the same episodes, lost nodes aside: a crashing simulation crashes every time."""


def collect_data(
    specs: Sequence[DataSpec],
    *,
    num_actors: int | None = None,
    progress: Progress | None = None,
    journals: Sequence[Path] | None = None,
) -> list[EpisodeTable]:
    """Collect and label the data of `specs` without a path: one table per spec, with its components one after another.

    Give all specs at once: starting actors takes longer than collecting a small table.

    Args:
        num_actors: at most; by default one per CPU that the cluster can have, and no more than there is work for.
        progress: called as progress(done_transitions, total) over all specs.
        journals: a folder per spec for finished episodes; the caller removes it when the tables are safe.

    Raises:
        DomainError: no such domain or behaviour.
        DataError: every actor died on the same episodes.
        StorageError: a journal cannot be written.
    """
    requests = [collection_requests(spec) for spec in specs]
    opened = [
        _open_journal(journals[index] / without_folders(request.component), request) if journals else None
        for index, group in enumerate(requests)
        for request in group
    ]
    flat = [request for group in requests for request in group]
    collected = iter(collect(flat, num_actors=num_actors, progress=progress, journals=opened))
    tables = []
    for spec, group in zip(specs, requests, strict=True):
        table = concatenate([next(collected) for _ in group])
        label = spec.label if isinstance(spec, SourceSpec) else TARGET_LABEL
        tables.append(relabel(table, label, parse_domain(spec.domain)))
    return tables


def collect(
    requests: Sequence[CollectionRequest],
    *,
    num_actors: int | None = None,
    progress: Progress | None = None,
    journals: Sequence[EpisodeJournal | None] | None = None,
) -> list[EpisodeTable]:
    """One table per request, with exactly its number of transitions. `progress(done_transitions, total)` over all."""
    total = sum(request.num_transitions for request in requests)
    num_actors = num_actors or max(1, min(capacity().room({"CPU": 1}), math.ceil(total / SMALLEST_TASK_STEPS)))
    finished = 0

    def report(done_transitions: int) -> None:
        if progress:
            progress(finished + done_transitions, total)

    pool = _Pool(num_actors)
    tables = []
    try:
        for request, journal in zip(requests, journals or [None] * len(requests), strict=True):
            tables.append(_collect_one(request, pool, report, journal))
            finished += request.num_transitions
    finally:
        pool.close()
    return tables


class _Collector:
    """An actor that keeps the environment of its current request."""

    def __init__(self, plugins: Mapping[str, str]) -> None:
        load_shipped(plugins)  # Requests name robots, which may be a plugin's.
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
    """Actors that take tasks as soon as they run: one is enough, and the others may come with nodes that join later."""

    def __init__(self, num_actors: int) -> None:
        self.actor_class = ray.remote(num_cpus=1)(_Collector)
        self.actors: list[Any] = []
        self.idle: list[Any] = []
        self.busy: dict[Any, Any] = {}
        for _ in range(num_actors):
            self._start()

    def _start(self) -> None:
        self.actors.append(self.actor_class.remote(all_sources()))
        self.busy[self.actors[-1].started.remote()] = self.actors[-1]

    def submit(self, request: CollectionRequest, indices: Sequence[int]) -> Any:
        """Give episodes to an idle actor; returns the reference to wait for."""
        actor = self.idle.pop()
        reference = actor.collect.remote(request, indices)
        self.busy[reference] = actor
        return reference

    def wait(self) -> Any:
        """The next finished reference; its actor is idle again, or dead."""
        ready, _ = ray.wait(list(self.busy), num_returns=1)
        self.idle.append(self.busy.pop(ready[0]))
        return ready[0]

    def replace_dead(self) -> None:
        """Replace idle actors that are dead: one actor has died, and others may have been on the same node."""
        for actor in [each for each in self.idle if not _is_alive(each)]:
            self.idle.remove(actor)
            self.actors.remove(actor)
            self._start()

    def close(self) -> None:
        """Kill the actors, busy or not."""
        for actor in self.actors:
            ray.kill(actor)


def _collect_one(
    request: CollectionRequest, pool: _Pool, report: Callable[[int], None], journal: EpisodeJournal | None
) -> EpisodeTable:
    """Keep the actors busy until the episodes from index 0 on, without a gap, hold enough transitions."""
    running: dict[Any, range] = {}
    deaths: dict[int, int] = {}
    run = _Run(journal.load() if journal else {})
    while run.num_transitions < request.num_transitions:
        # At least one task runs; more tasks start only while the running ones are not expected to be enough.
        while pool.idle and (
            not running or run.needs_hands or run.next_index * run.mean_length < request.num_transitions
        ):
            num_missing = request.num_transitions - run.next_index * run.mean_length
            # The first tasks of a request have one episode each, to measure how long episodes are.
            count = _num_episodes(num_missing, run.mean_length, len(pool.actors)) if run.mean_length else 1
            indices = run.hand_out(count)
            running[pool.submit(request, indices)] = indices
        reference = pool.wait()
        if reference not in running:
            continue  # An actor that has just started, or a surplus task of the last request.
        indices = running.pop(reference)
        try:
            table = _get(reference)
        except ray.exceptions.RayActorError as error:
            deaths[indices.start] = deaths.get(indices.start, 0) + (not node_was_lost(error))
            if deaths[indices.start] > MAX_DEATHS:
                raise _fatal(request, indices, deaths[indices.start]) from error
            pool.replace_dead()
            run.hand_back(indices)
            continue
        if journal:
            journal.add(indices.start, table)
        run.add(indices.start, table)
        report(min(run.num_transitions, request.num_transitions))
    return concatenate(run.tables).head(request.num_transitions)


class _Run:
    """Episodes of a request: done from index 0 on without a gap, done beyond a gap, and to be handed out next."""

    def __init__(self, finished: dict[int, EpisodeTable]) -> None:
        self.tables: list[EpisodeTable] = []
        self.num_transitions = 0
        self.next_index = 0
        self.mean_length = 0.0
        self._num_episodes = 0
        self._beyond = dict(finished)
        self._returned: list[range] = []
        # Episodes of an earlier session, which need not be collected.
        self._kept = {index: table.num_episodes for index, table in finished.items()}
        if finished:
            counts = [(table.num_transitions, table.num_episodes) for table in finished.values()]
            num_steps, num_episodes = map(sum, zip(*counts, strict=True))
            self.mean_length = num_steps / num_episodes
        self._extend()

    def hand_out(self, count: int) -> range:
        """Indices that were handed back, else the lowest consecutive indices not handed out yet, at most `count`."""
        if self._returned:
            return self._returned.pop()
        while self.next_index in self._kept:
            self.next_index += self._kept[self.next_index]
        end = min([self.next_index + count, *(index for index in self._kept if index > self.next_index)])
        indices = range(self.next_index, end)
        self.next_index = end
        return indices

    def hand_back(self, indices: range) -> None:
        """Return indices whose actor died."""
        self._returned.append(indices)

    @property
    def needs_hands(self) -> bool:
        """Whether handed-back episodes wait for an actor; the table needs them."""
        return bool(self._returned)

    def add(self, first_index: int, table: EpisodeTable) -> None:
        """Add finished episodes that start at `first_index`."""
        self._beyond[first_index] = table
        self.mean_length = table.num_transitions / table.num_episodes
        self._extend()

    def _extend(self) -> None:
        while self._num_episodes in self._beyond:
            self.tables.append(self._beyond.pop(self._num_episodes))
            self._num_episodes += self.tables[-1].num_episodes
            self.num_transitions += self.tables[-1].num_transitions


def _is_alive(actor: Any) -> bool:
    """Whether an idle actor answers."""
    try:
        ray.get(actor.started.remote())
    except ray.exceptions.RayActorError:
        return False
    return True


def _fatal(request: CollectionRequest, indices: range, num_deaths: int) -> DataError:
    return DataError(
        f"episodes {indices[0]} to {indices[-1]} cannot be collected: their process died {num_deaths} times",
        where=f"{request.domain} {request.component}",
        remedy="look into Ray's log of the worker; too little memory kills processes too",
    )


def _open_journal(folder: Path, request: CollectionRequest) -> EpisodeJournal:
    """The journal of a request; a policy with new weights makes it another request."""
    weights = weights_digest(parse_domain(request.policy_domain), request.component)
    return EpisodeJournal(folder, {**asdict(request), "weights": weights, "version": STAGE_VERSION})


def _num_episodes(num_missing: float, mean_length: float, num_actors: int) -> int:
    """Episodes of the next task: half an actor's share of the transitions not yet handed out, within limits."""
    steps = min(max(num_missing / (2 * num_actors), SMALLEST_TASK_STEPS), LARGEST_TASK_STEPS)
    return max(1, int(steps / mean_length))


def _get(reference: Any) -> EpisodeTable:
    """The result, or the error that the actor raised, without Ray's traceback around it."""
    try:
        table: EpisodeTable = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return table
