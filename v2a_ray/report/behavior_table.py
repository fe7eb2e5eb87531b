"""The behaviour zoo as a table: one row per domain, for the terminal and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table

from v2a_ray.report.markdown import table_lines

_COLUMNS = ("domain", "random", "medium", "expert", "score", "replay", "steps")
_PAGE = """# Behaviour zoo

Return of the packaged behaviour policies in their own domain: mean ± standard deviation over {num_episodes} episodes
without action noise, on seeds that neither training nor the choice among snapshots used. `score` is the normalised
score of medium and expert; `replay` counts the snapshots before medium that `medium-replay` draws on; `steps` are the
environment steps of training, in millions. Printed by

```bash
{command}
```

{table}

Trained by RLlib's PPO, each by one command (`v2a_ray/orchestration/rllib/ppo.py` holds the settings; `provenance.json`
beside the weights says what was used, with versions):

```bash
{commands}
```
"""


def render_zoo(rows: Sequence[dict[str, Any]]) -> Table:
    """One row per domain, from `list_behaviors`."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, overflow="fold", justify="left" if name == "domain" else "right")
    for cells in _domains(rows, spread=False):
        table.add_row(*cells)
    return table


def zoo_markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The table as a Markdown page, with the command that trained each policy."""
    rule = ["---", *["---:"] * (len(_COLUMNS) - 1)]
    return _PAGE.format(
        num_episodes=rows[0]["num_episodes"] if rows else 0,
        command=command,
        table="\n".join(table_lines(_COLUMNS, _domains(rows, spread=True), rule)),
        commands="\n".join(dict.fromkeys(row["command"] for row in rows)),
    )


def _domains(rows: Sequence[dict[str, Any]], spread: bool) -> Iterator[list[str]]:
    """Cells of one row per domain; returns with their standard deviation if `spread`."""
    for domain, group in groupby(rows, key=lambda row: str(row["domain"])):
        policies = {row["behavior"]: row for row in group}
        named = [policies[name] for name in ("random", "medium", "expert")]
        returns = [f"{row['return_mean']:.0f}" + (f" ± {row['return_std']:.0f}" if spread else "") for row in named]
        known = [row["normalized_score"] for row in named[1:] if row["normalized_score"] is not None]
        scores = "/".join(f"{score:.0f}" for score in known) or "–"
        yield [domain, *returns, scores, str(len(policies) - len(named)), f"{named[0]['training_steps'] / 1e6:.1f}"]
