"""The training loop of all stages, and its checkpoints.

A learner has networks, optimisers and one random generator; the loop does steps, logging, progress and checkpoints. An
*update step* is one call of `Learner.update`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from v2a_ray.errors import DivergenceError
from v2a_ray.files import replacing

Metrics = dict[str, float]
Progress = Callable[[int, int, Metrics], None]
"""Called as progress(step, num_steps, metrics), at every logging interval."""
History = list[dict[str, Any]]
"""One row per recorded metric set: {"step": int, metric: value, ...}."""
_CHECKSUM = "sha256"


class Learner(Protocol):
    """The interface of a learner for the loop."""

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    generator: torch.Generator
    """On the device of the learner's tables; `place` moves the networks there."""

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step; the metrics are scalars named `group/name`."""
        ...


class StatefulSampler(Protocol):
    """A sampler with state for checkpoints (`data.loading.sampler.TransitionSampler`)."""

    def state_dict(self) -> dict[str, Tensor]:
        """Its position."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a position."""
        ...


def silent(step: int, num_steps: int, metrics: Metrics) -> None:
    """A progress callback that does nothing."""


def never(history: History) -> bool:
    """A stopping rule that runs all steps."""
    return False


@dataclass
class TrainingLoop:
    """Runs a learner for a number of update steps, and continues where a killed run stopped.

    Attributes:
        num_steps: total update steps.
        checkpoint: file of the newest checkpoint; None: no checkpoints.
        saves: whether this process writes checkpoints; one of several data-parallel workers does, and all restore.
        checkpoint_interval_steps: update steps between checkpoints.
        log_interval_steps: update steps between recorded metrics and calls of `progress`.
        samplers: the learner's samplers by name; their state is saved and restored with it.
        evaluate: called at multiples of `evaluation_interval_steps` and after the last step; its metrics are recorded.
        stop: ends training early when it returns true; called whenever the history has grown. It may depend only on the
            history, so that a resumed run stops at the same step as an uninterrupted one.
    """

    num_steps: int
    checkpoint: Path | None = None
    saves: bool = True
    checkpoint_interval_steps: int = 1000
    log_interval_steps: int = 100
    progress: Progress = silent
    samplers: Mapping[str, StatefulSampler] = field(default_factory=dict)
    evaluate: Callable[[], Metrics] | None = None
    evaluation_interval_steps: int = 0
    stop: Callable[[History], bool] = never
    history: History = field(default_factory=list)

    def run(self, learner: Learner) -> History:
        """Train to `num_steps`, or until `stop`, and return the history."""
        first = self.restore(learner)
        if self.stop(self.history):
            return self.history
        for step in range(first, self.num_steps):
            if self.after_update(learner, step + 1, learner.update(step)):
                break
        return self.history

    def after_update(self, learner: Learner, done: int, metrics: Mapping[str, Tensor]) -> bool:
        """Record, evaluate and save a checkpoint if due after `done` update steps. Raises DivergenceError.

        Returns:
            Whether `stop` ends training here.
        """
        record: Metrics = {}
        if done % self.log_interval_steps == 0 or done == self.num_steps:
            record |= {name: float(value) for name, value in metrics.items()}
        if self.evaluate and self._evaluation_due(done):
            record |= self.evaluate()
        if record:
            self._require_finite(record, done)
            self.history.append({"step": done, **record})
            self.progress(done, self.num_steps, record)
        if self.checkpoint and self.saves and done % self.checkpoint_interval_steps == 0 and done < self.num_steps:
            # A checkpoint of a diverged run would be useless.
            self._require_finite({name: float(value) for name, value in metrics.items()}, done)
            save_checkpoint(self.checkpoint, learner, done, self.history, self.samplers)
        return bool(record) and self.stop(self.history)

    def _evaluation_due(self, done: int) -> bool:
        interval = self.evaluation_interval_steps
        return done == self.num_steps or (interval > 0 and done % interval == 0)

    def restore(self, learner: Learner) -> int:
        """Move `learner` to its device and load the newest checkpoint, if there is one.

        A damaged checkpoint, or one of other networks, is ignored, and training starts again.

        Returns:
            The number of finished update steps.
        """
        place(learner, learner.generator.device)
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        try:
            step, self.history = load_checkpoint(self.checkpoint, learner, self.samplers)
        except DamagedCheckpointError:
            # Not removed, because other workers may be reading it; the next checkpoint replaces it.
            self.progress(0, self.num_steps, {"discarded": 1.0})
            return 0
        self.progress(step, self.num_steps, {"resumed": 1.0})
        return step

    @staticmethod
    def _require_finite(record: Metrics, step: int) -> None:
        bad = [name for name, value in record.items() if value != value or value in (float("inf"), float("-inf"))]
        if bad:
            raise DivergenceError(
                f"{', '.join(bad)} is not finite",
                where=f"update step {step}",
                remedy="a lower learning_rate, or another preprocessing.reward_scale; the last checkpoint is kept",
            )


