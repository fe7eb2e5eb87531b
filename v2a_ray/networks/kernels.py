"""Single-precision matrix products on a CPU, by the library that is faster on this processor.

PyTorch ships two libraries. Its own operators use MKL, which runs AVX-512 kernels on Intel processors and AVX2 kernels
on AMD processors. oneDNN has AVX-512 kernels for both. On AMD processors that compute an AVX-512 register in one cycle
(from family 26, Zen 5, on) they are twice as fast as MKL; elsewhere they bring no gain or a loss (docs/speed.md).

The choice depends only on the processor's vendor and family, not on a measurement, so one machine always computes the
same bits. `V2A_MATRIX_PRODUCTS=mkl` or `onednn` overrides it.

Shape suffixes: B rows, X and Y inputs and outputs.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from v2a_ray.errors import ConfigError
from v2a_ray.processor import processor_facts

Products = Literal["mkl", "onednn"]
OVERRIDE = "V2A_MATRIX_PRODUCTS"
FIRST_AMD_FAMILY_WITH_FULL_AVX512 = 26
FEW_MULTIPLICATIONS = 2**18
"""With fewer multiplications, starting oneDNN takes longer than computing the product in MKL."""

# Looked up by name, because builds without oneDNN lack it.
_ONEDNN_LINEAR: Any = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)


@cache
def chosen_products() -> Products:
    """The library for matrix products on this processor. Raises ConfigError when the override names neither."""
    asked = os.environ.get(OVERRIDE)
    if asked is None:
        return "onednn" if _ONEDNN_LINEAR is not None and _mkl_misses_avx512() else "mkl"
    if asked == "mkl":
        return "mkl"
    if asked == "onednn" and _ONEDNN_LINEAR is not None:
        return "onednn"
    have = "mkl or onednn" if _ONEDNN_LINEAR is not None else "mkl: this build of PyTorch has no oneDNN"
    raise ConfigError(f"no such library of matrix products: {asked!r}", where=OVERRIDE, remedy=have)


def _mkl_misses_avx512() -> bool:
    """Whether this is an AMD processor that computes AVX-512 registers in one cycle."""
    facts, capability = processor_facts(), torch.backends.cpu.get_cpu_capability()
    family = facts.get("cpu family", "")
    is_recent = family.isdecimal() and int(family) >= FIRST_AMD_FAMILY_WITH_FULL_AVX512
    return capability == "AVX512" and facts.get("vendor_id") == "AuthenticAMD" and is_recent


def product(left_BX: Tensor, right_XY: Tensor, bias_Y: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """(B, Y): left @ right + bias, written to `out` if given. No gradient; any strides; tensors on a CPU."""
    few = len(left_BX) * right_XY.numel() < FEW_MULTIPLICATIONS
    if few or left_BX.dtype != torch.float32 or chosen_products() == "mkl":
        if bias_Y is None:
            return torch.mm(left_BX, right_XY, out=out)
        return torch.addmm(bias_Y, left_BX, right_XY, out=out)
    result_BY: Tensor = _ONEDNN_LINEAR(left_BX, right_XY.t(), bias_Y, "none", [], "")
    return result_BY if out is None else out.copy_(result_BY)


def written_out(tensor: Tensor) -> bool:
    """Whether networks backpropagate this tensor with our own formulas instead of PyTorch's autograd.

    They do on a CPU, except in an exported program, which may only use standard PyTorch operators.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
