"""The configurations of `tune_configs/`: the package carries them, and commands find them by name (`v2a run demo`)."""

from __future__ import annotations

from pathlib import Path

import v2a_ray

FOLDER = Path(v2a_ray.__file__).parent / "tune_configs"
"""Of the package. In a checkout it is a link to the folder that the package is built with."""


def shipped_configs() -> dict[str, Path]:
    """The files by their names without suffix."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def config_path(path: Path, folder: Path = Path()) -> Path:
    """The file at a path in `folder`, or the shipped one of that name: `demo` or `tune_configs/demo.yaml`.

    A path that is neither is returned as it is, so that reading it says what is wrong.
    """
    if (folder / path).exists():
        return folder / path
    in_folder = path.parts[:-1] == ("tune_configs",) and path.suffix == ".yaml"
    if in_folder or (not path.suffix and len(path.parts) == 1):
        return shipped_configs().get(path.stem, folder / path)
    return folder / path
