"""Where a stage computes: on the GPU that this process has, or on the CPU.

Tables decide: a learner's generator is made where they are, and its networks follow the generator
(`learner.TrainingLoop`). Networks are initialised on the CPU, so equal seeds start from equal weights anywhere; the
random numbers drawn afterwards are the device's own.
"""

from __future__ import annotations

import torch

from v2a_ray.errors import ConfigError
from v2a_ray.settings.base import DeviceName


def choose_device(asked: DeviceName, *, may_use_gpu: bool = True) -> torch.device:
    """The device that the setting `device` means in this process.

    Args:
        may_use_gpu: false where a GPU that is visible was reserved for others.

    Raises:
        ConfigError: `cuda` without a GPU.
    """
    there = may_use_gpu and torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise missing_gpu("this process has no GPU")
    # By its number: a process that shares a node's GPUs with others was given one of them.
    return torch.device("cuda", torch.cuda.current_device()) if there and asked != "cpu" else torch.device("cpu")


def missing_gpu(reason: str, section: str = "") -> ConfigError:
    """The error of a stage that insists on a GPU; `section` is its settings."""
    return ConfigError(
        f"cuda is asked for, and {reason}",
        where=f"{section}.device" if section else "device",
        remedy="auto, which takes a GPU where there is one and else the CPU; for a GPU, torch needs a build with CUDA",
    )
