"""`v2a data`: collect, convert and inspect datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console

app = typer.Typer(help="Datasets: collect, convert, inspect.", no_args_is_help=True)
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the episode table to write.")]
DomainLabel = Annotated[str, typer.Option("--domain", help="Domain the data come from, e.g. hopper/gravity-0.5@d4rl.")]


@app.command()
def collect(
    domain: DomainLabel,
    output: Output,
    behavior: Annotated[str, typer.Option(help="random, medium, expert, medium-replay, medium-expert")] = "medium",
    policy_domain: Annotated[str | None, typer.Option(help="Whose policy acts; by default the domain's own.")] = None,
    num_transitions: Annotated[int, typer.Option(min=1)] = 10_000,
    noise_std: Annotated[float, typer.Option(min=0.0, help="Gaussian noise on actions in [-1, 1].")] = 0.1,
    seed: int = 0,
    num_actors: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
) -> None:
    """Roll a behaviour out in parallel Ray actors into an episode table. The number of actors does not change it."""
    from v2a_ray.config import SourceSpec
    from v2a_ray.data.inspect import render
    from v2a_ray.data.store import write_table
    from v2a_ray.domains import parse_domain
    from v2a_ray.orchestration.collect import collect_data
    from v2a_ray.orchestration.run import prepare_folder
    from v2a_ray.orchestration.session import ray_session

    spec = SourceSpec(
        domain=domain,
        behavior=behavior,
        policy_domain=policy_domain,
        num_transitions=num_transitions,
        noise_std=noise_std,
        seed=seed,
    )
    robot = parse_domain(domain).robot
    prepare_folder(output.parent)
    with ray_session(), console.status("collecting") as status:
        (table,) = collect_data(
            [spec],
            num_actors=num_actors,
            progress=lambda done, total: status.update(f"collecting {done:,} of {total:,}"),
        )
    write_table(table, output, robot=robot, extra={"spec": spec.model_dump()})
    console.print(render(table))
    console.print(str(output), highlight=False, soft_wrap=True)


@app.command()
def convert(
    path: Annotated[Path, typer.Argument(help="HDF5 in D4RL's layout, or an episode table.")],
    domain: DomainLabel,
    output: Output,
    behavior: Annotated[str, typer.Option(help="Label of the policy that collected it.")] = "unknown",
    name: Annotated[str | None, typer.Option(help="Label of the source; by default the file's name.")] = None,
) -> None:
    """Read, check and segment a dataset, and write it as an episode table (Parquet, one row per episode)."""
    from v2a_ray.data.inspect import render
    from v2a_ray.data.mixture import relabel
    from v2a_ray.data.readers import read_table
    from v2a_ray.data.store import write_table
    from v2a_ray.domains import parse_domain

    parsed = parse_domain(domain)
    table, findings = read_table(path, robot=parsed.robot_spec)
    table = relabel(table, name or path.stem, parsed, behavior)
    write_table(table, output, robot=parsed.robot, findings=findings)
    console.print(render(table, findings))
    console.print(str(output), highlight=False, soft_wrap=True)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="HDF5 file, Parquet file, or folder of an episode table.")],
    domain: Annotated[str | None, typer.Option(help="Check the dimensions against this domain's robot.")] = None,
) -> None:
    """Show what is inside a dataset and what is wrong with it."""
    from v2a_ray.data.inspect import render
    from v2a_ray.data.readers import read_table
    from v2a_ray.domains import parse_domain

    robot = parse_domain(domain).robot_spec if domain else None
    table, findings = read_table(path, robot=robot)
    console.print(render(table, findings))
