"""Computes the missing nodes of plans on Ray, as tasks and actors, in parallel where the plan allows it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact, ArtifactStore
from v2a_ray.engine.trainer import Progress
from v2a_ray.errors import ENDS_ALL, StorageError, V2AError
from v2a_ray.orchestration.cluster.away_from_head import away_from_head
from v2a_ray.orchestration.cluster.capacity import Capacity, capacity
from v2a_ray.orchestration.cluster.gpus import (
    gpu_share,
    most_gpus,
    require_gpus,
    reserved_gpu,
    stage_device,
    stage_workers,
)
from v2a_ray.orchestration.cluster.join import require_code
from v2a_ray.orchestration.cluster.node_loss import node_was_lost
from v2a_ray.orchestration.cluster.node_watch import NodeWatch
from v2a_ray.orchestration.cluster.session import user_error
from v2a_ray.orchestration.data.table_nodes import make_data, make_source
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.orchestration.train.memory import file_memory, reserved_memory, stage_memory
from v2a_ray.orchestration.train.progress_actor import make_progress_actor, reporter
from v2a_ray.orchestration.train.work import Work, input_paths, stage_threads
from v2a_ray.stages.policy.batched_jobs import fit_policies
from v2a_ray.stages.registered import fit_of

MAX_RETRIES = 2
"""Further attempts of a stage whose process dies, lost nodes aside; each continues from the stage's checkpoint."""


WATCH_SECONDS = 2.0
"""Between two looks at what the watch over late nodes has found."""


def compute_all(
    works: Sequence[Work],
    store: ArtifactStore,
    listener: Listener,
    watch: NodeWatch | None = None,
    failed: dict[str, Exception] | None = None,
) -> dict[str, Artifact]:
    """Artifacts of all nodes, by key: found in the store, or computed as soon as their inputs exist.

    `works` must include every node's inputs. Nodes that several plans share are computed once.

    Without `failed`, the first failure is raised. With it, nodes that failed or whose inputs did go there, by key, with
    the error, and the others go on, unless the storage or the cluster is at fault.

    Raises:
        ConfigError: a node requires a GPU that the cluster lacks; raised before anything is computed.
        V2AError: of a node that failed because of the user's settings or data, or what `watch` has found wrong with a
            late node of the cluster. Other errors pass unchanged.
    """
    waiting = {work.node.key: work for work in works}
    artifacts: dict[str, Artifact] = {}
    with store.surveyed([(work.node.stage, key) for key, work in waiting.items()]):
        for key, work in list(waiting.items()):
            if found := store.find(work.node.stage, key):
                artifacts[key] = found
                listener.done(work.shown, found)
                del waiting[key]
    if not waiting:
        return artifacts
    require_gpus(((work.config, work.node.stage) for work in waiting.values()), most_gpus())
    progress_actor = make_progress_actor()
    reports = _Reports(listener)
    running: dict[Any, list[Work]] = {}
    failures: Counter[str] = Counter()
    drained = progress_actor.drain.remote()
    try:
        while waiting or running:
            if watch:
                watch.raise_problem()
            there = capacity()
            reserved = Counter(_reservation(group, there) for group in running.values())
            for group in _ready(waiting, artifacts):
                asked = _reservation(group, there)
                if not asked.fits(there, reserved[asked]):
                    continue
                reserved[asked] += 1
                for work in group:
                    del waiting[work.node.key]
                    reports.queued(work.shown)
                running[_submit(group, there, store, progress_actor)] = group
            ready, _ = ray.wait([*running, drained], timeout=WATCH_SECONDS)
            if drained in ready:
                ready.remove(drained)
                reports.pass_on(ray.get(drained))
                drained = progress_actor.drain.remote()
            for reference in ready:
                group = running.pop(reference)
                try:
                    made = _result(reference, group, failures)
                except Exception as error:
                    if failed is None or isinstance(error, ENDS_ALL):
                        _say_failed(group, error, listener)
                        raise
                    if len(group) == 1:
                        _say_failed(group, error, listener)
                        _leave_out(group[0], error, waiting, failed)
                        continue
                    made, again = None, [[work] for work in group]  # whoever is at fault fails again, alone
                else:
                    again = [group]
                if made is None:
                    for each in again:
                        running[_submit(each, there, store, progress_actor)] = each
                    continue
                for work, artifact in zip(group, made, strict=True):
                    artifacts[work.node.key] = here = store.here(artifact)
                    reports.done(work.shown, here)
    finally:
        for reference in running:
            ray.cancel(reference, force=False)
        ray.kill(progress_actor)
    return artifacts


