"""Policies in experiment trackers, finished or failed: TensorBoard, MLflow, Weights & Biases. Each is a run of its own.

A policy that is logged again replaces what was logged of it: it has one identity, its results folder and its name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from v2a_ray.errors import ConfigError
from v2a_ray.report.tracked_film import Film
from v2a_ray.settings.yaml_files import at

if TYPE_CHECKING:
    from v2a_ray.engine.trainer import History

Scalar = bool | int | float | str
MLFLOW_BATCH = 1000
"""Metrics of one request, MLflow's limit."""
LONGEST_REASON = 2000
"""Characters of a failure's reason; MLflow refuses tags above 5000."""


@dataclass(frozen=True)
class TrackedPolicy:
    """What is logged of one policy.

    Attributes:
        folder: of the run or sweep.
        events: folder for TensorBoard.
        group: name of the sweep or experiment.
        name: of the policy in its group.
        parameters: labels, and settings that vary or were drawn.
        tags: task, method and more.
        config: the whole configuration as YAML.
        curves: (ending of the metrics' names, file of recorded metrics) of every stage that has them.
        scores: at the end of training.
        history: recorded metrics besides `curves`, rows with `step`: what is known of a failed policy.
        failure: why it failed; empty for a finished policy.
        film: of the finished policy; trackers get its file, which is drawn before they are called.
    """

    folder: Path
    events: Path
    group: str
    name: str
    parameters: Mapping[str, Scalar]
    tags: Mapping[str, str]
    config: str
    curves: Sequence[tuple[str, Path]]
    scores: Mapping[str, float]
    history: History = field(default_factory=list)
    failure: str = ""
    film: Film | None = None

    @property
    def about(self) -> dict[str, str]:
        """Tags with the policy's state, `finished` or `failed`, and the reason of a failure."""
        if not self.failure:
            return {**self.tags, "state": "finished"}
        return {**self.tags, "state": "failed", "reason": self.failure[:LONGEST_REASON]}

    @property
    def identity(self) -> str:
        """Equal for what replaces each other."""
        return hashlib.sha256(f"{self.folder.resolve()}/{self.name}".encode(errors="surrogatepass")).hexdigest()[:16]

    def points(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Metrics by step, steps in order."""
        merged: dict[int, dict[str, float]] = {}
        for ending, rows in (
            *((ending, pq.read_table(file).to_pylist()) for ending, file in self.curves),
            ("", self.history),
        ):
            for row in rows:
                values = {
                    f"{name}{ending}": value for name, value in row.items() if name != "step" and value is not None
                }
                merged.setdefault(int(row["step"]), {}).update(values)
        yield from sorted(merged.items())


def parameters(labels: Mapping[str, str], config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Scalar]:
    """Labels, and the settings with these dotted `keys` as numbers where they are numbers."""
    found: dict[str, Scalar] = dict(labels)
    for key in keys:
        try:
            value = at(config, key)
        except (KeyError, IndexError, TypeError):
            continue  # the chosen kind of this section lacks the setting
        if isinstance(value, Scalar):
            found[key] = value
    return found


def to_tensorboard(policy: TrackedPolicy) -> None:
    """Write the policy's curves, parameters and configuration, instead of what is there."""
    # It imports torch, which a check of the trackers need not wait for.
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    shutil.rmtree(policy.events, ignore_errors=True)
    with SummaryWriter(str(policy.events)) as writer:
        for step, values in policy.points():
            for name, value in values.items():
                writer.add_scalar(name, value, step)
        if policy.failure:
            writer.add_text("failed", policy.failure)
        if policy.film:
            # `add_video` encodes such an image itself, and needs another package for that.
            writer.file_writer.add_summary(_film_summary(policy.film.path), 0)
        indented = "".join(f"    {line}\n" for line in policy.config.splitlines())
        writer.add_text("config", indented)
        final = {f"final/{name}": score for name, score in policy.scores.items()}
        # As `add_hparams`, which would write a second file: for thousands of policies too many.
        about = {**policy.parameters, "state": policy.about["state"]}
        for summary in hparams(about, final):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        for name, score in final.items():
            writer.add_scalar(name, score)


def _film_summary(path: Path) -> Any:
    """A GIF as TensorBoard's `Summary`."""
    import imageio.v3
    from tensorboard.compat.proto.summary_pb2 import Summary

    *_, height, width, _channels = imageio.v3.improps(path).shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag="film", image=image)])


