"""Where every method of Part A stands, under the names by which the page's sentences have it.

A sentence says `{other[v2a].behind} of {other[v2a].number} cells`, so that rows that come later cannot leave it behind.
"""

from __future__ import annotations

import re
import string
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study.run import Scores
from benchmarks.study.selection import BASELINES, is_control
from benchmarks.study.suites import METHODS
from benchmarks.study.tables import Standing, standing_of
from v2a_ray.experiments.choice import TARGET

Cells = Mapping[str, Scores]
WIDTH = 118
NOT_RUN = "(not run)"
LIST_MARK = re.compile(r" (?=(?:\d+[.)]|[-+*#>]) )")
"""The space before what begins a list, a heading or a quotation where it begins a line: no line breaks there."""
JOINED = "\0"


def groups_of(maps: Mapping[str, Cells]) -> dict[str, list[Scores]]:
    """Cells of the maps: all, those with other dynamics, the controls; the same of each robot; experts' targets.

    Args:
        maps: by robot, and then by the label of a cell.
    """
    labelled = [(robot, label, scores) for robot, cells in maps.items() for label, scores in cells.items()]
    groups: dict[str, list[Scores]] = {}
    for robot, label, scores in labelled:
        kind = "controls" if is_control(label) else "other"
        expert = "expert" if label.split()[0] == "expert" else "no_expert"
        for name in ("every", kind, robot, f"{robot}_{kind}", f"{robot}_{expert}"):
            groups.setdefault(name, []).append(scores)
    return groups


def standings(maps: Mapping[str, Cells]) -> dict[str, dict[str, Standing]]:
    """Methods beside the better baseline by group of cells and name; beside the target alone in `ROBOT_alone`."""
    groups = groups_of(maps)
    found = {
        name: {method: standing_of(cells, method) for method in METHODS if method not in BASELINES}
        for name, cells in groups.items()
    }
    alone = {
        f"{name}_alone": {method: standing_of(cells, method, TARGET) for method in METHODS if method != TARGET}
        for name, cells in groups.items()
    }
    return found | alone


def with_numbers(text: str, found: Mapping[str, Mapping[str, Standing]]) -> str:
    """The text with its numbers filled in, and its paragraphs and list items wrapped again; headings are one line.

    What `found` does not have is said to be not run. Raises AttributeError for a number that no standing has.
    """
    lines: list[str] = []
    for line in _Known().format(text, **found).splitlines():
        goes_on = lines and lines[-1] and line and not line.startswith("- ") and not lines[-1].startswith("#")
        if goes_on:
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    wrap = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(_wrapped(wrap, line)) for line in lines) + "\n"


class _Known(string.Formatter):
    """Fills in what is known."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            return super().get_field(field_name, args, kwargs)
        except KeyError:
            return NOT_RUN, field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        return NOT_RUN if value is NOT_RUN else str(super().format_field(value, format_spec))


def _wrapped(wrap: textwrap.TextWrapper, line: str) -> list[str]:
    wrap.subsequent_indent = "  " if line.startswith("- ") else ""
    if line.startswith("#"):
        return [line]
    joined = LIST_MARK.sub(JOINED, line)
    return [part.replace(JOINED, " ") for part in wrap.wrap(joined)] or [""]
