"""The check of the catalogue as a Markdown page and a picture of pairwise dynamics distance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from v2a_ray.domains.catalogue_checks import (
    IDENTICAL_DISTANCE,
    NUM_SURVIVAL_STEPS,
    VACUOUS_DISTANCE,
    DomainCheck,
    RobotCheck,
)
from v2a_ray.outputs import MARK, new_file
from v2a_ray.report.markdown import table_lines

_PAGE = """# Check of the domain catalogue

Written by `{command}`. {count} domains, {physics} physics: the check {verdict}.

- **Edits.** Every number of the shifted model is compared with the stock model to which only the declared changes were
  made, after MuJoCo derived its constants again. Nothing else may differ, and everything declared must. Where a shift
  is a number, the new values follow from it; of joint ranges and shapes (and the inertia of the bodies that own them)
  the place is checked, not the value.
- **Survival.** A reset and {num_steps} random steps stay finite, and MuJoCo counts no divergence.
- **Dynamics distance.** Two domains continue from the same states with the same actions for one environment step. The
  distance is the root mean square, over probes and state dimensions, of the difference of the two next states, each
  dimension divided by the standard deviation of its change per step in stock. It has no unit: 0.1 is a tenth of an
  ordinary step. Below {identical:g} two domains are the same.
- **Probes** per robot, and the policies that visited most of them in stock:
  {probes}.
  The rest are visited states shaken, so that joint limits, contacts and speeds occur that no such policy meets.
- **Nearly vacuous** is a shift nearer than {vacuous:g} to stock over the states of the last policy listed above. Small
  does not mean harmless: the weakest Hopper shifts above that threshold (tailwind, less damping; at 0.015) cost the
  stock expert two thirds of its return, but those below it are at exactly 0. Where that policy is `random`, no policy
  that walks is packaged, and the list says little about one that does.

![pairwise dynamics distance]({picture})

## Findings
"""

_SMALLEST_COLOUR, _LARGEST_COLOUR = 0.01, 10.0


def verdict_lines(check: RobotCheck) -> list[str]:
    """One line per finding of a robot: failures first, then known identical pairs and nearly vacuous shifts."""
    lines = [f"FAILS {each.domain}: {problem}" for each in check.domains for problem in each.problems]
    for pair in check.identical:
        label = "known" if pair.reason else "FAILS"
        reason = f" ({pair.reason})" if pair.reason else ""
        lines.append(f"{label} {check.robot}: {pair.first} and {pair.second} are the same dynamics{reason}")
    vacuous = [f"{each.shift} ({each.walked_distance_to_stock:.2g})" for each in check.domains if each.is_vacuous]
    if vacuous:
        lines.append(f"nearly vacuous for {check.robot}'s {check.policies[-1]} policy: {', '.join(vacuous)}")
    return lines


def table_rows(check: RobotCheck) -> list[tuple[str, str, str, str, str]]:
    """Per domain: shift, what it changes, distance to stock, the same for the best policy's states, nearest other."""
    return [
        (
            each.shift,
            ", ".join(each.intended) or _outside_model(each),
            _distance(each.distance_to_stock),
            _distance(each.walked_distance_to_stock),
            f"{each.nearest} {_distance(each.nearest_distance)}".strip(),
        )
        for each in check.domains
    ]


def write_page(checks: Sequence[RobotCheck], path: Path, command: str) -> None:
    """Write the page to `path`, and its picture beside it, as `.png`."""
    picture = path.with_suffix(".png")
    plot_distances(checks, picture)
    with new_file(path) as partial:
        partial.write_text(f"<!-- {MARK} -->\n\n{domain_check_page(checks, command, picture.name)}")


def domain_check_page(checks: Sequence[RobotCheck], command: str, picture: str) -> str:
    """Markdown with the checks, the findings, a table per robot, and all pairwise distances."""
    lines = [
        _PAGE.format(
            command=command,
            count=sum(len(check.domains) for check in checks),
            physics=checks[0].physics,
            verdict="passes" if all(check.passes for check in checks) else "**fails**",
            num_steps=NUM_SURVIVAL_STEPS,
            identical=IDENTICAL_DISTANCE,
            vacuous=VACUOUS_DISTANCE,
            probes="; ".join(f"{each.robot} {each.num_probes} ({', '.join(each.policies)})" for each in checks),
            picture=picture,
        ),
        *(f"- {line}" for check in checks for line in verdict_lines(check)),
    ]
    for check in checks:
        header = ("shift", "changes", "to stock", "best policy's states", "nearest")
        lines += ["", f"## {check.robot}", "", *table_lines(header, table_rows(check))]
    for check in checks:
        names = [each.shift for each in check.domains]
        lines += [
            "",
            "<details>",
            f"<summary>{check.robot}: every pair</summary>",
            "",
            "```csv",
            ",".join(["", *names]),
        ]
        lines += [
            ",".join([name, *(f"{value:.3g}" for value in row)]) for name, row in zip(names, check.matrix, strict=True)
        ]
        lines += ["```", "", "</details>"]
    return "\n".join(lines) + "\n"


def plot_distances(checks: Sequence[RobotCheck], path: Path) -> None:
    """One heat map per robot, logarithmic; the same dynamics are white."""
    columns = min(2, len(checks))
    rows = -(-len(checks) // columns)
    figure = Figure(figsize=(9.5 * columns, 9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    norm = LogNorm(_SMALLEST_COLOUR, _LARGEST_COLOUR)
    colours = colormaps["viridis"].with_extremes(bad="white")
    for axes, check in zip(grid.flat, checks, strict=False):
        shown = np.ma.masked_less(check.matrix, IDENTICAL_DISTANCE)
        image = axes.imshow(shown, norm=norm, cmap=colours)
        names = [each.shift for each in check.domains]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_title(f"{check.robot}@{check.physics}")
    for axes in grid.flat[len(checks) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=grid, extend="both", shrink=0.5, label="dynamics distance (1: an ordinary step of stock)")
    with new_file(path) as partial:
        figure.savefig(partial, dpi=100, format="png", metadata={"Software": MARK})


def _distance(value: float) -> str:
    """Three digits, or a dash for a distance that was not measured because no state could be set."""
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _outside_model(check: DomainCheck) -> str:
    return "nothing" if check.shift == "stock" else "execution of actions"
