"""`v2a status`: how a run or sweep is, from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(status)


def status(
    folder: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="Results of a run or sweep: a folder or an address.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Job server of a cluster, http://HOST:8265: its jobs, nodes and what waits."),
    ] = None,
) -> None:
    """Show what of a run or sweep is done, running, failed and waiting, and why nothing moves.

    A folder is enough for what runs, is finished or died, and needs no Ray. With --address the jobs and nodes of a
    cluster are shown.
    """
    from v2a_ray.errors import ConfigError
    from v2a_ray.report.status import describe
    from v2a_ray.result_folders import readable_folder

    if (folder is None) == (address is None):
        raise ConfigError("give a results folder, or --address", where="v2a status", remedy="v2a status runs/NAME")
    if folder is not None:
        lines = describe(readable_folder(folder), folder)
    else:
        from v2a_ray.cli.job_commands import job_server

        server = job_server(address)
        lines = []
        for job in server.jobs():
            lines.append(f"{job.id} {job.status}{f' · {job.run_dir}' if job.run_dir else ''}")
            if not job.has_ended and job.run_dir and Path(job.run_dir).is_dir():
                lines += [f"  {line}" for line in describe(Path(job.run_dir), job.run_dir)]
        lines += ["", server.cluster_status()]
    for line in lines:
        console.print(line, soft_wrap=True)
