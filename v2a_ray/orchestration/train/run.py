"""Runs one experiment, from configuration to `result.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.checksums import file_digest
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULT_FILE
from v2a_ray.experiments.reading import missing_nodes, store_of
from v2a_ray.files import copy_whole, prepare_folder, read_json, replacing, write_json, write_whole
from v2a_ray.orchestration.cluster.requirements import check_cluster
from v2a_ray.orchestration.train.compute import Listener, compute_all
from v2a_ray.orchestration.train.progress_actor import Event
from v2a_ray.orchestration.train.work import Work
from v2a_ray.outputs import storage_errors
from v2a_ray.report.curves import plot_run
from v2a_ray.report.run_result import make_result, policy_files


class _Recorder(Listener):
    """Passes events on and writes them to TensorBoard while the disk has room; the run needs no TensorBoard files."""

    def __init__(self, listener: Listener, folder: Path) -> None:
        self.listener, self.folder = listener, folder
        self.writer: SummaryWriter | None = None
        with self._room():
            self.writer = SummaryWriter(str(folder))

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Stop writing to TensorBoard, with a warning, when a write fails."""
        try:
            yield
        except OSError as error:
            self.writer = None
            self.listener.warned(f"{self.folder}: no more curves for TensorBoard: {error.strerror or error}")

    def close(self) -> None:
        """Write the remaining events."""
        with self._room():
            if self.writer:
                self.writer.close()

    def started(self, node: Node) -> None:
        self.listener.started(node)

    def progressed(self, event: Event) -> None:
        for name, value in event.metrics.items():
            if name not in ("resumed", "discarded") and not name.startswith("streamed/"):
                self._add(_tag(name, event.name), value, event.step)
        self.listener.progressed(event)

    def _add(self, tag: str, value: float, step: int) -> None:
        with self._room():
            if self.writer:
                self.writer.add_scalar(tag, value, step)

    def done(self, node: Node, artifact: Artifact) -> None:
        curves = artifact.path / "curves.parquet"
        if artifact.cached and curves.exists():
            # A cached artifact sends no reports; take its curves from the file.
            for row in pq.read_table(curves).to_pylist():
                step = row.pop("step")
                for name, value in row.items():
                    if value is not None:
                        self._add(_tag(name, node.name), value, step)
        self.listener.done(node, artifact)


def _tag(metric: str, node: str) -> str:
    """Tag of a metric. The fits of single sources, `modality/SOURCE`, record equal metrics and get separate curves."""
    part = node.partition("modality/")[2]
    return f"{metric}/{part}" if part else metric


def run_experiment(
    config: ExperimentConfig, plan: Mapping[str, Node], run_dir: Path, listener: Listener | None = None
) -> dict[str, Any]:
    """Compute the missing nodes of `plan` and write the run directory. If a node is missing, Ray must be running.

    `run_dir` gets `config.yaml`, `tensorboard/`, `curves.parquet`, `curves.png`, `actor.safetensors`
    (`module.safetensors` for RLlib baselines) and, last, `result.json`, whose content is returned.
    """
    store = store_of(config)
    run_dir = prepare_folder(run_dir)
    store.prepare()
    with storage_errors(run_dir):
        write_whole(run_dir / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    works = [Work(config, plan, node) for node in plan.values()]
    listener = listener or Listener()
    if missing_nodes(store, plan):
        check_cluster(store, run_dir, works, listener.warned)
    recorder = _Recorder(listener, run_dir / "tensorboard")
    try:
        artifacts = compute_all(works, store, recorder)
    finally:
        recorder.close()
    policy = artifacts[plan["policy"].key].path
    evaluation = read_json(policy / "evaluation.json")
    result = make_result(config, [(name, artifacts[node.key]) for name, node in plan.items()], evaluation)
    curves, title = pq.read_table(policy / "curves.parquet"), f"{config.name} · {config.method_title}"
    with storage_errors(run_dir):
        for name in policy_files(config):
            copy_whole(policy / name, run_dir / name)
            result["files"][name] = file_digest(policy / name)
        with replacing(run_dir / "curves.png") as fresh:
            plot_run(curves, fresh, title=title)
        write_json(run_dir / RESULT_FILE, result)
    return result
