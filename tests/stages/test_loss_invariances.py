"""Losses are means: copies and order of a batch do not change them; their gradients match finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from v2a_ray.networks import gaussian_log_density
from v2a_ray.stages.advantage.learner import expectile_value_loss, sparse_value_loss
from v2a_ray.stages.alignment.classifier import domain_loss
from v2a_ray.stages.alignment.contrastive import contrastive_loss
from v2a_ray.stages.alignment.optimal_transport import transport_scores
from v2a_ray.stages.modality.model import kl_to_standard_normal
from v2a_ray.stages.policy.td3_bc import td3_bc_actor_loss

NEGATIVES = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse_value": lambda rows: sparse_value_loss(rows[:, 0], rows[:, 1], 0.2),
    "expectile_value": lambda rows: expectile_value_loss(rows[:, 0], rows[:, 1], 0.7),
    "domain": lambda rows: domain_loss(rows[:, 0], rows[:, 1]),
    # All queries share the negatives.
    "contrastive": lambda rows: contrastive_loss(rows[:, :3], rows[:, 3:6], NEGATIVES),
    "td3_bc_actor": lambda rows: td3_bc_actor_loss(rows[:, 0], rows[:, 1:3], rows[:, 3:5], 2.5),
    "kl": lambda rows: kl_to_standard_normal(rows[:, :3], rows[:, 3:6]).mean(),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def batch() -> Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@every_loss
def test_losses_ignore_copies_and_order_of_a_batch(loss: Callable[[Tensor], Tensor]) -> None:
    rows = batch()
    torch.testing.assert_close(loss(torch.cat([rows, rows, rows])), loss(rows))
    torch.testing.assert_close(loss(rows.flip(0)), loss(rows))
    assert loss(rows[:5]) != loss(rows)  # but it does depend on the rows


@pytest.mark.parametrize("name", ["expectile_value", "domain", "contrastive"])
def test_loss_gradients_against_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], batch().requires_grad_(), eps=1e-6, atol=1e-6)


def test_expectile_value_loss_by_hand() -> None:
    # Q - V = 2 and -1: (0.7 * 4 + 0.3 * 1) / 2.
    assert expectile_value_loss(torch.tensor([3.0, 0.0]), torch.ones(2), 0.7).item() == pytest.approx(1.55)


def gradient(loss: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    rows = rows.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(rows), rows)
    return found


@pytest.mark.parametrize("unit", [0.01, 100.0])
def test_td3_bc_actor_loss_does_not_depend_on_the_unit_of_rewards(unit: float) -> None:
    policy, action = batch()[:, :2], batch()[:, 2:4]
    values = batch()[:, 4]
    plain = td3_bc_actor_loss(values, policy, action, 2.5)
    scaled = td3_bc_actor_loss(unit * values, policy, action, 2.5)
    torch.testing.assert_close(scaled, plain)


@pytest.mark.parametrize("unit", [0.1, 10.0])
def test_unit_of_actions_only_shifts_the_log_density(unit: float) -> None:
    mean, action = batch()[:, :3], batch()[:, 3:]
    log_std = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)
    plain = gaussian_log_density(mean, log_std, action)
    scaled = gaussian_log_density(unit * mean, log_std + math.log(unit), unit * action)
    torch.testing.assert_close(scaled, plain - 3 * math.log(unit))
    torch.testing.assert_close(
        gradient(lambda rows: gaussian_log_density(mean, log_std, rows).sum(), action),
        gradient(lambda rows: gaussian_log_density(unit * mean, log_std + math.log(unit), unit * rows).sum(), action),
    )


def test_transport_scores_ignore_order_and_copies() -> None:
    """Neither the order of source and target nor copies of the source change the scores."""
    source, target = batch()[:, :4].float(), batch().flip(0)[:, 1:5].float()
    plain = transport_scores(source, target, 0.1, 5000)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(transport_scores(source[order], target, 0.1, 5000), plain[order], atol=1e-4, rtol=0)
    torch.testing.assert_close(transport_scores(source, target[order], 0.1, 5000), plain, atol=1e-4, rtol=0)
    copied = transport_scores(source.repeat(2, 1), target, 0.1, 5000)
    torch.testing.assert_close(copied, plain.repeat(2), atol=1e-4, rtol=0)
