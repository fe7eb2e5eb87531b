"""Tiny episode tables and learners for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from v2a_ray.data.loading.sampler import Batch, Preprocessing, Transitions, TransitionSampler
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.networks import EnsembleMLP, TanhActor
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, moments
from v2a_ray.stages.policy.config import FILTERS, PolicyConfig
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.support.dynamics import DynamicsModel


def table_of(
    observation: Any,
    action: Any,
    reward: Any,
    next_observation: Any,
    lengths: Sequence[int],
    terminated: Sequence[bool],
) -> EpisodeTable:
    """A table from its arrays; episodes that do not terminate are truncated."""
    count = len(lengths)
    return EpisodeTable(
        observation=np.asarray(observation, dtype=np.float32),
        action=np.asarray(action, dtype=np.float32),
        reward=np.asarray(reward, dtype=np.float32),
        next_observation=np.asarray(next_observation, dtype=np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        terminated=np.asarray(terminated, dtype=bool),
        truncated=~np.asarray(terminated, dtype=bool),
        episode_id=tuple(f"episode/{index:03d}" for index in range(count)),
        source=("test",) * count,
        domain=("unknown",) * count,
        behavior=("unknown",) * count,
    )


def whole(transitions: TransitionSampler) -> Batch:
    """All rows of an in-memory sampler."""
    assert isinstance(transitions, Transitions)
    return transitions.all()


def linear_system(
    lengths: Sequence[int], gain: float, seed: int, observation_dim: int = 2, first_id: int = 0
) -> EpisodeTable:
    """Episodes of s' = 0.9 s + gain * a (the action repeated over features), reward -|s|^2, under random actions."""
    generator = np.random.default_rng(seed)
    states, actions, following = [], [], []
    for length in lengths:
        state = generator.normal(size=observation_dim)
        for _ in range(length):
            action = generator.uniform(-1, 1, 1)
            states.append(state)
            actions.append(action)
            state = 0.9 * state + gain * action
            following.append(state)
    observation = np.asarray(states)
    table = table_of(observation, actions, -(observation**2).sum(axis=1), following, lengths, [False] * len(lengths))
    return table.replace(episode_id=tuple(f"gain{gain}/{first_id + index:03d}" for index in range(len(lengths))))


def pushed_dynamics(num_members: int = 2, scale: float = 1.0) -> DynamicsModel:
    """Member k predicts (s' - s) / scale = relu(a) - relu(-a) + 0.5 k = a + 0.5 k, for one feature and one action."""
    model = DynamicsModel(num_members, 1, 1, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        first, second, last = model.ensemble.weights
        first[:, 1] = torch.tensor([1.0, -1.0])
        second.copy_(torch.eye(2).expand(num_members, 2, 2))
        last[:, :, 0] = torch.tensor([1.0, -1.0])
        model.ensemble.biases[2][:, 0] = 0.5 * torch.arange(num_members)
        model.delta_std_O.fill_(scale)
    return model


def raw(observation_dim: int) -> Preprocessing:
    """Preprocessing without standardisation and scaling."""
    return Preprocessing(np.zeros(observation_dim, np.float32), np.ones(observation_dim, np.float32), 1.0)


def mixed_sampler(
    target: EpisodeTable,
    source: EpisodeTable,
    config: PolicyConfig,
    columns: dict[str, Any] | None = None,
    target_columns: dict[str, Any] | None = None,
) -> MixedSampler:
    """A sampler of both tables, unprocessed, with the configured filter on `columns` of the source."""
    of_source, of_target = (
        {name: np.asarray(values, dtype=np.float32) for name, values in (given or {}).items()}
        for given in (columns, target_columns)
    )
    prepared = raw(target.observation_dim)
    drawn = Transitions(target, prepared, of_target), Transitions(source, prepared, of_source)
    return MixedSampler(*drawn, SourceFilter.prepare(config.filter, of_source.get("alignment"), None), config)


def make_actor(table: EpisodeTable, width: int) -> TanhActor:
    """An untrained actor for the table's dimensions."""
    return TanhActor(table.observation_dim, table.action_dim, [width] * 2)


def modality_learner(config: ModalityConfig, table: EpisodeTable, seed: int = 0) -> ModalityLearner:
    """A modality learner with the statistics of its table."""
    torch.manual_seed(seed)
    model = ModalityModel(table.observation_dim, table.action_dim, config)
    model.set_statistics(moments(table))
    return ModalityLearner(table, model, config, seed)


def set_constant(network: EnsembleMLP | TanhActor, *values: float) -> None:
    """Make a network's outputs constant (an actor's before the tanh) by zeroing all parameters but the last bias."""
    body = network.body if isinstance(network, TanhActor) else network
    with torch.no_grad():
        body.numbers_KS.zero_()
        body.biases[-1].copy_(torch.tensor(values).view_as(body.biases[-1]))


def weights_of(learner: Any) -> dict[str, torch.Tensor]:
    """A copy of every parameter and buffer of a learner's networks."""
    return {
        f"{name}.{key}": value.detach().clone()
        for name, network in learner.networks.items()
        for key, value in network.state_dict().items()
    }


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Assert bit-identical weights."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


NO_FILTER = FILTERS()
TWO_STEPS = table_of([[0.0], [0.0]], [[0.5], [-1.0]], [1.0, 1.0], [[0.0], [0.0]], [1, 1], [False, True])
"""One truncated and one terminated step, reward 1 each."""
BANDIT = table_of([[1.0]] * 2, [[-0.5], [0.5]], [0.0, 1.0], [[1.0]] * 2, [1, 1], [True, True])
"""One state, one step; action 0.5 has reward 1, action -0.5 reward 0."""
