"""Computes the missing nodes of plans on Ray, as tasks and actors, in parallel where the plan allows it."""

from __future__ import annotations

import time
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
from v2a_ray.errors import DivergenceError, StorageError
from v2a_ray.orchestration.cluster.gpus import (
    cluster_gpus,
    gpu_share,
    require_gpus,
    reserved_gpu,
    stage_device,
    stage_workers,
)
from v2a_ray.orchestration.cluster.session import user_error
from v2a_ray.orchestration.data.table_nodes import make_data, make_source
from v2a_ray.orchestration.train.progress_actor import Event, make_progress_actor, reporter
from v2a_ray.orchestration.train.work import Work, input_paths, stage_threads
from v2a_ray.stages.policy.batched_jobs import fit_policies
from v2a_ray.stages.registered import fit_of

POLL_SECONDS = 0.25
MAX_RETRIES = 2
"""Further attempts of a stage whose worker dies; each continues from the stage's checkpoint."""


@dataclass
class Listener:
    """Callbacks for the driver: a node starts, reports, is done. By default they do nothing."""

    def started(self, node: Node) -> None:
        """A node's computation was handed to Ray."""

    def progressed(self, event: Event) -> None:
        """A node reported progress."""

    def done(self, node: Node, artifact: Artifact) -> None:
        """A node's artifact was computed or found in the store."""

    def warned(self, text: str) -> None:
        """The user should see this warning; the computation continues."""


def compute_all(works: Sequence[Work], store: ArtifactStore, listener: Listener) -> dict[str, Artifact]:
    """Artifacts of all nodes, by key: found in the store, or computed as soon as their inputs exist.

    `works` must include every node's inputs. Nodes that several plans share are computed once.

    Raises:
        ConfigError: a node requires a GPU that the cluster lacks; raised before anything is computed.
        V2AError: of a node that failed because of the user's settings or data. Other errors pass unchanged.
    """
    waiting = {work.node.key: work for work in works}
    artifacts: dict[str, Artifact] = {}
    for key, work in list(waiting.items()):
        if found := store.find(work.node.stage, key):
            artifacts[key] = found
            listener.done(work.node, found)
            del waiting[key]
    if not waiting:
        return artifacts
    require_gpus(((work.config, work.node.stage) for work in waiting.values()), cluster_gpus())
    progress_actor = make_progress_actor()
    running: dict[Any, list[Work]] = {}
    try:
        while waiting or running:
            for group in _ready(waiting, artifacts):
                for work in group:
                    del waiting[work.node.key]
                    listener.started(work.node)
                running[_submit(group, store, progress_actor)] = group
            ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for event in ray.get(progress_actor.drain.remote()):
                listener.progressed(event)
            for reference in ready:
                group = running.pop(reference)
                for work, made in zip(group, _result(reference), strict=True):
                    artifacts[work.node.key] = artifact = store.here(made)
                    listener.done(work.node, artifact)
    finally:
        for reference in running:
            ray.cancel(reference, force=False)
        ray.kill(progress_actor)
    return artifacts


def _ready(waiting: Mapping[str, Work], artifacts: Mapping[str, Artifact]) -> list[list[Work]]:
    """Nodes whose inputs all exist; roll-outs of data form one group, because their actors take long to start."""
    ready = [
        work for work in waiting.values() if all(work.plan[name].key in artifacts for name in work.node.inputs.values())
    ]
    rollouts = [work for work in ready if work.node.spec and work.node.spec.path is None]
    others = [[work] for work in ready if work not in rollouts]
    return [*others, rollouts] if rollouts else others


def _submit(group: Sequence[Work], store: ArtifactStore, progress_actor: Any) -> Any:
    node, config = group[0].node, group[0].config
    options: dict[str, Any] = {"max_retries": MAX_RETRIES, "num_cpus": 0}
    if node.stage == "data":
        # The task of a roll-out reserves no CPU, because its actors do. One process per core reads files.
        options["num_cpus"] = 0 if node.spec and node.spec.path is None else 1
        return make_data.options(**options).remote(group, store, progress_actor)
    if node.stage == "source":
        return make_source.options(**options).remote(group[0], store)
    # The task of a data-parallel stage reserves no CPU and no GPU, because its workers do.
    parallel = stage_workers(config, node.stage) > 1
    options["num_cpus"] = 0 if parallel else stage_threads(group[0])
    options["num_gpus"] = 0 if parallel else gpu_share(stage_device(config, node.stage), cluster_gpus())
    return _make_stage.options(**options).remote(group[0], store, progress_actor)


def _result(reference: Any) -> list[Artifact]:
    try:
        artifacts: list[Artifact] = ray.get(reference)
    except ray.exceptions.RayError as error:
        if mine := user_error(error):
            raise mine from None
        raise
    return artifacts


@ray.remote
def _make_stage(work: Work, store: ArtifactStore, progress_actor: Any) -> list[Artifact]:
    """Make the artifact of a trained stage: its column, or the policy."""
    progress = reporter(progress_actor, work.node.name)
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


def make_policies(
    works: Sequence[Work], store: ArtifactStore, progress: Sequence[Progress]
) -> list[DivergenceError | None]:
    """Train policies with equal `policy_batch_key` in this process, batched; policies in the store are left out.

    Each policy reports to its own `progress`. Returns the error of each policy, None if its artifact exists.
    """
    with store.computing("policy", [work.node.key for work in works]):
        return _make_missing_policies(works, store, progress)


def _make_missing_policies(
    works: Sequence[Work], store: ArtifactStore, progress: Sequence[Progress]
) -> list[DivergenceError | None]:
    errors: list[DivergenceError | None] = [None] * len(works)
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
