"""Computing the nodes of plans on Ray: what is missing, as tasks and actors, in parallel where the plan allows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from v2a_ray.config import ExperimentConfig, SourceSpec
from v2a_ray.data.checks import SourceFacts, check_facts, regrade
from v2a_ray.data.findings import Finding, raise_errors
from v2a_ray.data.mixture import TARGET_LABEL, held_out_episodes, load_data, load_source, mix_manifest, skips
from v2a_ray.data.store import count_episodes, read_table_folder, write_table
from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.errors import DataError
from v2a_ray.files import read_json, write_json
from v2a_ray.methods.execute import FIT
from v2a_ray.methods.job import Job
from v2a_ray.methods.plan import Node
from v2a_ray.orchestration.board import Event, ProgressBoard, reporter
from v2a_ray.orchestration.collect import collect_data
from v2a_ray.orchestration.ingest import IngestSource, ingest
from v2a_ray.orchestration.modality_workers import fit_modality_parallel
from v2a_ray.orchestration.session import user_error
from v2a_ray.stages.artifacts import Artifact, ArtifactStore

POLL_SECONDS = 0.25
REFUSED = "refused.json"
"""In the artifact of a source that is left out, instead of its table: its name and the reason."""
MAX_RETRIES = 2
"""How often a stage is tried again when its worker dies; it goes on from its checkpoint."""


@dataclass(frozen=True)
class Work:
    """A node of some experiment's plan that has to be there."""

    config: ExperimentConfig
    plan: Mapping[str, Node]
    node: Node


@dataclass
class Listener:
    """What the driver wants to hear: a node starts, reports, is done. Every method may be left as it is."""

    def started(self, node: Node) -> None:
        """A node's computation was handed to Ray."""

    def progressed(self, event: Event) -> None:
        """A node reported."""

    def done(self, node: Node, artifact: Artifact) -> None:
        """A node's artifact is there, computed or found."""


