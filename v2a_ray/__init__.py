"""Ray-distributed experimentation for heterogeneous cross-domain offline reinforcement learning.

What is in `__all__` is the stable interface; see `v2a_ray.api`. Importing this package takes no time: it imports
the rest when a name is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from v2a_ray.api import choose, experiment, load_policy, load_results, make_env, methods, run, sweep

__version__ = "0.2.0"
__all__ = ["choose", "experiment", "load_policy", "load_results", "make_env", "methods", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from v2a_ray import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
