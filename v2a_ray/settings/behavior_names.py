"""The behaviour in a dataset's name: `hopper_medium-replay.hdf5`, `hopper-medium-v2`, `D4RL/hopper/expert-v0`."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import PurePosixPath

UNKNOWN = "unknown"
"""Label of a behaviour that nothing says."""
QUALITIES = frozenset({"random", "simple", "medium", "expert", "replay", "full", "mixed", "hybrid"})
"""Words for how good the policy was that collected data; several make one behaviour, such as `medium-replay`."""
_PEOPLE = frozenset({"human", "cloned"})
"""D4RL's words for data of people and of what imitates them."""
_ENDING = re.compile(r"\.[a-z]\w*$")
_SEPARATORS = re.compile(r"[_\-+@\s]+")


def behavior_of_name(name: str) -> str | None:
    """The behaviour in the name of a file or folder, or the last part of a path or URI.

    None if there is none or more than one: `medium_or_expert`.
    """
    last = _ENDING.sub("", PurePosixPath(name.lower()).name)
    known = QUALITIES | _PEOPLE
    runs = ["-".join(run) for is_known, run in groupby(_SEPARATORS.split(last), known.__contains__) if is_known]
    return runs[0] if len(runs) == 1 else None
