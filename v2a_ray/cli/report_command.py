"""`v2a report`: results of runs and sweeps as a page or a table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(report)


def report(
    folders: Annotated[list[str], typer.Argument(metavar="RUN_OR_SWEEP...", help="Folders or addresses of both.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; tables are printed without it.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method that the others are held against, e.g. iql_target.")
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="html, markdown, latex or csv")] = "html",
    title: Annotated[str | None, typer.Option(help="By default the folders' names.")] = None,
) -> None:
    """Compare the methods of runs and sweeps on one page that needs no network, or as a table.

        v2a report runs/smoke -o smoke.html

        v2a report runs/smoke --baseline iql_target -o smoke.html

        v2a report runs/demo-v2a-seed0 runs/demo-iql_target-seed0 --format markdown

        v2a report runs/smoke --format csv -o smoke.csv

    Intervals are 95 % stratified bootstrap intervals. A task's column holds the scores of one task; methods are
    compared over the tasks that all folders have.
    """
    from v2a_ray.errors import ConfigError
    from v2a_ray.experiments.finished import read_records
    from v2a_ray.objects import require_folder_name
    from v2a_ray.outputs import require_ours, storage_errors
    from v2a_ray.report import results_page
    from v2a_ray.report.comparison import compare
    from v2a_ray.result_folders import readable_folder

    if format not in ("html", *results_page.FORMATS):
        names = ", ".join(("html", *results_page.FORMATS))
        raise ConfigError(f"no format {format!r}", where="--format", remedy=f"one of {names}")
    if output is not None:
        require_folder_name(output)
    if format == "html":
        if output is None:
            raise ConfigError("a page needs a file", where="v2a report", remedy="-o page.html")
        require_ours(output)
    elif output is not None and output.exists():
        # A table has no place for our mark, which tells what may be replaced.
        raise ConfigError("exists already", where=f"--output {output}", remedy="choose another name, or remove it")
    places = {name: readable_folder(name) for name in folders}
    comparison = compare([record for folder in places.values() for record in read_records(folder)], baseline)
    if format != "html":
        text = results_page.FORMATS[format](comparison)
        if output is None:
            typer.echo(text, nl=False)
            return
        with storage_errors(output):
            output.write_text(text)
    else:
        assert output is not None
        name = title or ", ".join(folder.resolve().name for folder in places.values())
        results_page.write_page(output, results_page.page(comparison, name, _commands(places)))
    console.print(str(output), soft_wrap=True)


def _commands(places: Mapping[str, Path]) -> list[str]:
    """Those that make the results again, and the page; `places` has the folder in which each is read."""
    from v2a_ray.experiments.finished import is_sweep

    made = [
        ["v2a", "sweep", "--resume", name]
        if is_sweep(folder)
        else ["v2a", "run", str(folder / "config.yaml"), "--run-dir", name]
        for name, folder in places.items()
    ]
    return [shlex.join(words) for words in [*made, ["v2a", *sys.argv[1:]]]]
