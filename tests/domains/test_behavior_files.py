"""A file can act as a behaviour: an actor that `v2a behaviors train` wrote, or a network in ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.config import SourceSpec
from v2a_ray.domains import parse_domain
from v2a_ray.domains.behaviors import GaussianActor, load_behavior
from v2a_ray.engine.plan import weights_digest
from v2a_ray.errors import DomainError

DOMAIN = "gym:InvertedPendulum-v5"  # 4 observations, 1 action
GAINS = np.asarray([[0.5], [2.0], [0.5], [0.5]], np.float32)


def network(path: Path, weights: Any = GAINS) -> Path:
    """Observations (batch, O) times weights (O, A)."""
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weights)]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(weights[0])]),
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "policy", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_network_acts_and_its_content_is_its_digest(tmp_path: Path) -> None:
    path = network(tmp_path / "balance.onnx")
    policy = load_behavior(DOMAIN, str(path))
    states = np.random.default_rng(0).normal(size=(7, 4))
    acted = policy.act(states)
    assert np.allclose(acted, np.clip(states @ GAINS, -1.0, 1.0), atol=1e-5)
    assert np.array_equal(policy.act(states[2:3]), acted[2:3])
    before = weights_digest(parse_domain(DOMAIN), str(path))
    network(path, 2.0 * GAINS)
    assert weights_digest(parse_domain(DOMAIN), str(path)) != before


def test_data_collected_by_a_file_are_the_same_wherever_it_lies(tmp_path: Path) -> None:
    tables = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        path = network(tmp_path / name / "balance.onnx")
        tables.append(collect_episodes(parse_domain(DOMAIN), str(path), range(2), noise_std=0.1))
    assert np.array_equal(tables[0].observation, tables[1].observation)
    assert set(tables[0].behavior) == {"balance"} and tables[0].lengths.min() > 5
    spec = SourceSpec(domain=DOMAIN, behavior=str(tmp_path / "here/balance.onnx"), num_transitions=10)
    assert spec.label == "InvertedPendulum-v5-balance"


def test_an_actor_of_behaviors_train_is_read_from_its_file(tmp_path: Path) -> None:
    statistics = {"observation_mean": np.zeros(4, np.float32), "observation_std": np.ones(4, np.float32)}
    layer = {
        "layer0.weight": GAINS.T.copy(),
        "layer0.bias": np.zeros(1, np.float32),
        "log_std": np.zeros(1, np.float32),
    }
    save_file({**statistics, **layer}, tmp_path / "medium.safetensors")
    policy = load_behavior(DOMAIN, str(tmp_path / "medium.safetensors"))
    assert isinstance(policy, GaussianActor)
    assert np.allclose(policy.act(np.full((1, 4), 0.1)), 0.35, atol=1e-5)


def test_files_that_are_no_policies_of_the_robot_are_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"nothing")
    cases = {
        "torn.onnx": "is no policy of 4 observations",
        str(network(tmp_path / "wide.onnx", np.ones((5, 1), np.float32)).name): "is no policy of 4 observations",
        str(network(tmp_path / "many.onnx", np.ones((4, 2), np.float32)).name): "gives 2 actions, and the robot has 1",
        "absent.onnx": "no such file",
    }
    for name, said in cases.items():
        with pytest.raises(DomainError, match=said):
            load_behavior(DOMAIN, str(tmp_path / name))
