"""A local Ray: where it listens, and who can read its token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray

from v2a_ray.errors import ClusterError
from v2a_ray.orchestration.cluster import session

SESSION = """
import json, socket, stat, sys
from pathlib import Path
import psutil, ray
from v2a_ray.orchestration.cluster.session import ray_session
with ray_session(1):
    ray.get(ray.remote(lambda: None).remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    inodes = set()
    for process in processes:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.append(fields[1].partition(":")[0])
token = Path.home() / ".ray" / "auth_token"
mode = stat.S_IMODE(token.stat().st_mode) if token.exists() else None
print(json.dumps({"listening": found, "mode": mode}))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, the same as an IPv6 address, and ::1, as /proc/net writes them on a little-endian machine."""


@pytest.mark.parametrize("before", [pytest.param(None, marks=pytest.mark.slow), 0o644])
def test_nothing_listens_beyond_the_machine_and_the_token_is_private(before: int | None, tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    if before is not None:
        token.parent.mkdir()
        token.write_text("0" * 64)
        token.chmod(before)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SESSION],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["listening"]) >= 4 and set(found["listening"]) <= LOOPBACK
    assert found["mode"] == 0o600
    assert before is None or token.read_text() == "0" * 64


LATE = "The current node timed out during startup. This could happen because ..."


@pytest.mark.parametrize(
    ("problem", "num_failures", "starts"),
    [(LATE, 3, True), (LATE, 4, False), ("no such socket", 1, True), ("no such socket", 2, False)],
)
def test_a_slow_machine_has_several_attempts_to_start(
    problem: str, num_failures: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = [problem] * num_failures

    def init(**settings: object) -> None:
        if problems:
            raise Exception(problems.pop())

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with nullcontext() if starts else pytest.raises(ClusterError, match=f"Ray does not start: {problem[:20]}"):
        session._start({"address": "local"})
    assert not problems
