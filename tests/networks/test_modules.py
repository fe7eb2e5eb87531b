"""Networks: an ensemble equals K networks, target networks follow, actions stay in range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from v2a_ray.networks import MLP, EnsembleMLP, GRUEncoder, PooledEncoder, TanhActor, update_target


def member(ensemble: EnsembleMLP, index: int) -> MLP:
    """Member `index` as a separate network."""
    network = MLP(ensemble.widths[0], ensemble.widths[1:-1], ensemble.widths[-1])
    with torch.no_grad():
        network.numbers_KS[0] = ensemble.numbers_KS[index]
    return network


@pytest.mark.parametrize("hidden", [[], [5], [7, 6]])
def test_ensemble_equals_separate_networks(hidden: list[int]) -> None:
    torch.manual_seed(0)
    ensemble = EnsembleMLP(3, 4, hidden, 2)
    shared, own = torch.randn(6, 4), torch.randn(3, 6, 4)
    for index in range(3):
        network = member(ensemble, index)
        torch.testing.assert_close(ensemble(shared)[index], network(shared))
        torch.testing.assert_close(ensemble(own)[index], network(own[index]))


def test_ensemble_members_start_different_and_learn_independently() -> None:
    torch.manual_seed(0)
    ensemble = EnsembleMLP(2, 3, [4], 1)
    inputs = torch.randn(5, 3)
    first, second = ensemble(inputs)
    assert not torch.equal(first, second)
    first.sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad is not None
        assert parameter.grad[0].abs().sum() > 0
        assert parameter.grad[1].abs().sum() == 0


def test_ensemble_starts_in_the_range_of_linear_layers() -> None:
    torch.manual_seed(0)
    ensemble = EnsembleMLP(8, 100, [100], 100)
    for parameter in ensemble.parameters():
        assert 0.095 < parameter.abs().max() <= 0.1  # uniform within 1 / sqrt(fan in)


def test_update_target_moves_by_the_rate() -> None:
    target, online = MLP(2, [3], 1), MLP(2, [3], 1)
    before = [parameter.detach().clone() for parameter in target.parameters()]
    update_target(target, online, 0.25)
    for new, old, goal in zip(target.parameters(), before, online.parameters(), strict=True):
        torch.testing.assert_close(new.data, 0.75 * old + 0.25 * goal.data)
    update_target(target, online, 1.0)
    for new, goal in zip(target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(new.data, goal.data)


def test_actor_standardises_raw_observations() -> None:
    torch.manual_seed(0)
    actor = TanhActor(2, 3, [8, 8])
    actor.observation_mean_O.copy_(torch.tensor([10.0, -5.0]))
    actor.observation_std_O.copy_(torch.tensor([2.0, 0.5]))
    action = actor.act(torch.tensor([[12.0, -5.0], [10.0, -4.5]]))
    torch.testing.assert_close(action, actor(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).detach())
    assert not action.requires_grad
    assert {"observation_mean_O", "observation_std_O"} <= actor.state_dict().keys()  # saved with the weights


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2))
def test_actions_stay_in_range(observation: list[float]) -> None:
    torch.manual_seed(0)
    action = TanhActor(2, 4, [8, 8]).act(torch.tensor([observation]))
    assert action.shape == (1, 4)
    assert action.abs().max() <= 1.0


@pytest.mark.parametrize("kind", [GRUEncoder, PooledEncoder])
def test_encoder_clamps_its_log_std(kind: type[GRUEncoder] | type[PooledEncoder]) -> None:
    torch.manual_seed(0)
    encoder = kind(3, 4, 2)
    for bias, expected in ((100.0, 2.0), (-100.0, -5.0)):
        with torch.no_grad():
            encoder.head.bias.fill_(bias)
        mean, log_std = encoder(torch.randn(2, 5, 3), torch.tensor([5, 2]))
        assert mean.shape == log_std.shape == (2, 2)
        assert log_std.tolist() == [[expected] * 2] * 2
