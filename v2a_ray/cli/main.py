"""The `v2a` command: parses, calls, prints; no logic. Heavy packages are imported by the commands that use them."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from typing import Annotated

import typer

import v2a_ray
from v2a_ray.cli.console import INTERRUPTED, error_console, show_warnings
from v2a_ray.cli.streams import lasting_output
from v2a_ray.errors import V2AError
from v2a_ray.interrupts import catch_signals, exit_status

app = typer.Typer(
    help="Heterogeneous cross-domain offline reinforcement learning on Ray (V2A).\n\nStart with `v2a run demo`.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

USER_ERROR = 2


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"v2a_ray {v2a_ray.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from v2a_ray.experiments.plugins import load_installed

    load_installed()  # Any command may name a plugin's robot, format or method.


@lasting_output()
def main() -> None:
    """Entry point: a user's error is one message and exit code 2."""
    _quiet_libraries()
    show_warnings()
    catch_signals()
    try:
        commands()()
    except V2AError as error:
        error_console.print(f"error: {error}", style="red")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(exit_status(INTERRUPTED))
    except SystemExit as ending:
        # The status of a signal, even if other code changed it on the way.
        sys.exit(exit_status(ending.code) if isinstance(ending.code, int) else ending.code)


@cache
def commands() -> typer.Typer:
    """The application with all of its commands, cached for processes that call `main` repeatedly."""
    from v2a_ray.cli import behavior_commands as behaviors
    from v2a_ray.cli import choose_command as choose
    from v2a_ray.cli import data_commands as data
    from v2a_ray.cli import diagnose_command as diagnosis
    from v2a_ray.cli import domain_commands as domains
    from v2a_ray.cli import evaluate_command as evaluate
    from v2a_ray.cli import experiment_commands as experiments
    from v2a_ray.cli import export_command as export
    from v2a_ray.cli import job_commands as jobs
    from v2a_ray.cli import replay_command as replay
    from v2a_ray.cli import report_command as report
    from v2a_ray.cli import select_command as select
    from v2a_ray.cli import status_command as status

    replay.register(data.app)
    app.add_typer(data.app, name="data")
    app.add_typer(behaviors.app, name="behaviors")
    app.add_typer(domains.app, name="domains")
    for part in (experiments, choose, jobs, diagnosis, export, evaluate, select, report, status):
        part.register(app)
    return app


def _quiet_libraries() -> None:
    """Suppress the messages of libraries on the terminal."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)


if __name__ == "__main__":
    main()
