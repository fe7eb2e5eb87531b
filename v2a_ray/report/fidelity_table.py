"""How well domains reproduce recorded files: a table for the terminal, and a page of Markdown."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from v2a_ray.data.fidelity.recorded import FOREIGN_ROWS, REPRODUCED, Comparison
from v2a_ray.data.fidelity.resimulation import FidelityReport
from v2a_ray.report.markdown import table_lines

_UNITS = "m, rad, m/s or rad/s"
_COLUMNS = (
    "file",
    "domain",
    "steps",
    "left out",
    f"error here ({_UNITS})",
    "reward error (per step)",
    "error in stock",
    "error in modern physics",
    "verdict",
)
LEGEND = {
    "steps": "transitions that were re-simulated, each from its own observation. Left out: those whose state is not "
    "known, nearly all because a velocity was clipped in the recording; alarming where they are the most.",
    "error": f"the largest difference of one observed number ({_UNITS}, whichever it has) between the re-simulated and "
    "the recorded next observation: the median of all steps and the 95th percentile.",
    "here": "in the domain that the file claims. Float32 alone makes 1e-07 to 1e-06. Alarming: a median of "
    f"{REPRODUCED:.0e} or more (other dynamics), or a 95th percentile above {FOREIGN_ROWS:.0e} (a part of the "
    "steps is from elsewhere).",
    "reward": "the median difference of the reward of one step, in the reward's own unit; alarming where the verdict "
    "names it.",
    "stock, modern": "the same steps in the robot without the shift, and in the claimed domain with the physics of "
    "current Gymnasium. They should be far larger than here; where stock is as small, no shift shows in these data.",
}
"""What the columns say, and which of their values are alarming."""
_PAGE = """# Fidelity to recorded data

Every transition of a file is predicted from its own observation: the state is set, the action applied, and the step
compared with the recorded next observation. The same rows are predicted in the domain that the file claims, in the
stock robot of the same physics, and in the claimed domain with modern physics. Errors are median / 95th percentile over
the file's rows; below the table stands what each column says. Rows that reading drops as defective
(`v2a data inspect`) are in no column.

```
{command}
```

mujoco {mujoco}, gymnasium {gymnasium}

"""


def render_comparisons(comparisons: Sequence[Comparison]) -> RenderableType:
    """Three lines per file, so that it fits 80 columns, and below what the columns say."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("file, domain, verdict", overflow="fold", min_width=32)
    for name in ("steps\nleft out", "error here\n95 %", "reward\nerror", "in stock\n95 %", "in modern\n95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in comparisons:
        claimed = each.claimed
        color = "green" if each.is_right else "red"
        table.add_row(
            Text.assemble((each.file.name, "bold"), f"\n{claimed.domain}\n", (each.verdict, color)),
            Text.assemble(
                f"{claimed.rows:,}\n", _told(f"{claimed.rows_excluded:,}", claimed.rows_excluded > claimed.rows)
            ),
            Text.assemble(
                _told(f"{claimed.median_error:.0e}", claimed.median_error >= REPRODUCED),
                "\n",
                _told(f"{claimed.p95_error:.0e}", claimed.p95_error > FOREIGN_ROWS),
            ),
            Text.assemble(_told(f"{claimed.reward_median_error:.0e}", bool(claimed.reward_problem))),
            *(f"{other.median_error:.0e}\n{other.p95_error:.0e}" for other in (each.stock, each.modern)),
        )
    legend = Table(box=None, padding=(0, 1, 0, 0), show_header=False, style="dim")
    legend.add_column(no_wrap=True)
    legend.add_column(overflow="fold")
    for name, text in LEGEND.items():
        legend.add_row(name, text)
    return Group(table, Text(), legend)


def _told(text: str, is_alarming: bool) -> tuple[str, str]:
    """A number and its style."""
    return text, "bold red" if is_alarming else ""


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
    legend = [f"- *{name}*: {text}" for name, text in LEGEND.items()]
    lines = [*table_lines(_COLUMNS, rows), "", *legend]
    return _PAGE.format(command=command, **versions) + "\n".join(lines) + "\n"


def _errors(report: FidelityReport) -> str:
    return f"{report.median_error:.0e} / {report.p95_error:.0e}"
