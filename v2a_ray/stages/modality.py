"""Stage 1, modality: one latent z per trajectory that says which dynamics it came from (V2A, TC-ELBO).

    maximise  E_{z ~ q(z | trajectory)} [ sum_t log p(s_{t+1} | s_t, a_t, z) ]  -  beta * KL(q || N(0, I))

The encoder q is a GRU over x_t = [s_t, a_t, s_{t+1} - s_t]; the decoder p is an ensemble of MLPs with unit-variance
Gaussian likelihood, i.e. a masked squared error on s_{t+1} - s_t. One z for a whole trajectory is the temporal
consistency.

Shape suffixes: E episodes, B trajectories, T steps, M valid steps of a batch (no padding), K ensemble members,
O observation dimension, A action dimension, X = O + A + O, Z latent dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2a_ray.config import ModalityConfig
from v2a_ray.data.sampler import STANDARD_DEVIATION_FLOOR as STD_FLOOR
from v2a_ray.data.table import EpisodeTable
from v2a_ray.networks import EnsembleMLP, GRUEncoder, adam

Reduce = Callable[[Tensor], Tensor]
"""Sum of a tensor over all data-parallel workers, in place; the identity for one worker."""


def alone(tensor: Tensor) -> Tensor:
    """`Reduce` of a single worker."""
    return tensor


@dataclass(frozen=True)
class TrajectoryBatch:
    """Trajectory crops, padded at the end, with the noise that samples their z.

    Attributes:
        steps_BTX: [s, a, s' - s], standardised.
        lengths_B: int64, valid steps of each.
        noise_BZ: standard normal.
    """

    steps_BTX: Tensor
    lengths_B: Tensor
    noise_BZ: Tensor


class ModalityModel(nn.Module):
    """Encoder and decoder, with the statistics that standardise their inputs."""

    state_mean_O: Tensor
    state_std_O: Tensor
    delta_std_O: Tensor

    def __init__(self, observation_dim: int, action_dim: int, config: ModalityConfig) -> None:
        super().__init__()
        self.observation_dim, self.action_dim = observation_dim, action_dim
        self.standardize = config.standardize
        self.encoder = GRUEncoder(2 * observation_dim + action_dim, config.encoder_width, config.latent_dim)
        hidden = [config.decoder_width] * config.decoder_layers
        self.decoder = EnsembleMLP(
            config.num_decoders, observation_dim + action_dim + config.latent_dim, hidden, observation_dim
        )
        self.register_buffer("state_mean_O", torch.zeros(observation_dim))
        self.register_buffer("state_std_O", torch.ones(observation_dim))
        self.register_buffer("delta_std_O", torch.ones(observation_dim))

    def set_statistics(self, moments: Tensor) -> None:
        """Take the mean and standard deviation of states and of state differences from `moments` (double precision)."""
        count, sums = moments[0], moments[1:].view(4, self.observation_dim) / moments[0]
        assert count > 0
        state_mean, state_square, delta_mean, delta_square = sums
        self.state_mean_O.copy_(state_mean)
        self.state_std_O.copy_((state_square - state_mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR))
        self.delta_std_O.copy_((delta_square - delta_mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR))

    def steps(self, table: EpisodeTable) -> Tensor:
        """(N, X): standardised [s, a, s' - s] of every transition."""
        observation, action = torch.tensor(table.observation), torch.tensor(table.action)
        delta = torch.tensor(table.next_observation) - observation
        if not self.standardize:
            return torch.cat([observation, action, delta], dim=1)
        state = (observation - self.state_mean_O) / self.state_std_O
        return torch.cat([state, action, delta / self.delta_std_O], dim=1)

    def prediction_error(self, steps_MX: Tensor, latent_MZ: Tensor) -> Tensor:
        """(M,): squared error of the predicted state difference, averaged over features and ensemble members."""
        widths = [self.observation_dim + self.action_dim, self.observation_dim]
        condition_MC, delta_MO = torch.split(steps_MX, widths, dim=1)
        predicted_KMO = self.decoder(torch.cat([condition_MC, latent_MZ], dim=1))
        error_M: Tensor = (predicted_KMO - delta_MO).square().mean(dim=(0, 2))
        return error_M


def moments(table: EpisodeTable) -> Tensor:
    """(1 + 4 O,) float64: the count and the sums of s, s^2, s' - s and (s' - s)^2. They add up over shards exactly."""
    state = table.observation.astype(np.float64)
    delta = table.next_observation.astype(np.float64) - state
    sums = [values.sum(axis=0) for values in (state, state**2, delta, delta**2)]
    return torch.from_numpy(np.concatenate([[float(len(state))], *sums]))


def kl_to_standard_normal(mean_BZ: Tensor, log_std_BZ: Tensor) -> Tensor:
    """(B,): KL( N(mean, std^2) || N(0, I) ), summed over latent dimensions."""
    return 0.5 * (mean_BZ.square() + (2 * log_std_BZ).exp() - 1 - 2 * log_std_BZ).sum(dim=1)


class ModalityLearner:
    """Maximises the TC-ELBO over the episodes it holds: all of them, or one worker's shard.

    With several workers each draws its part of the batch from its own shard; losses are sums over valid steps divided
    by the count over ALL workers, and gradients are summed, so that any number of workers takes the step that one
    worker would take on the whole batch.
    """

    def __init__(
        self,
        table: EpisodeTable,
        model: ModalityModel,
        config: ModalityConfig,
        seed: int,
        rank: int = 0,
        reduce: Reduce = alone,
        num_workers: int = 1,
    ) -> None:
        self.model, self.config, self.reduce = model, config, reduce
        self.num_trajectories = config.batch_size // num_workers
        self.steps_NX = model.steps(table)
        self.offsets = torch.from_numpy(table.offsets)
        self.seed, self.rank = seed, rank
        self.generator = torch.Generator()
        self.networks: dict[str, nn.Module] = {"model": model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "encoder": adam(model.encoder.parameters(), config.learning_rate),
            "decoder": adam(model.decoder.parameters(), config.learning_rate),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step on a fresh batch, which depends on nothing but (seed, rank, step): any worker's checkpoint
        resumes all of them."""
        entropy = np.random.SeedSequence([self.seed, self.rank, step]).generate_state(1)[0]
        self.generator.manual_seed(int(entropy))
        return self.update_on(self.draw())

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
        valid_BT = torch.arange(batch.steps_BTX.shape[1]) < batch.lengths_B[:, None]
        # Only valid steps reach the decoder, so padding costs nothing and can leak nowhere.
        latent_MZ = latent_BZ.repeat_interleave(batch.lengths_B, dim=0)
        error_M = self.model.prediction_error(batch.steps_BTX[valid_BT], latent_MZ)
        counts = self.reduce(torch.tensor([float(len(error_M)), float(len(mean_BZ))]))
        reconstruction = error_M.sum() / counts[0]
        divergence = kl_to_standard_normal(mean_BZ, log_std_BZ).sum() / counts[1]
        loss = reconstruction + self.config.kl_weight * divergence
        parts = self.reduce(torch.stack([reconstruction, divergence]).detach())
        return loss, {"modality/reconstruction_loss": parts[0], "modality/kl": parts[1]}

    def draw(self) -> TrajectoryBatch:
        """Random crops of random episodes; every episode is equally likely."""
        episodes = torch.randint(len(self.offsets) - 1, (self.num_trajectories,), generator=self.generator)
        begins, ends = self.offsets[episodes], self.offsets[episodes + 1]
        lengths = (ends - begins).clamp(max=self.config.crop_steps) if self.config.crop_steps else ends - begins
        slack = ends - begins - lengths
        shift = (torch.rand(len(episodes), generator=self.generator) * (slack + 1)).long()
        noise = torch.randn(len(episodes), self.config.latent_dim, generator=self.generator)
        return TrajectoryBatch(pad(self.steps_NX, begins + shift, lengths), lengths, noise)

    def _descend(self, loss: Tensor, *names: str) -> None:
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, optimizer in zip(names, optimizers, strict=True):
            parameters = list(getattr(self.model, name).parameters())
            sum_gradients(parameters, self.reduce)
            nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm_clip)
            optimizer.step()


def sum_gradients(parameters: list[nn.Parameter], reduce: Reduce) -> None:
    """Sum the gradients over workers, as one flat tensor: one message instead of one per parameter."""
    if reduce is alone:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))


class frozen:  # noqa: N801 - reads as a statement
    """Within this context the module's parameters get no gradient."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.module.requires_grad_(False)

    def __exit__(self, *error: object) -> None:
        self.module.requires_grad_(True)


def pad(steps_NX: Tensor, begins_B: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, T, X): the rows begins[b] : begins[b] + lengths[b], padded with zeros to the longest."""
    longest = int(lengths_B.max())
    positions_T = torch.arange(longest)
    index_BT = (begins_B[:, None] + positions_T).clamp(max=len(steps_NX) - 1)
    padded_BTX: Tensor = steps_NX[index_BT] * (positions_T < lengths_B[:, None]).unsqueeze(-1)
    return padded_BTX


@torch.no_grad()
def encode_episodes(model: ModalityModel, table: EpisodeTable, config: ModalityConfig) -> NDArray[np.float32]:
    """(E, Z): z of every episode, the encoder mean over the whole episode or averaged over consecutive crops.

    Training sees crops of `crop_steps`; whole episodes are longer. `inference: crops` removes that shift in length.
    """
    steps_NX = model.steps(table)
    latent = np.zeros((table.num_episodes, config.latent_dim), dtype=np.float32)
    weight = np.zeros((table.num_episodes, 1), dtype=np.float32)
    crop = int(table.lengths.max())
    if config.inference == "crops":
        assert config.crop_steps is not None  # the configuration refuses it otherwise
        crop = config.crop_steps
    for episodes, begins, lengths in _pieces(table, crop):
        mean_BZ, _ = model.encoder(pad(steps_NX, begins, lengths), lengths)
        np.add.at(latent, episodes, mean_BZ.numpy() * lengths[:, None].numpy())
        np.add.at(weight, episodes, lengths[:, None].numpy().astype(np.float32))
    return latent / weight


def _pieces(table: EpisodeTable, crop: int, batch_size: int = 64) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """All episodes cut into pieces of at most `crop` steps, in batches of similar length (episode, begin, length)."""
    pieces = [
        (episode, begin, min(crop, int(table.offsets[episode + 1]) - begin))
        for episode in range(table.num_episodes)
        for begin in range(int(table.offsets[episode]), int(table.offsets[episode + 1]), crop)
    ]
    pieces.sort(key=lambda piece: piece[2])
    for start in range(0, len(pieces), batch_size):
        episodes, begins, lengths = zip(*pieces[start : start + batch_size], strict=True)
        yield np.asarray(episodes), torch.tensor(begins), torch.tensor(lengths)
