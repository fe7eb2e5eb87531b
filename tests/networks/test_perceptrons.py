"""Perceptrons with hand-written backpropagation give the outputs and gradients of torch's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from v2a_ray import processor
from v2a_ray.errors import ConfigError
from v2a_ray.networks import MLP, EnsembleMLP, chosen_products, layers_of, perceptrons, product

WIDTHS = st.lists(st.integers(1, 40), min_size=2, max_size=4)
LARGE = [14, 256, 256, 3]
"""Widths large enough for oneDNN; smaller products use MKL."""


@pytest.fixture(params=["mkl", "onednn"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each library, independent of this processor's default."""
    monkeypatch.setenv("V2A_MATRIX_PRODUCTS", request.param)
    chosen_products.cache_clear()
    yield request.param
    chosen_products.cache_clear()


def results(network: Callable[..., Tensor], tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    """The outputs, and the gradients of the `needed` tensors for a loss that weights every output differently."""
    leaves = [tensor.clone().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
    outputs = network(*leaves)
    loss = (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [outputs.detach(), *(torch.autograd.grad(loss, wanted) if wanted else [])]


def plain(inputs: Tensor, numbers_KS: Tensor, widths: list[int]) -> Tensor:
    """The perceptrons in plain torch operations."""
    weights, biases = layers_of(numbers_KS, widths)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        inputs = (inputs.relu() if layer else inputs) @ weight + bias.unsqueeze(1)
    return inputs


@given(
    widths=WIDTHS,
    num_networks=st.integers(1, 3),
    num_rows=st.integers(0, 20),
    frozen=st.sampled_from(["nothing", "inputs", "numbers"]),
    shared=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@example(LARGE, 2, 192, "nothing", False, torch.float32)
@example(LARGE, 3, 192, "nothing", True, torch.float32)
@example(LARGE, 1, 192, "numbers", False, torch.float32)
@settings(max_examples=40, deadline=None)
def check_gradients(
    widths: list[int], num_networks: int, num_rows: int, frozen: str, shared: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(sum(widths))
    inputs = torch.randn(*(() if shared else (num_networks,)), num_rows, widths[0], dtype=dtype)
    size = sum((x + 1) * y for x, y in pairwise(widths))
    tensors = [inputs, torch.randn(num_networks, size, dtype=dtype) / max(widths) ** 0.5]
    needed = [frozen != "inputs", frozen != "numbers"]
    ours = results(lambda inputs, numbers: perceptrons(inputs, numbers, widths), tensors, needed)
    for our, their in zip(
        ours, results(lambda inputs, numbers: plain(inputs, numbers, widths), tensors, needed), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4 if dtype == torch.float32 else 1e-9)


def test_perceptron_gradients_equal_torch(library: str) -> None:
    check_gradients()


@pytest.mark.parametrize("widths", [[3, 5, 2], LARGE])
@pytest.mark.parametrize("leading", [(192,), (4, 48), ()])
def test_mlp_equals_torch_layers(widths: list[int], leading: tuple[int, ...], library: str) -> None:
    torch.manual_seed(0)
    network = MLP(widths[0], widths[1:-1], widths[-1])
    layers = sequential(network)
    inputs = torch.randn(*leading, widths[0])
    torch.testing.assert_close(network(inputs), layers(inputs), rtol=1e-5, atol=1e-5)
    (ours,) = torch.autograd.grad(network(inputs).square().sum(), [network.numbers_KS])
    theirs = torch.autograd.grad(layers(inputs).square().sum(), list(layers.parameters()))
    for our, their in zip(network.named_layers(ours).values(), theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


def sequential(network: MLP) -> nn.Sequential:
    """The same network in torch's layers, loaded from its `state_dict`."""
    pairs = pairwise(network.widths)
    layers = nn.Sequential(*[layer for x, y in pairs for layer in (nn.Linear(x, y), nn.ReLU())][:-1])
    layers.load_state_dict(network.state_dict())
    return layers


def test_mlp_initialisation_equals_torch() -> None:
    torch.manual_seed(3)
    network = MLP(5, [7], 2)
    torch.manual_seed(3)
    for name, value in nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)).state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize("network", [MLP(3, [5, 4], 2), EnsembleMLP(2, 3, [5], 1)], ids=["MLP", "EnsembleMLP"])
def test_state_dict_round_trip_keeps_the_weights(network: EnsembleMLP) -> None:
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    numbers = network.numbers_KS.detach().clone()
    with torch.no_grad():
        network.numbers_KS.zero_()
    network.load_state_dict(saved)
    assert torch.equal(network.numbers_KS, numbers)


def test_state_dict_of_another_network_is_refused() -> None:
    network, saved = MLP(3, [5], 2), MLP(3, [5], 2).state_dict()
    for wrong in (MLP(3, [6], 2).state_dict(), MLP(3, [5, 5], 2).state_dict(), {"0.weight": saved["0.weight"]}):
        with pytest.raises(RuntimeError, match=r"0\.weight|4\.weight|2\.weight"):
            network.load_state_dict(wrong)


@pytest.mark.parametrize("rows", [2, 300])
def test_products_take_any_strides(rows: int, library: str) -> None:
    torch.manual_seed(0)
    left, right, bias = torch.randn(256, rows).t(), torch.randn(256, 256).t(), torch.randn(256)
    expected, out = left @ right + bias, torch.empty(rows, 512)[:, ::2]
    torch.testing.assert_close(product(left, right, bias), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(product(left, right), left @ right, rtol=1e-5, atol=1e-4)
    product(left, right, bias, out=out)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)


def test_mkl_and_onednn_run_different_kernels() -> None:
    """Otherwise the other tests would check one library twice."""
    torch.manual_seed(0)
    left, right = torch.randn(300, 256), torch.randn(256, 256)
    products = []
    for name in ("mkl", "onednn"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("V2A_MATRIX_PRODUCTS", name)
            chosen_products.cache_clear()
            with torch.profiler.profile() as profile:
                products.append(product(left, right))
        called = {event.name for event in profile.events()}
        assert ("mkldnn::_linear_pointwise" in called) == (name == "onednn")
    chosen_products.cache_clear()
    torch.testing.assert_close(*products, rtol=1e-5, atol=1e-4)


def test_unknown_matrix_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2A_MATRIX_PRODUCTS", "fastest")
    chosen_products.cache_clear()
    with pytest.raises(ConfigError, match=r"V2A_MATRIX_PRODUCTS.*fastest"):
        chosen_products()


@pytest.mark.parametrize(
    ("vendor", "family", "capability", "expected"),
    [
        ("AuthenticAMD", 26, "AVX512", "onednn"),  # Zen 5
        ("AuthenticAMD", 25, "AVX512", "mkl"),  # Zen 4 computes AVX-512 in two cycles
        ("AuthenticAMD", 25, "AVX2", "mkl"),  # Zen 3
        ("AuthenticAMD", 26, "AVX2", "mkl"),  # Zen 5 with AVX-512 switched off
        ("GenuineIntel", 26, "AVX512", "mkl"),
        (None, None, "AVX512", "mkl"),  # no such file: not Linux
    ],
)
def test_matrix_library_depends_on_the_processor(
    vendor: str | None, family: int, capability: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if vendor:
        cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: fpu\n\n")
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.delenv("V2A_MATRIX_PRODUCTS", raising=False)
    chosen_products.cache_clear()
    assert chosen_products() == expected
    chosen_products.cache_clear()


def test_nan_passes_through_relu(library: str) -> None:
    """Diverged training must show: ReLU passes NaN on in the forward and backward pass."""
    torch.manual_seed(0)
    network, inputs = MLP(14, [256, 256], 1), torch.randn(192, 14)
    inputs[7] = float("nan")
    outputs = network(inputs)
    assert outputs[7].isnan().all() and outputs.isfinite().sum() == 191
    (gradient,) = torch.autograd.grad(outputs.sum(), [network.numbers_KS])
    assert network.named_layers(gradient)["0.weight"].isnan().any()
