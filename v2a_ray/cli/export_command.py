"""`v2a export`: a trained policy for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from v2a_ray.cli.console import console, error_console
from v2a_ray.cli.trial_options import Best, Every, TrialName, chosen, require_one
from v2a_ray.objects import require_folder_name


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(export)


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a finished run, or of a sweep.")],
    format: Annotated[str, typer.Option("--format", "-f", help="torch-export, onnx or rllib")] = "torch-export",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="By default RUN_DIR/policy.pt2, policy.onnx or policy_rllib.")
    ] = None,
    trial: TrialName = None,
    best: Best = False,
    every: Every = False,
) -> None:
    """Write a trained policy as a file or folder that PyTorch, ONNX or RLlib loads.

    The export takes raw observations and standardises them itself; actions are in [-1, 1]. It is loaded again and
    compared with the original on 1,000 observations. Only an earlier export of v2a is replaced.

        v2a export runs/demo-v2a-seed0 -f onnx -o hopper.onnx

        v2a export runs/smoke --best -f onnx

        v2a export runs/demo-v2a-seed0 -f torch-export    (torch.export.load("policy.pt2").module()(observations))

        v2a export runs/demo-v2a-seed0 -f rllib    (RLModule.from_checkpoint; it unpickles: load only files you trust)

    TorchScript is left out: PyTorch has deprecated it for torch.export. `onnx` needs `pip install 'v2a_ray[export]'`.
    """
    from v2a_ray.errors import ConfigError
    from v2a_ray.export.formats import FORMATS, NUM_OBSERVATIONS, export_file
    from v2a_ray.export.policies import open_trained

    if format not in (*FORMATS, "rllib"):
        raise ConfigError(f"no format {format!r}", where="--format", remedy=f"one of {', '.join([*FORMATS, 'rllib'])}")
    require_folder_name(run_dir)
    folders = chosen(run_dir, trial, best, every)
    require_one(folders, output=output)
    for folder in map(Path, folders):
        policy = open_trained(folder)
        path = output or folder / (f"policy{FORMATS[format].suffix}" if format in FORMATS else "policy_rllib")
        with error_console.status(f"writing and checking {path}"):
            if format == "rllib":
                from v2a_ray.orchestration.rllib.module_export import export_rllib

                difference = export_rllib(policy, path)
            else:
                difference = export_file(policy, format, path)
        console.print(str(path), soft_wrap=True)
        console.print(f"largest difference of an action on {NUM_OBSERVATIONS:,} observations: {difference:.1e}")
