"""The methods on the terminal: the table of combinations, and a page for one."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from v2a_ray.experiments.combinations import NONE, Combination, changes, combination, combinations, effective_settings
from v2a_ray.experiments.methods import METHODS


def methods_table() -> Table:
    """All methods; unused components of a method are left out, so that a row fits a terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    table.add_column("combination")
    for row in combinations():
        table.add_row(row.method, row.origin, _sentence(row))
    return table


def _sentence(row: Combination) -> str:
    parts = {
        f"{row.learner} on {row.data}": row.learner,
        f"{row.alignment} h": row.alignment,
        row.value: row.value,
        row.filter: row.filter,
        f"weight {row.weight}": row.weight,
        row.extra: row.extra,
    }
    return " · ".join(text for text, cell in parts.items() if cell != NONE)


def method_page(name: str) -> RenderableType:
    """One method: summary, source, deviations, its row, and its settings. Raises ConfigError for an unknown name."""
    row = combination(name)
    method = METHODS[name]
    lines = Text.assemble((name, "bold"), f" ({row.origin}): {method.summary}\nsource: {method.source}\n")
    for deviation in method.deviations:
        lines.append(f"deviates: {deviation}\n")
    set_by_method = dict(changes(name))
    settings = Table("setting", "value", "", box=None, pad_edge=False)
    for key, value in effective_settings(name):
        mine = key in set_by_method
        settings.add_row(key, str(value), "set by the method" if mine else "", style="bold" if mine else "")
    return Group(lines, settings)
