"""Stage 1, modality: one latent z per trajectory that represents its dynamics (V2A, TC-ELBO).

    maximise  E_{z ~ q(z | trajectory)} [ sum_t log p(s_{t+1} | s_t, a_t, z) ]  -  beta * KL(q || N(0, I))

The encoder q is a GRU over x_t = [s_t, a_t, s_{t+1} - s_t], or (ours) an MLP over each x_t, averaged over time; the
decoder p is an ensemble of MLPs with unit-variance Gaussian likelihood, i.e. a masked squared error on s_{t+1} - s_t.
Temporal consistency means that a whole trajectory has one z. `learner` fits encoder and decoder.

Shape suffixes: E episodes, B trajectories, T steps, M valid steps of a batch (no padding), K ensemble members,
O observation dimension, A action dimension, X = O + A + O, Z latent dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import STANDARD_DEVIATION_FLOOR as STD_FLOOR
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.stage import imported
from v2a_ray.networks import EnsembleMLP
from v2a_ray.stages.modality.config import ENCODERS, ModalityConfig


@dataclass(frozen=True)
class TrajectoryBatch:
    """Trajectory crops, padded at the end, and the noise for sampling their z.

    Attributes:
        steps_BTX: [s, a, s' - s], standardised.
        lengths_B: int64, number of valid steps.
        noise_BZ: standard normal.
    """

    steps_BTX: Tensor
    lengths_B: Tensor
    noise_BZ: Tensor


class ModalityModel(nn.Module):
    """Encoder, decoder and the statistics that standardise their inputs."""

    state_mean_O: Tensor
    state_std_O: Tensor
    delta_std_O: Tensor

    def __init__(self, observation_dim: int, action_dim: int, config: ModalityConfig) -> None:
        super().__init__()
        self.observation_dim, self.action_dim = observation_dim, action_dim
        self.standardize = config.standardize
        sizes = 2 * observation_dim + action_dim, config.encoder_width, config.latent_dim
        self.encoder: nn.Module = imported(ENCODERS[config.encoder])(*sizes)
        hidden = [config.decoder_width] * config.decoder_layers
        self.decoder = EnsembleMLP(
            config.num_decoders, observation_dim + action_dim + config.latent_dim, hidden, observation_dim
        )
        self.register_buffer("state_mean_O", torch.zeros(observation_dim))
        self.register_buffer("state_std_O", torch.ones(observation_dim))
        self.register_buffer("delta_std_O", torch.ones(observation_dim))

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.state_mean_O.device

    def set_statistics(self, moments: Tensor) -> None:
        """Set the means and standard deviations of states and state differences from `moments` (double precision)."""
        count, sums = moments[0], moments[1:].view(4, self.observation_dim) / moments[0]
        assert count > 0
        state_mean, state_square, delta_mean, delta_square = sums
        self.state_mean_O.copy_(state_mean)
        self.state_std_O.copy_((state_square - state_mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR))
        self.delta_std_O.copy_((delta_square - delta_mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR))

    def steps(self, table: EpisodeTable) -> Tensor:
        """(N, X): standardised [s, a, s' - s] of every transition, on the model's device."""
        arrays = table.observation, table.action, table.next_observation
        observation, action, following = (torch.tensor(array, device=self.device) for array in arrays)
        delta = following - observation
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

    def reconstruction_error(self, batch: TrajectoryBatch, latent_BZ: Tensor) -> Tensor:
        """(M,): `prediction_error` of every valid step of the batch, given one z per trajectory."""
        # Only valid steps reach the decoder, so padding costs nothing and cannot change the result.
        valid_BT = torch.arange(batch.steps_BTX.shape[1], device=batch.lengths_B.device) < batch.lengths_B[:, None]
        latent_MZ = latent_BZ.repeat_interleave(batch.lengths_B, dim=0)
        return self.prediction_error(batch.steps_BTX[valid_BT], latent_MZ)


def moments(table: EpisodeTable) -> Tensor:
    """(1 + 4 O,) float64: the count and the sums of s, s^2, s' - s and (s' - s)^2. Shards can be added up."""
    state = table.observation.astype(np.float64)
    delta = table.next_observation.astype(np.float64) - state
    sums = [values.sum(axis=0) for values in (state, state**2, delta, delta**2)]
    return torch.from_numpy(np.concatenate([[float(len(state))], *sums]))


def kl_to_standard_normal(mean_BZ: Tensor, log_std_BZ: Tensor) -> Tensor:
    """(B,): KL( N(mean, std^2) || N(0, I) ), summed over latent dimensions."""
    return 0.5 * (mean_BZ.square() + (2 * log_std_BZ).exp() - 1 - 2 * log_std_BZ).sum(dim=1)


def pad(steps_NX: Tensor, begins_B: Tensor, lengths_B: Tensor) -> Tensor:
    """(B, T, X): the rows begins[b] : begins[b] + lengths[b], padded with zeros to the longest."""
    longest = int(lengths_B.max())
    positions_T = torch.arange(longest, device=lengths_B.device)
    index_BT = (begins_B[:, None] + positions_T).clamp(max=len(steps_NX) - 1)
    padded_BTX: Tensor = steps_NX[index_BT] * (positions_T < lengths_B[:, None]).unsqueeze(-1)
    return padded_BTX


def encode_episodes(model: ModalityModel, table: EpisodeTable, config: ModalityConfig) -> NDArray[np.float32]:
    """(E, Z): z of every episode, the encoder mean over the whole episode or averaged over consecutive crops.

    Training uses crops of `crop_steps`, which are shorter than whole episodes; `inference: crops` encodes at the same
    length. Steps without a recorded next observation are left out; an episode that has no other steps gets the prior's
    mean, 0.
    """
    recorded = table.recorded_steps()
    if recorded is table:
        return _encode(model, table, config)
    latent = np.zeros((table.num_episodes, config.latent_dim), dtype=np.float32)
    if recorded.num_episodes:
        position = {name: index for index, name in enumerate(table.episode_id)}
        latent[[position[name] for name in recorded.episode_id]] = _encode(model, recorded, config)
    return latent


@torch.no_grad()
def _encode(model: ModalityModel, table: EpisodeTable, config: ModalityConfig) -> NDArray[np.float32]:
    steps_NX = model.steps(table)
    latent = np.zeros((table.num_episodes, config.latent_dim), dtype=np.float32)
    weight = np.zeros((table.num_episodes, 1), dtype=np.float32)
    crop = int(table.lengths.max())
    if config.inference == "crops":
        assert config.crop_steps is not None  # the configuration refuses it otherwise
        crop = config.crop_steps
    for episodes, begins, lengths in _pieces(table, crop):
        begins_B, lengths_B = (torch.from_numpy(values).to(model.device) for values in (begins, lengths))
        mean_BZ, _ = model.encoder(pad(steps_NX, begins_B, lengths_B), lengths_B)
        np.add.at(latent, episodes, mean_BZ.cpu().numpy() * lengths[:, None])
        np.add.at(weight, episodes, lengths[:, None].astype(np.float32))
    return latent / weight


def _pieces(table: EpisodeTable, crop: int, batch_size: int = 64) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """All episodes cut into pieces of at most `crop` steps, in batches of similar length (episode, begin, length)."""
    pieces = [
        (episode, begin, min(crop, int(table.offsets[episode + 1]) - begin))
        for episode in range(table.num_episodes)
        for begin in range(int(table.offsets[episode]), int(table.offsets[episode + 1]), crop)
    ]
    pieces.sort(key=lambda piece: piece[2])
    for start in range(0, len(pieces), batch_size):
        yield tuple(np.asarray(pieces[start : start + batch_size]).T.copy())
