"""Variables of a job, from `v2a submit --env`: in its command and in every worker process, and shown nowhere.

Ray's own `env_vars` stand in clear text in the list of jobs, on the dashboard and in the logs of every node. So the
variables travel in a file of the job's working directory, which the command reads, and every worker when it starts.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

VARIABLES_FILE = "environment.sh"
_EXPORT = "export"


def write_variables(folder: Path, variables: Mapping[str, str]) -> None:
    """Write the file into `folder`, readable by its owner alone."""
    file = folder / VARIABLES_FILE
    file.touch(mode=0o600)
    file.write_text("".join(f"{_EXPORT} {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def take_over() -> None:
    """Set the variables in this process; Ray calls it in every worker, whose working directory is the job's."""
    file = Path(VARIABLES_FILE)
    if not file.exists():  # a worker of another working directory; the message names no value
        raise FileNotFoundError(f"{VARIABLES_FILE} of the job is not in {Path.cwd()}")
    words = shlex.split(file.read_text())
    for word in words:
        name, is_variable, value = word.partition("=")
        if is_variable:
            os.environ[name] = value


HOOK = f"{__name__}.{take_over.__name__}"
"""For Ray, which calls it by name."""
