"""`v2a data replay`: which domain is nearest to recorded episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console


def register(app: typer.Typer) -> None:
    """Add the command to `v2a data`."""
    app.command()(replay)


def replay(
    path: Annotated[Path, typer.Argument(help="Recorded episodes of one robot: a file or folder, as for `fidelity`.")],
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", "-d", help="A domain to replay them in; by default every named one of the robot."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Recorded actions in a row, from a recorded state.")] = 20,
    max_replays: Annotated[int, typer.Option(min=1, help="Parts of episodes that are replayed, at most.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list, the nearest domain first.")] = False,
) -> None:
    """Replay recorded actions in several domains: in which does the robot stay nearest to where it was?

    For choosing a source: with a bad target and one near source among far ones, mixing that one alone was worth up to
    five times as much as mixing all of them, and no filter had that (docs/study.md). `v2a choose --replay` does both.

        v2a data replay mine.hdf5 -d walker2d/friction-0.5@d4rl -d walker2d/gravity-0.5@d4rl

        v2a data replay mine.hdf5 --steps 50       # every named domain of the robot
    """
    from v2a_ray.cli.console import error_console
    from v2a_ray.data.fidelity.recorded import recordings
    from v2a_ray.data.fidelity.replays import replay_episodes
    from v2a_ray.domains import catalogue, parse_domain
    from v2a_ray.domains.domain import require_robot
    from v2a_ray.errors import DataError
    from v2a_ray.report.replay_table import render_replays

    asked = [parse_domain(name) for name in domain or []]
    with error_console.status(f"replaying {path.name}"):
        # With domains given, nobody asks which domain the data claim.
        found = list(recordings(path, asked[0] if asked else None))
        if len(found) > 1:
            names = ", ".join(recording.domain.name for recording in found)
            raise DataError(
                f"episodes of {len(found)} domains: {names}", where=str(path), remedy="a file of one domain"
            )
        (recording,) = found
        if not asked:
            claimed = require_robot(recording.domain, "a replay")
            asked = [each for each in catalogue(claimed.robot, claimed.physics) if not each.execution.noise_std]
        replays = replay_episodes(recording.table, asked, steps, max_replays)
    if as_json:
        console.print_json(data=[each.to_dict() for each in replays])
    else:
        console.print(render_replays(replays))
