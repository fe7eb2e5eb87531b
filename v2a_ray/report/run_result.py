"""`result.json`: what a run was, what each stage cost, and how good the policy is in the target."""

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
    """Versions of Python and of the packages that move numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def policy_files(config: ExperimentConfig) -> tuple[str, str]:
    """The files of a policy's artifact that a results folder has too: its curves and its weights."""
    return "curves.parquet", "module.safetensors" if config.policy.uses_rllib else "actor.safetensors"


def make_result(
    config: ExperimentConfig, stages: Sequence[tuple[str, Artifact]], evaluation: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `result.json`; `stages` are (name, artifact) in the order of the plan.

    `files` is to get the SHA-256 of each file beside it that others take into use.
    """
    mix_key = dict(stages)["source"].key
    return {
        "method": config.method,
        "modifications": config.modifications,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "mix": {"name": mix_name(config, mix_key), "hash": mix_key},
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
