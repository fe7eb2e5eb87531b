"""The trajectory encoders by hand and against torch; padding is never read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import Tensor, nn

from v2a_ray.networks import GRUEncoder, PooledEncoder


class PaddedGRUEncoder(GRUEncoder):
    """The published form: torch's GRU also computes padding, and the last valid state is selected."""

    def forward(self, steps_BTX: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BTH, _ = self.recurrent(steps_BTX)
        mean_BZ, log_std_BZ = self.head(hidden_BTH[torch.arange(len(lengths_B)), lengths_B - 1]).chunk(2, dim=1)
        return mean_BZ, log_std_BZ.clamp(-5.0, 2.0)


def encoder_of(kind: str, input_dim: int = 4, width: int = 5) -> GRUEncoder | PooledEncoder:
    torch.manual_seed(3)
    if kind == "pooled":
        return PooledEncoder(input_dim, width, 2)
    return (PaddedGRUEncoder if kind == "gru-padded" else GRUEncoder)(input_dim, width, 2)


def trajectories(lengths: list[int], padding: float = 0.0, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Random steps (B, T, 4), padded with `padding` to the longest trajectory plus `extra` steps."""
    lengths_B = torch.tensor(lengths)
    generator = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randn(length, 4, generator=generator) for length in lengths]
    steps_BTX = torch.full((len(lengths), max(lengths) + extra, 4), padding)
    for index, row in enumerate(rows):
        steps_BTX[index, : len(row)] = row
    return steps_BTX, lengths_B


def gradients(encoder: nn.Module, steps_BTX: Tensor, lengths_B: Tensor) -> list[Tensor]:
    """Parameter gradients of a loss that weights every output differently."""
    outputs = torch.cat(encoder(steps_BTX, lengths_B), dim=1)
    weights = torch.arange(1.0, outputs.numel() + 1).view_as(outputs)
    return list(torch.autograd.grad((weights * outputs).sum(), list(encoder.parameters())))


def test_pooled_encoder_by_hand() -> None:
    encoder = PooledEncoder(1, 1, 1)
    with torch.no_grad():
        encoder.body.numbers_KS.copy_(torch.tensor([[1.0, 0.0, 2.0, 1.0]]))  # weight and bias of both layers
        encoder.head.weight.copy_(torch.tensor([[1.0], [0.5]]))
        encoder.head.bias.copy_(torch.tensor([0.25, -2.0]))
    steps_BTX = torch.tensor([[[1.0], [3.0], [-5.0]], [[2.0], [9.0], [9.0]]])
    mean, log_std = encoder(steps_BTX, torch.tensor([3, 1]))
    # relu(x) is 1, 3, 0, then 2 x + 1 is 3, 7, 1, whose mean is 11/3; of the second trajectory's one step it is 5.
    torch.testing.assert_close(mean, torch.tensor([[11 / 3 + 0.25], [5.25]]))
    torch.testing.assert_close(log_std, torch.tensor([[11 / 6 - 2], [0.5]]))


def test_pooled_encoder_ignores_order_and_repetition_of_steps() -> None:
    encoder = encoder_of("pooled")
    steps_BTX, lengths_B = trajectories([6])
    shuffled_BTX, twice_BTX = steps_BTX[:, [3, 1, 5, 0, 4, 2]], steps_BTX.repeat(1, 2, 1)
    for ours, shuffled, twice in zip(
        encoder(steps_BTX, lengths_B), encoder(shuffled_BTX, lengths_B), encoder(twice_BTX, 2 * lengths_B), strict=True
    ):
        torch.testing.assert_close(ours, shuffled, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, twice, rtol=1e-5, atol=1e-6)
    in_order = encoder_of("gru")
    assert (in_order(steps_BTX, lengths_B)[0] - in_order(shuffled_BTX, lengths_B)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["pooled", "gru"])
@given(lengths=strategies.lists(strategies.integers(1, 9), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_encoders_do_not_read_padding(kind: str, lengths: list[int]) -> None:
    encoder = encoder_of(kind)
    clean, dirty = trajectories(lengths), trajectories(lengths, padding=float("nan"), extra=3)
    for ours, theirs in zip(encoder(*clean), encoder(*dirty), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(gradients(encoder, *clean), gradients(encoder, *dirty), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["pooled", "gru"])
@given(lengths=strategies.lists(strategies.integers(1, 9), min_size=2, max_size=6))
@settings(max_examples=25, deadline=None)
def test_z_does_not_depend_on_the_other_trajectories_of_a_batch(kind: str, lengths: list[int]) -> None:
    encoder = encoder_of(kind)
    steps_BTX, lengths_B = trajectories(lengths)
    together, _ = encoder(steps_BTX, lengths_B)
    for index, length in enumerate(lengths):
        alone, _ = encoder(steps_BTX[index : index + 1, :length], lengths_B[index : index + 1])
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("width", "dtype"), [(5, torch.float32), (256, torch.float32), (5, torch.float64)])
@given(lengths=strategies.lists(strategies.integers(1, 12), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_gru_outputs_and_gradients_equal_torch(width: int, dtype: torch.dtype, lengths: list[int]) -> None:
    ours, torchs = (encoder_of(kind, width=width).to(dtype) for kind in ("gru", "gru-padded"))
    steps_BTX, lengths_B = trajectories(lengths)
    results = []
    for encoder in (ours, torchs):
        steps = steps_BTX.to(dtype).requires_grad_()
        outputs = torch.cat(encoder(steps, lengths_B), dim=1)
        weights = torch.arange(1.0, outputs.numel() + 1, dtype=dtype).view_as(outputs)
        results.append([outputs, *torch.autograd.grad((weights * outputs).sum(), [*encoder.parameters(), steps])])
    for our, their in zip(*results, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)
