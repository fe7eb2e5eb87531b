"""A function of anybody's as a behaviour policy: `package.module:name`, of one observation."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.errors import DomainError
from v2a_ray.imports import import_named


def is_function(behavior: str) -> bool:
    """Whether the name of a behaviour is that of a function."""
    return ":" in behavior


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
                    remedy=f"an action of {self.action_dim} finite numbers in [-1, 1]",
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
