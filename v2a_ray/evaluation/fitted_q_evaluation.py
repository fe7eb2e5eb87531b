"""Fitted Q evaluation: a policy's value from recorded transitions alone (1903.08738; compared in 2007.09055).

Each critic k regresses on its own moving average,

    Q_k(s, a)  <-  r + gamma (1 - terminated) Q'_k(s', pi(s'))                                (gamma: discount)

and the policy's value is the mean of Q_k(s_0, pi(s_0)) over first states of held-out episodes. The recorded rewards
bound the value of any policy, so regression targets are clipped to [min(r, 0), max(r, 0)] / (1 - gamma): true values
are inside, and the iteration cannot diverge. A truncated step bootstraps.

Shape suffixes: N transitions, B batch, E held-out episodes, K critics, O observation dimension, A action dimension.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import STANDARD_DEVIATION_FLOOR, Preprocessing, Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.splits import split_target
from v2a_ray.domains.rollout import Act
from v2a_ray.engine.devices import choose_device
from v2a_ray.engine.trainer import Progress, TrainingLoop, silent, use_threads
from v2a_ray.errors import DataError
from v2a_ray.networks import EnsembleMLP, adam, update_target
from v2a_ray.settings.base import Positive, Rate, TrainingConfig

Float = NDArray[np.float32]
MIN_EPISODES = 5
_LARGEST_VALUE = 10.0
"""Rewards are scaled so that no value can exceed it: networks learn values of order 1."""


class FittedQConfig(TrainingConfig):
    """Settings of fitted Q evaluation."""

    num_steps: Positive = 5000
    batch_size: Positive = 256
    num_critics: Positive = 4
    """Critics that differ in their initial weights; their spread is a lower bound of the estimate's uncertainty."""
    width: Positive = 128
    """Width of the two hidden layers."""
    discount: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    target_rate: Rate = 0.05
    """Rate of the moving average that critics regress on. Values settle within 1 / (rate (1 - discount)) update steps:
    2,000 here, and 20,000 at the 0.005 that policies are trained with."""


@dataclass(frozen=True)
class OfflineValue:
    """The estimated value of a policy.

    Attributes:
        of_critic: (K,) each critic's mean discounted value of held-out first states, in the unit of the data's rewards.
        of_episode: (E,) mean over critics, in each of those states.
    """

    of_critic: NDArray[np.float64]
    of_episode: NDArray[np.float64]

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.of_episode)

    @property
    def mean(self) -> float:
        """Mean over critics."""
        return float(self.of_critic.mean())

    @property
    def std(self) -> float:
        """Standard deviation over critics. It does not show common errors, such as in states that the data lack."""
        return float(self.of_critic.std())

    @property
    def lower(self) -> float:
        """Mean minus one standard deviation; policies are ordered by it. Critics disagree on actions outside the data,
        so uncertainty counts against a policy."""
        return self.mean - self.std


def hold_out(table: EpisodeTable, fraction: float, seed: int) -> tuple[EpisodeTable, EpisodeTable]:
    """The episodes to fit to, and the others: `split_target`, the rule of every stage.

    Raises DataError for single transitions, whose first states are not known, and for fewer than five episodes.
    """
    if not has_whole_episodes(table):
        reason = (
            f"{table.num_episodes} episodes, of which none can be held out"
            if table.num_episodes < MIN_EPISODES
            else "single transitions, whose first states are not known"
        )
        raise DataError(
            reason, where="offline evaluation", remedy=f"give data of at least {MIN_EPISODES} whole episodes"
        )
    return split_target(table, fraction, seed)


def has_whole_episodes(table: EpisodeTable) -> bool:
    """Whether `split_target` holds whole episodes out of it: at least five, and not of one step each."""
    return table.num_episodes >= MIN_EPISODES and table.num_transitions > table.num_episodes


def first_states(table: EpisodeTable) -> Float:
    """(E, O) where episodes begin."""
    return table.observation[table.offsets[:-1]]


def offline_value(
    act: Act, table: EpisodeTable, first_EO: Float, config: FittedQConfig, seed: int, progress: Progress = silent
) -> OfflineValue:
    """Fit critics of the policy `act` to `table` and average them over the first states `first_EO` (E, O)."""
    return fit_critics(act, table, config, seed, progress).value(first_EO)


