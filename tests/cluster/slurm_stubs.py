"""Stand-ins for Slurm's commands and for `v2a`, and a separate folder to run the batch script in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "v2a.sbatch"

_SRUN = """#!/bin/bash
# Runs the command that follows the options here, and notes its arguments.
printf '%s\\n' "$*" >>"$STUB_LOG"
while [ "$1" != "${1#-}" ]; do shift; done
"""
_SCONTROL = """#!/bin/bash
printf 'scontrol %s\\n' "$*" >>"$STUB_LOG"
if [ "$1" = show ]; then echo this-node; fi
"""


class Slurm:
    """A job of one node whose `srun` runs its command on this machine.

    Args:
        folder: for the stubs; it must be new.
        shared: becomes V2A_SHARED.
        v2a: Python source of the command that stands in for `v2a`.
        srun: shell source that ends the stub of `srun`; `"$@"` is the command.
    """

    def __init__(self, folder: Path, shared: Path, *, v2a: str = "", srun: str = 'exec "$@"') -> None:
        folder.mkdir()
        self.log = folder / "calls.log"
        stubs = {"srun": _SRUN + srun, "scontrol": _SCONTROL, "v2a": f"#!{sys.executable}\n{v2a}"}
        for name, text in stubs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        unwanted = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS", "V2A_STORE")
        self.environment = {name: value for name, value in os.environ.items() if name not in unwanted} | {
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STUB_LOG": str(self.log),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "this-node",
            "V2A_SHARED": str(shared),
            "V2A_HEAD_ADDRESS": "127.0.0.1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def run(self, *arguments: str, isolated: bool = False, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run the batch script.

        Args:
            arguments: of `v2a`.
            before: shell commands that run first, if isolated.
            isolated: in process and network namespaces of its own. `ray symmetric-run` ends with `ray stop`, which ends
                every Ray it can see; there it sees its own alone, and whatever is left dies with the namespace.
        """
        command = ["bash", str(SCRIPT), *arguments]
        if isolated:
            first = f"set -e; ip link set lo up\n{before}"
            command = [*namespace(), "bash", "-c", f'{first}\n"$@"', "in-namespace", *command]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=240, check=False)

    def calls(self) -> list[str]:
        """Arguments of every call of `srun`, and calls of `scontrol`."""
        return self.log.read_text().splitlines()


def namespace() -> list[str]:
    """A command that runs another command in its own namespaces; skips the test if this is not allowed."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2), to keep `ray stop` away from other Rays")
    if subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here, and `ray stop` would end other Rays")
    return command
