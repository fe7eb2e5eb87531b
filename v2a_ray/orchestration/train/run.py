"""Runs one experiment, from configuration to `result.json`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.checksums import file_digest
from v2a_ray.engine.context import CHECKPOINT
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.engine.trainer import History, recorded_history
from v2a_ray.errors import V2AError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULT_FILE
from v2a_ray.experiments.reading import missing_nodes, store_of
from v2a_ray.files import copy_whole, prepare_folder, read_json, replacing, write_json, write_whole
from v2a_ray.orchestration.cluster.importable import Named
from v2a_ray.orchestration.cluster.node_watch import watching
from v2a_ray.orchestration.cluster.requirements import check_cluster, shared_folders
from v2a_ray.orchestration.train.compute import compute_all
from v2a_ray.orchestration.train.listener import Event, Listener, Listeners
from v2a_ray.orchestration.train.metrics import MetricsListener
from v2a_ray.orchestration.train.status import StatusFile
from v2a_ray.orchestration.train.tracking import Tracking
from v2a_ray.orchestration.train.work import Work
from v2a_ray.outputs import storage_errors
from v2a_ray.report.curves import plot_run
from v2a_ray.report.run_result import make_result, policy_files
from v2a_ray.report.tracked_film import film_of
from v2a_ray.report.trackers import TENSORBOARD, Scalar, TrackedPolicy, require_trackers


class _LiveCurves(Listener):
    """Writes events to TensorBoard while the disk has room. At the end of the run its complete curves replace them."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder, self.warn = folder, warn
        self.writer: SummaryWriter | None = None
        self.history: History = []
        """The same metrics, for a run that fails."""
        with self._room():
            # Events of an earlier, interrupted start would stand there twice.
            shutil.rmtree(folder, ignore_errors=True)
            self.writer = SummaryWriter(str(folder))

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Stop writing to TensorBoard, with a warning, when a write fails."""
        try:
            yield
        except OSError as error:
            self.writer = None
            self.warn(f"{self.folder}: no more curves for TensorBoard: {error.strerror or error}")

    def close(self) -> None:
        """Write the remaining events."""
        with self._room():
            if self.writer:
                self.writer.close()

    def progressed(self, event: Event) -> None:
        metrics = {
            f"{name}{_ending(event.name)}": value
            for name, value in event.metrics.items()
            if name not in ("resumed", "discarded") and not name.startswith("streamed/")
        }
        self.history.append({"step": event.step, **metrics})
        with self._room():
            for name, value in metrics.items():
                if self.writer:
                    self.writer.add_scalar(name, value, event.step)


class _Failure(Listener):
    """Remembers which stage failed, and why."""

    def __init__(self) -> None:
        self.reason = ""

    def failed(self, node: Node, reason: str) -> None:
        self.reason = self.reason or f"{node.name}: {reason}"


def _ending(node: str) -> str:
    """The fits of single sources, `modality/SOURCE`, record equal metrics; the ending keeps their curves apart."""
    part = node.partition("modality/")[2]
    return f"/{part}" if part else ""


def run_experiment(
    config: ExperimentConfig, plan: Mapping[str, Node], run_dir: Path, listener: Listener | None = None
) -> dict[str, Any]:
    """Compute the missing nodes of `plan` and write the run directory. If a node is missing, Ray must be running.

    `run_dir` gets `config.yaml`, `tensorboard/`, `curves.parquet`, `curves.png`, `actor.safetensors`
    (`module.safetensors` for RLlib baselines) and, last, `result.json`, whose content is returned.
    """
    require_trackers(config.loggers)
    store = store_of(config)
    run_dir = prepare_folder(run_dir)
    store.prepare()
    with storage_errors(run_dir):
        write_whole(run_dir / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    mine = listener or Listener()
    missing = missing_nodes(store, plan)
    with (
        StatusFile(run_dir, "run", config.name) as status,
        Tracking(run_dir, [TENSORBOARD, *config.loggers], mine.warned) as tracking,
    ):
        failure = _Failure()
        extra: list[Listener] = [status, failure]
        live = _LiveCurves(run_dir / TENSORBOARD, mine.warned) if missing else None
        if live:
            # If nothing is missing, there is no Ray, and there are no metrics or curves on the way.
            extra += [live, MetricsListener(config.name)]
        try:
            artifacts = _compute(config, plan, run_dir, Listeners([mine, *extra]), check=bool(missing))
        except Exception:
            if live and failure.reason:
                live.close()
                with suppress(V2AError):  # the store's own trouble would hide the reason
                    failed = _failed(config, plan, run_dir, live.history, failure.reason)
                    tracking.forget(failed, TENSORBOARD)
                    tracking.log(failed, plan["policy"].key)
            raise
        finally:
            if live:
                live.close()
        result = _write_results(config, plan, artifacts, run_dir)
        folders = {name: artifacts[node.key].path for name, node in plan.items()}
        tracked = _tracked(config, folders, run_dir, result["target"])
        if live:
            tracking.forget(tracked, TENSORBOARD)
        film = film_of(config, folders["policy"], run_dir)
        tracking.log(replace(tracked, film=film), plan["policy"].key)
    return result


def _compute(
    config: ExperimentConfig, plan: Mapping[str, Node], run_dir: Path, listener: Listener, *, check: bool
) -> dict[str, Artifact]:
    works, store = [Work(config, plan, node) for node in plan.values()], store_of(config)
    if check:
        check_cluster(store, run_dir, works, listener.warned)
    listener.planned("stages", len(works), "a free core")
    folders, named = shared_folders(store, run_dir), Named.by([config])
    with watching(folders, listener.warned, named) if check else nullcontext() as watch:
        return compute_all(works, store, listener, watch)


def _write_results(
    config: ExperimentConfig, plan: Mapping[str, Node], artifacts: Mapping[str, Artifact], run_dir: Path
) -> dict[str, Any]:
    """Write what a finished run leaves in its folder, `result.json` last, and return its content."""
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


def _failed(
    config: ExperimentConfig, plan: Mapping[str, Node], run_dir: Path, heard: History, reason: str
) -> TrackedPolicy:
    """What trackers get of a run that failed: all that was `heard`, the curves of stages that had finished, and of the
    policy what the checkpoint holds that it went on from.
    """
    store = store_of(config)
    found = {name: store.find(node.stage, node.key) for name, node in plan.items()}
    tracked = _tracked(config, {name: artifact.path for name, artifact in found.items() if artifact}, run_dir, {})
    history = recorded_history(store.work("policy", plan["policy"].key) / CHECKPOINT)
    return replace(tracked, history=[*history, *heard], failure=reason)


def _tracked(
    config: ExperimentConfig, folders: Mapping[str, Path], run_dir: Path, evaluation: Mapping[str, Any]
) -> TrackedPolicy:
    """What trackers get of a run; `folders` are the artifacts that there are, by name of the node."""
    files = [(_ending(name), folder / "curves.parquet") for name, folder in folders.items()]
    scores = {name: evaluation.get(name) for name in ("normalized_score_mean", "return_mean")}
    return TrackedPolicy(
        folder=run_dir,
        events=run_dir / TENSORBOARD,
        group=config.name,
        name=config.folder_name,
        parameters={"method": config.method, "seed": config.seed, **_scalars(config.modifications)},
        tags={"task": config.name, "method": config.method_title, "seed": str(config.seed)},
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        curves=[(ending, file) for ending, file in files if file.exists()],
        scores={name: score for name, score in scores.items() if score is not None},
    )


def _scalars(settings: Mapping[str, Any]) -> dict[str, Scalar]:
    return {key: value for key, value in settings.items() if isinstance(value, Scalar)}
