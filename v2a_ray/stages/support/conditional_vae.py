"""Conditional variational autoencoders (CVAE): densities p(y | x) of actions and of dynamics, for OTDF and BOSA.

    log p(y | x)  =  log E_{w ~ q(w | x, y)} [ p(y | x, w) N(w; 0, I) / q(w | x, y) ]

The expectation is estimated by the mean over `num_samples` samples of w. In expectation this is a lower bound: the ELBO
for one sample, tighter for more. The likelihood p(y | x, w) is a diagonal Gaussian with one learned standard deviation
per feature, so that densities have the unit of the data and a threshold on them is meaningful.

Shape suffixes: K members, L samples of w, B batch, N transitions, X condition, Y modelled features, W latent dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.networks import EnsembleMLP, adam, gaussian_log_density
from v2a_ray.settings.base import TrainingConfig

LOG_STD_RANGE = (-5.0, 2.0)
INITIAL_LOG_STD = -1.0
"""Narrower than unit data: with a wide likelihood, the decoder explains everything as noise and ignores the latent."""
Split = Callable[[Batch], tuple[Tensor, Tensor]]
"""From a batch to the condition (B, X) and the modelled features (B, Y)."""


class ConditionalVAE(nn.Module):
    """K independent CVAEs of equal shape, evaluated together."""

    def __init__(self, num_members: int, condition_dim: int, output_dim: int, latent_dim: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = EnsembleMLP(num_members, condition_dim + output_dim, [width] * 2, 2 * latent_dim)
        self.decoder = EnsembleMLP(num_members, condition_dim + latent_dim, [width] * 2, output_dim)
        self.log_std_K1Y = nn.Parameter(torch.full((num_members, 1, output_dim), INITIAL_LOG_STD))

    def log_density(self, condition: Tensor, output: Tensor, noise_KLBW: Tensor) -> Tensor:
        """(K, B): the estimate of log p(output | condition), differentiable in every argument.

        Args:
            condition, output: (B, X) and (B, Y), shared by all members, or with a leading K.
            noise_KLBW: standard normal.
        """
        members, draws, size, _ = noise_KLBW.shape
        condition_KBX, output_KBY = (
            values.expand(members, -1, -1) if values.dim() == 2 else values for values in (condition, output)
        )
        mean_KBW, log_std_KBW = self.encoder(torch.cat([condition_KBX, output_KBY], dim=2)).chunk(2, dim=2)
        log_std_KLBW = log_std_KBW.clamp(*LOG_STD_RANGE).unsqueeze(1)
        latent_KLBW = mean_KBW.unsqueeze(1) + noise_KLBW * log_std_KLBW.exp()
        inputs = torch.cat([condition_KBX.unsqueeze(1).expand(-1, draws, -1, -1), latent_KLBW], dim=3)
        decoded_KLBY = self.decoder(inputs.flatten(1, 2)).view(members, draws, size, -1)
        log_std_K11Y = self.log_std_K1Y.clamp(*LOG_STD_RANGE).unsqueeze(1)
        log_likelihood_KLB = gaussian_log_density(decoded_KLBY, log_std_K11Y, output_KBY.unsqueeze(1))
        # log N(w; 0, I) - log q(w | x, y); the constants cancel.
        prior_KLB = 0.5 * (noise_KLBW.square() - latent_KLBW.square()).sum(dim=3) + log_std_KLBW.sum(dim=3)
        log_density_KB: Tensor = (log_likelihood_KLB + prior_KLB).logsumexp(dim=1) - math.log(draws)
        return log_density_KB

    def noise(self, num_samples: int, batch_size: int, generator: torch.Generator) -> Tensor:
        """(K, L, B, W) standard normal."""
        shape = (self.encoder.num_members, num_samples, batch_size, self.latent_dim)
        return torch.randn(shape, generator=generator, device=generator.device)


class DensityLearner:
    """Fits a `ConditionalVAE` by maximising its ELBO (one sample of w). Every member gets its own batches.

    Each of the `samplers` gives an equal part of a batch.
    """

    group = "density"

    def __init__(
        self,
        model: ConditionalVAE,
        split: Split,
        samplers: Sequence[TransitionSampler],
        config: TrainingConfig,
        seed: int,
    ) -> None:
        self.model, self.split, self.samplers, self.config = model, split, samplers, config
        self.generator = torch.Generator(samplers[0].device).manual_seed(seed)
        self.networks: dict[str, nn.Module] = {"model": model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"model": adam(model.parameters(), config.learning_rate)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step."""
        members, share = self.model.encoder.num_members, -(-self.config.batch_size // len(self.samplers))
        drawn = [self.split(feed.sample(members * share, self.generator)) for feed in self.samplers]
        condition_KBX, output_KBY = (
            torch.cat([values.view(members, share, -1) for values in parts], dim=1)
            for parts in zip(*drawn, strict=True)
        )
        noise_K1BW = self.model.noise(1, condition_KBX.shape[1], self.generator)
        loss = -self.model.log_density(condition_KBX, output_KBY, noise_K1BW).mean()
        self.optimizers["model"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers["model"].step()
        return {f"{self.group}/negative_elbo": loss.detach()}


def behavior_split(batch: Batch) -> tuple[Tensor, Tensor]:
    """Split for a behaviour policy: actions given standardised observations."""
    return batch.observation_BO, batch.action_BA


@dataclass(frozen=True)
class BehaviorDensity:
    """A fitted pi(a | s) for a policy's loss: one member, with frozen parameters."""

    model: ConditionalVAE
    num_samples: int

    def __post_init__(self) -> None:
        self.model.requires_grad_(False)

    def log_density(self, observation_BO: Tensor, action_BA: Tensor, generator: torch.Generator) -> Tensor:
        """(B,): log pi(a | s), differentiable in the action."""
        noise_1LBW = self.model.noise(self.num_samples, len(action_BA), generator)
        return self.model.log_density(observation_BO, action_BA, noise_1LBW)[0]
