"""A real Ray cluster of two nodes on one Linux machine, to try out what happens between nodes and when one dies.

Every node has namespaces of its own: network (its own address on a bridge), processes (its own process 1, so that one
SIGKILL ends all of the node, as a power cut would), host name, shared memory (`/dev/shm`) and `/tmp`. The rest of the
file system is common to both, as storage mounted on every node is. Token authentication is on, with a token made here.

    sudo python cluster/local/two_nodes.py up          start both nodes
    eval "$(sudo python cluster/local/two_nodes.py env)"    what clients need: address and token
    sudo python cluster/local/two_nodes.py kill-node 2      a node dies
    sudo python cluster/local/two_nodes.py down        end exactly what was started

Needs root, iproute2 (`ip`), util-linux (`unshare`, `nsenter`) and `pip install 'v2a_ray[cluster]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = Path("/run/v2a-two-nodes")
BRIDGE = "v2a-bridge"
NETWORK = "10.77.0"
HOST_ADDRESS = f"{NETWORK}.254"
HEAD_ADDRESS = f"{NETWORK}.1"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
JOBS_URL = f"http://{HEAD_ADDRESS}:{DASHBOARD_PORT}"
WAIT_SECONDS = 600  # for a node to come up: ten seconds on an idle machine, minutes on a busy one
MOST_NODES = 9

NODE_SCRIPT = Path(__file__).with_name("node.sh")


class UsageError(Exception):
    """An error that the caller can correct."""


@dataclass(frozen=True)
class Node:
    """A node that was started: `pid` is the process outside that holds it, `start` its start time in clock ticks."""

    number: int
    pid: int
    start: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.start

    def init_pid(self) -> int | None:
        """The node's process 1, as numbered outside; None when the node is dead, or has just begun to start."""
        if not self.alive:
            return None
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start both nodes, or those that are dead")
    up.add_argument("--cpus", type=int, default=2, help="CPUs that each node offers (default 2)")
    up.add_argument("--wait", type=int, default=WAIT_SECONDS, metavar="SECONDS", help="for each node to come up")
    up.add_argument("--shared", type=Path, default=Path("/var/tmp/v2a-shared"), help="storage of results and artifacts")
    commands.add_parser("status", help="nodes, and what is dead")
    commands.add_parser("env", help="shell lines that set address and token for clients on this machine")
    run = commands.add_parser("run", help="run a command on the head node")
    run.add_argument("words", nargs=argparse.REMAINDER, help="the command, after --")
    example = commands.add_parser("submit-example", help="submit a sweep as a job")
    example.add_argument("config", type=Path, nargs="?", default=REPOSITORY / "tune_configs/smoke.yaml")
    example.add_argument("overrides", nargs="*", help="KEY=VALUE of the sweep")
    example.add_argument("--name", help="folder of the results in the shared folder; by default the file's name")
    kill = commands.add_parser("kill-node", help="end a node at once; 1 is the head")
    kill.add_argument("number", type=int, choices=range(1, MOST_NODES + 1))
    kill.add_argument("--unplug", action="store_true", help="cut its network first: nobody hears that it died")
    commands.add_parser("down", help="end all nodes and remove their network; the shared folder stays")
    arguments = parser.parse_args()
    try:
        _require_root_and_tools()
        return _dispatch(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _dispatch(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            start(arguments.cpus, arguments.shared.resolve(), arguments.wait)
        case "status":
            show_status()
        case "env":
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in client_environment().items()))
        case "run":
            return run_on_head([word for word in arguments.words if word != "--"])
        case "submit-example":
            return submit(arguments.config, arguments.overrides, arguments.name or arguments.config.stem)
        case "kill-node":
            kill_node(arguments.number, arguments.unplug)
        case "down":
            stop()
    return 0


