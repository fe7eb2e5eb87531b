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
from torch.nn import functional

# Asked for by name, because builds without oneDNN lack it.
_LINEAR: Any = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)

FEW_MULTIPLICATIONS = 2**18
"""A product of fewer takes longer to start in oneDNN than to compute in MKL."""


def has_kernels(tensor: Tensor) -> bool:
    """Whether `product` takes tensors like this one. A program that is exported keeps to operators of any PyTorch."""
    if _LINEAR is None or torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def product(left_BX: Tensor, right_XY: Tensor, bias_Y: Tensor | None = None) -> Tensor:
    """(B, Y): left @ right + bias. No gradient; any strides."""
    if len(left_BX) * right_XY.numel() < FEW_MULTIPLICATIONS:
        return left_BX @ right_XY if bias_Y is None else torch.addmm(bias_Y, left_BX, right_XY)
    result_BY: Tensor = _LINEAR(left_BX, right_XY.t(), bias_Y, "none", [], "")
    return result_BY


def transposed_product(left_BX: Tensor, right_BY: Tensor, *, columns_first: bool = False) -> Tensor:
    """(X, Y): left^T @ right, as the gradient of weights is; it may lie in memory column by column. No gradient."""
    # The operator copies a left operand whose rows are not contiguous: the narrower of the two. If none is, the result
    # is what its user would otherwise have to transpose.
    width, other = left_BX.shape[1], right_BY.shape[1]
    if width > other or (width == other and columns_first):
        return product(right_BY.t(), left_BX).t()
    return product(left_BX.t(), right_BY)


def perceptron(inputs_BX: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """A perceptron with ReLU between its layers, (B, X) to (B, Y); weights (Y, X) and biases (Y,) as in `nn.Linear`."""
    if has_kernels(inputs_BX):
        outputs_BY: Tensor = _Perceptron.apply(inputs_BX, *weights, *biases)  # type: ignore[no-untyped-call]
        return outputs_BY
    *hidden, last = zip(weights, biases, strict=True)
    for weight, bias in hidden:
        inputs_BX = functional.relu(functional.linear(inputs_BX, weight, bias))
    return functional.linear(inputs_BX, *last)


def perceptrons(inputs_KBX: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """K perceptrons, (K, B, X) to (K, B, Y); weights (K, X, Y) and biases (K, 1, Y).

    With oneDNN one after the other, so that what a network hands from layer to layer stays in the cache; else by one
    batched product per layer.
    """
    if has_kernels(inputs_KBX):
        outputs_KBY: Tensor = _Perceptrons.apply(inputs_KBX, *weights, *biases)  # type: ignore[no-untyped-call]
        return outputs_KBY
    *hidden, last = zip(weights, biases, strict=True)
    for weight, bias in hidden:
        inputs_KBX = torch.baddbmm(bias, inputs_KBX, weight).relu()
    return torch.baddbmm(last[1], inputs_KBX, last[0])


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs_BX: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = _halves(parameters)
        *values, outputs_BY = _propagate(inputs_BX, [weight.t() for weight in weights], biases)
        ctx.save_for_backward(*values, *weights)
        return outputs_BY

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BY: Tensor) -> tuple[Tensor | None, ...]:
        values, weights = _halves(ctx.saved_tensors)
        of_inputs, *of_parameters = _backpropagate(
            gradient_BY, values, [weight.t() for weight in weights], ctx.needs_input_grad
        )
        of_weights, of_biases = _halves(of_parameters)
        return (of_inputs, *(None if weight is None else weight.t() for weight in of_weights), *of_biases)


class _Perceptrons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs_KBX: Tensor, *parameters: Tensor) -> Tensor:
        weights, biases = _halves(parameters)
        saved, outputs = [], []
        for k, inputs_BX in enumerate(inputs_KBX):
            *values, outputs_BY = _propagate(
                inputs_BX, [weight[k] for weight in weights], [bias[k, 0] for bias in biases]
            )
            saved += values
            outputs.append(outputs_BY)
        ctx.save_for_backward(*weights, *saved)
        ctx.depth = len(weights)
        return torch.stack(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KBY: Tensor) -> tuple[Tensor | None, ...]:
        weights, saved = ctx.saved_tensors[: ctx.depth], ctx.saved_tensors[ctx.depth :]
        members = []
        for k, gradient_BY in enumerate(gradient_KBY):
            values = saved[k * ctx.depth : (k + 1) * ctx.depth]
            members.append(_backpropagate(gradient_BY, values, [weight[k] for weight in weights], ctx.needs_input_grad))
        gradients = [_stack(of_members) for of_members in zip(*members, strict=True)]
        of_biases = (None if gradient is None else gradient.unsqueeze(1) for gradient in gradients[1 + ctx.depth :])
        return (*gradients[: 1 + ctx.depth], *of_biases)


def _propagate(inputs_BX: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
    """What each layer of a perceptron is given, and its outputs; weights (X, Y), biases (Y,)."""
    values, last = [inputs_BX], len(weights) - 1
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs_BY = product(values[-1], weight, bias)
        # Not oneDNN's own ReLU, which makes NaN a 0 and so hides that training has diverged.
        values.append(outputs_BY.relu_() if layer < last else outputs_BY)
    return values


def _backpropagate(
    gradient_BY: Tensor, values: Sequence[Tensor], weights: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of a perceptron's inputs, each layer's weights (X, Y), each layer's biases (Y,).

    Args:
        gradient_BY: of the outputs.
        values: what each layer was given.
        weights: (X, Y) of each layer.
        needed: whether each of the gradients is needed; None is returned for those that are not.
    """
    depth, gradient = len(weights), gradient_BY
    gradients: list[Tensor | None] = [None] * len(needed)
    for layer in reversed(range(depth)):
        if needed[1 + layer]:
            columns_first = weights[layer].stride(0) == 1
            gradients[1 + layer] = transposed_product(values[layer], gradient, columns_first=columns_first)
        if needed[1 + depth + layer]:
            gradients[1 + depth + layer] = gradient.sum(dim=0)
        if layer:
            gradient = product(gradient, weights[layer].t())
            torch.ops.aten.threshold_backward.grad_input(gradient, values[layer], 0, grad_input=gradient)
    if needed[0]:
        gradients[0] = product(gradient, weights[0].t())
    return gradients


def _stack(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """(K, ...) of every member's gradient; None if it is not needed."""
    present = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(present) if present else None


def _halves(tensors: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    middle = len(tensors) // 2
    return tensors[:middle], tensors[middle:]