def fit_critics(
    act: Act, table: EpisodeTable, config: FittedQConfig, seed: int, progress: Progress = silent
) -> FittedQ:
    """Fit critics of the policy `act` to `table`. Random numbers of a training around it stay as they are."""
    use_threads(config.num_threads)
    prepared, bounds = _prepare(table, config.discount)
    # Policy and data are fixed, so the policy's next actions are computed once, as a column.
    next_action = np.asarray(act(table.next_observation), dtype=np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        device = choose_device(config.device)
        transitions = Transitions(table, prepared, {"next_action": next_action}, device)
        learner = FittedQLearner(transitions, bounds, config, seed)
        TrainingLoop(config.num_steps, log_interval_steps=config.log_interval_steps, progress=progress).run(learner)
    return FittedQ(act, learner, prepared)


@dataclass(frozen=True)
class FittedQ:
    """Critics of the policy `act`, in the unit of the data's rewards."""

    act: Act
    learner: FittedQLearner
    prepared: Preprocessing

    def value(self, first_EO: Float) -> OfflineValue:
        """What the policy is worth from these states on."""
        value_KE = self._q(first_EO, self.act(first_EO))
        return OfflineValue(value_KE.mean(axis=1), value_KE.mean(axis=0))

    def td_error(self, table: EpisodeTable) -> float:
        """Root mean square over critics and transitions of r + gamma (1 - terminated) Q(s', pi(s')) - Q(s, a)."""
        next_KN = self._q(table.next_observation, self.act(table.next_observation))
        discount_N = self.learner.config.discount * (1.0 - table.terminal_rows)
        error_KN = table.reward + discount_N * next_KN - self._q(table.observation, table.action)
        return float(np.sqrt(np.square(error_KN).mean()))

    def _q(self, observation: Float, action: Float) -> NDArray[np.float64]:
        """(K, N) values of actions."""
        device = self.learner.transitions.device
        standardized = (observation - self.prepared.observation_mean) / self.prepared.observation_std
        inputs = (torch.tensor(each, dtype=torch.float32, device=device) for each in (standardized, action))
        with torch.no_grad():
            value_KN = self.learner.q(self.learner.critics, *inputs)
        scaled: NDArray[np.float64] = value_KN.cpu().double().numpy() / self.prepared.reward_scale
        return scaled


class FittedQLearner:
    """K critics of a fixed policy, whose next actions are the column `next_action` of `transitions`."""

    def __init__(self, transitions: Transitions, bounds: tuple[float, float], config: FittedQConfig, seed: int) -> None:
        """`bounds`: the least and the largest value that any policy can have, in scaled rewards."""
        self.transitions, self.bounds, self.config = transitions, bounds, config
        self.generator = torch.Generator(transitions.device).manual_seed(seed)
        inputs = transitions.observation_dim + transitions.action_dim
        self.critics = EnsembleMLP(config.num_critics, inputs, [config.width] * 2, 1)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"critics": self.critics, "target_critics": self.target_critics}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "critics": adam(self.critics.parameters(), config.learning_rate)
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One regression step of every critic on its own moving average."""
        batch = self.transitions.sample(self.config.batch_size, self.generator)
        with torch.no_grad():
            next_KB = self.q(self.target_critics, batch.next_observation_BO, batch.extra["next_action"])
            return_KB = batch.reward_B + self.config.discount * batch.not_done_B * next_KB
        q_KB = self.q(self.critics, batch.observation_BO, batch.action_BA)
        loss = (q_KB - return_KB.clamp(*self.bounds)).square().mean(dim=1).sum()
        self.optimizers["critics"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers["critics"].step()
        update_target(self.target_critics, self.critics, self.config.target_rate)
        return {"fitted_q/loss": loss.detach(), "fitted_q/value": q_KB.detach().mean()}

    def q(self, critics: EnsembleMLP, observation: Tensor, action: Tensor) -> Tensor:
        """(K, B) values of actions."""
        value_KB: Tensor = critics(torch.cat([observation, action], dim=1)).squeeze(-1)
        return value_KB


def _prepare(table: EpisodeTable, discount: float) -> tuple[Preprocessing, tuple[float, float]]:
    """How observations and rewards are scaled, and what values are then possible."""
    low, high = min(float(table.reward.min()), 0.0), max(float(table.reward.max()), 0.0)
    scale = _LARGEST_VALUE * (1.0 - discount) / max(-low, high, 1e-9)
    mean = table.observation.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = np.maximum(table.observation.std(axis=0, dtype=np.float64), STANDARD_DEVIATION_FLOOR).astype(np.float32)
    bounds = (scale * low / (1.0 - discount), scale * high / (1.0 - discount))
    return Preprocessing(mean, std, scale), bounds