class _Reports:
    """Turns the events of submitted nodes into calls of a listener: a node runs once it has reported."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.nodes: dict[str, Node] = {}
        """By key: submitted and not done."""
        self.started: set[str] = set()

    def queued(self, node: Node) -> None:
        """A node was submitted."""
        self.nodes[node.key] = node
        self.listener.queued(node)

    def pass_on(self, events: Sequence[Event]) -> None:
        """Pass on what nodes reported. What comes after a node's end is dropped."""
        for event in events:
            if event.key in self.nodes:
                self._start(event.key)
                self.listener.progressed(event)

    def done(self, node: Node, artifact: Artifact) -> None:
        """A node's task has ended; it may have been too short to be heard before."""
        self._start(node.key)
        del self.nodes[node.key]
        self.listener.done(node, artifact)

    def _start(self, key: str) -> None:
        if key not in self.started:
            self.started.add(key)
            self.listener.started(self.nodes[key])


def _ready(waiting: Mapping[str, Work], artifacts: Mapping[str, Artifact]) -> list[list[Work]]:
    """Nodes whose inputs all exist; roll-outs of data form one group, because their actors take long to start."""
    ready = [
        work for work in waiting.values() if all(work.plan[name].key in artifacts for name in work.node.inputs.values())
    ]
    rollouts = [work for work in ready if work.node.spec and work.node.spec.path is None]
    others = [[work] for work in ready if work not in rollouts]
    return [*others, rollouts] if rollouts else others


@dataclass(frozen=True)
class _Reservation:
    """What a task reserves."""

    cpus: float
    gpus: float = 0.0

    def fits(self, there: Capacity, running: int) -> bool:
        """Whether the cluster has, or can add, a node for one more task like this one; `running` is their number.

        Where nodes are fixed a task may wait in Ray. Where they are not, it would start a node of another type.
        """
        if not there.elastic or there.unknown or not (self.cpus or self.gpus):
            return True
        return running < max(1, there.room({"CPU": self.cpus, "GPU": self.gpus}))


def _reservation(group: Sequence[Work], there: Capacity) -> _Reservation:
    node, config = group[0].node, group[0].config
    if node.stage == "data":
        # The task of a roll-out reserves no CPU, because its actors do. One process per core reads files.
        return _Reservation(0 if node.spec and node.spec.path is None else 1)
    # The task of a data-parallel stage reserves no CPU and no GPU, because its workers do.
    if node.stage == "source" or stage_workers(config, node.stage) > 1:
        return _Reservation(0)
    return _Reservation(stage_threads(group[0]), gpu_share(stage_device(config, node.stage), there.total("GPU")))


def _submit(group: Sequence[Work], there: Capacity, store: ArtifactStore, progress_actor: Any) -> Any:
    node, asked = group[0].node, _reservation(group, there)
    options: dict[str, Any] = {"max_retries": 0, "num_cpus": asked.cpus, "num_gpus": asked.gpus}
    if not (asked.cpus or asked.gpus):
        options |= away_from_head()
    elif node.stage == "data":
        options |= reserved_memory(file_memory(group[0]), there)
    else:
        options |= reserved_memory(stage_memory(group[0], store), there)
    if node.stage == "data":
        return make_data.options(**options).remote(group, store, progress_actor)
    if node.stage == "source":
        return make_source.options(**options).remote(group[0], store, progress_actor)
    return _make_stage.options(**options).remote(group[0], store, progress_actor)


def _result(reference: Any, group: Sequence[Work], failures: Counter[str]) -> list[Artifact] | None:
    """The artifacts of a task, or None if its process died and it is to be started again. A failure is raised."""
    try:
        artifacts: list[Artifact] = ray.get(reference)
    except ray.exceptions.RayError as error:
        mine = user_error(error)
        if not mine and _may_start_again(error, group[0].node.key, failures):
            return None
        if mine:
            raise mine from None
        raise
    return artifacts


