"""The command as a user calls it, and a small configuration for tests."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from v2a_ray.cli.main import main

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "method": "v2a",
    "target": {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 600},
    "sources": [
        {"domain": "hopper/gravity-0.5", "behavior": "medium", "num_transitions": 600},
        {"domain": "hopper/stock", "behavior": "random", "num_transitions": 600},
    ],
    "modality": {"num_steps": 4, "batch_size": 4, "crop_steps": 20, "encoder_width": 8, "decoder_width": 8},
    "advantage": {"num_steps": 20, "width": 16},
    "alignment": {"num_steps": 20, "width": 16},
    "policy": {"num_steps": 300, "width": 16, "checkpoint_interval_steps": 50, "log_interval_steps": 50},
    "evaluation": {"num_episodes": 3, "interval_steps": 150},
}


def yaml_folder(folder: Path, **contents: Any) -> Path:
    """Write each of the contents to the file NAME.yaml in the folder, and return the folder."""
    for name, content in contents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def v2a(*arguments: str, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "v2a_ray.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **more)


def v2a_here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As `v2a` in this process, for commands that are refused before any work; a new process takes seconds to start."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["v2a", *arguments]):
        try:
            main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return subprocess.CompletedProcess(["v2a", *arguments], code, out.getvalue(), err.getvalue())
