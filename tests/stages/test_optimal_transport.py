"""Optimal-transport scores against POT's exact plan, in blocks of other sizes, and for near and far dynamics."""

import numpy as np
import ot
import pytest
import torch
from scipy.stats import spearmanr

from tests.stages.problems import linear_system, raw
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.errors import DivergenceError
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.optimal_transport import OptimalTransport, transport_scores


def points(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator) + shift


@pytest.mark.parametrize(("regularization", "tolerance"), [(0.05, 0.06), (0.005, 0.01)])
def test_transport_score_matches_the_exact_plan_up_to_the_regularisation(regularization, tolerance) -> None:
    source, target = points(50, 0), points(50, 1, shift=0.3)
    found = transport_scores(source, target, regularization, 20_000)
    unit = [x / x.norm(dim=1, keepdim=True) for x in (source, target)]
    cost = (1 - unit[0] @ unit[1].T).double().numpy()
    exact = ot.emd(np.full(50, 1 / 50), np.full(50, 1 / 50), cost)
    expected = -50 * (exact * cost).sum(axis=1)
    # The entropy may raise the total cost by epsilon log n, and never lowers it below the exact one.
    assert -expected.mean() - 1e-3 <= -found.mean().item() <= -expected.mean() + regularization * np.log(50)
    assert abs(found.mean().item() - expected.mean()) < tolerance
    assert spearmanr(found, expected).statistic > 0.7


def test_transport_score_by_hand() -> None:
    # Two source and two target vectors, orthogonal: transport to the parallel one costs 0, to the other one 1.
    source = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    # The plan of a row is proportional to (exp(-0 / eps), exp(-1 / eps)), so its mean cost is 1 / (1 + e^(1/eps)).
    assert transport_scores(source, target, 0.5, 1000).tolist() == pytest.approx([-1 / (1 + np.exp(2))] * 2, rel=1e-4)
    # A distant source costs more: opposite directions cost 2.
    far = transport_scores(-source, target, 0.5, 1000)
    assert (far < -0.9).all()


def test_unconverged_transport_plan_is_an_error() -> None:
    with pytest.raises(DivergenceError, match=r"(?s)not converged in 1 iterations.*max_iterations"):
        transport_scores(points(50, 0), points(50, 1), 0.005, 1)


def score(source, target, **settings):
    config = ALIGNMENTS(kind="optimal_transport", **settings)
    return OptimalTransport(Transitions(target, raw(2)), config, 0).score(Transitions(source, raw(2)))


def test_transport_scores_rank_near_dynamics_higher_in_any_block_size() -> None:
    target = linear_system([40] * 5, 0.5, seed=0)
    near, far = linear_system([40] * 5, 0.5, seed=1), linear_system([40] * 5, -0.9, seed=2)
    assert score(near, target).mean() > score(far, target).mean() + 0.05
    whole, blocks = score(near, target), score(near, target, block_transitions=100)
    assert spearmanr(whole, blocks).statistic > 0.9 and (whole - blocks).abs().mean() < 0.1


def test_large_target_is_subsampled_by_seed() -> None:
    target, source = linear_system([50] * 8, 0.5, seed=0), linear_system([30], 0.5, seed=1)
    few = score(source, target, max_target_transitions=50)
    assert torch.equal(few, score(source, target, max_target_transitions=50))
    assert not torch.equal(few, score(source, target))
