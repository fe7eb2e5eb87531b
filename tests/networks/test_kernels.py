"""Perceptrons with backpropagation written out: the outputs and gradients of torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from v2a_ray.networks import EnsembleMLP, mlp, perceptrons, product

WIDTHS = st.lists(st.integers(1, 40), min_size=2, max_size=4)
LARGE = [14, 256, 256, 3]
"""Of products that oneDNN computes; the others are too small for it."""


def results(network: Callable[..., Tensor], tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    """The outputs, and the gradients of the tensors that need one, of a loss that weighs every output differently."""
    leaves = [tensor.clone().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
    outputs = network(*leaves)
    loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [outputs.detach(), *(torch.autograd.grad(loss, wanted) if wanted else [])]


def plain(inputs_KBX: Tensor, *parameters: Tensor) -> Tensor:
    """The perceptrons in torch's own operations."""
    depth = len(parameters) // 2
    for layer, (weight, bias) in enumerate(zip(parameters[:depth], parameters[depth:], strict=True)):
        inputs_KBX = inputs_KBX @ weight + bias
        if layer < depth - 1:
            inputs_KBX = inputs_KBX.relu()
    return inputs_KBX


@given(
    widths=WIDTHS,
    num_networks=st.integers(1, 3),
    num_rows=st.integers(0, 20),
    frozen=st.sampled_from(["nothing", "inputs", "weights", "first layer"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@example(LARGE, 2, 192, "nothing", torch.float32)
@example(LARGE, 1, 192, "weights", torch.float32)
@settings(max_examples=60, deadline=None)
def test_gradients_are_torchs(
    widths: list[int], num_networks: int, num_rows: int, frozen: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(sum(widths))
    inputs = torch.randn(num_networks, num_rows, widths[0], dtype=dtype)
    shapes = [(num_networks, *pair) for pair in pairwise(widths)] + [(num_networks, 1, width) for width in widths[1:]]
    tensors = [inputs, *(torch.randn(shape, dtype=dtype) / shape[1] ** 0.5 for shape in shapes)]
    depth = len(widths) - 1
    needed = [frozen != "inputs", *[frozen != "weights"] * (2 * depth)]
    if frozen == "first layer":
        needed[1] = needed[1 + depth] = False
    ours = results(lambda inputs, *rest: perceptrons(inputs, rest[:depth], rest[depth:]), tensors, needed)
    for our, their in zip(ours, results(plain, tensors, needed), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("widths", [[3, 5, 2], LARGE])
@pytest.mark.parametrize("leading", [(192,), (4, 48), ()])
def test_an_mlp_is_its_layers_one_after_the_other(widths: list[int], leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = mlp(widths[0], widths[1:-1], widths[-1])
    layers = torch.nn.Sequential(*network)
    inputs = torch.randn(*leading, widths[0])
    torch.testing.assert_close(network(inputs), layers(inputs), rtol=1e-5, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(module(inputs).square().sum(), list(network.parameters())) for module in (network, layers)
    )
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)
        # As the parameters are, or every update step would copy it; of narrow layers that costs nothing.
        assert our.is_contiguous() or min(our.shape) < 256


def test_members_of_an_ensemble_share_their_inputs() -> None:
    torch.manual_seed(0)
    ensemble, inputs = EnsembleMLP(3, 14, [256, 256], 3), torch.randn(192, 14, requires_grad=True)
    ours = torch.autograd.grad(ensemble(inputs).square().sum(), inputs)[0]
    theirs = torch.autograd.grad(
        plain(inputs.expand(3, -1, -1), *ensemble.weights, *ensemble.biases).square().sum(), inputs
    )
    torch.testing.assert_close(ours, theirs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [2, 300])
def test_products_take_any_strides(rows: int) -> None:
    torch.manual_seed(0)
    left, right, bias = torch.randn(256, rows).t(), torch.randn(256, 256).t(), torch.randn(256)
    expected = left @ right + bias
    torch.testing.assert_close(product(left, right, bias), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(product(left, right), left @ right, rtol=1e-5, atol=1e-4)


def test_what_is_not_finite_is_not_hidden() -> None:
    """A policy that diverges has to be found out: ReLU passes NaN on, in both directions."""
    torch.manual_seed(0)
    network, inputs = mlp(14, [256, 256], 1), torch.randn(192, 14)
    inputs[7] = float("nan")
    outputs = network(inputs)
    assert outputs[7].isnan().all() and outputs.isfinite().sum() == 191
    gradient = torch.autograd.grad(outputs.sum(), network[0].weight)[0]
    assert gradient.isnan().any()