def compute_all(works: Sequence[Work], store: ArtifactStore, listener: Listener) -> dict[str, Artifact]:
    """Artifacts of all nodes, by key: found in the store, or computed as soon as their inputs are there.

    `works` holds every node's inputs too. Nodes that several plans share are computed once. Raises the V2AError of a
    node that fails through the user's doing, and the original error otherwise.
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
    board = ProgressBoard.remote()
    running: dict[Any, list[Work]] = {}
    try:
        while waiting or running:
            for group in _ready(waiting, artifacts):
                for work in group:
                    del waiting[work.node.key]
                    listener.started(work.node)
                running[_submit(group, store, board)] = group
            ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for event in ray.get(board.drain.remote()):
                listener.progressed(event)
            for reference in ready:
                group = running.pop(reference)
                for work, artifact in zip(group, _result(reference), strict=True):
                    artifacts[work.node.key] = artifact
                    listener.done(work.node, artifact)
    finally:
        for reference in running:
            ray.cancel(reference, force=False)
        ray.kill(board)
    return artifacts


def _ready(waiting: Mapping[str, Work], artifacts: Mapping[str, Artifact]) -> list[list[Work]]:
    """Nodes whose inputs are all there; roll-outs of data form one group, because their actors take long to start."""
    ready = [
        work for work in waiting.values() if all(work.plan[name].key in artifacts for name in work.node.inputs.values())
    ]
    rollouts = [work for work in ready if work.node.spec and work.node.spec.path is None]
    others = [[work] for work in ready if work not in rollouts]
    return [*others, rollouts] if rollouts else others


def _submit(group: Sequence[Work], store: ArtifactStore, board: Any) -> Any:
    node, config = group[0].node, group[0].config
    options: dict[str, Any] = {"max_retries": MAX_RETRIES, "num_cpus": 0}
    if node.stage == "data":
        # Roll-outs hold no CPU themselves, their actors do; files are read by as many processes as there are cores.
        options["num_cpus"] = 0 if node.spec and node.spec.path is None else 1
        return _make_data.options(**options).remote(group, store, board)
    inputs = input_paths(group[0], store)
    if node.stage == "source":
        return _make_source.options(**options).remote(group[0], inputs, store)
    # A data-parallel stage holds no CPU itself: its workers do.
    parallel = node.stage == "modality" and config.modality.num_workers > 1
    threads = 1 if node.stage == "rows" else getattr(config, node.stage).num_threads
    options["num_cpus"] = 0 if parallel else threads
    return _make_stage.options(**options).remote(group[0], inputs, store, board)


def _result(reference: Any) -> list[Artifact]:
    try:
        artifacts: list[Artifact] = ray.get(reference)
    except ray.exceptions.RayError as error:
        if mine := user_error(error):
            raise mine from None
        raise
    return artifacts


@ray.remote
def _make_data(group: Sequence[Work], store: ArtifactStore, board: Any) -> list[Artifact]:
    """Episode tables of data parts: one that is read from a file, or several that are rolled out together."""
    specs = [work.node.spec for work in group]
    rollouts = [spec for spec in specs if spec and spec.path is None]
    tables: Iterator[EpisodeTable] = iter(())
    start = time.perf_counter()
    if rollouts:
        report = reporter(board, group[0].node.name)
        journals = [store.work("data", work.node.key) for work in group]
        tables = iter(collect_data(rollouts, progress=lambda done, total: report(done, total, {}), journals=journals))
    # Roll-outs are made together, so each part is charged by its number of transitions.
    rate = (time.perf_counter() - start) / max(1, sum(spec.num_transitions or 0 for spec in rollouts))
    return [_store_part(work, store, next(tables, None), rate) for work in group]


def _store_part(work: Work, store: ArtifactStore, rolled_out: EpisodeTable | None, rate: float) -> Artifact:
    """Write one part; `rate` is the seconds that a rolled-out transition took."""
    spec, root, checks = work.node.spec, work.config.data_root, work.config.checks
    assert spec is not None

    def make(output: Path, _work: Path) -> None:
        try:
            fill(output)
        except DataError as error:
            if not skips(work.config, spec):
                raise
            write_json(output / REFUSED, {"source": work.node.name.removeprefix("data/"), "reason": str(error)})

    def fill(output: Path) -> None:
        if rolled_out is not None:
            table, findings = rolled_out, list[Finding]()
        elif isinstance(spec, SourceSpec):
            table, findings = load_source(spec, root, checks)
        else:
            table, findings = load_data(spec, TARGET_LABEL, root, checks)
        robot = parse_domain(spec.domain).robot
        write_table(table, output / "table", robot=robot, findings=findings, extra={"spec": spec.model_dump()})

    spent = rate * rolled_out.num_transitions if rolled_out is not None else 0.0
    return store.get_or_make("data", work.node.key, make, {"spec": spec.model_dump()}, spent)


@ray.remote
def _describe(table: Path, domains: Sequence[Domain]) -> SourceFacts:
    """What has to be known of one source to check it against the others."""
    return SourceFacts.of(read_table_folder(table), domains)


@ray.remote
def _make_source(work: Work, inputs: Mapping[str, Path], store: ArtifactStore) -> list[Artifact]:
    """The combined source table, by Ray Data."""
    config = work.config
    # Behaviours of a mix keep the label of the policy that acted.
    sources = [
        IngestSource(
            inputs[spec.label] / "table",
            spec.label,
            parse_domain(spec.domain).name,
            spec.behavior if spec.path else None,
        )
        for spec in config.sources
        if not (inputs[spec.label] / REFUSED).exists()
    ]
    refused = [read_json(path) for spec in config.sources if (path := inputs[spec.label] / REFUSED).exists()]
    if not sources:
        raise DataError(
            f"all {len(refused)} sources were refused; the first because of: {refused[0]['reason']}",
            where="mix",
            remedy="correct the data, or see all reasons with `on_error: stop`",
        )
    robot = parse_domain(config.target.domain).robot_spec

    def make(output: Path, _work: Path) -> None:
        domains = {source.name: parse_domain(source.domain) for source in sources}
        distinct = list(dict.fromkeys(domains.values()))
        facts = ray.get([_describe.remote(source.path, distinct) for source in sources])
        findings = regrade(check_facts(dict(zip(domains, facts, strict=True)), domains), config.checks)
        raise_errors(findings)
        held_out = {
            source.name: held_out_episodes(
                count_episodes(source.path), config.mix.validation_fraction, config.mix.seed, source.name
            )
            for source in sources
        }
        ingest(
            sources,
            output / "table",
            robot=robot,
            findings=findings,
            checks=config.checks,
            held_out=held_out,
            extra=mix_manifest(config, work.node.key, refused, held_out),
        )

    return [store.get_or_make("source", work.node.key, make, {"sources": [source.name for source in sources]})]


@ray.remote
def _make_stage(work: Work, inputs: Mapping[str, Path], store: ArtifactStore, board: Any) -> list[Artifact]:
    """A trained stage: its column, or the policy."""
    progress = reporter(board, work.node.name)
    return [make_stage(work, inputs, store, progress, parallel=fit_modality_parallel)]


def make_stage(
    work: Work,
    inputs: Mapping[str, Path],
    store: ArtifactStore,
    progress: Callable[..., None],
    parallel: Callable[[Job], None] | None = None,
) -> Artifact:
    """Fit a stage in this process, or with data-parallel workers where the configuration asks for them."""
    config, node = work.config, work.node
    fit: Callable[[Job], None] = FIT[node.stage]
    if parallel and node.stage == "modality" and config.modality.num_workers > 1:
        fit = parallel

    def make(output: Path, folder: Path) -> None:
        fit(Job(config, inputs, output, folder, progress))

    about = {"config": config.model_dump(mode="json"), "inputs": {role: str(path) for role, path in inputs.items()}}
    return store.get_or_make(node.stage, node.key, make, about)


def input_paths(work: Work, store: ArtifactStore) -> dict[str, Path]:
    """Folder of every input of a node."""
    nodes = {role: work.plan[name] for role, name in work.node.inputs.items()}
    return {role: store.path(node.stage, node.key) for role, node in nodes.items()}
