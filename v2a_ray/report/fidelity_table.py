"""How well domains reproduce recorded files: a table for the terminal, and a page of Markdown."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from v2a_ray.data.fidelity.recorded import REPRODUCED, Comparison
from v2a_ray.data.fidelity.resimulation import FidelityReport
from v2a_ray.report.markdown import table_lines

_COLUMNS = ("file", "domain", "rows", "excluded", "this domain", "reward", "stock", "modern physics", "verdict")
_PAGE = """# Fidelity to recorded data

Every transition of a file is predicted from its own observation: the state is set, the action applied, and the step
compared with the recorded next observation. Errors are L-infinity distances, median / 95th percentile over the file's
rows; *reward* is the median absolute difference of rewards. The same rows are predicted in the domain that the file
claims, in the stock robot of the same physics, and in the claimed domain with modern physics. *Excluded* are rows
whose state is not known, nearly all because a velocity was clipped in the recording; rows that reading drops as
defective (`v2a data inspect`) are in neither column. Below {reproduced:g} a domain reproduces the file to the precision
of float32.

```
{command}
```

mujoco {mujoco}, gymnasium {gymnasium}

"""


def render_comparisons(comparisons: Sequence[Comparison]) -> Table:
    """Three lines per file, so that it fits 80 columns."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("file, domain, verdict", overflow="fold", min_width=40)
    for name in ("rows\nexcluded", "median\np95", "reward\nmedian", "stock\np95", "modern\np95"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in comparisons:
        claimed = each.claimed
        color = "green" if each.is_right else "red"
        table.add_row(
            Text.assemble((each.file.name, "bold"), f"\n{claimed.domain}\n", (each.verdict, color)),
            f"{claimed.rows:,}\n{claimed.rows_excluded:,}",
            *(
                f"{claimed.median_error:.0e}\n{claimed.p95_error:.0e}",
                f"{claimed.reward_median_error:.0e}",
                f"{each.stock.median_error:.0e}\n{each.stock.p95_error:.0e}",
                f"{each.modern.median_error:.0e}\n{each.modern.p95_error:.0e}",
            ),
        )
    return table


def to_markdown(comparisons: Sequence[Comparison], command: str) -> str:
    """A page with one row per file, the measuring `command` (shown as given), and the versions."""
    versions = {name: importlib.metadata.version(name) for name in ("mujoco", "gymnasium")}
    rows = []
    for each in comparisons:
        claimed = each.claimed
        cells = [
            each.file.name,
            claimed.domain,
            f"{claimed.rows:,}",
            f"{claimed.rows_excluded:,}",
            _errors(claimed),
            f"{claimed.reward_median_error:.0e}",
            _errors(each.stock),
            _errors(each.modern),
            each.verdict,
        ]
        rows.append(cells)
    return (
        _PAGE.format(command=command, reproduced=REPRODUCED, **versions) + "\n".join(table_lines(_COLUMNS, rows)) + "\n"
    )


def _errors(report: FidelityReport) -> str:
    return f"{report.median_error:.0e} / {report.p95_error:.0e}"
