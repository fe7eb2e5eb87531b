"""Which trials of a sweep a command works on, for every command that takes a run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

TrialName = Annotated[
    str | None, typer.Option("--trial", metavar="NAME", help="Of a sweep: the trial in SWEEP_DIR/trials/NAME.")
]
Best = Annotated[bool, typer.Option("--best", help="Of a sweep: the trial of the highest mean score in the target.")]
Every = Annotated[bool, typer.Option("--all", help="Of a sweep: every finished trial.")]


def chosen(text: str | Path, trial: str | None, best: bool, every: bool) -> list[str]:
    """What `text` names: the folders of the trials that were chosen of a sweep, or anything else as it stands.

    Of an address it is a local copy. Raises ConfigError or DataError as `trial_folders` does.
    """
    from v2a_ray.objects import is_address
    from v2a_ray.result_folders import readable_folder

    text = readable_folder(text) if is_address(text) else text
    if not Path(text).is_dir() and not (trial or best or every):
        return [str(text)]
    from v2a_ray.experiments.finished import trial_folders

    return [str(folder) for folder in trial_folders(Path(text), trial, best, every)]


def require_one(folders: Sequence[str], **options: object) -> None:
    """Raise ConfigError when an option that names one file is given for several trials."""
    from v2a_ray.errors import ConfigError

    given = next((name for name, value in options.items() if value is not None), None)
    if given and len(folders) > 1:
        raise ConfigError(
            f"names one file, and there are {len(folders)} trials",
            where=f"--{given}",
            remedy="--trial NAME or --best, or leave it out",
        )