def to_mlflow(policy: TrackedPolicy) -> None:
    """A run of the experiment that is named after the group, at MLFLOW_TRACKING_URI."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client = MlflowClient()
    known = client.get_experiment_by_name(policy.group)
    experiment = known.experiment_id if known else client.create_experiment(policy.group)
    for old in client.search_runs([experiment], filter_string=f"tags.`v2a.policy` = '{policy.identity}'"):
        client.delete_run(old.info.run_id)
    tags = {"v2a.policy": policy.identity, "v2a.sweep": policy.group, **policy.about}
    run = client.create_run(experiment, run_name=policy.name, tags=tags).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for step, values in policy.points() for name, value in values.items()]
    metrics += [Metric(f"final/{name}", score, now, 0) for name, score in policy.scores.items()]
    client.log_batch(run, params=[Param(name, str(value)) for name, value in policy.parameters.items()])
    for begin in range(0, len(metrics), MLFLOW_BATCH):
        client.log_batch(run, metrics=metrics[begin : begin + MLFLOW_BATCH])
    client.log_text(run, policy.config, "config.yaml")
    if policy.film:
        client.log_artifact(run, str(policy.film.path))
    client.set_terminated(run, "FAILED" if policy.failure else "FINISHED")


def to_wandb(policy: TrackedPolicy) -> None:
    """A run of the group, in the project WANDB_PROJECT or the one that is named after the group."""
    import wandb

    for old in policy.folder.glob(f"wandb/offline-run-*-{policy.identity}"):
        shutil.rmtree(old)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or policy.group,
        group=policy.group,
        name=policy.name,
        # A run of this id is replaced.
        id=policy.identity,
        tags=[f"{name}:{value}"[:64] for name, value in policy.about.items() if name != "reason"],
        notes=policy.about.get("reason"),
        config={**policy.parameters, **_outcome(policy), "config_yaml": policy.config},
        dir=str(policy.folder),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off"),
    )
    for step, values in policy.points():
        run.log(values, step=step)
    if policy.film:
        run.log({"film": wandb.Video(str(policy.film.path), format="gif")})
    run.summary.update({f"final/{name}": score for name, score in policy.scores.items()})
    run.finish(exit_code=1 if policy.failure else 0)


def _outcome(policy: TrackedPolicy) -> dict[str, str]:
    return {name: policy.about[name] for name in ("state", "reason") if name in policy.about}


TENSORBOARD = "tensorboard"
TRACKERS: dict[str, Callable[[TrackedPolicy], None]] = {
    TENSORBOARD: to_tensorboard,
    "mlflow": to_mlflow,
    "wandb": to_wandb,
}
"""By the names that `loggers` may have, and TensorBoard, which needs no asking."""


def require_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError when a tracker is not installed or would refuse what is logged, before anything is computed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{name} is not installed", where="loggers", remedy="pip install 'v2a_ray[loggers]', or leave it out"
            )
        _CHECKS[name]()


def _require_mlflow() -> None:
    # MLflow asks an address that does not answer for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        mlflow.MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # of MLflow, of its database, of the connection
        raise ConfigError(
            f"MLflow does not answer: {str(error).splitlines()[0]}",
            where=f"loggers, MLFLOW_TRACKING_URI={os.environ.get('MLFLOW_TRACKING_URI', '')}",
            remedy="set MLFLOW_TRACKING_URI to a server or a folder, file:///...; or leave mlflow out",
        ) from None


def _require_wandb() -> None:
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    logging.getLogger("wandb").setLevel(logging.ERROR)
    try:
        reason = "" if wandb.login(prompt=False) else "there is no key"
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise ConfigError(
            f"Weights & Biases refuses: {reason}",
            where="loggers",
            remedy="set WANDB_API_KEY, or WANDB_MODE=offline and `wandb sync` later; or leave wandb out",
        )


_CHECKS: dict[str, Callable[[], None]] = {"mlflow": _require_mlflow, "wandb": _require_wandb}
