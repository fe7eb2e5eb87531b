"""`v2a select`: selects the best of several policies without a simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console, error_console
from v2a_ray.cli.trial_options import Best, Every, TrialName, chosen
from v2a_ray.objects import require_folder_name
from v2a_ray.settings.measures import DEFAULT_MEASURE, MEASURE_WITH_SOURCE, OFFLINE_MEASURES


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(select)


def select(
    policies: Annotated[
        list[str],
        typer.Argument(
            metavar="POLICY...",
            help="Folders of runs and sweeps, what `v2a export` wrote, or behaviours (hopper/stock:medium)",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Target episodes for the estimate; by default the runs' own target data.")
    ] = None,
    with_source: Annotated[
        bool, typer.Option("--with-source", help="Fit also to the source of the first run that has one.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            help=f"What ranks: {', '.join(OFFLINE_MEASURES)}. By default {DEFAULT_MEASURE}; {MEASURE_WITH_SOURCE} with "
            "--with-source."
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(min=0.01, max=0.9, help="Part of the target that is held out, where the runs held none out."),
    ] = 0.2,
    steps: Annotated[int, typer.Option(min=1, help="Update steps per policy.")] = 5000,
    critics: Annotated[int, typer.Option(min=1, help="Critics per policy.")] = 4,
    discount: Annotated[float, typer.Option(min=0.0, max=0.9999)] = 0.99,
    seed: Annotated[int, typer.Option(min=0, help="Of the critics and of the held-out episodes.")] = 0,
    true_episodes: Annotated[
        int, typer.Option(min=0, help="Roll every policy out as a check; 0: use the returns that the runs measured.")
    ] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the numbers as JSON.")] = None,
    trial: TrialName = None,
    best: Best = False,
    every: Every = False,
) -> None:
    """Rank policies without a simulator, by numbers on recorded target episodes.

    Critics are fitted to the policy's own actions (fitted Q evaluation). The ranking is by their TD error on episodes
    that they were not fitted to, or by --by. The value is the mean of Q(s, pi(s)) over first states of these episodes.
    The policies themselves were trained on them too, unless --data gives others, or their target is `real`, whose runs
    hold episodes out. If true returns are known, the rank correlation measures the ranking's quality.

    With --with-source it chooses between methods that trust the source to different degrees, such as plain mixing and a
    filter: a policy that the target's few episodes cannot judge is judged where the source has been.

        v2a select runs/demo-v2a-seed0 runs/demo-iql-seed0 runs/demo-dvdf-seed0

        v2a select runs/smoke --all

        v2a select runs/mine --all --with-source

        v2a select policy.onnx hopper/stock:medium --data my_episodes.hdf5

        v2a select runs/demo-* hopper/stock:random --true-episodes 20
    """
    from v2a_ray.cli.bars import named_bars
    from v2a_ray.errors import ConfigError
    from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig
    from v2a_ray.export.find import find_policy
    from v2a_ray.export.selection import estimate, selection_data
    from v2a_ray.outputs import require_ours
    from v2a_ray.report.selection_table import render_selection, selection_in_words, write_selection

    by = by or (MEASURE_WITH_SOURCE if with_source else DEFAULT_MEASURE)
    if by not in OFFLINE_MEASURES:
        raise ConfigError(f"no measure {by!r}", where="--by", remedy=f"one of {', '.join(OFFLINE_MEASURES)}")
    if output:
        require_ours(output)
    names = [name for each in policies for name in _each(each, trial, best, every)]
    found = [find_policy(name) for name in dict.fromkeys(names)]
    episodes = selection_data(found, data, with_source)
    config = FittedQConfig(num_steps=steps, num_critics=critics, discount=discount)
    with named_bars(error_console, transient=True) as bar:
        tasks = {policy.name: bar.add_task(policy.name, total=steps) for policy in found}
        candidates = estimate(
            found,
            episodes,
            config,
            measure=by,
            held_out_fraction=held_out,
            seed=seed,
            num_true_episodes=true_episodes,
            on_progress=lambda name, step, _: bar.update(tasks[name], completed=step),
        )
    console.print(render_selection(candidates))
    console.print(selection_in_words(candidates), soft_wrap=True)
    if output:
        settings = config.model_dump() | {"by": by, "held_out": held_out, "seed": seed, "true_episodes": true_episodes}
        write_selection(candidates, settings, output)
        console.print(str(output), soft_wrap=True)


def _each(text: str, trial: str | None, best: bool, every: bool) -> list[str]:
    """What one argument names: choices among trials are for the sweeps among the arguments alone."""
    from v2a_ray.experiments.finished import is_sweep

    require_folder_name(text)
    return chosen(text, trial, best, every) if is_sweep(Path(text)) else [text]