def failure_reason(error: Exception) -> str:
    """Why something failed, in one line."""
    return error.reason if isinstance(error, V2AError) else str(error).strip().splitlines()[-1]


def _say_failed(group: Sequence[Work], error: Exception, listener: Listener) -> None:
    for work in group:
        listener.failed(work.shown, failure_reason(error))


def _leave_out(work: Work, error: Exception, waiting: dict[str, Work], failed: dict[str, Exception]) -> None:
    """Count `work` as failed, and of what waits all that needs it."""
    failed[work.node.key] = error
    for other in list(waiting.values()):
        if other.node.key in waiting and work.node.key in {other.plan[name].key for name in other.node.inputs.values()}:
            del waiting[other.node.key]
            _leave_out(other, error, waiting, failed)


def _may_start_again(error: ray.exceptions.RayError, key: str, failures: Counter[str]) -> bool:
    """Whether a task's node was lost, or its process died and has attempts left."""
    if node_was_lost(error):
        return True
    if isinstance(error, ray.exceptions.WorkerCrashedError | ray.exceptions.OutOfMemoryError):
        failures[key] += 1
        return failures[key] <= MAX_RETRIES
    return False


@ray.remote
def _make_stage(work: Work, store: ArtifactStore, progress_actor: Any) -> list[Artifact]:
    """Make the artifact of a trained stage: its column, or the policy."""
    require_code(work.code)
    progress = reporter(progress_actor, work.node.key, work.node.name)
    progress(0, 0, {})
    return [make_stage(work, input_paths(work, store), store, progress)]


def make_stage(
    work: Work,
    inputs: Mapping[str, Path],
    store: ArtifactStore,
    progress: Callable[..., None],
) -> Artifact:
    """Fit a stage in this process, or with data-parallel workers if the configuration asks for them."""
    config, node = work.config, work.node
    fit = fit_of(node.stage, config)

    def make(output: Path, folder: Path) -> None:
        fit(Job(config, inputs, output, folder, progress, node.part, reserved_gpu()))

    return store.get_or_make(node.stage, node.key, make, _about(work, inputs))


def make_policies(works: Sequence[Work], store: ArtifactStore, progress: Sequence[Progress]) -> list[V2AError | None]:
    """Train policies with equal `policy_batch_key` in this process, batched; policies in the store are left out.

    Each policy reports to its own `progress`. Returns the error of each policy, None if its artifact exists.
    """
    with store.computing("policy", [work.node.key for work in works]):
        return _make_missing_policies(works, store, progress)


def _make_missing_policies(
    works: Sequence[Work], store: ArtifactStore, progress: Sequence[Progress]
) -> list[V2AError | None]:
    errors: list[V2AError | None] = [None] * len(works)
    missing = [index for index, work in enumerate(works) if not store.find("policy", work.node.key)]
    if not missing:
        return errors
    start = time.perf_counter()
    jobs = []
    for index in missing:
        config, inputs = works[index].config, input_paths(works[index], store)
        folder = store.work("policy", works[index].node.key)
        jobs.append(Job(config, inputs, folder / "finished", folder, progress[index], may_use_gpu=reserved_gpu()))
    try:
        with store.writing():
            for job in jobs:
                job.output.mkdir(parents=True, exist_ok=True)
            trained = fit_policies(jobs)
    except StorageError:
        # Another sweep has finished some of these policies and removed their checkpoints.
        if any(store.find("policy", works[index].node.key) for index in missing):
            return make_policies(works, store, progress)
        raise
    seconds = (time.perf_counter() - start) / len(jobs)
    for index, job, error in zip(missing, jobs, trained, strict=True):
        errors[index] = error
        if error is None:
            about = _about(works[index], job.inputs)
            store.get_or_make("policy", works[index].node.key, partial(_move_files, job.output), about, seconds)
    return errors


def _move_files(source: Path, output: Path, _work: Path) -> None:
    for file in source.iterdir():
        file.rename(output / file.name)


def _about(work: Work, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Entries of an artifact's record besides its key."""
    return {
        "config": work.config.model_dump(mode="json"),
        "inputs": {role: str(path) for role, path in inputs.items()},
    }
