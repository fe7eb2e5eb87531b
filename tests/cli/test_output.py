"""Commands whose standard output cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.command import CONFIG

V2A = f"{sys.executable} -P -m v2a_ray.cli.main"


def shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = command.replace("v2a ", f"{V2A} ")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        timeout=300,
    )


def test_a_full_device_is_one_message_and_status_1(tmp_path: Path) -> None:
    done = shell("v2a methods >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device; everything else was done\n"


@pytest.mark.parametrize(
    "command", ["v2a methods | head -1", "v2a methods --markdown | head -1", "v2a config | head -1"]
)
def test_a_closed_pipe_does_not_change_the_status(command: str, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.count(b"\n") == 1


def test_a_user_error_keeps_its_status_when_output_is_lost(tmp_path: Path) -> None:
    done = shell("v2a methods nonsense >/dev/full", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(b"error: ")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    done = shell(f"v2a methods {closed}", tmp_path)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_characters_missing_in_the_encoding_are_escaped(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        yaml.safe_dump({"name": "größe-→", "settings": CONFIG, "axes": {"seed": [0, 1]}}, allow_unicode=True),
        encoding="utf-8",
    )
    done = shell("v2a sweep grid.yaml --dry-run", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert b"\\u2192" in done.stdout and "2 trials" in done.stdout.decode(encoding)


@pytest.mark.slow
def test_a_run_without_output_is_finished_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    done = shell("v2a run tiny.yaml --run-dir here >/dev/full", tmp_path)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
    assert (tmp_path / "here/result.json").exists()
