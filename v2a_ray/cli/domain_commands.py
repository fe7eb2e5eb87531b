"""`v2a domains`: robots and dynamics shifts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from v2a_ray.cli.console import console, error_console

app = typer.Typer(help="Robots, physics versions and dynamics shifts.", no_args_is_help=True)
Robot = Annotated[str | None, typer.Argument(help="e.g. hopper; by default all robots")]
CHECK_FAILED = 1


@app.command("list")
def list_domains(robot: Robot = None) -> None:
    """List the named domains and their changes. `v2a domains show hopper/gravity-0.73+wind-5` shows any other domain.

    `ant111`, Ant observed as in 111-wide data, has the domains of `ant` and is listed only with ROBOT `ant111`.
    """
    from v2a_ray.domains import catalogue
    from v2a_ray.domains.shifts.descriptions import describe_shift

    table = Table(box=None)
    for name in ("domain", "kind", "change"):
        table.add_column(name, no_wrap=name != "change")
    for domain in catalogue(robot):
        kinds = "+".join(shift.kind for shift in domain.shifts) or "stock"
        changes = ", ".join(describe_shift(shift, domain.robot_spec) for shift in domain.shifts)
        table.add_row(domain.name, kinds, changes)
    console.print(table)


@app.command()
def references(robot: Robot = None) -> None:
    """Print the reference returns of normalised scores (random 0, expert 100) and their sources."""
    from v2a_ray.domains import catalogue
    from v2a_ray.domains import references as references_of

    table = Table(box=None)
    table.add_column("domain", no_wrap=True)
    for name in ("random", "expert"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source")
    for domain in catalogue(robot):
        reference = references_of(domain)
        returns = f"{reference.random_return:,.1f}", f"{reference.expert_return:,.1f}"
        table.add_row(domain.name, *returns, reference.source)
    console.print(table)


@app.command()
def show(domain: Annotated[str, typer.Argument(help="e.g. hopper/gravity-0.5@d4rl")]) -> None:
    """Print a domain's parameters and every edit it makes to the stock model."""
    from v2a_ray.domains import parse_domain

    console.print_json(data=parse_domain(domain).describe(), default=str)


@app.command()
def check(
    robot: Robot = None,
    physics: Annotated[str, typer.Option(help="d4rl or modern")] = "d4rl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a Markdown page, and a PNG of the same name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything, all distances included, as JSON.")] = False,
) -> None:
    """Prove that each shift changes only the intended parameters, and that no two domains are the same.

    Exits with 1 if a domain fails. The page that `--output` writes explains the distances.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from v2a_ray.cli.bars import plain
    from v2a_ray.domains import catalogue, parse_domain
    from v2a_ray.domains.catalogue_checks import check_robot
    from v2a_ray.outputs import require_ours

    for path in (output, output.with_suffix(".png")) if output else ():
        require_ours(path)
    valid = parse_domain(f"{robot or 'hopper'}@{physics}").physics
    domains = catalogue(robot, valid)
    columns = (
        plain("{task.description:<42}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=error_console, transient=True) as bar:
        task = bar.add_task("", total=len(domains))
        checks = [
            check_robot(name, valid, lambda domain: bar.update(task, advance=1, description=domain.name))
            for name in dict.fromkeys(domain.robot for domain in domains)
        ]
    if output:
        from v2a_ray.report.domain_check import write_page

        words = [word for word in ("v2a domains check", robot) if word]
        words += [f"--physics {physics}"] * (physics != "d4rl")
        write_page(checks, output, " ".join([*words, f"--output {output}"]))
    if json:
        console.print_json(
            data={"passes": all(each.passes for each in checks), "robots": [c.to_dict() for c in checks]}
        )
    else:
        _print_checks(checks)
    if not all(each.passes for each in checks):
        raise typer.Exit(CHECK_FAILED)


@app.command()
def render(
    domains: Annotated[
        list[str], typer.Argument(metavar="DOMAIN...", help="e.g. hopper/gravity-0.5 ant/morph-alllegs-hard")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("domains.png"),
) -> None:
    """Draw robots in domains beside the stock robots, to scale and in the same pose, one row per robot. No OpenGL."""
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.render import render_domains
    from v2a_ray.outputs import require_ours

    parsed = [parse_domain(name) for name in domains]
    require_ours(output)
    render_domains(parsed, output)
    console.print(str(output), soft_wrap=True)


def _print_checks(checks: list) -> None:  # type: ignore[type-arg]  # RobotCheck, which is imported with its command
    from v2a_ray.report.domain_check import table_rows, verdict_lines

    for each in checks:
        table = Table(box=None, title=f"{each.robot}@{each.physics}", title_justify="left")
        for name in ("shift", "to stock", "best policy's states", "nearest other"):
            table.add_column(name, no_wrap=True)
        for shift, _, *distances in table_rows(each):
            table.add_row(shift, *distances)
        console.print(table)
        console.print()
    for each in checks:
        for line in verdict_lines(each):
            style = "red" if line.startswith("FAILS") else "yellow"
            console.print(line, style=style, soft_wrap=True)
    passed = sum(each.passes for each in checks)
    console.print(f"{passed} of {len(checks)} robots pass, {sum(len(each.domains) for each in checks)} domains")
