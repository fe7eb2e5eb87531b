"""The content of `result.json`: a run's settings, the cost of each stage, and the policy's scores in the target."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from v2a_ray.data.mixing.mixture import mix_name
from v2a_ray.engine.store import Artifact
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.networks import chosen_products
from v2a_ray.processor import processor_name

_PACKAGES = ("v2a_ray", "ray", "torch", "numpy", "mujoco", "gymnasium", "pyarrow")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def policy_files(config: ExperimentConfig) -> tuple[str, str]:
    """The files of a policy's artifact that a results folder has too: its curves and its weights."""
    return "curves.parquet", "module.safetensors" if config.policy.uses_rllib else "actor.safetensors"


def make_result(
    config: ExperimentConfig, stages: Sequence[tuple[str, Artifact]], evaluation: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `result.json`; `stages` are (name, artifact) in the order of the plan.

    The caller adds `files`, the SHA-256 of each file in the results folder that other commands use.
    """
    source = dict(stages).get("source")
    key = source.key if source else ""
    return {
        "method": config.method,
        "modifications": config.modifications,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "mix": {"name": mix_name(config, key), "hash": key},
        "evaluation": "offline" if config.is_offline else "simulator",
        "stages": [
            {
                "name": name,
                "seconds": round(artifact.seconds, 3),
                "cached": artifact.cached,
                "artifact": str(artifact.path),
            }
            for name, artifact in stages
        ],
        "target": dict(evaluation),
        "files": {},
        "versions": dict(versions()),
        "processor": {"name": processor_name(), "matrix_products": chosen_products()},
    }
