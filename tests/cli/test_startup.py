"""Imports of a command before its first output: the heavy packages take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.command import CONFIG

HEAVY = {"gymnasium", "matplotlib", "mujoco", "optuna", "pandas", "pyarrow", "ray", "scipy", "torch"}
COMMAND = """
import json, sys
from v2a_ray.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def imported(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    """The heavy packages that a command imported, and everything that it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    *printed, modules = done.stderr.strip().splitlines()
    return set(json.loads(modules)) & HEAVY, done.stdout + "\n".join(printed)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    found, printed = imported("--help", cwd=tmp_path)
    assert found == set() and "v2a run demo" in printed


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_mistyped_key_is_refused_before_anything_heavy_is_imported(command: str, tmp_path: Path) -> None:
    content = CONFIG if command == "run" else {"name": "grid", "settings": CONFIG, "axes": {"seed": [0]}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    found, printed = imported(command, "tiny.yaml", "polcy.width=3", cwd=tmp_path)
    assert found == set() and "did you mean 'policy'?" in printed


def test_an_estimate_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    content = {"name": "grid", "settings": CONFIG, "axes": {"seed": [0]}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    found, printed = imported("sweep", "grid.yaml", "--dry-run", cwd=tmp_path)
    assert not found & {"torch", "ray", "matplotlib", "optuna"} and "1 trials" in printed
