"""`v2a status`: what runs, is finished or died, from its files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import v2a_here
from tests.cli.finished_folders import write_sweep_folder
from v2a_ray.engine.plan import Node
from v2a_ray.errors import DataError
from v2a_ray.orchestration.train.listener import Event
from v2a_ray.orchestration.train.status import StatusFile


def status(folder: Path) -> str:
    done = v2a_here("status", str(folder), cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def change(folder: Path, **content: Any) -> None:
    file = folder / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A sweep of four policies, of which one runs and one failed; the process is this one."""
    folder = write_sweep_folder(tmp_path / "sweep", {"base": {"near": [40.0, 50.0]}}, failed=("it diverged",))
    with StatusFile(folder, "sweep", "comparison") as listener:
        listener.planned("policies", 4, "a free core")
        node = Node("policy", "policy near 0", "a")
        listener.started(node)
        listener.progressed(Event("a", node.name, 300, 1000, {"evaluation/return_mean": 7.0}))
        listener.failed(Node("policy", "policy near 1", "b"), "it diverged")
    return folder


def test_what_runs(running: Path) -> None:
    change(running, state="running", cluster={"nodes": 1, "lost": ["10.0.0.9"], "CPU": [2.0, 0.0]})
    text = status(running)
    assert "comparison · running" in text
    assert "0 of 4 policies done · 1 running · 1 failed · 2 wait for a free core" in text
    assert "policy near 0: step 300 of 1,000" in text and "return 7.0" in text
    assert "2 of 2 CPUs are reserved on 1 node(s)" in text and "nodes lost since the start: 10.0.0.9" in text
    assert "failed: policy near 1: it diverged" in text
    change(running, reported=time.time() - 3600)
    assert "nothing was reported for 1 h" in status(running)


def test_what_died(running: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    change(running, state="running", pid=int(gone.stdout))
    text = status(running)
    assert "dead: its process ended without a word" in text
    assert f"go on with: v2a sweep --resume {running}" in text
    assert "policies: 2 finished, 1 failed" in text and "best 50.0" in text
    # On another machine only the heartbeat tells.
    change(running, pid=os.getpid(), host="elsewhere", written=time.time() - 600)
    assert "dead, or cut off: nothing from elsewhere for 10 min" in status(running)


def test_what_ended(running: Path) -> None:
    assert "comparison · finished" in status(running)
    change(running, state="interrupted")
    text = status(running)
    assert "comparison · interrupted" in text and "--resume" in text
    assert "0 of 4 policies done · 1 failed\n" in text, "nothing runs any more"
    (running / "status.json").write_text("{")
    assert "sweep · not running" in status(running) and "2 finished, 1 failed" in status(running)


def test_an_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError), StatusFile(tmp_path, "run", "mine"):
        raise DataError("no such column", where="a.hdf5")
    text = status(tmp_path)
    assert "mine · failed" in text and "no such column" in text


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    for arguments, message in (
        ([], "give a results folder"),
        (["."], "no run or sweep was started here"),
        ([".", "--address", "http://127.0.0.1:1"], "give a results folder"),
        (["--address", "http://127.0.0.1:1"], "no Ray job server answers"),
    ):
        done = v2a_here("status", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