def place(learner: Learner, device: torch.device) -> None:
    """Move all networks of a learner. They were initialised on the CPU, equally for every device."""
    for network in learner.networks.values():
        network.to(device)


def use_threads(num_threads: int) -> None:
    """Limit torch to `num_threads`, so that results do not depend on a node's number of cores."""
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


def save_checkpoint(
    path: Path, learner: Learner, step: int, history: History, samplers: Mapping[str, StatefulSampler] | None = None
) -> None:
    """Write networks, optimisers, generator, samplers, step and history to one file, replaced atomically.

    After a kill at any moment, the file is the old checkpoint or the new one, even if an orphaned process of a killed
    run writes the same file.
    """
    tensors = {"generator": learner.generator.get_state()}
    for name, network in learner.networks.items():
        tensors |= {f"network/{name}/{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in learner.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
    for name, feed in (samplers or {}).items():
        tensors |= {f"feed/{name}/{key}": value for key, value in feed.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    about = {"step": str(step), "history": json.dumps(history)}
    with replacing(path) as fresh:
        save_file(tensors, fresh, metadata={**about, _CHECKSUM: _checksum(tensors, about)})


class DamagedCheckpointError(Exception):
    """A checkpoint that cannot be resumed from. `TrainingLoop.restore` then starts training again."""


def load_checkpoint(
    path: Path, learner: Learner, samplers: Mapping[str, StatefulSampler] | None = None
) -> tuple[int, History]:
    """Load a checkpoint into `learner`, on its device, and `samplers`; returns (step, history).

    Raises:
        DamagedCheckpointError: it is damaged or of other networks; the learner is unchanged.
    """
    tensors, metadata = _read_checkpoint(path)
    _require_same_networks(tensors, learner, samplers or {}, path)
    step = int(metadata["step"])
    _restore_generator(learner.generator, tensors.pop("generator"), step)
    for name, network in learner.networks.items():
        network.load_state_dict(_below(tensors, f"network/{name}/"))
    for name, optimizer in learner.optimizers.items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizer/{name}/").items():
            index, entry = key.split("/")
            states.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, feed in (samplers or {}).items():
        feed.load_state_dict(_below(tensors, f"feed/{name}/"))
    return step, json.loads(metadata["history"])


def recorded_history(path: Path) -> History:
    """The metrics in a checkpoint, without reading its networks; empty where there is none or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            history: History = json.loads((file.metadata() or {})["history"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return []
    return history


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file from `save_checkpoint`. Raises DamagedCheckpointError if it is damaged."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from error
    if metadata.pop(_CHECKSUM, None) != _checksum(tensors, metadata):
        raise DamagedCheckpointError(f"{path}: it does not match its checksum")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of a checkpoint's content: names, types, shapes, bytes and metadata."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_same_networks(
    tensors: Mapping[str, Tensor], learner: Learner, samplers: Mapping[str, StatefulSampler], path: Path
) -> None:
    """Raise DamagedCheckpointError if the shapes of the state differ, as after a change of the code."""
    present = {key: value.shape for key, value in tensors.items() if key.startswith(("network/", "feed/"))}
    expected = {
        f"network/{name}/{key}": value.shape
        for name, network in learner.networks.items()
        for key, value in network.state_dict().items()
    } | {
        f"feed/{name}/{key}": value.shape for name, feed in samplers.items() for key, value in feed.state_dict().items()
    }
    if present != expected:
        raise DamagedCheckpointError(f"{path}: it is of other networks")


def _restore_generator(generator: torch.Generator, state: Tensor, step: int) -> None:
    """Continue with the same draws, or with new ones on another kind of device, whose generator state differs."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
    else:
        generator.manual_seed(generator.initial_seed() + step)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
