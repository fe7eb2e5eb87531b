"""`v2a choose`: trains the target alone, a filter, a mix and the source alone, and chooses without a simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from v2a_ray.cli.console import console, error_console, next_step, resumable
from v2a_ray.cli.experiment_commands import Address, ConfigFile, NumCpus, Overrides, Verbose, notice, say_starting


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(choose)


def choose(
    config_file: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", help="Results: a folder, or s3://BUCKET/PREFIX; by default runs/NAME-choice."),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="First leave out sources in whose simulator the target's recorded actions lead more than three times "
            "as far from where they led as in the nearest's.",
        ),
    ] = False,
    num_cpus: NumCpus = None,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Train iql_target, v2a_supported, iql_mixed and iql_source on an experiment; choose one by recorded data alone.

    A filter helps where the target can judge the source; where the target is too bad or too small for that, plain
    mixing does, or the source alone. Critics of each policy are fitted to target and source, and the policy with the
    highest value in first states, less a standard deviation over critics, is chosen. Mixing and the source alone are
    left out where the source's episodes have a lower return than the target's. Measured: much is gained where the
    source is the target's own robot with another behaviour, nothing that is sure with other dynamics, and on Hopper,
    beside a usable target of 100,000 single transitions, it chose worse than the target alone
    (docs/offline_selection.md). The same command goes on where it stopped.

        v2a choose tune_configs/demo.yaml

        v2a choose mine.yaml policy.num_steps=20000 seed=1

        v2a choose mine.yaml --replay
    """
    from v2a_ray.experiments.choice import choice_sweep
    from v2a_ray.result_folders import address_of, results_folder

    sweep = choice_sweep(config_file, overrides or [])
    for text in sweep.notices:
        notice(text)
    with results_folder(run_dir or Path("runs") / sweep.name) as folder, resumable():
        where = address_of(folder) or folder
        console.print(Text.assemble((sweep.name, "bold"), f" · at most {', '.join(sweep.axes['method'])}"))
        console.print(f"results {where}", soft_wrap=True)
        say_starting(address)
        from v2a_ray.cli.bars import bar_of_each_name, named_bars
        from v2a_ray.cli.display import StageDisplay
        from v2a_ray.export.choice import CHOICE_FILE
        from v2a_ray.export.choice import choose as choose_policy
        from v2a_ray.orchestration.cluster.session import ray_session
        from v2a_ray.orchestration.sweep.candidates import train_candidates
        from v2a_ray.report.selection_table import choice_in_words, render_selection

        with ray_session(num_cpus, verbose, address), StageDisplay(console) as display:
            replays = train_candidates(sweep, folder, display, leave_out_far=replay)
        with named_bars(error_console, transient=True) as bars:
            choice = choose_policy(folder, sweep.trials[0].config.seed, bar_of_each_name(bars), replays=replays)
    console.print(render_selection(list(choice.candidates.values())))
    console.print(Text(choice_in_words(choice), style="bold"), soft_wrap=True)
    console.print(f"{where}/{CHOICE_FILE}", soft_wrap=True)
    trial = f"--trial '{choice.folder.name}'"
    tries = [] if sweep.trials[0].config.is_offline else [f"v2a evaluate {where} {trial}"]
    next_step(*tries, f"v2a export {where} {trial} -f onnx")
