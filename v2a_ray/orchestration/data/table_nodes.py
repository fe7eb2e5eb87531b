"""The nodes of a plan that make tables: one per part of the data, and the combined source table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from v2a_ray.data.checks import SourceFacts, check_facts, regrade
from v2a_ray.data.checks.findings import Finding, raise_errors
from v2a_ray.data.config import TARGET_LABEL, DataSpec, SourceSpec
from v2a_ray.data.formats.readers import is_worth_ray
from v2a_ray.data.mixing.dimension_maps import is_mapped, mapped
from v2a_ray.data.mixing.mixture import (
    collection_requests,
    held_out_episodes,
    load_data,
    load_source,
    mix_manifest,
    resolve,
    skips,
    unordered_source,
)
from v2a_ray.data.rewards import missing_rewards
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import count_episodes, read_manifest, write_table
from v2a_ray.domains import Domain, parse_domain
from v2a_ray.engine.stage import TABLES
from v2a_ray.engine.store import Artifact, ArtifactStore
from v2a_ray.engine.trainer import Progress
from v2a_ray.errors import DataError
from v2a_ray.evaluation.fitted_q_evaluation import hold_out
from v2a_ray.evaluation.offline import HELD_OUT
from v2a_ray.experiments.plugins import all_sources, load_shipped
from v2a_ray.files import read_json, write_json
from v2a_ray.orchestration.cluster.join import require_code
from v2a_ray.orchestration.data.collect import collect_data
from v2a_ray.orchestration.data.ingest import IngestSource, ingest, is_small
from v2a_ray.orchestration.data.placement import on_this_node
from v2a_ray.orchestration.train.progress_actor import reporter
from v2a_ray.orchestration.train.work import Work, input_paths

REFUSED = "refused.json"
"""Stands for the table in the artifact of a source that is left out: name of the source and the reason."""


@ray.remote
def make_data(group: Sequence[Work], store: ArtifactStore, progress_actor: Any) -> list[Artifact]:
    """Episode tables of data parts: one part read from a file, or several parts rolled out together."""
    require_code(group[0].code)
    with store.computing("data", [work.node.key for work in group]), on_this_node(store):
        return _make_data(group, store, progress_actor)


def _make_data(group: Sequence[Work], store: ArtifactStore, progress_actor: Any) -> list[Artifact]:
    specs = [work.node.spec for work in group]
    rollouts = [spec for spec in specs if spec and spec.path is None]
    tables: Iterator[EpisodeTable] = iter(())
    start = time.perf_counter()
    reporters = [reporter(progress_actor, work.node.key, work.node.name) for work in group]
    for report in reporters:
        report(0, 0, {})
    if rollouts:
        journals = [store.work("data", work.node.key) for work in group]
        shares = [sum(request.num_transitions for request in collection_requests(spec)) for spec in rollouts]
        tables = iter(collect_data(rollouts, progress=_each_part(shares, reporters), journals=journals))
    # Roll-outs are made together, so each part's time is its share of the transitions.
    rate = (time.perf_counter() - start) / max(1, sum(spec.num_transitions or 0 for spec in rollouts))
    return [_store_part(work, store, next(tables, None), rate) for work in group]


def _each_part(shares: Sequence[int], reporters: Sequence[Progress]) -> Callable[[int, int], None]:
    """Progress over several parts, which are rolled out one after another, as progress of each of them."""

    def progress(done: int, _total: int) -> None:
        begin = 0
        for number, (share, report) in enumerate(zip(shares, reporters, strict=True)):
            mine = min(max(done - begin, 0), share)
            begin += share
            if mine > last[number]:
                last[number] = mine
                report(mine, share, {})

    last = [0] * len(shares)
    return progress


def _store_part(work: Work, store: ArtifactStore, rolled_out: EpisodeTable | None, rate: float) -> Artifact:
    """Write one part; `rate` is in seconds per rolled-out transition."""
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
        if rolled_out is None and not _keeps_back(work) and _is_large(spec, root):
            _convert_large(work, spec, output / "table")
            return
        if rolled_out is not None:
            table, findings = rolled_out, list[Finding]()
        elif isinstance(spec, SourceSpec):
            table, findings = load_source(spec, root, checks)
        else:
            table, findings = load_data(spec, TARGET_LABEL, root, checks)
        if isinstance(spec, SourceSpec):
            table = mapped(table, spec)
        robot = parse_domain(spec.domain).robot
        if _keeps_back(work):
            offline = work.config.offline
            table, unseen = hold_out(table, offline.held_out_fraction, offline.seed)
            write_table(unseen, output / HELD_OUT, robot=robot, extra={"spec": spec.model_dump()})
        write_table(table, output / "table", robot=robot, findings=findings, extra={"spec": spec.model_dump()})

    spent = rate * rolled_out.num_transitions if rolled_out is not None else 0.0
    return store.get_or_make("data", work.node.key, make, {"spec": spec.model_dump()}, spent)


def _keeps_back(work: Work) -> bool:
    """Whether episodes of this part are held out from all stages: those of a target without a simulator."""
    return work.config.is_offline and work.node.name == TABLES[TARGET_LABEL]


def _is_large(spec: DataSpec, data_root: str) -> bool:
    """Whether the whole file is needed and it is large: a single task would read it for minutes."""
    everything = spec.num_transitions is None and spec.num_episodes is None
    named = (spec.columns, spec.reward, spec.action_bounds)
    as_recorded = all(each is None for each in named) and not is_mapped(spec)
    return everything and as_recorded and is_worth_ray(resolve(spec, data_root))


def _convert_large(work: Work, spec: DataSpec, output: Path) -> None:
    """Write the same table as one task would, in one part per slice of the file."""
    root, is_source = work.config.data_root, isinstance(spec, SourceSpec)
    # Imported here because Ray Data takes a second to import and processes that train do not need it.
    from v2a_ray.orchestration.data.convert import convert_hdf5

    manifest = convert_hdf5(
        resolve(spec, root),
        output,
        domain=parse_domain(spec.domain),
        name=work.node.name.removeprefix("data/"),
        behavior=spec.labelled_behavior,
        checks=work.config.checks,
        extra={"spec": spec.model_dump()},
    )
    if is_source and any(finding["check"] == "unordered" for finding in manifest["findings"]):
        raise unordered_source(spec, root)


def _describe(table: Path, domains: Sequence[Domain], plugins: Mapping[str, str]) -> SourceFacts:
    """The facts of one source that are compared with the other sources."""
    load_shipped(plugins)
    return SourceFacts.of_folder(table, domains)


@ray.remote
def make_source(work: Work, store: ArtifactStore, progress_actor: Any) -> list[Artifact]:
    """The combined source table, by Ray Data unless it is small."""
    require_code(work.code)
    reporter(progress_actor, work.node.key, work.node.name)(0, 0, {})
    config, inputs = work.config, input_paths(work, store)
    # Transitions of a mix of behaviours keep the label of the policy that acted.
    sources = [
        IngestSource(
            inputs[spec.label] / "table",
            spec.label,
            parse_domain(spec.domain).name,
            spec.labelled_behavior if spec.path else None,
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
        # No simulation predicts what a map has made of its states.
        comparable = {spec.label: [] if is_mapped(spec) else distinct for spec in config.sources}
        if is_small(sources):
            facts = [SourceFacts.of_folder(source.path, comparable[source.name]) for source in sources]
        else:
            here = ray.data.DataContext.get_current().scheduling_strategy
            describe = ray.remote(_describe).options(scheduling_strategy=here)
            plugins = all_sources()
            facts = ray.get([describe.remote(source.path, comparable[source.name], plugins) for source in sources])
        findings = regrade(check_facts(dict(zip(domains, facts, strict=True)), domains), config.checks)
        raise_errors(findings)
        findings += [each for source in sources for each in missing_rewards(read_manifest(source.path))]
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

    with on_this_node(store):
        return [store.get_or_make("source", work.node.key, make, {"sources": [source.name for source in sources]})]
