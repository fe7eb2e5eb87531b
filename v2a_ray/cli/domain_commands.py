"""`v2a domains`: robots and dynamics shifts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from v2a_ray.cli.console import console, error_console
from v2a_ray.settings.environment_names import is_environment

if TYPE_CHECKING:
    from v2a_ray.domains import Domain, RobotDomain
    from v2a_ray.domains.own.domain import GymDomain

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
def references(
    robot: Robot = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Roll out random and, if there is one, expert in a domain.")
    ] = False,
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=2, help="Of each, to measure.")] = 20,
    expert: Annotated[
        str, typer.Option(help="Behaviour that scores 100: expert, a snapshot, or module:function.")
    ] = "expert",
) -> None:
    """Print the returns that normalised scores are measured between, and where they come from.

    Those of a Gymnasium environment of your own are given with it, and --measure prints what to give.
    """
    from v2a_ray.domains import catalogue, parse_domain
    from v2a_ray.domains import references as references_of

    if measure:
        _measure(robot or "hopper", episodes, expert)
        return

    table = Table(box=None)
    table.add_column("domain", no_wrap=True)
    for name in ("random", "expert"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source")
    for domain in [parse_domain(robot)] if robot and is_environment(robot) else catalogue(robot):
        reference = references_of(domain)
        if reference is None:
            table.add_row(domain.name, "–", "–", "none: no normalised score; `--measure` measures them")
            continue
        returns = f"{reference.random_return:,.1f}", f"{reference.expert_return:,.1f}"
        table.add_row(domain.name, *returns, reference.source)
    console.print(table)


def _measure(name: str, episodes: int, expert: str) -> None:
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.behaviors import evaluate_policy, load_behavior
    from v2a_ray.errors import DomainError
    from v2a_ray.evaluation.interval import with_spread

    domain = parse_domain(name)
    means = []
    for behavior in ("random", expert):
        try:
            policy = load_behavior(domain, behavior)
        except DomainError as error:
            if behavior != "expert":
                raise
            console.print(f"{domain.name}: {error.what}: `v2a behaviors train --install` trains one", soft_wrap=True)
            return
        returns = evaluate_policy(policy, domain, episodes)
        means.append(float(returns.mean()))
        spread = with_spread(returns, 1)
        console.print(f"{behavior} in {domain.name}: return {spread}, {episodes} episodes", soft_wrap=True)
    random, best = (f"{mean:.6g}" for mean in means)
    if is_environment(name):
        console.print(f"environment: {{references: [{random}, {best}]}}", soft_wrap=True)
    else:
        console.print(f"RobotSpec(..., references=({random}, {best}))", soft_wrap=True)


@app.command()
def show(domain: Annotated[str, typer.Argument(help="e.g. hopper/gravity-0.5@d4rl")]) -> None:
    """Print a domain's parameters and every edit it makes to the stock model."""
    from v2a_ray.domains import parse_domain

    console.print_json(data=parse_domain(domain).describe(), default=str)


@app.command()
def check(
    robot: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ROBOT]...", help="e.g. hopper; by default all robots. Or domains gym:ENV/SHIFT of one."
        ),
    ] = None,
    physics: Annotated[str, typer.Option(help="d4rl or modern")] = "d4rl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a Markdown page, and a PNG of the same name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything, all distances included, as JSON.")] = False,
) -> None:
    """Prove that each shift changes only the intended parameters, and that no two domains are the same.

    Of a Gymnasium environment of your own the domains that are named are checked, each beside stock. Exits with 1 if a
    domain fails. Distances are explained in the page that `--output` writes.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    from v2a_ray.cli.bars import plain
    from v2a_ray.domains.catalogue_checks import check_robot
    from v2a_ray.domains.own.check import check_environment
    from v2a_ray.outputs import require_ours

    for path in (output, output.with_suffix(".png")) if output else ():
        require_ours(path)
    own, groups = _chosen(robot or [], physics)
    columns = (
        plain("{task.description:<42}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=error_console, transient=True) as bar:
        task = bar.add_task("", total=sum(len(group) for group in groups.values()))

        def show_progress(domain: Domain) -> None:
            bar.update(task, advance=1, description=domain.name)

        checks = [check_environment(group, show_progress) for group in own.values()]
        checks += [check_robot(name, group[0].physics, show_progress) for name, group in groups.items()]
    if output:
        from v2a_ray.report.domain_check import write_page

        words = ["v2a domains check", *(robot or [])]
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


def _chosen(names: list[str], physics: str) -> tuple[dict[str, list[GymDomain]], dict[str, list[RobotDomain]]]:
    """Domains of anybody's environments, and those of our robots, each by robot. Raises DomainError."""
    from v2a_ray.domains import catalogue, parse_domain
    from v2a_ray.domains.domain import require_robot
    from v2a_ray.domains.own.domain import GymDomain

    own: dict[str, list[GymDomain]] = {}
    for name in filter(is_environment, names):
        domain = parse_domain(name)
        assert isinstance(domain, GymDomain)
        own.setdefault(domain.robot, []).append(domain)
    robots: dict[str, list[RobotDomain]] = {}
    for robot in [name for name in names if not is_environment(name)] or ([] if own else [""]):
        valid = require_robot(parse_domain(f"{robot or 'hopper'}@{physics}"), "the catalogue").physics
        for each in catalogue(robot or None, valid):
            robots.setdefault(each.robot, []).append(each)
    return own, robots


@app.command()
def render(
    domains: Annotated[
        list[str], typer.Argument(metavar="DOMAIN...", help="e.g. hopper/gravity-0.5 ant/morph-alllegs-hard")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("domains.png"),
) -> None:
    """Draw robots in domains beside the stock robots, to scale and in the same pose, one row per robot. No OpenGL."""
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.own.domain import GymDomain
    from v2a_ray.domains.own.render import render_environments
    from v2a_ray.domains.render import render_domains
    from v2a_ray.errors import DomainError
    from v2a_ray.outputs import require_ours

    parsed = [parse_domain(name) for name in domains]
    own = [domain for domain in parsed if isinstance(domain, GymDomain)]
    if own and len(own) < len(parsed):
        raise DomainError(
            "robots of two kinds", where="v2a domains render", remedy="a picture for gym: and mjcf: alone"
        )
    require_ours(output)
    if own:
        render_environments(own, output)
    else:
        render_domains(parsed, output)
    console.print(str(output), soft_wrap=True)


def _print_checks(checks: list) -> None:  # type: ignore[type-arg]  # RobotCheck, which is imported with its command
    from v2a_ray.report.domain_check import table_rows, verdict_lines

    for each in checks:
        title = each.robot if is_environment(each.robot) else f"{each.robot}@{each.physics}"
        table = Table(box=None, title=title, title_justify="left")
        for name in ("shift", "to stock", "best policy's states", "nearest other"):
            table.add_column(name, no_wrap=name != "shift", min_width=28 if name == "shift" else None, overflow="fold")
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
