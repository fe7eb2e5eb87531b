"""Jobs through a real job server: submit, follow, list and stop, and errors of the connection."""

from __future__ import annotations

import hashlib
import http.server
import re
import secrets
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import yaml_folder
from tests.orchestration.ray_head import RayHead, environment, free_port, v2a

pytestmark = pytest.mark.slow
DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 200}
TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "bc_target",
    "target": DATA,
    "sources": [DATA | {"name": "other", "seed": 1}],
    "policy": {"num_steps": 20, "width": 8, "checkpoint_interval_steps": 10, "log_interval_steps": 10},
    "evaluation": {"num_episodes": 1, "interval_steps": 0},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = TINY | {"name": "missing", "target": {"domain": "hopper/stock", "path": "/nowhere/at-all.hdf5"}}
    return yaml_folder(tmp_path_factory.mktemp("jobs"), tiny=TINY, missing=missing)


@pytest.fixture(scope="module")
def finished(head: RayHead, workspace: Path) -> subprocess.CompletedProcess[str]:
    done = v2a("submit", "tiny.yaml", "--wait", *to(head, workspace, "tiny"), cwd=workspace, env=head.client)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def to(head: RayHead, workspace: Path, name: str) -> list[str]:
    return ["--run-dir", str(workspace / "shared" / name), "--address", head.jobs]


def job_id(output: str) -> str:
    found = re.search(r"submitted (v2a-\S+)", output)
    assert found, output
    return found[1]


def test_a_job_leaves_its_results_and_artifacts_on_shared_storage(
    workspace: Path, finished: subprocess.CompletedProcess[str]
) -> None:
    assert (workspace / "shared/tiny/result.json").exists()
    assert list(workspace.glob("shared/artifacts/policy/*/artifact.json"))
    assert "computed policy" in finished.stdout and "normalised score" in finished.stdout
    assert finished.stdout.rstrip().endswith(f"{job_id(finished.stdout)} SUCCEEDED")
    assert not (workspace / "runs").exists()


def test_the_token_is_never_shown(head: RayHead, finished: subprocess.CompletedProcess[str]) -> None:
    assert head.token not in finished.stdout + finished.stderr


def test_list_and_logs(head: RayHead, workspace: Path, finished: subprocess.CompletedProcess[str]) -> None:
    name = job_id(finished.stdout)
    env = head.client | {"RAY_API_SERVER_ADDRESS": head.jobs, "COLUMNS": "200"}
    listed = v2a("jobs", "list", cwd=workspace, env=env)
    (row,) = [line.split() for line in listed.stdout.splitlines() if name in line]
    assert row[:2] == [name, "SUCCEEDED"] and row[-1] == str(workspace / "shared/tiny")
    logs = v2a("jobs", "logs", name[:-3], cwd=workspace, env=env)
    assert "computed policy" in logs.stdout and "v2a_ray.cli.main run experiment.yaml" in logs.stdout
    # The address on the command line takes precedence over the environment's.
    elsewhere = env | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{free_port()}"}
    followed = v2a("jobs", "logs", name, "--follow", "--address", head.jobs, cwd=workspace, env=elsewhere)
    assert followed.returncode == 0 and "computed policy" in followed.stdout


