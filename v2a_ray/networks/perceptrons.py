"""Multilayer perceptrons of equal shape that share one parameter tensor, with hand-written backpropagation for CPUs.

The number of operator calls limits the speed of an update step of small networks. With all weights and biases of K
networks in one parameter, Adam, the moving average and zeroing the gradient take one operator each, every layer's
gradient is written in place, and autograd sees one node per ensemble.

Shape suffixes: K networks, B rows, X and Y inputs and outputs of a layer, S weights and biases of a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from v2a_ray.networks.kernels import product, written_out

CONTIGUOUS = torch.contiguous_format
Layers = tuple[list[Tensor], list[Tensor]]
"""The weights (..., X, Y) and biases (..., Y) of each layer, as views of the parameter (..., S)."""


def layers_of(numbers: Tensor, widths: Sequence[int]) -> Layers:
    """The layers stored in (..., S) numbers: for each layer its weight, row by row, then its bias."""
    shapes = list(pairwise(widths))
    parts = torch.split(numbers, [size for x, y in shapes for size in (x * y, y)], dim=-1)
    weights = [part.view(*numbers.shape[:-1], *shape) for part, shape in zip(parts[::2], shapes, strict=True)]
    return weights, list(parts[1::2])


def perceptrons(inputs: Tensor, numbers_KS: Tensor, widths: Sequence[int]) -> Tensor:
    """K perceptrons with ReLU between layers: maps inputs (B, X), shared by all, or (K, B, X) to (K, B, Y)."""
    if written_out(inputs):
        outputs_KBY: Tensor = _Perceptrons.apply(inputs, numbers_KS, widths)  # type: ignore[no-untyped-call]
        return outputs_KBY
    weights, biases = layers_of(numbers_KS, widths)
    values = inputs.expand(len(numbers_KS), *inputs.shape[-2:])
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = torch.baddbmm(bias.unsqueeze(1), values.relu() if layer else values, weight)
    return values


class _Perceptrons(torch.autograd.Function):
    """Computes one network after the other, so that activations stay in the processor's cache between layers."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, numbers_KS: Tensor, widths: Sequence[int]) -> Tensor:
        outputs_KBY = inputs.new_empty(len(numbers_KS), inputs.shape[-2], widths[-1])
        hidden = []
        for k, (numbers_S, outputs_BY) in enumerate(zip(numbers_KS, outputs_KBY, strict=True)):
            values = inputs[k] if inputs.dim() == 3 else inputs
            (*weights, last_weight), (*biases, last_bias) = layers_of(numbers_S, widths)
            for weight, bias in zip(weights, biases, strict=True):
                # oneDNN's own ReLU turns NaN into 0 and would hide diverged training.
                values = product(values, weight, bias).relu_()
                hidden.append(values)
            product(values, last_weight, last_bias, out=outputs_BY)
        ctx.save_for_backward(inputs, numbers_KS, *hidden)
        ctx.widths = widths
        return outputs_KBY

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KBY: Tensor) -> tuple[Tensor | None, ...]:
        inputs, numbers_KS, *hidden = ctx.saved_tensors
        of_inputs = torch.empty_like(inputs) if ctx.needs_input_grad[0] else None
        of_numbers_KS = torch.empty_like(numbers_KS) if ctx.needs_input_grad[1] else None
        depth = len(ctx.widths) - 1
        for k, (numbers_S, gradient) in enumerate(zip(numbers_KS, gradient_KBY, strict=True)):
            own_inputs = inputs[k] if inputs.dim() == 3 else inputs
            values = [own_inputs, *hidden[k * (depth - 1) : (k + 1) * (depth - 1)]]
            weights, _ = layers_of(numbers_S, ctx.widths)
            if of_numbers_KS is not None:
                of_weights, of_biases = layers_of(of_numbers_KS[k], ctx.widths)
            for layer in reversed(range(depth)):
                if of_numbers_KS is not None:
                    product(values[layer].t(), gradient, out=of_weights[layer])
                    torch.sum(gradient, dim=0, out=of_biases[layer])
                if layer:
                    gradient = product(gradient, weights[layer].t())
                    torch.ops.aten.threshold_backward.grad_input(gradient, values[layer], 0, grad_input=gradient)
            if of_inputs is None:
                continue
            if inputs.dim() == 3:
                product(gradient, weights[0].t(), out=of_inputs[k])
            elif k == 0:
                product(gradient, weights[0].t(), out=of_inputs)
            else:
                of_inputs += product(gradient, weights[0].t())
        return of_inputs, of_numbers_KS, None


