"""Chooses the device of a stage: this process's GPU, or the CPU.

The tables determine it: a learner's generator is on the device of its tables, and its networks follow the generator
(`trainer.TrainingLoop`). Networks are initialised on the CPU, so equal seeds give equal initial weights on any device;
later random numbers depend on the device.
"""

from __future__ import annotations

import torch

from v2a_ray.errors import ConfigError
from v2a_ray.settings.base import DeviceName


def choose_device(asked: DeviceName, *, may_use_gpu: bool = True) -> torch.device:
    """The device that the setting `device` means in this process.

    Args:
        may_use_gpu: false if the visible GPU was reserved for others.

    Raises:
        ConfigError: `cuda` without a GPU.
    """
    there = may_use_gpu and torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise missing_gpu("this process has no GPU")
    # With its number, because a process on a node with several GPUs may have been given another one than the first.
    return torch.device("cuda", torch.cuda.current_device()) if there and asked != "cpu" else torch.device("cpu")


def missing_gpu(reason: str, section: str = "") -> ConfigError:
    """The error for `device: cuda` without a GPU; `section` names the stage's settings."""
    return ConfigError(
        f"cuda is asked for, and {reason}",
        where=f"{section}.device" if section else "device",
        remedy="auto, which uses a GPU if there is one and otherwise the CPU; a GPU needs a build of torch with CUDA",
    )
