"""Fits the modality: random crops, EM or joint updates, data-parallel gradients, early stopping.

Shape suffixes as in `model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2a_ray.data.mixing.mixture import held_out_episodes
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.data_parallel import ONE_WORKER, Workers
from v2a_ray.engine.early_stopping import EarlyStopping
from v2a_ray.engine.trainer import Metrics
from v2a_ray.errors import ConfigError
from v2a_ray.networks import adam
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.model import ModalityModel, TrajectoryBatch, kl_to_standard_normal, pad

VALIDATION_LOSS = "modality/validation_loss"
VALIDATION_BATCH_SIZE = 64


@dataclass(frozen=True)
class Steps:
    """The standardised steps (N, X) of episodes, on the model's device, and the offsets (E + 1,) of the episodes."""

    steps_NX: Tensor
    offsets: NDArray[np.int64]


class Crops:
    """Random crops of some episodes, on the device of their steps; generators must be on it too."""

    def __init__(self, steps: Steps, episodes: NDArray[np.int64], config: ModalityConfig) -> None:
        """`episodes` are indices."""
        self.steps_NX, self.device = steps.steps_NX, steps.steps_NX.device
        self.begins = torch.from_numpy(steps.offsets[:-1][episodes]).to(self.device)
        self.ends = torch.from_numpy(steps.offsets[1:][episodes]).to(self.device)
        self.crop_steps, self.latent_dim = config.crop_steps, config.latent_dim

    def draw(self, num_trajectories: int, generator: torch.Generator) -> TrajectoryBatch:
        """Crops of random episodes; all episodes are equally likely."""
        episodes_B = torch.randint(len(self.begins), (num_trajectories,), generator=generator, device=self.device)
        return self.of(episodes_B, generator)

    def of(self, episodes_B: Tensor, generator: torch.Generator) -> TrajectoryBatch:
        """One crop of each of these episodes, at a uniformly random position."""
        begins, ends = self.begins[episodes_B], self.ends[episodes_B]
        lengths = (ends - begins).clamp(max=self.crop_steps) if self.crop_steps else ends - begins
        slack = ends - begins - lengths
        shift = (torch.rand(len(episodes_B), generator=generator, device=self.device) * (slack + 1)).long()
        noise = torch.randn(len(episodes_B), self.latent_dim, generator=generator, device=self.device)
        return TrajectoryBatch(pad(self.steps_NX, begins + shift, lengths), lengths, noise)


