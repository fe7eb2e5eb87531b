"""The domain in a dataset's file name: `hopper_gravity_0.5_expert`, `hopper-medium-v2`, `ant_otdf-morph_d4rl`.

D4RL, ODRL, OTDF and this project name files in different ways, but always in the order robot, shift, quality.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import PHYSICS, parse_domain
from v2a_ray.domains.robot_spec import all_robots
from v2a_ray.domains.shifts.names import named_shifts, parse_shift
from v2a_ray.errors import DomainError
from v2a_ray.settings.behavior_names import QUALITIES

SUFFIXES = (".hdf5", ".h5", ".parquet")
# OTDF has one target of each kind, so its files name only the kind.
_OTDF_KINDS = frozenset({"gravity", "kinematic", "morph"})
_ALIASES = {"walker": "walker2d", "morphology": "morph"}
_SEPARATORS = re.compile(r"[_\-+@\s]+")
# `wind--10` and `wind_-10` mean speed -10.
_MINUS = re.compile(r"(?<=[_\-])-(?=\d)")
_VERSION = re.compile(r"v\d+")
# The longest shift, `action_noise-K` or `kinematic-PART-LEVEL`, is three words.
_LONGEST_SHIFT = 3


def domain_of_file_name(path: Path) -> Domain | None:
    """The domain in the name of a file or folder; None if the name does not contain one.

    Words before the robot are ignored, and so are unknown words after the quality (`medium`, `expert`, ...). No shift
    means stock only if `stock` or a quality says so: `hopper-medium-v2`.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    words = [word.replace("~", "-") for word in _SEPARATORS.split(_MINUS.sub("~", name)) if word]
    words = [_ALIASES.get(word, word) for word in words]
    robots = [word for word in words if word in all_robots()]
    if len(set(robots)) != 1:
        return None
    shifts = _shift_names(words[words.index(robots[0]) + 1 :], robots[0])
    if shifts is None:
        return None
    physics = next((word for word in words if word in PHYSICS), PHYSICS[0])
    try:
        return parse_domain(f"{robots[0]}/{'+'.join(shifts) or 'stock'}@{physics}")
    except DomainError:
        return None


def _shift_names(words: Sequence[str], robot: str) -> list[str] | None:
    """All shifts in `words`, the words after the robot; None if they contain anything else."""
    kinds = {word for shifts in named_shifts(robot) for shift in shifts for word in shift.kind.split("_")}
    names: list[str] = []
    told = after_quality = False
    index = 0
    while index < len(words):
        word = words[index]
        name, length = _shift_at(words[index : index + _LONGEST_SHIFT], robot)
        if name:
            names.append(name)
        elif word in kinds or not (
            after_quality or word == "stock" or word in QUALITIES or word in PHYSICS or _VERSION.fullmatch(word)
        ):
            return None
        after_quality |= word in QUALITIES
        told |= bool(name) or word == "stock" or word in QUALITIES
        index += length
    return names if told else None


def _shift_at(words: Sequence[str], robot: str) -> tuple[str, int]:
    """The shift in the longest possible run of first `words`, and the run's length; ("", 1) if there is no shift."""
    for length in range(len(words), 0, -1):
        for spelled in ("-".join(words[:length]), "-".join(["_".join(words[:2]), *words[2:length]])):
            try:
                return parse_shift(spelled, robot).name, length
            except DomainError:
                continue
    alone = len(words) == 1 or words[1] in QUALITIES or words[1] in PHYSICS
    if words[0] in _OTDF_KINDS and alone:
        return parse_shift(f"otdf-{words[0]}", robot).name, 1
    return "", 1
