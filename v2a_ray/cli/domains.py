"""`v2a domains`: robots and dynamics shifts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from v2a_ray.cli.console import console

app = typer.Typer(help="Robots, physics versions and dynamics shifts.", no_args_is_help=True)


@app.command("list")
def list_domains(
    robot: Annotated[str | None, typer.Argument(help="e.g. hopper; by default all robots")] = None,
) -> None:
    """List the named domains. Any `gravity-K` or `friction-K`, and compositions with `+`, exist besides."""
    from v2a_ray.domains import catalogue, references

    table = Table(box=None)
    table.add_column("domain", no_wrap=True)
    for name in ("random", "expert", "references"):
        table.add_column(name)
    for domain in catalogue(robot):
        reference = references(domain)
        returns = f"{reference.random_return:.1f}", f"{reference.expert_return:.1f}"
        table.add_row(domain.name, *returns, reference.source)
    console.print(table)


@app.command()
def show(domain: Annotated[str, typer.Argument(help="e.g. hopper/gravity-0.5@d4rl")]) -> None:
    """Print a domain's parameters and every edit it makes to the stock model."""
    from v2a_ray.domains import parse_domain

    console.print_json(data=parse_domain(domain).describe(), default=str)