class EnsembleMLP(nn.Module):
    """K independent perceptrons, each initialised like layers of `nn.Linear`.

    The only parameter, `numbers_KS`, has one row per member. The `state_dict`, and so a file, has one tensor per layer:
    `weights.0` (K, X, Y), `biases.0` (K, 1, Y), ...
    """

    def __init__(self, num_members: int, input_dim: int, hidden: Sequence[int], output_dim: int) -> None:
        super().__init__()
        self.num_members, self.widths = num_members, (input_dim, *hidden, output_dim)
        size = sum((x + 1) * y for x, y in pairwise(self.widths))
        self.numbers_KS = nn.Parameter(torch.empty(num_members, size))
        self._initialize()

    def _initialize(self) -> None:
        # Draw layer by layer, weights before biases.
        drawn = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(self.widths)):
            bound = 1.0 / math.sqrt(fan_in)
            drawn[f"weights.{layer}"] = torch.empty(self.num_members, fan_in, fan_out).uniform_(-bound, bound)
            drawn[f"biases.{layer}"] = torch.empty(self.num_members, 1, fan_out).uniform_(-bound, bound)
        self.load_state_dict(drawn)

    @property
    def weights(self) -> list[Tensor]:
        """(K, X, Y) of each layer, views of the parameter."""
        return layers_of(self.numbers_KS, self.widths)[0]

    @property
    def biases(self) -> list[Tensor]:
        """(K, Y) of each layer, views of the parameter."""
        return layers_of(self.numbers_KS, self.widths)[1]

    def named_layers(self, numbers_KS: Tensor) -> dict[str, Tensor]:
        """Views of numbers (K, S), such as the parameter or its gradient, by their names in the `state_dict`."""
        weights, biases = layers_of(numbers_KS, self.widths)
        named = {f"weights.{layer}": weight for layer, weight in enumerate(weights)}
        return named | {f"biases.{layer}": bias.unsqueeze(1) for layer, bias in enumerate(biases)}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Copies, because safetensors refuses views that share memory.
        named = self.named_layers(self.numbers_KS if keep_vars else self.numbers_KS.detach())
        destination.update({prefix + name: value.clone(memory_format=CONTIGUOUS) for name, value in named.items()})

    @torch.no_grad()
    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        named = self.named_layers(self.numbers_KS)
        for name, value in named.items():
            if prefix + name not in state_dict:
                missing_keys.append(prefix + name)
            elif (given := state_dict[prefix + name]).shape != value.shape:
                error_msgs.append(f"{prefix + name} is {tuple(given.shape)} instead of {tuple(value.shape)}")
            else:
                value.copy_(given)
        if strict:
            known = {prefix + name for name in named}
            unexpected_keys += [name for name in state_dict if name.startswith(prefix) and name not in known]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, input_dim), shared by all members, or (K, B, input_dim) to (K, B, output_dim)."""
        return perceptrons(inputs, self.numbers_KS, self.widths)


class NormalizedEnsembleMLP(EnsembleMLP):
    """K perceptrons with layer normalisation of the hidden layers (1607.06450).

    Each hidden layer is linear, ReLU, then (x - mean) / standard deviation. It has no learned scale and shift, because
    the next linear layer can express both.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """See `EnsembleMLP`."""
        values = inputs.expand(self.num_members, *inputs.shape[-2:])
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                values = functional.layer_norm(values.relu(), values.shape[-1:])
            values = torch.baddbmm(bias.unsqueeze(1), values, weight)
        return values


class MLP(EnsembleMLP):
    """One perceptron, which maps (..., input_dim) to (..., output_dim).

    Its `state_dict` has the names of an `nn.Sequential` of `nn.Linear` and `nn.ReLU`: `0.weight` (Y, X), `0.bias` (Y,),
    `2.weight`, ...
    """

    def __init__(self, input_dim: int, hidden: Sequence[int], output_dim: int) -> None:
        super().__init__(1, input_dim, hidden, output_dim)

    def _initialize(self) -> None:
        drawn: dict[str, Tensor] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(self.widths)):
            linear = nn.Linear(fan_in, fan_out)
            drawn |= {f"{2 * layer}.weight": linear.weight.detach(), f"{2 * layer}.bias": linear.bias.detach()}
        self.load_state_dict(drawn)

    def named_layers(self, numbers_KS: Tensor) -> dict[str, Tensor]:
        """See `EnsembleMLP`; the weights are transposed views."""
        weights, biases = layers_of(numbers_KS[0], self.widths)
        named: dict[str, Tensor] = {}
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            named |= {f"{2 * layer}.weight": weight.t(), f"{2 * layer}.bias": bias}
        return named

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        outputs_1BY = perceptrons(inputs.reshape(-1, inputs.shape[-1]), self.numbers_KS, self.widths)
        return outputs_1BY.view(*inputs.shape[:-1], self.widths[-1])