def test_a_variable_reaches_every_worker_and_its_value_is_shown_nowhere(head: RayHead, workspace: Path) -> None:
    # A plugin runs in every process. It leaves a digest of what it sees.
    (workspace / "seen").mkdir()
    (workspace / "witness.py").write_text(
        "import hashlib, os, pathlib, sys\n"
        "kind = 'worker' if 'default_worker' in sys.argv[0] else 'driver'\n"
        f"file = pathlib.Path({str(workspace / 'seen')!r}) / f'{{kind}}-{{os.getpid()}}'\n"
        "file.write_text(hashlib.sha256(os.environ.get('A_SECRET', '').encode()).hexdigest())\n"
    )
    value = f'it\'s {secrets.token_hex(16)} = "two\nlines"'
    yaml_folder(workspace, secret=TINY | {"name": "secret", "seed": 7, "plugins": ["witness.py"]})
    there = to(head, workspace, "secret")
    done = v2a(
        *("submit", "secret.yaml", "--wait", "--env", "A_SECRET", *there),
        cwd=workspace,
        env=head.client | {"A_SECRET": value},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = {(file.name.split("-")[0], file.read_text()) for file in (workspace / "seen").iterdir()}
    expected = hashlib.sha256(value.encode()).hexdigest()
    assert seen == {("driver", expected), ("worker", expected)}
    part = value.split()[1]
    env = head.client | {"RAY_API_SERVER_ADDRESS": head.jobs}
    asked = [v2a("jobs", *words, cwd=workspace, env=env) for words in (["list"], ["logs", job_id(done.stdout)])]
    token = {"Authorization": f"Bearer {head.token}"}
    request = urllib.request.Request(f"{head.jobs}/api/jobs/", headers=token)
    listed = urllib.request.urlopen(request).read().decode()
    assert job_id(done.stdout) in listed
    assert not [text for text in (listed, *(each.stdout + each.stderr for each in (done, *asked))) if part in text]
    files = [*workspace.glob("shared/**/*"), *head.folder.glob("ray/session_latest/logs/**/*")]
    logs = [file for file in files if file.is_file()]
    assert len(logs) > 10 and not [file for file in logs if part.encode() in file.read_bytes()]


def test_a_job_that_fails_ends_the_command_with_its_status(head: RayHead, workspace: Path) -> None:
    done = v2a("submit", "missing.yaml", "--wait", *to(head, workspace, "missing"), cwd=workspace, env=head.client)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "/nowhere/at-all.hdf5" in done.stdout and "FAILED" in done.stdout


def test_interrupted_refused_twice_and_stopped(head: RayHead, workspace: Path) -> None:
    there = [*to(head, workspace, "long"), "policy.num_steps=100000000"]
    command = [sys.executable, "-m", "v2a_ray.cli.main", "submit", "tiny.yaml", "--wait", *there]
    waiting = subprocess.Popen(
        command, cwd=workspace, env=head.client, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdout and waiting.stderr
    name = job_id(waiting.stdout.readline())
    for line in waiting.stdout:
        if "policy: started" in line:
            break
    waiting.send_signal(signal.SIGINT)
    _, message = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "the job goes on" in message and f"v2a jobs logs {name} --follow --address {head.jobs}" in message
    again = v2a("submit", "tiny.yaml", *there, cwd=workspace, env=head.client)
    assert again.returncode == 2 and f"the job {name} writes to this folder and is RUNNING" in again.stderr
    stopped = v2a("jobs", "stop", name[:-2], "--address", head.jobs, cwd=workspace, env=head.client)
    assert (stopped.returncode, stopped.stdout.split()) == (0, [name, "STOPPED"])
    ended = v2a("jobs", "stop", name, "--address", head.jobs, cwd=workspace, env=head.client)
    assert "had ended: STOPPED" in ended.stdout
    # An ended job may be submitted again, under the next number.
    other = [there[0], there[1], there[2], there[3], "policy.num_steps=20"]
    fresh = v2a("submit", "tiny.yaml", "--wait", *other, cwd=workspace, env=head.client)
    assert fresh.returncode == 0 and job_id(fresh.stdout) == f"{name[:-2]}-2"
    assert "reused   data/target" in fresh.stdout


def test_the_status_of_a_cluster(head: RayHead, workspace: Path) -> None:
    done = v2a("status", "--address", head.jobs, cwd=workspace, env=head.client)
    assert done.returncode == 0, done.stderr
    assert "Node status" in done.stdout and "CPU" in done.stdout


def test_an_unknown_job(head: RayHead, workspace: Path) -> None:
    done = v2a("jobs", "logs", "v2a-nothing", "--address", head.jobs, cwd=workspace, env=head.client)
    assert done.returncode == 2 and "no job begins with 'v2a-nothing'" in done.stderr


def test_wrong_and_missing_tokens(head: RayHead, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("f" * 64)
    wrong = environment(RAY_AUTH_TOKEN_PATH=str(tmp_path / "wrong"))
    done = v2a("jobs", "list", "--address", head.jobs, cwd=workspace, env=wrong)
    assert done.returncode == 2 and "refuses our token" in done.stderr and "RAY_AUTH_TOKEN_PATH" in done.stderr
    none = environment(HOME=str(tmp_path))
    done = v2a("jobs", "list", "--address", head.jobs, cwd=workspace, env=none)
    assert done.returncode == 2 and "asks for a token, and there is none here" in done.stderr
    done = v2a("jobs", "list", "--address", head.jobs, cwd=workspace, env=none | {"RAY_AUTH_MODE": "disabled"})
    assert done.returncode == 2 and "RAY_AUTH_MODE is not `token` here" in done.stderr
    assert not (tmp_path / ".ray").exists()


def test_nothing_listens(head: RayHead, workspace: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = v2a("submit", "tiny.yaml", "--run-dir", "/shared/x", "--address", address, cwd=workspace, env=head.client)
    assert done.returncode == 2 and f"{address}: no Ray job server answers" in done.stderr


@pytest.fixture
def server_of_old_ray() -> Iterator[str]:
    """A job server that says it runs another Ray."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"version": "4", "ray_version": "2.48.1", "ray_commit": "", "session_name": ""}')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_ray_on_the_cluster(head: RayHead, workspace: Path, server_of_old_ray: str) -> None:
    done = v2a("jobs", "list", "--address", server_of_old_ray, cwd=workspace, env=head.client)
    assert done.returncode == 2 and "the cluster runs Ray 2.48.1, this package needs" in done.stderr


def test_without_rays_client(workspace: Path) -> None:
    script = "import sys; sys.modules['aiohttp'] = None; from v2a_ray.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "jobs", "list"], cwd=workspace, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2 and "pip install 'v2a_ray[cluster]'" in done.stderr