class ModalityLearner:
    """Maximises the TC-ELBO over its episodes: all of them, or one worker's shard. Computes on the model's device.

    With several workers, each draws its part of the batch from its own shard; if the batch does not divide evenly, the
    first workers draw one trajectory more. Losses are sums over valid steps divided by the count over ALL workers, and
    gradients are summed, so any number of workers takes the step that one worker would take on the whole batch.
    """

    def __init__(
        self,
        table: EpisodeTable | Steps,
        model: ModalityModel,
        config: ModalityConfig,
        seed: int,
        workers: Workers = ONE_WORKER,
    ) -> None:
        self.model, self.config, self.seed, self.workers = model, config, seed, workers
        self.num_trajectories = workers.share(config.batch_size)
        steps = table if isinstance(table, Steps) else Steps(model.steps(table), table.offsets)
        fitted, held_out = _split(len(steps.offsets) - 1, config, seed, workers.rank)
        self.crops = Crops(steps, fitted, config)
        self.validation = _validation_batches(Crops(steps, held_out, config), seed, workers.rank)
        self.generator = torch.Generator(model.device)
        self.networks: dict[str, nn.Module] = {"model": model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "encoder": adam(model.encoder.parameters(), config.learning_rate),
            "decoder": adam(model.decoder.parameters(), config.learning_rate),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step on a new batch."""
        self.generator.manual_seed(self.workers.seed(self.seed, step))
        return self.update_on(self.crops.draw(self.num_trajectories, self.generator))

    def update_on(self, batch: TrajectoryBatch) -> dict[str, Tensor]:
        """One update step on `batch` (this worker's part of it)."""
        if self.config.optimization == "joint":
            loss, metrics = self.loss(batch, sample=True)
            self._descend(loss, "encoder", "decoder")
            return metrics
        # E-step: the decoder is frozen, z is sampled. M-step: the encoder is frozen, z is its mean (as published).
        with frozen(self.model.decoder):
            loss, metrics = self.loss(batch, sample=True)
            self._descend(loss, "encoder")
        with frozen(self.model.encoder):
            loss, _ = self.loss(batch, sample=False)
            self._descend(loss, "decoder")
        return metrics

    def loss(self, batch: TrajectoryBatch, *, sample: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative TC-ELBO per valid step and trajectory, and its parts."""
        mean_BZ, log_std_BZ = self.model.encoder(batch.steps_BTX, batch.lengths_B)
        latent_BZ = mean_BZ + batch.noise_BZ * log_std_BZ.exp() if sample else mean_BZ
        error_M = self.model.reconstruction_error(batch, latent_BZ)
        counts = self.workers.reduce(torch.tensor([float(len(error_M)), float(len(mean_BZ))], device=error_M.device))
        reconstruction = error_M.sum() / counts[0]
        divergence = kl_to_standard_normal(mean_BZ, log_std_BZ).sum() / counts[1]
        loss = reconstruction + self.config.kl_weight * divergence
        parts = self.workers.reduce(torch.stack([reconstruction, divergence]).detach())
        return loss, {"modality/reconstruction_loss": parts[0], "modality/kl": parts[1]}

    @torch.no_grad()
    def validate(self) -> Metrics:
        """Error per valid step of fixed held-out crops, with the encoder's mean as z.

        It is summed over all workers, so that all of them decide alike when to stop.
        """
        total = torch.zeros(2, dtype=torch.float64, device=self.model.device)
        for batch in self.validation:
            mean_BZ, _ = self.model.encoder(batch.steps_BTX, batch.lengths_B)
            error_M = self.model.reconstruction_error(batch, mean_BZ)
            total += total.new_tensor([float(error_M.sum()), float(len(error_M))])
        error, count = self.workers.reduce(total).tolist()
        return {VALIDATION_LOSS: error / count}

    def stopping(self) -> dict[str, Any]:
        """Arguments of `TrainingLoop` for early stopping; empty if `patience_evaluations` is null.

        The last weights are kept, not those of the best evaluation: the held-out loss flattens and hardly rises, so the
        two differ by less than `min_improvement`, and checkpoints need no second copy of the weights.

        Raises:
            ConfigError: no worker has an episode to hold out.
        """
        if self.config.patience_evaluations is None:
            return {}
        num_held_out = self.workers.reduce(torch.tensor(float(len(self.validation)), device=self.model.device))
        if not num_held_out:
            raise ConfigError(
                "early stopping has no episode to hold out: a worker needs two",
                where="modality.patience_evaluations",
                remedy="more episodes, fewer workers, or null, which trains for all of modality.num_steps",
            )
        return {
            "evaluate": self.validate,
            "evaluation_interval_steps": self.config.validation_interval_steps,
            "stop": EarlyStopping(VALIDATION_LOSS, self.config.patience_evaluations, self.config.min_improvement),
        }

    def _descend(self, loss: Tensor, *names: str) -> None:
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, optimizer in zip(names, optimizers, strict=True):
            parameters = list(getattr(self.model, name).parameters())
            self.workers.sum_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm_clip)
            optimizer.step()


def _split(
    num_episodes: int, config: ModalityConfig, seed: int, rank: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training episodes, and held-out episodes for early stopping (none without it), as indices."""
    every = np.arange(num_episodes)
    if config.patience_evaluations is None:
        return every, every[:0]
    held_out = held_out_episodes(num_episodes, config.validation_fraction, seed, f"modality shard {rank}")
    return np.setdiff1d(every, held_out), held_out


def _validation_batches(crops: Crops, seed: int, rank: int) -> list[TrajectoryBatch]:
    """One crop of every episode, in batches of similar length."""
    entropy = np.random.SeedSequence([seed, rank]).generate_state(1)[0]
    generator = torch.Generator(crops.device).manual_seed(int(entropy))
    order = (crops.ends - crops.begins).argsort(stable=True)
    return [
        crops.of(episodes_B, generator) for episodes_B in torch.split(order, VALIDATION_BATCH_SIZE) if len(episodes_B)
    ]


class frozen:  # noqa: N801 - reads as a statement
    """A context in which the module's parameters get no gradient."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *error: object) -> None:
        self.module.requires_grad_(True)
