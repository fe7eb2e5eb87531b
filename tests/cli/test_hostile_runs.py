"""Every command that takes a run or a sweep gives one message for a folder or file that is neither."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import v2a_here

COMMANDS = {
    "evaluate": ("evaluate", "given"),
    "diagnose": ("diagnose", "given"),
    "export": ("export", "given", "-o", "policy.onnx"),
    "select": ("select", "given"),
    "sweep": ("sweep", "--resume", "given"),
}
RECORDS = ("result.json", "sweep.yaml", "trials.json", "trial_status.jsonl", "results.parquet")
CONTENTS = {
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "null": b"null",
    "text": b"it was a good run",
    "noise": bytes(range(256)) * 4,
    "deep": b"[" * 100_000,
    "numbers": b'{"stages": [1, 2], "config": 3, "target": {"return_mean": "much"}}',
}


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail a test that waits for ever, such as the reader of a FIFO."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def assert_one_message(command: str, folder: Path) -> None:
    done = v2a_here(*COMMANDS[command], cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and "try: " in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "\\x" not in done.stderr and len(done.stderr) < 600, done.stderr


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_invalid_records_are_refused(command: str, content: bytes, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in RECORDS:
        (given / name).write_bytes(content)
    assert_one_message(command, tmp_path)
    assert {file.read_bytes() for file in given.iterdir()} == {content}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["fifo", "fifo inside", "folder inside", "loop of links"])
def test_special_files_are_refused(command: str, kind: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    if kind == "fifo":
        os.mkfifo(given)
    elif kind == "loop of links":
        given.symlink_to(given)
    else:
        given.mkdir()
        for name in RECORDS:
            os.mkfifo(given / name) if kind == "fifo inside" else (given / name).mkdir()
    assert_one_message(command, tmp_path)
