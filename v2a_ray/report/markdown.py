"""Markdown tables with untrusted text in cells: file names, labels of a sweep, error texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Text escaped to one line, so that it can neither leave a table's cell nor start markup."""
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return flat.replace("<", "&lt;").replace("`", "'")


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]], rule: Sequence[str] | None = None) -> list[str]:
    """The lines of a table; `rule` aligns the columns (`---:`), by default to the left."""
    middle = list(rule) if rule else ["---"] * len(header)
    lines = [[cell(text) for text in header], middle, *([cell(text) for text in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]
