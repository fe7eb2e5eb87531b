"""Losses are means: neither copies of a batch nor its order move them, and their gradients are what they say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from v2a_ray.stages.actor_critics import td3_bc_actor_loss
from v2a_ray.stages.advantage import expectile_value_loss, sparse_value_loss
from v2a_ray.stages.classifier import domain_loss
from v2a_ray.stages.contrastive import contrastive_loss
from v2a_ray.stages.modality import kl_to_standard_normal

NEGATIVES = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse_value": lambda rows: sparse_value_loss(rows[:, 0], rows[:, 1], 0.2),
    "expectile_value": lambda rows: expectile_value_loss(rows[:, 0], rows[:, 1], 0.7),
    "domain": lambda rows: domain_loss(rows[:, 0], rows[:, 1]),
    # Every query has the same negatives.
    "contrastive": lambda rows: contrastive_loss(rows[:, :3], rows[:, 3:6], NEGATIVES),
    "td3_bc_actor": lambda rows: td3_bc_actor_loss(rows[:, 0], rows[:, 1:3], rows[:, 3:5], 2.5),
    "kl": lambda rows: kl_to_standard_normal(rows[:, :3], rows[:, 3:6]).mean(),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def batch() -> Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@every_loss
def test_copies_of_a_batch_and_its_order_leave_the_loss(loss: Callable[[Tensor], Tensor]) -> None:
    rows = batch()
    torch.testing.assert_close(loss(torch.cat([rows, rows, rows])), loss(rows))
    torch.testing.assert_close(loss(rows.flip(0)), loss(rows))
    assert loss(rows[:5]) != loss(rows)  # it does depend on what the rows are


@pytest.mark.parametrize("name", ["expectile_value", "domain", "contrastive"])
def test_gradients_against_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(LOSSES[name], batch().requires_grad_(), eps=1e-6, atol=1e-6)


def test_expectile_value_loss_by_hand() -> None:
    # Q - V = 2 and -1: (0.7 * 4 + 0.3 * 1) / 2.
    assert expectile_value_loss(torch.tensor([3.0, 0.0]), torch.ones(2), 0.7).item() == pytest.approx(1.55)
