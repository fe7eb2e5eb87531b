"""Names of columns and arrays: in natural order, and chosen by patterns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from v2a_ray.data.checks.findings import place
from v2a_ray.errors import DataError

MAX_NAMED = 12
_RUN_OF_DIGITS = re.compile("([0-9]+)")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that takes runs of digits as numbers: `q2` stands before `q10`."""
    parts = [part for part in _RUN_OF_DIGITS.split(name) if part]
    # Compared by length and then by text, which is as numbers, of which int() takes 4,300 digits at most.
    return tuple(
        (0, len(number), number) if _RUN_OF_DIGITS.match(part) else (1, 0, part)
        for part in parts
        for number in [part.lstrip("0")]
    )


def chosen(patterns: Iterable[str], present: Sequence[str], where: str, role: str) -> list[str]:
    """The names that patterns match: in the order of the patterns, those of one pattern in natural order, each once.

    Args:
        patterns: names, or patterns with `*`, `?` and `[...]`. A name that is present stands for itself.
        present: names that there are.
        where: the file, for messages.
        role: what they are chosen for, such as `observation`.

    Raises:
        DataError: a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = matching(pattern, present)
        if not matched:
            raise unmatched(pattern, present, where, role)
        found |= dict.fromkeys(matched)
    return list(found)


def matching(pattern: str, present: Sequence[str]) -> list[str]:
    """The names that one pattern matches, in natural order."""
    if pattern in present:
        return [pattern]
    return sorted((name for name in present if fnmatchcase(name, pattern)), key=natural)


def unmatched(pattern: str, present: Sequence[str], where: str, role: str) -> DataError:
    """That nothing has a name, with the names most like it and those that there are."""
    close = difflib.get_close_matches(pattern.replace("*", ""), present, n=3)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    held = ", ".join(sorted(present, key=natural)[:MAX_NAMED]) or "nothing"
    more = f" and {len(present) - MAX_NAMED} more" if len(present) > MAX_NAMED else ""
    return DataError(
        f"nothing is called {pattern!r}",
        where=place(where, field=role),
        remedy=f"{guess}name one of: {held}{more} (columns.{role})",
    )
