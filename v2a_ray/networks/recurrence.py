"""A gated recurrent unit over trajectories of different lengths, with hand-written backpropagation through time.

    r, u = sigmoid(W_x x + b_x + W_h h + b_h)      n = tanh(W_x x + b_x + r * (W_h h + b_h))      h' = (1 - u) n + u h

This equals `torch.nn.GRU`; each gate has its own rows of W and b. On a CPU, PyTorch sums the gradient of W_h step by
step. This code computes it in one matrix product at the end, and computes all terms that do not depend on the gradient
for all steps at once, so that few operations per step remain.

Trajectories are laid out as in a `PackedSequence`: step by step, and within a step from the longest trajectory to the
shortest. Shape suffixes: M valid steps of a batch, B trajectories, X inputs, H hidden units, G = 3 H for r, u and n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from v2a_ray.networks.kernels import product


def last_states(steps_MX: Tensor, counts: Sequence[int], parameters: Sequence[Tensor]) -> Tensor:
    """(B, H): the hidden state after each trajectory's last step; it starts at zero.

    Args:
        steps_MX: packed.
        counts: number of trajectories that have a first step, a second step, ...
        parameters: W_x (G, X), W_h (G, H), b_x (G,) and b_h (G,), as in `torch.nn.GRU`.
    """
    states_BH: Tensor = _LastStates.apply(steps_MX, counts, *parameters)  # type: ignore[no-untyped-call]
    return states_BH


class _LastStates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        steps_MX: Tensor,
        counts: Sequence[int],
        input_weight_GX: Tensor,
        hidden_weight_GH: Tensor,
        input_bias_G: Tensor,
        hidden_bias_G: Tensor,
    ) -> Tensor:
        width = hidden_weight_GH.shape[1]
        input_MG = product(steps_MX, input_weight_GX.t(), input_bias_G)
        before_MH, recurrent_MH = input_MG.new_empty(2, len(steps_MX), width)
        state_BH = input_MG.new_zeros(counts[0], width)
        # r, u and n overwrite their inputs.
        gates_MF, new_MH = input_MG[:, : 2 * width], input_MG[:, 2 * width :]
        begin = 0
        for count in counts:
            rows, state = slice(begin, begin + count), state_BH[:count]
            before_MH[rows] = state
            hidden = product(state, hidden_weight_GH.t(), hidden_bias_G)
            recurrent_MH[rows] = hidden[:, 2 * width :]
            gates = gates_MF[rows].add_(hidden[:, : 2 * width]).sigmoid_()
            new = new_MH[rows].addcmul_(gates[:, :width], recurrent_MH[rows]).tanh_()
            torch.lerp(new, state, gates[:, width:], out=state)
            begin += count
        ctx.save_for_backward(steps_MX, input_weight_GX, hidden_weight_GH, input_MG, before_MH, recurrent_MH)
        ctx.counts = counts
        return state_BH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BH: Tensor) -> tuple[Tensor | None, ...]:
        steps_MX, input_weight_GX, hidden_weight_GH, gates_MG, before_MH, recurrent_MH = ctx.saved_tensors
        reset_MH, update_MH, new_MH = gates_MG.chunk(3, dim=1)
        # Factors that turn the gradient of a step's state into the gradients of r, u and n before sigmoid and tanh,
        # and into the gradient of n's product with h.
        of_new = (1 - update_MH) * (1 - new_MH.square())
        of_update = (before_MH - new_MH) * update_MH * (1 - update_MH)
        of_reset = of_new * recurrent_MH * reset_MH * (1 - reset_MH)
        hidden_M3H = torch.stack([of_reset, of_update, of_new * reset_MH], dim=1)
        state_BH, end = gradient_BH.clone(), len(steps_MX)
        for count in reversed(ctx.counts):
            rows, state = slice(end - count, end), state_BH[:count]
            of_new[rows].mul_(state)
            of_hidden = hidden_M3H[rows].mul_(state.unsqueeze(1)).view(count, -1)
            torch.addcmul(product(of_hidden, hidden_weight_GH), state, update_MH[rows], out=state)
            end -= count
        hidden_MG = hidden_M3H.view(len(steps_MX), -1)
        input_MG = torch.cat([hidden_MG[:, : -of_new.shape[1]], of_new], dim=1)
        return (
            product(input_MG, input_weight_GX) if ctx.needs_input_grad[0] else None,
            None,
            product(input_MG.t(), steps_MX),
            product(hidden_MG.t(), before_MH),
            input_MG.sum(dim=0),
            hidden_MG.sum(dim=0),
        )