def start(cpus: int, shared: Path, wait: int) -> None:
    """Start the nodes that are not alive. A fresh head has none of the old one's nodes, so a dead head restarts all."""
    alive = {node.number for node in read_nodes() if node.alive}
    if {1, 2} <= alive:
        print("both nodes are up")
        return
    if 1 not in alive:
        stop()
        alive = set()
    shared.mkdir(parents=True, exist_ok=True)
    if not alive:
        STATE.mkdir(mode=0o700)
        _write_token()
        (STATE / "shared").write_text(str(shared))
        (STATE / "cpus").write_text(str(cpus))
        _ip(f"link add {BRIDGE} type bridge")
        _ip(f"addr add {HOST_ADDRESS}/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
    for number in {1, 2} - alive:
        bring_up(number, wait)
    show_status()
    print(f"shared folder {shared}\njobs {JOBS_URL} (needs the token: {sys.argv[0]} env)")


def bring_up(number: int, wait: int = WAIT_SECONDS) -> None:
    """Start a node, and start it again if it ends meanwhile, until Ray knows it."""
    deadline = time.monotonic() + wait
    attempts = 0
    while time.monotonic() < deadline:
        attempts += 1
        node = _start_node(number)
        _write_nodes([*(each for each in read_nodes() if each.number != number), node])
        while node.alive and time.monotonic() < deadline:
            if _raylet(node).get("state") == "ALIVE":
                return
            time.sleep(1)
        _kill(node)
    log = (STATE / f"node-{number}" / "log").read_text()[-2000:]
    raise UsageError(
        f"node {number} did not come up within {wait} seconds, in {attempts} attempts; its last words:\n{log}"
    )


def stop() -> None:
    """End every process of all nodes, then remove what was made for them."""
    for node in read_nodes():
        _kill(node)
    for number in range(1, MOST_NODES + 1):
        _ip(f"netns delete {_namespace(number)}", check=False)
        _ip(f"link delete {_cable(number)}", check=False)
    _ip(f"link delete {BRIDGE}", check=False)
    if STATE.exists():
        shutil.rmtree(STATE)


def kill_node(number: int, unplug: bool) -> None:
    """Kill a node: all its processes end at the same moment, without a message to other nodes."""
    node = next((node for node in read_nodes() if node.number == number and node.alive), None)
    if node is None:
        raise UsageError(f"node {number} is not up")
    if unplug:
        _ip(f"link set {_cable(number)} down")
    _kill(node)
    print(f"{node.name} is dead")


def submit(config: Path, overrides: list[str], name: str) -> int:
    """Submit a sweep as a job; the same command resumes it after a fault."""
    shared = _shared()
    entrypoint = [
        *("v2a", "sweep", str(config.resolve()), *overrides),
        *(f"store={shared / 'artifacts'}", "--run-dir", str(shared / name)),
    ]
    job = f"{name}-{secrets.token_hex(3)}"
    command = [_tool("ray"), "job", "submit", "--no-wait", "--submission-id", job, "--", *entrypoint]
    return subprocess.run(command, env=os.environ | client_environment(), check=False).returncode


def run_on_head(command: list[str]) -> int:
    """Run a command in the namespaces of the head node, in the working directory."""
    node = next((node for node in read_nodes() if node.number == 1), None)
    pid = node.init_pid() if node else None
    if pid is None or not command:
        raise UsageError("the head is not up" if command else "give a command after --")
    entered = ["nsenter", "--target", str(pid), "--all", f"--wdns={Path.cwd()}", *command]
    return subprocess.run(entered, env=_node_environment(), check=False).returncode


def show_status() -> None:
    """One line per node: whether its processes live, and its state in Ray."""
    for node in read_nodes():
        raylet = _raylet(node)
        cpus = raylet.get("resourcesTotal", {}).get("CPU", 0)
        processes = "up  " if node.alive else "dead"
        print(f"{node.name}  {node.address}  processes {processes}  Ray {raylet.get('state', '-'):5}  CPUs {cpus:g}")
    if not read_nodes():
        print("nothing is up")


def client_environment() -> dict[str, str]:
    """Environment variables for a client outside the nodes."""
    if not (STATE / "token").exists():
        raise UsageError(f"nothing is up; start with: {sys.argv[0]} up")
    return {
        "RAY_API_SERVER_ADDRESS": JOBS_URL,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(STATE / "token"),
    }


def read_nodes() -> list[Node]:
    """The nodes that were started, dead ones too."""
    file = STATE / "nodes.json"
    return [Node(**node) for node in json.loads(file.read_text())] if file.exists() else []


def _start_node(number: int) -> Node:
    shared, cpus = _shared(), int((STATE / "cpus").read_text())
    namespace, cable, folder = _namespace(number), _cable(number), STATE / f"node-{number}"
    _ip(f"netns delete {namespace}", check=False)
    _ip(f"link delete {cable}", check=False)
    _ip(f"netns add {namespace}")
    _ip(f"link add {cable} type veth peer name eth0 netns {namespace}")
    _ip(f"link set {cable} master {BRIDGE} up")
    _ip(f"-n {namespace} addr add {NETWORK}.{number}/24 dev eth0")
    _ip(f"-n {namespace} link set lo up")
    _ip(f"-n {namespace} link set eth0 up")
    # Leads nowhere but to this machine; programs that ask which address faces the network get the right one.
    _ip(f"-n {namespace} route add default via {HOST_ADDRESS}")
    # A restarted machine has an empty /tmp. Ray's earlier logs are gone, too.
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    hosts = ["127.0.0.1 localhost", *(f"{NETWORK}.{each} node-{each}" for each in range(1, MOST_NODES + 1))]
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc"]
    command = ["ip", "netns", "exec", namespace, *namespaces, "sh", str(NODE_SCRIPT)]
    kept = [path for path in (REPOSITORY, Path(sys.prefix), shared) if path.is_relative_to("/tmp")]
    environment = _node_environment() | {
        "NODE_NAME": f"node-{number}",
        "NODE_STATE": str(folder),
        "SHARED_FOLDERS": " ".join(map(str, dict.fromkeys(kept))),
        "SHM_BYTES": str(2**30),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *_ray_start(number, cpus)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            cwd="/",
        )
    return Node(number, process.pid, _start_time(process.pid) or 0)


def _ray_start(number: int, cpus: int) -> list[str]:
    common = [
        *("--node-ip-address", f"{NETWORK}.{number}", "--node-name", f"node-{number}", "--num-cpus", str(cpus)),
        *("--object-store-memory", str(512 * 2**20), "--disable-usage-stats", "--block"),
    ]
    if number == 1:
        dashboard = ["--include-dashboard=true", "--dashboard-host", HEAD_ADDRESS]
        ports = ["--port", str(GCS_PORT), "--dashboard-port", str(DASHBOARD_PORT)]
        return [_tool("ray"), "start", "--head", *ports, *dashboard, *common]
    return [_tool("ray"), "start", "--address", f"{HEAD_ADDRESS}:{GCS_PORT}", *common]


def _node_environment() -> dict[str, str]:
    """The environment of a node's processes: the caller's without what names another Ray, this checkout, the token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    folders = [str(REPOSITORY), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": os.pathsep.join(folders),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(STATE / "token"),
        "RAY_ADDRESS": f"{HEAD_ADDRESS}:{GCS_PORT}",
        # Ray runs its workers at the lowest priority, for machines that do something else as well.
        "RAY_worker_niceness": "0",
    }


def _raylet(node: Node) -> dict[str, Any]:
    """The dashboard's entry of a node's raylet; empty without a raylet or a dashboard."""
    headers = {"Authorization": f"Bearer {(STATE / 'token').read_text()}"}
    request = urllib.request.Request(f"{JOBS_URL}/nodes?view=summary", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            raylets = [each["raylet"] for each in json.load(answer)["data"]["summary"]]
    except (OSError, ValueError, KeyError):
        return {}
    mine = [each for each in raylets if each.get("nodeManagerAddress") == node.address]
    # A restarted node also has dead raylets at its address.
    return next((each for each in mine if each.get("state") == "ALIVE"), mine[0] if mine else {})


def _write_token() -> None:
    token = os.open(STATE / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(token, "w") as file:
        file.write(secrets.token_hex(32))


def _write_nodes(nodes: list[Node]) -> None:
    (STATE / "nodes.json").write_text(json.dumps([asdict(node) for node in nodes]))


def _shared() -> Path:
    if not (STATE / "shared").exists():
        raise UsageError(f"nothing is up; start with: {sys.argv[0]} up")
    return Path((STATE / "shared").read_text())


def _kill(node: Node) -> None:
    """SIGKILL to the node's process 1; the kernel then ends every process of its process namespace."""
    if not node.alive:
        return
    # Without a process 1 yet there is nothing inside either; with one, the process outside ends after it.
    os.kill(node.init_pid() or node.pid, signal.SIGKILL)
    while node.alive:
        time.sleep(0.05)


def _start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks; None if it has ended. It distinguishes processes with the same number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _namespace(number: int) -> str:
    return f"v2a-node-{number}"


def _cable(number: int) -> str:
    return f"v2a-cable-{number}"


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _ip(words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise UsageError(f"ip {words}: {done.stderr.strip()} (network namespaces may not be allowed here)")


def _require_root_and_tools() -> None:
    if os.geteuid() != 0:
        raise UsageError("namespaces need root; run it with sudo")
    missing = [tool for tool in ("ip", "unshare", "nsenter", "mount") if shutil.which(tool) is None]
    if missing:
        raise UsageError(f"not found: {', '.join(missing)}; on Debian: apt-get install iproute2 util-linux")


if __name__ == "__main__":
    sys.exit(main())
