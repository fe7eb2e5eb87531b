"""Modality (V2A, TC-ELBO): an E-step on the encoder, then an M-step on the decoders.

Every decoder is a network of its own and decodes all time steps, padding too; the mask is applied to the errors.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.reference.networks import PaddedGRUEncoder, adam, separate
from v2a_ray.networks import GRUEncoder
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import TrajectoryBatch, kl_to_standard_normal


class ModalityReference:
    """`update` is one EM step."""

    def __init__(self, learner: ModalityLearner) -> None:
        self.config, self.observation_dim = learner.config, learner.model.observation_dim
        assert isinstance(learner.model.encoder, GRUEncoder)
        self.encoder = PaddedGRUEncoder(learner.model.encoder)
        self.decoders = separate(learner.model.decoder)
        self.encoder_optimizer = adam([self.encoder], self.config.learning_rate)
        self.decoder_optimizer = adam(self.decoders, self.config.learning_rate)

    def update(self, batch: TrajectoryBatch) -> dict[str, Tensor]:
        """One E-step (decoders frozen, z sampled) and one M-step (encoder frozen, z its mean)."""
        self.decoders.requires_grad_(False)
        mean_BZ, log_std_BZ = self.encoder(batch.steps_BTX, batch.lengths_B)
        latent_BZ = mean_BZ + batch.noise_BZ * log_std_BZ.exp()
        reconstruction = self.reconstruction_loss(batch, latent_BZ)
        divergence = kl_to_standard_normal(mean_BZ, log_std_BZ).mean()
        loss = reconstruction + self.config.kl_weight * divergence
        self.descend(self.encoder_optimizer, loss, self.encoder.parameters())
        self.decoders.requires_grad_(True)

        with torch.no_grad():
            mean_BZ, _ = self.encoder(batch.steps_BTX, batch.lengths_B)
        loss = self.reconstruction_loss(batch, mean_BZ)
        self.descend(self.decoder_optimizer, loss, self.decoders.parameters())
        return {"modality/reconstruction_loss": reconstruction.detach(), "modality/kl": divergence.detach()}

    def reconstruction_loss(self, batch: TrajectoryBatch, latent_BZ: Tensor) -> Tensor:
        """Squared error of the predicted state difference, averaged over valid steps, features and decoders."""
        num_steps = batch.steps_BTX.shape[1]
        condition_BTC = batch.steps_BTX[..., : -self.observation_dim]
        delta_BTO = batch.steps_BTX[..., -self.observation_dim :]
        inputs = torch.cat([condition_BTC, latent_BZ[:, None].expand(-1, num_steps, -1)], dim=-1)
        mask_BT = (torch.arange(num_steps) < batch.lengths_B[:, None]).float()
        losses = []
        for decoder in self.decoders:
            error_BT = (decoder(inputs) - delta_BTO).square().mean(dim=-1)
            losses.append((error_BT * mask_BT).sum() / mask_BT.sum())
        return torch.stack(losses).mean()

    def descend(self, optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Iterable[nn.Parameter]) -> None:
        """One step of one optimiser, with the gradient's norm clipped."""
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, self.config.gradient_norm_clip)
        optimizer.step()
