"""Checks before this process joins a cluster: it answers, accepts our token and runs our versions.

Each failed check gives one clear message within seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import v2a_ray
from v2a_ray.errors import ClusterError
from v2a_ray.orchestration.cluster import gcs_probe

PROBE_SECONDS = 10
"""An address that does not answer within this time counts as wrong."""
NODE_SECONDS = 60
"""Time for a node to start a process and answer; a busy node takes several seconds."""

SET_TOKEN = (
    "export RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token, the file that RAY_AUTH_TOKEN_PATH "
    "names, or RAY_AUTH_TOKEN (`ray get-auth-token` on the head prints it)"
)


def require_cluster(address: str, seconds: int = PROBE_SECONDS) -> dict[str, Any]:
    """Ask the cluster at HOST:PORT (or `auto`: the one on this machine) for its versions, for at most `seconds`.

    Returns `ray_version`, `python_version` and `dashboard` (HOST:PORT of its job server, or None).

    Raises:
        ClusterError: nothing answers there, it is not a Ray cluster, or it refuses our token.
    """
    answer = _ask(address, seconds)
    match answer.get("error"):
        case None:
            return answer
        case "authentication":
            raise token_error(address, has_token=answer["has_token"])
        case _:
            raise unreachable(address, answer["message"])


def require_versions(address: str, cluster: dict[str, Any]) -> None:
    """Raise ClusterError unless the cluster runs our versions of Ray and Python: the two exchange pickled objects."""
    ours = {"Ray": ray.__version__, "Python": platform.python_version()}
    theirs = {"Ray": cluster["ray_version"], "Python": cluster["python_version"]}
    differ = [f"{name} {theirs[name]} there, {ours[name]} here" for name in ours if theirs[name] != ours[name]]
    if differ:
        raise ClusterError(
            f"the cluster runs other versions: {'; '.join(differ)}",
            where=address,
            remedy="install the cluster's versions here, or submit a job, which runs with the cluster's: `v2a submit`",
        )


def require_same_package(nodes: Collection[str] | None = None) -> None:
    """Raise ClusterError unless these nodes, by default all of the joined cluster, have this package's same code."""

    # Ray pickles a nested function by value, so it also runs on nodes without the package or with another version.
    def report() -> tuple[str, str] | None:
        try:
            import v2a_ray
        except ImportError:
            return None
        from pathlib import Path as Folder

        try:
            from v2a_ray.orchestration.cluster.join import code_digest as digest
        except ImportError:
            return getattr(v2a_ray, "__version__", "unknown"), f"in {Folder(v2a_ray.__file__).parent}"
        return v2a_ray.__version__, digest()

    for node, answer in on_every_node(report, nodes=nodes).items():
        if answer is None:
            raise ClusterError("v2a_ray is not installed there", where=f"node {node}", remedy=_SHIP)
        if isinstance(answer, Exception):
            raise ClusterError(f"cannot run a task: {first_line(answer)}", where=f"node {node}") from answer
        if answer != (v2a_ray.__version__, code_digest()):
            raise ClusterError(
                f"the node has v2a_ray {answer[0]} (code {answer[1]}), "
                f"this process {v2a_ray.__version__} (code {code_digest()})",
                where=f"node {node}",
                remedy=_SHIP,
            )


IMPORTED = ("v2a_ray", "gymnasium", "mujoco", "numpy", "torch", "pyarrow")


def require_same_imports() -> None:
    """Raise ClusterError unless workers on this machine import the same files as this process."""

    # Ray pickles a nested function by value, so it also runs in workers that import another package.
    def found() -> dict[str, str | None]:
        from importlib.util import find_spec

        specs = {name: find_spec(name) for name in IMPORTED}
        return {name: spec.origin if spec else None for name, spec in specs.items()}

    theirs = ray.get(ray.remote(num_cpus=0)(found).remote())
    for name, ours in found().items():
        if theirs[name] != ours:
            raise ClusterError(
                f"workers import another {name}: {theirs[name]}, this process {ours}",
                where="Ray",
                remedy="run the command from another folder, or remove what stands before it on PYTHONPATH",
            )


_SHIP = "`v2a submit` ships the code with the job; or install the same version on every node"


def on_every_node(function: Any, *arguments: Any, nodes: Collection[str] | None = None) -> dict[str, Any]:
    """Call `function` on every live node, or on those with the identities `nodes`.

    Returns its result, or the exception it raised, by address of the node.

    A node that does not answer within a minute gets a TimeoutError. The tasks reserve no CPU, so a busy cluster answers
    too. A node that dies meanwhile is left out, as soon as Ray has noticed its death, which takes some seconds.
    """
    task = ray.remote(function)
    references = {}
    for node in alive_nodes():
        if nodes is not None and node["NodeID"] not in nodes:
            continue
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # The first attempt may fail with a dead node before Ray notices; the second attempt waits until it does.
        options = task.options(num_cpus=0, scheduling_strategy=pinned, max_retries=1)
        references[node["NodeID"]] = options.remote(*arguments)
    ready, _ = ray.wait(list(references.values()), num_returns=len(references), timeout=NODE_SECONDS)
    answers: dict[str, Any] = {}
    for node in alive_nodes():
        if (reference := references.get(node["NodeID"])) is None:
            continue  # The node joined after we asked, or was not to be asked.
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        if reference not in ready:
            ray.cancel(reference, force=True)
            answers[name] = TimeoutError(f"no answer within {NODE_SECONDS} seconds")
            continue
        try:
            answers[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            answers[name] = error
    return answers


def alive_nodes() -> list[dict[str, Any]]:
    """The live nodes of the cluster, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


@cache
def code_digest() -> str:
    """Eight digits that differ where the code of this package differs."""
    folder = Path(v2a_ray.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:8]


def require_code(digest: str) -> None:
    """Raise ClusterError on a node whose code differs from the driver's, which has this `digest`.

    A node that joins late may get work before anybody has looked at it, and its results would be kept.
    """
    if digest != code_digest():
        raise ClusterError(
            f"the node has v2a_ray {v2a_ray.__version__} (code {code_digest()}), the driver code {digest}",
            where=f"node {ray.util.get_node_ip_address()}",
            remedy=_SHIP,
        )


def token_error(address: str, has_token: bool) -> ClusterError:
    """The error for a cluster that refuses us; it never shows the token."""
    if has_token:
        what = "the cluster refuses our token: it has another one"
    elif os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        what = "the cluster asks for a token, and there is none here"
    else:
        what = "the cluster asks for a token, and RAY_AUTH_MODE is not `token` here, so that none is sent"
    return ClusterError(what, where=address, remedy=SET_TOKEN)


def unreachable(address: str, reason: str) -> ClusterError:
    """The error for an address where no Ray cluster answers."""
    return ClusterError(
        f"no Ray cluster answers: {reason}",
        where=address,
        remedy="check HOST:PORT (`ray start --head` prints it), that the cluster runs, and that no firewall is between",
    )


def _ask(address: str, seconds: int) -> dict[str, Any]:
    """The answer of the probe, which runs in a separate process."""
    command = [sys.executable, "-P", str(Path(gcs_probe.__file__)), address, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -signal.SIGALRM:
        return {"error": "unreachable", "message": f"no answer within {seconds} seconds"}
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": "unreachable", "message": lines[-1] if lines else f"the probe ended with {done.returncode}"}
    return answer


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or of its cause on the node; the error's type if there is no message."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
