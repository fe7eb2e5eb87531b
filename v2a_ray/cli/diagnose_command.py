"""`v2a diagnose`: explains the score of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console, error_console, resumable
from v2a_ray.cli.trial_options import Best, Every, TrialName, chosen
from v2a_ray.objects import require_folder_name


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(diagnose)


def diagnose(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run, or of a sweep.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Fit nothing: skip the parts whose advantages are not in the store.")
    ] = False,
    max_transitions: Annotated[
        int, typer.Option(min=100, help="Source transitions to examine; whole episodes of every part are taken.")
    ] = 30_000,
    trial: TrialName = None,
    best: Best = False,
    every: Every = False,
) -> None:
    """Explain why a run worked or failed: compare alignment, modality, value and filter with the truth.

    Reads the labels of the data, which no learner reads, and re-simulates transitions in the target's domain. Missing
    advantages (a global one, and an oracle for each domain) are fitted and kept in the run's store. Writes pictures and
    numbers into RUN_DIR/diagnosis, or into that of the trial's folder.
    """
    require_folder_name(run_dir)
    for folder in chosen(run_dir, trial, best, every):
        _diagnose(Path(folder), quick, max_transitions)


def _diagnose(run_dir: Path, quick: bool, max_transitions: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from v2a_ray.cli.bars import bar_of_each_name, plain
    from v2a_ray.imports import require_package

    require_package("sklearn", "diagnosis", "v2a diagnose")
    from v2a_ray.diagnosis.diagnose import diagnose as diagnose_run
    from v2a_ray.diagnosis.evidence import open_run
    from v2a_ray.report.diagnosis_text import render, write_diagnosis

    run = open_run(run_dir)
    columns = (
        plain("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with resumable(), Progress(*columns, console=error_console, transient=True) as bar:
        progress = bar_of_each_name(bar, "fitting {}")
        diagnosis = diagnose_run(run, quick=quick, max_rows=max_transitions, progress=progress)
    files = write_diagnosis(diagnosis, run_dir / "diagnosis")
    console.print(render(diagnosis))
    console.print()
    for file in files:
        console.print(str(file), soft_wrap=True)
