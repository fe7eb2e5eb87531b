"""How a folder of LeRobot's is known."""

from __future__ import annotations

from v2a_ray.data.formats.location import Location

INFO = "meta/info.json"


def is_lerobot_folder(location: Location) -> bool:
    """Whether a folder has LeRobot's metadata."""
    return bool((location / INFO).exists())
