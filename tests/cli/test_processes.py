"""A command as a process: signals end it like Ctrl-C, its workers import the same files, and a failed start of Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.cli.command import CONFIG

COMMAND = [sys.executable, "-P", "-m", "v2a_ray.cli.main"]
LONG = CONFIG | {"policy": {**CONFIG["policy"], "num_steps": 500_000}}


def started(folder: Path, config: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [*COMMAND, "run", "config.yaml", "--num-cpus", "1"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
        )


def wait_for(folder: Path, text: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while text not in (folder / "log").read_text():
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(number: signal.Signals, tmp_path: Path) -> None:
    process = started(tmp_path, LONG)
    wait_for(tmp_path, "policy: started")
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in child.name() for child in children)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    log = (tmp_path / "log").read_text()
    assert "the same command goes on" in log and "Traceback" not in log and "SIGTERM" not in log
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


@pytest.mark.slow
def test_workers_import_what_the_command_imports(tmp_path: Path) -> None:
    """Even if the working directory holds another checkout or files named like modules."""
    (tmp_path / "v2a_ray").mkdir()
    (tmp_path / "v2a_ray" / "__init__.py").write_text("raise RuntimeError('another checkout')")
    for name in ("gymnasium", "mujoco", "torch"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('a decoy of {name}')")
    process = started(tmp_path, CONFIG)
    assert process.wait(280) == 0, (tmp_path / "log").read_text()


@pytest.mark.slow
def test_sigterm_while_ray_starts_gives_the_usual_status(tmp_path: Path) -> None:
    """While Ray starts, its own handlers are active; a signal from outside would miss this short moment."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    script = """
import os, signal, sys
import ray
from v2a_ray.cli.main import main

start = ray.init

def killed_at_once(**settings):
    connect = ray._private.worker.connect
    def then(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return connect(*arguments, **named)
    ray._private.worker.connect = then
    return start(**settings)

ray.init = killed_at_once
sys.argv = ["v2a", "run", "config.yaml", "--num-cpus", "1"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr


def test_ray_that_cannot_start_is_one_message(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a folder cannot be made below a file")
    process = started(tmp_path, CONFIG, RAY_TMPDIR=str(blocked), TMPDIR=str(blocked))
    assert process.wait(120) == 2
    log = (tmp_path / "log").read_text()
    assert "error: " in log and "RAY_TMPDIR" in log and "Traceback" not in log, log


def test_a_calling_program_keeps_its_own_signal_handlers() -> None:
    """Only a command ends with 143 on SIGTERM and ignores later signals, not a program that imports `ray_session`."""
    script = """
import signal
import ray
from v2a_ray.orchestration.cluster.session import ray_session

def ended(**settings):
    raise SystemExit(15)

ray.init = ended
try:
    with ray_session():
        pass
except SystemExit as ending:
    print(ending.code, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "15 True\n", done.stderr
