"""Returns that score 0 and 100 in D4RL's suites beyond its locomotion, for gymnasium-robotics' environments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

ADROIT = {
    "Pen": (96.262799, 3076.8331017826877),
    "Hammer": (-274.856578, 12794.134825156867),
    "Door": (-56.512833, 2880.5693087298737),
    "Relocate": (-6.425911, 4233.877797728884),
}
"""Of D4RL's infos (Fu et al. 2020, arXiv 2004.07219): a random policy and human experts, 200 steps (100 of the pen)."""


def published_references(environment: str, settings: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns of D4RL's random and expert policies in an environment of its tasks, or None.

    An Adroit hand has them with its dense reward. A maze of AntMaze has 0 and 1, the goal not reached and reached,
    where an episode ends there (`continuing_task: false`) and only that is rewarded.
    """
    sparse = settings.get("reward_type", "sparse") == "sparse"
    if re.fullmatch(r"AntMaze_\w+-v\d", environment) and "Dense" not in environment:
        return (0.0, 1.0) if sparse and settings.get("continuing_task") is False else None
    hand = re.fullmatch(r"AdroitHand(Pen|Hammer|Door|Relocate)-v\d", environment)
    if hand and settings.get("reward_type", "dense") == "dense":
        return ADROIT[hand[1]]
    return None
