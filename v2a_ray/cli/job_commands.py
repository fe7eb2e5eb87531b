"""`v2a submit` and `v2a jobs`: runs and sweeps on a cluster."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from v2a_ray.cli.console import INTERRUPTED, console, error_console
from v2a_ray.cli.experiment_commands import ConfigFile, Overrides, notice
from v2a_ray.errors import ConfigError

if TYPE_CHECKING:
    from v2a_ray.orchestration.cluster.jobs import Job, JobServer

app = typer.Typer(no_args_is_help=True, help="Jobs on a Ray cluster: list, logs, stop.")
Address = Annotated[
    str | None,
    typer.Option("--address", help="Job server, http://HOST:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id, or the beginning of one; see `v2a jobs list`.")]
FAILED = 1


def register(top: typer.Typer) -> None:
    """Add `submit` and `jobs` to the top level."""
    top.command()(submit)
    top.add_typer(app, name="jobs")


def submit(
    config_file: ConfigFile,
    overrides: Overrides = None,
    address: Address = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", help="Folder on storage that all nodes mount; by default beside `store`."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="KEY[=VALUE]",
            help="Variable of the job and all its workers, e.g. WANDB_API_KEY; by default this shell's. Not shown.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the log, and exit with the job's status.")] = False,
) -> None:
    """Submit a run, or a sweep (a file with `axes` or a `search`), to a Ray cluster.

    The package is shipped as it is installed here. Data are not shipped: give a URI or an absolute path on storage that
    all nodes mount. If you submit the job again after a failure, it goes on where it stopped.
    """
    from v2a_ray.orchestration.cluster.job_spec import job_environment, make_job

    environment = job_environment(env or [])
    spec = replace(make_job(config_file, overrides or [], run_dir, notice), environment=environment)
    server = job_server(address)
    job = server.submit(spec)
    console.print(Text.assemble("submitted ", (job.id, "bold"), f" · {spec.kind} {spec.name}"), soft_wrap=True)
    console.print(f"results {spec.run_dir}", soft_wrap=True)
    if wait:
        _follow(server, job, exit_with_status=True)
    else:
        console.print(_how_to_go_on(server, job), style="dim", soft_wrap=True)


@app.command("list")
def list_jobs(address: Address = None) -> None:
    """List the jobs that were submitted to the cluster, the newest first."""
    table = Table(box=None)
    for name in ("job", "status", "started", "minutes"):
        table.add_column(name, no_wrap=True)
    table.add_column("results", overflow="fold")
    for job in job_server(address).jobs():
        started = time.strftime("%m-%d %H:%M", time.localtime(job.started)) if job.started else ""
        minutes = f"{((job.ended or time.time()) - job.started) / 60:,.1f}" if job.started else ""
        table.add_row(job.id, job.status, started, minutes, job.run_dir)
    console.print(table)


@app.command()
def logs(
    job_id: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the log until the job ends.")] = False,
) -> None:
    """Print the log of a job."""
    server = job_server(address)
    job = server.find(job_id)
    if follow:
        _follow(server, job, exit_with_status=False)
    else:
        typer.echo(server.logs(job), nl=False)


@app.command()
def stop(job_id: JobId, address: Address = None) -> None:
    """End a job. Its finished work is kept: submitted again, the job goes on where it stopped."""
    server = job_server(address)
    job = server.find(job_id)
    if job.has_ended:
        console.print(f"{job.id} had ended: {job.status}")
        return
    job = server.stop(job)
    console.print(f"{job.id} {job.status}")
    if not job.has_ended:
        raise typer.Exit(FAILED)


def job_server(address: str | None) -> JobServer:
    """The job server. Raises ConfigError if Ray is installed without its job client."""
    if importlib.util.find_spec("aiohttp") is None:
        raise ConfigError("Ray's job client is not installed", where="v2a", remedy="pip install 'v2a_ray[cluster]'")
    from v2a_ray.orchestration.cluster.jobs import JobServer

    return JobServer(address)


def _follow(server: JobServer, job: Job, exit_with_status: bool) -> None:
    """Show the log until the job ends. Ctrl-C ends the watching, not the job."""
    printed = False

    def show(text: str) -> None:
        nonlocal printed
        printed = True
        typer.echo(text, nl=False)

    try:
        job = server.follow(job, show)
    except KeyboardInterrupt:
        text = f"the job goes on; {_how_to_go_on(server, job)}"
        error_console.print(text, style="yellow", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if not printed and job.message:
        # A job prints nothing if its environment could not be made.
        typer.echo(job.message)
    console.print(f"{job.id} {job.status}")
    if exit_with_status and job.status != "SUCCEEDED":
        raise typer.Exit(job.exit_code or FAILED)


def _how_to_go_on(server: JobServer, job: Job) -> str:
    where = f"--address {server.address}"
    return f"watch it with `v2a jobs logs {job.id} --follow {where}`, end it with `v2a jobs stop {job.id} {where}`"
