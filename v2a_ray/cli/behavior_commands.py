"""`v2a behaviors`: the policies that collect data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from v2a_ray.cli.console import console, resumable

app = typer.Typer(help="Behaviour policies of every quality: train, list, evaluate.", no_args_is_help=True)


@app.command("list")
def list_command(
    folder: Annotated[
        Path | None, typer.Option(help="Trained behaviours to list instead of the packaged ones.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="A row for every policy, snapshots too.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write a page of Markdown.")] = None,
) -> None:
    """List the behaviours with their returns in their own domain, over 20 episodes without noise."""
    from v2a_ray.domains.behaviors import list_behaviors
    from v2a_ray.outputs import MARK, new_file, require_replaceable
    from v2a_ray.report.behavior_table import render_zoo, zoo_markdown

    if output:
        require_replaceable(output)
    rows = list_behaviors(folder)
    console.print(_policies(rows) if everything else render_zoo(rows))
    if output:
        options = f" --folder {folder}" if folder else ""
        page = zoo_markdown(rows, f"v2a behaviors list{options} --output {output}")
        with new_file(output) as partial:
            partial.write_text(f"<!-- {MARK} -->\n\n{page}")
        console.print(str(output), soft_wrap=True)


def _policies(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for name in ("domain", "behaviour", "steps", "return", "score"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("domain", "behaviour") else "right")
    for row in rows:
        returns = f"{row['return_mean']:.0f} ± {row['return_std']:.0f}"
        score = "–" if row["normalized_score"] is None else f"{row['normalized_score']:.1f}"
        table.add_row(row["domain"], row["behavior"], f"{row['num_steps']:,}", returns, score)
    return table


@app.command()
def train(
    domain: Annotated[str, typer.Argument(help="e.g. hopper/gravity-0.5@d4rl")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of PPO as key=value, e.g. num_epochs=5.", metavar="[KEY=VALUE]")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="By default runs/behaviors/DOMAIN.")] = None,
    num_steps: Annotated[int, typer.Option(min=1, help="Environment steps.")] = 1_500_000,
    seed: int = 0,
    num_environment_runners: Annotated[int, typer.Option(min=0, help="Ray actors that sample; 0: this process.")] = 0,
    resume: Annotated[bool, typer.Option(help="--no-resume starts over.")] = True,
    install: Annotated[bool, typer.Option("--install", help="Put the result into the package's weights.")] = False,
) -> None:
    """Train behaviours in a domain with RLlib's PPO, keeping snapshots of every quality. Resumes after Ctrl-C."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from v2a_ray.cli.bars import plain
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.behavior_export import install_behaviors
    from v2a_ray.imports import require_package

    require_package("lz4", "rllib", "v2a behaviors train")
    from v2a_ray.orchestration.rllib.behavior_training import TrainingProgress, train_behavior
    from v2a_ray.orchestration.rllib.ppo import default_settings
    from v2a_ray.settings.yaml_files import parse_overrides, validate

    parsed = parse_domain(domain)
    defaults = default_settings(parsed.robot)
    settings = validate(
        type(defaults),
        defaults.model_dump() | parse_overrides(overrides or []),
        remedy="v2a_ray/orchestration/rllib/ppo.py explains each setting",
    )
    folder = output or Path("runs/behaviors") / parsed.slug
    columns = (
        plain(parsed.name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        plain("{task.fields[note]}"),
    )
    with resumable(), Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=num_steps, note="")
        told: set[int] = set()

        def report(state: TrainingProgress) -> None:
            best = "" if state.snapshot_return is None else f", snapshot {state.snapshot_return:.0f}"
            note = f"{state.steps_per_second:,.0f} steps/s · return {state.return_mean:.0f}{best}"
            bar.update(task, completed=state.num_steps, note=note)
            tenth = 10 * state.num_steps // num_steps
            if not console.is_terminal and tenth not in told:
                told.add(tenth)
                date = time.strftime("%Y-%m-%d %H:%M:%S")
                console.print(
                    f"{date} {state.num_steps:,} of {num_steps:,} steps · {note}", markup=False, soft_wrap=True
                )

        behaviors = train_behavior(parsed, folder, num_steps, seed, num_environment_runners, report, resume, settings)
    if install:
        behaviors = install_behaviors(folder, parsed)
    console.print(str(behaviors), soft_wrap=True)


@app.command()
def evaluate(
    domain: Annotated[str, typer.Argument(help="Whose behaviour, e.g. hopper/stock@d4rl")],
    behavior: Annotated[str, typer.Argument(help="random, medium, expert, a snapshot, or module:function")],
    in_domain: Annotated[str | None, typer.Option("--in", help="Evaluate in another domain of the same robot.")] = None,
    num_episodes: Annotated[int, typer.Option(min=1)] = 10,
    seed: int = 0,
    folder: Annotated[Path | None, typer.Option(help="Weights from here instead of the package.")] = None,
) -> None:
    """Roll a behaviour out without action noise and print its returns."""
    from v2a_ray.domains import normalized_score, parse_domain
    from v2a_ray.domains.behaviors import evaluate_policy, load_behavior, require_same_robot
    from v2a_ray.evaluation.interval import with_spread

    where = parse_domain(in_domain or domain)
    require_same_robot(parse_domain(domain), where)
    returns = evaluate_policy(load_behavior(domain, behavior, folder), where, num_episodes, seed)
    score = normalized_score(where, float(returns.mean()))
    scored = "no normalised score" if score is None else f"normalised score {score:.1f}"
    console.print(
        f"{behavior} of {domain} in {where.name}: return {with_spread(returns, 1)}, {scored}, {num_episodes} episodes",
    )
