"""`v2a evaluate`: a policy in any domain of its robot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from v2a_ray.cli.console import console, error_console
from v2a_ray.cli.trial_options import Best, Every, TrialName, chosen, require_one

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from v2a_ray.domains.rollout import Act

PolicyName = Annotated[
    str,
    typer.Argument(
        metavar="POLICY",
        help="The folder of a run or a sweep, what `v2a export` wrote, or a behaviour, e.g. hopper/stock:medium",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(evaluate)


def evaluate(
    policy: PolicyName,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", "-d", help="Of the same robot; repeatable. By default the policy's own."),
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, help="In every domain.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Episode i is reset with SEED + i.")] = 0,
    video: Annotated[
        Path | None, typer.Option("--video", help="Film the first episode of the first domain: .gif or .mp4.")
    ] = None,
    video_seconds: Annotated[float, typer.Option(min=0.1, help="Longest film.")] = 8.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Numbers of every episode as JSON.")] = None,
    trial: TrialName = None,
    best: Best = False,
    every: Every = False,
) -> None:
    """Roll a policy out and print its return and normalised score with confidence intervals of their means.

        v2a evaluate runs/demo-v2a-seed0 --episodes 50

        v2a evaluate runs/demo-v2a-seed0 -d hopper/stock -d hopper/gravity-0.5 -o results.json

        v2a evaluate runs/smoke --best --video best.gif

        v2a evaluate hopper.onnx --video hopper.gif

        v2a evaluate hopper/stock:expert -d hopper/otdf-morph

    The score is 0 for a random and 100 for an expert policy of the domain. Intervals are 95 % bootstrap intervals of
    the mean over episodes; they say nothing about other training seeds. Only files that v2a wrote are replaced.
    """
    from v2a_ray.cli.bars import named_bars
    from v2a_ray.domains import parse_domain
    from v2a_ray.evaluation.returns import evaluate as evaluate_in
    from v2a_ray.evaluation.video import frames, record, require_format, write_film
    from v2a_ray.export.find import find_policy
    from v2a_ray.export.policies import require_robot_of
    from v2a_ray.outputs import require_ours
    from v2a_ray.report.evaluation_text import render_evaluation, write_evaluation

    names = chosen(policy, trial, best, every)
    require_one(names, output=output, video=video)
    policies = []
    for found in map(find_policy, names):
        domains = [parse_domain(each) for each in domain] if domain else [found.domain]
        for each in domains:
            require_robot_of(found, each)
        policies.append((found, domains))
    if video:
        require_format(video)
    for path in (video, output):
        if path:
            require_ours(path)
    for found, domains in policies:
        results = []
        with named_bars(error_console, transient=True) as bar:
            for each in domains:
                longest = each.robot_spec.max_episode_steps
                act = counted(found.act, bar, f"{each.name}, {episodes} episodes side by side", longest)
                results.append(evaluate_in(act, each, episodes, seed))
            if video:
                episode = record(found.act, domains[0], seed, video_seconds)
                film = bar.track(frames(episode), episode.num_frames, description=f"drawing {video.name}")
                write_film(list(film), video)
        console.print(render_evaluation(results, found.name))
        if output:
            write_evaluation(results, found.name, found.domain.name, seed, output)
    for path in (output, video):
        if path:
            console.print(str(path), soft_wrap=True)


def counted(act: Act, bar: Progress, words: str, num_steps: int) -> Act:
    """`act` with a bar that counts environment steps, of at most `num_steps`."""
    task = bar.add_task(words, total=num_steps)

    def counting(observation: NDArray[Any]) -> NDArray[np.float32]:
        bar.advance(task)
        return act(observation)

    return counting
