"""The device of learners. No GPU is needed: another default device reveals tensors created without a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tests.stages.problems import assert_same_weights, mixed_sampler, raw, weights_of
from tests.stages.problems import make_actor as small_actor
from tests.stages.test_learner_contract import MADE, NUM_STEPS, SOURCE, TARGET, fresh, loop, stop_at_15
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.devices import choose_device
from v2a_ray.engine.trainer import Learner, load_checkpoint, place, save_checkpoint
from v2a_ray.errors import ConfigError
from v2a_ray.settings.base import DeviceName
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.modality_alignment import modality_scores
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.grouped import GroupedLearner

ELSEWHERE = torch.device("meta")
"""A device other than the CPU that every machine has; its tensors have shapes and no content."""


def grouped_by_column(seed: int) -> Learner:
    """A policy with three groups of source rows."""
    config = LEARNERS(learner="grouped", num_steps=NUM_STEPS, batch_size=8, width=6)
    groups = {"group": np.arange(SOURCE.num_transitions) % 3}
    of_target = {"group": np.full(TARGET.num_transitions, -1.0)}
    sampler = mixed_sampler(TARGET, SOURCE, config, groups, of_target)
    return GroupedLearner(sampler, small_actor(TARGET, 6), config, seed)


EVERY = {**MADE, "grouped-by-column": grouped_by_column}
MODALITY = {name for name in EVERY if name.startswith("modality")}
WAITING = {*MODALITY, "grouped-by-column"}
"""Learners with data-dependent shapes: lengths of crops, and the groups of a batch."""


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY.keys())
def test_update_creates_tensors_only_on_the_device_of_its_tables(make: Callable[[int], Learner]) -> None:
    learner = fresh(make)
    # Tensors created without a device are now on another one, and torch refuses to mix devices.
    with torch.device(ELSEWHERE):
        learner.update(0)
        learner.update(1)


def test_default_device_detects_a_tensor_on_another_device() -> None:
    with torch.device(ELSEWHERE), pytest.raises((RuntimeError, NotImplementedError)):
        torch.cat([Transitions(TARGET, raw(2)).all().reward_B, torch.ones(2)])


class Waits(TorchDispatchMode):
    """Collects operators that would synchronise with a GPU, because a shape or number is read back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # `index` is tagged too, but its shape only depends on values for masks.
        index = func is torch.ops.aten.index.Tensor
        masks = index and any(part is not None and part.dtype == torch.bool for part in args[1])
        tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        if masks or (tags and not index):
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", EVERY)
def test_update_does_not_synchronise_with_its_device(name: str) -> None:
    learner = fresh(EVERY[name])
    learner.update(0)
    with Waits() as waits:
        learner.update(1)
    assert (waits.found != set()) == (name in WAITING)


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("modality")])
def test_networks_follow_the_generator(name: str) -> None:
    learner = fresh(EVERY[name])
    place(learner, ELSEWHERE)
    tensors = [tensor for network in learner.networks.values() for tensor in network.state_dict().values()]
    assert tensors and {tensor.device for tensor in tensors} == {ELSEWHERE}


def test_transitions_columns_and_eligible_rows_are_on_one_device() -> None:
    columns = {"alignment": np.zeros(TARGET.num_transitions, np.float32)}
    transitions = Transitions(TARGET, raw(2), columns, ELSEWHERE).restricted(torch.tensor([1, 2, 5]))
    assert transitions.device == ELSEWHERE and len(transitions) == 3
    batch = transitions.at(torch.zeros(4, dtype=torch.int64, device=ELSEWHERE))
    assert {batch.observation_BO.device, batch.reward_B.device, batch.extra["alignment"].device} == {ELSEWHERE}
    assert transitions._eligible is not None and transitions._eligible.device == ELSEWHERE


def test_modality_computes_on_the_device_of_its_model() -> None:
    config = ModalityConfig(latent_dim=3, encoder_width=6, decoder_width=6, crop_steps=6)
    model = ModalityModel(2, 1, config)
    model.set_statistics(moments(SOURCE))
    latent = encode_episodes(model, SOURCE, config)
    scores = modality_scores(model, SOURCE, latent, latent.mean(axis=0))
    with torch.device(ELSEWHERE):
        np.testing.assert_array_equal(encode_episodes(model, SOURCE, config), latent)
        np.testing.assert_array_equal(modality_scores(model, SOURCE, latent, latent.mean(axis=0)), scores)
    assert model.to(ELSEWHERE).steps(SOURCE).device == ELSEWHERE


def test_act_numpy_works_on_any_device() -> None:
    actor, observation = small_actor(TARGET, 6), np.ones((3, 2))
    action = actor.act_numpy(observation)
    with torch.device(ELSEWHERE):
        np.testing.assert_array_equal(actor.act_numpy(observation), action)


class GeneratorOfAGPU:
    def get_state(self) -> torch.Tensor:
        return torch.zeros(16, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["iql", "modality-em"])
def test_checkpoint_of_another_device_resumes_with_a_new_generator(name: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(MADE[name]))
    # A GPU generator's state is 16 bytes, seed and position, which the CPU generator cannot load.
    written = fresh(MADE[name])
    load_checkpoint(checkpoint, written)
    written.generator = GeneratorOfAGPU()  # type: ignore[assignment]
    save_checkpoint(checkpoint, written, 10, [])
    saved, ends, draws = load_file(checkpoint), [], []
    for _ in range(2):
        learner = fresh(MADE[name])
        assert loop(checkpoint).restore(learner) == 10
        assert_same_weights(
            weights_of(learner),
            {
                key.removeprefix("network/").replace("/", ".", 1): value
                for key, value in saved.items()
                if key.startswith("network/")
            },
        )
        draws.append(torch.rand(3, generator=learner.generator))
        assert loop(checkpoint).run(learner)[-1]["step"] == NUM_STEPS
        ends.append(weights_of(learner))
    assert_same_weights(*ends)
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(3, generator=fresh(MADE[name]).generator))


@pytest.mark.parametrize(
    ("asked", "has_gpu", "may_use_gpu", "expected"),
    [
        ("auto", True, True, "cuda:3"),
        ("auto", True, False, "cpu"),
        ("auto", False, True, "cpu"),
        ("cuda", True, True, "cuda:3"),
        ("cpu", True, True, "cpu"),
    ],
)
def test_choose_device_takes_an_available_gpu(
    asked: DeviceName, has_gpu: bool, may_use_gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert choose_device(asked, may_use_gpu=may_use_gpu) == torch.device(expected)


@pytest.mark.parametrize(("has_gpu", "may_use_gpu"), [(True, False), (False, True)])
def test_choose_device_refuses_cuda_without_a_gpu(
    has_gpu: bool, may_use_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with pytest.raises(ConfigError, match=r"^device: cuda is asked for, and this process has no GPU\n  try: auto"):
        choose_device("cuda", may_use_gpu=may_use_gpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_losses_on_a_gpu_equal_those_on_the_cpu() -> None:
    columns = {"z": np.ones((SOURCE.num_transitions, 2), np.float32)}
    losses = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        transitions = Transitions(SOURCE, raw(2), columns, device)
        learner = AdvantageLearner(transitions, 2, ADVANTAGES(kind="sparse_q", width=8), seed=0)
        place(learner, transitions.device)
        batch = transitions.all()
        losses.append([float(value) for step in range(2) for value in learner.fit(batch, step).values()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
