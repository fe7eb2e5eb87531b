"""Behaviour policies of anybody's: a function `package.module:name` of one observation, or a file.

Files are `NAME.onnx`, from raw observations to actions, and `NAME.safetensors`, an actor of `v2a behaviors train`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.errors import DomainError
from v2a_ray.imports import import_named
from v2a_ray.settings.environment_names import is_behavior_file


def is_function(behavior: str) -> bool:
    """Whether the name of a behaviour is that of a function."""
    return ":" in behavior and not is_behavior_file(behavior)


@dataclass(frozen=True)
class FunctionPolicy:
    """Calls `function` on one observation (O,) at a time, which gives an action (A,), clipped to [-1, 1].

    One at a time, so that an action cannot depend on what is collected beside it.
    """

    name: str
    function: Callable[[NDArray[Any]], Any]
    action_dim: int

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Actions (B, A) for observations (B, O). Raises DomainError for anything else than A finite numbers."""
        actions = np.empty((len(observation), self.action_dim), dtype=np.float32)
        for index, row in enumerate(observation):
            action = np.asarray(self.function(row), dtype=np.float32)
            if action.shape != (self.action_dim,) or not np.isfinite(action).all():
                raise DomainError(
                    f"gives {action.tolist()} for an observation of {len(row)} numbers",
                    where=f"behaviour {self.name}",
                    remedy=f"a function of one observation that gives {self.action_dim} finite numbers in [-1, 1]",
                )
            actions[index] = action
        return np.clip(actions, -1.0, 1.0)

    def digest(self) -> str:
        """SHA-256 of the file that has the function, so that data are collected anew when it changes."""
        module = inspect.getmodule(self.function)
        text = inspect.getsource(module) if module else inspect.getsource(self.function)
        return hashlib.sha256(text.encode()).hexdigest()


def load_function(name: str, action_dim: int) -> FunctionPolicy:
    """The policy `package.module:name`. Raises DomainError where it cannot be imported, or is no function."""
    try:
        function = import_named(name)
    except Exception as error:  # whatever somebody's module raises
        raise DomainError(
            f"cannot be imported: {type(error).__name__}: {error}",
            where=f"behaviour {name}",
            remedy="package.module:function, installed on every machine or in an absolute folder of PYTHONPATH",
        ) from error
    if not callable(function):
        raise DomainError("is no function", where=f"behaviour {name}", remedy="a function of one observation")
    return FunctionPolicy(name, function, action_dim)


@dataclass(frozen=True)
class OnnxPolicy:
    """A network in an ONNX file, run on one observation at a time, on one CPU thread, so that nothing else moves it."""

    path: Path
    session: Any
    action_dim: int

    def act(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Actions (B, A) for observations (B, O), clipped to [-1, 1]. Raises DomainError for another number of them."""
        name = self.session.get_inputs()[0].name
        rows = np.asarray(observation, dtype=np.float32)[:, None]
        actions = [np.asarray(self.session.run(None, {name: row})[0], dtype=np.float32).ravel() for row in rows]
        for action in actions[:1]:
            if action.shape != (self.action_dim,):
                raise DomainError(
                    f"gives {len(action)} actions, and the robot has {self.action_dim}",
                    where=str(self.path),
                    remedy="a network of this robot",
                )
        return np.clip(np.reshape(actions, (len(rows), self.action_dim)), -1.0, 1.0)

    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def load_onnx(path: Path, observation_dim: int, action_dim: int) -> OnnxPolicy:
    """The policy in a file. Raises DomainError where it cannot be loaded or run on such observations."""
    try:
        runtime = import_module("onnxruntime")
    except ImportError:
        raise DomainError(
            "the package onnxruntime is not installed", where=str(path), remedy="pip install 'v2a_ray[export]'"
        ) from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        policy = OnnxPolicy(path, session, action_dim)
        policy.act(np.zeros((1, observation_dim)))
    except DomainError:
        raise
    except Exception as error:  # onnxruntime raises errors of its own, of no public base
        raise DomainError(
            f"is no policy of {observation_dim} observations: {' '.join(str(error).split())}",
            where=str(path),
            remedy="a network with one input (batch, observations) and one output (batch, actions)",
        ) from error
    return policy
