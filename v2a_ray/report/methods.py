"""The methods on the terminal: the table of combinations, and a page for one."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from v2a_ray.methods.combinations import NONE, Combination, changes, combination, combinations, effective_settings
from v2a_ray.methods.registry import METHODS


def methods_table() -> Table:
    """All methods; what a method does without is left blank."""
    table = Table(box=None, pad_edge=False)
    for heading in Combination.headings():
        table.add_column(heading, style="bold" if heading == "method" else "", no_wrap=heading == "method")
    for row in combinations():
        table.add_row(*("" if cell == NONE else cell for cell in row.cells()))
    return table


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
