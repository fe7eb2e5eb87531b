"""Multilayer perceptrons and matrix products on a CPU by oneDNN's kernels.

PyTorch multiplies matrices of single precision on a CPU by MKL, whose kernels for AVX-512 serve Intel's processors
alone; an AMD EPYC gets those for AVX2. oneDNN comes with PyTorch too, serves both, and is twice as fast there
(docs/speed.md). PyTorch reaches it by an operator that its compiler uses and that has no gradient, so backpropagation
is written out here. Whatever is not single precision on a CPU, or has no oneDNN, takes PyTorch's own products.

Shape suffixes: K networks, B rows, X and Y inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def has_kernels(tensor: Tensor) -> bool:
    """Whether `product` takes tensors like this one."""
    return ONEDNN and tensor.device.type == "cpu" and tensor.dtype == torch.float32


def product(left_BX: Tensor, right_XY: Tensor, bias_Y: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """(B, Y): left @ right + bias, its negative values set to 0 with `relu`. No gradient; any strides."""
    activation = "relu" if relu else "none"
    result_BY: Tensor = torch.ops.mkldnn._linear_pointwise(left_BX, right_XY.t(), bias_Y, activation, [], "")
    return result_BY


def transposed_product(left_BX: Tensor, right_BY: Tensor) -> Tensor:
    """(X, Y): left^T @ right, as the gradient of weights is. No gradient."""
    # The operator copies a left operand whose rows are not contiguous: the narrower of the two.
    if left_BX.shape[1] <= right_BY.shape[1]:
        return product(left_BX.t(), right_BY)
    return product(right_BY.t(), left_BX).t()


def perceptrons(inputs_KBX: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """K perceptrons with ReLU between their layers, (K, B, X) to (K, B, Y); weights (K, X, Y), biases (K, 1, Y)."""
    if has_kernels(inputs_KBX):
        outputs_KBY: Tensor = _Perceptrons.apply(inputs_KBX, *weights, *biases)  # type: ignore[no-untyped-call]
        return outputs_KBY
    hidden, last = inputs_KBX, len(weights) - 1
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden, weight)
        if index < last:
            hidden = torch.relu(hidden)
    return hidden


class _Perceptrons(torch.autograd.Function):
    """Network by network, so that what one passes from layer to layer stays in the cache."""

    @staticmethod
    def forward(ctx: Any, inputs_KBX: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        outputs, hidden = [], []
        for k, value in enumerate(inputs_KBX):
            for layer in range(depth):
                value = product(value, weights[layer][k], biases[layer][k, 0], relu=layer < depth - 1)
                hidden.append(value)
            outputs.append(hidden.pop())
        ctx.save_for_backward(inputs_KBX, *weights, *hidden)
        ctx.depth = depth
        return _stack(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KBY: Tensor) -> tuple[Tensor | None, ...]:
        depth = ctx.depth
        inputs_KBX, *saved = ctx.saved_tensors
        weights, hidden = saved[:depth], saved[depth:]
        for_inputs, for_weights = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        of_inputs: list[Tensor] = []
        of_weights: list[list[Tensor]] = [[] for _ in range(depth)]
        of_biases: list[list[Tensor]] = [[] for _ in range(depth)]
        for k, gradient in enumerate(gradient_KBY):
            values = [inputs_KBX[k], *hidden[k * (depth - 1) : (k + 1) * (depth - 1)]]
            for layer in reversed(range(depth)):
                if for_weights:
                    of_weights[layer].append(transposed_product(values[layer], gradient))
                    of_biases[layer].append(gradient.sum(dim=0, keepdim=True))
                if layer or for_inputs:
                    gradient = product(gradient, weights[layer][k].t())
                if layer:
                    torch.ops.aten.threshold_backward.grad_input(gradient, values[layer], 0, grad_input=gradient)
            of_inputs.append(gradient)
        parameters = [*map(_stack, of_weights), *map(_stack, of_biases)] if for_weights else [None] * (2 * depth)
        return (_stack(of_inputs) if for_inputs else None, *parameters)


def _stack(tensors: list[Tensor]) -> Tensor:
    """As `torch.stack`, which would copy a single one too."""
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
