"""A tiny experiment with every stage, run as a user runs it, and the files that no interruption may change.

`kills` and `rot` disturb such an experiment and compare its files with those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from v2a_ray.files import read_json

ROOT = Path(__file__).parents[1]
RUN_DIR = "run"
STORE = "store"
CONFIG = "experiment.yaml"
_OFTEN = {"width": 16, "checkpoint_interval_steps": 50, "log_interval_steps": 50}
_ROLLED_OUT = {"behavior": "medium", "num_transitions": 600}


def experiment(steps: int) -> dict[str, Any]:
    """`v2a_supported`, which has a density, with corrected transitions: every stage, of `steps` update steps."""
    return {
        "name": "every-stage",
        "method": "v2a_supported",
        "store": STORE,
        "target": {"domain": "hopper/stock", **_ROLLED_OUT},
        "sources": [
            {"domain": "hopper/gravity-0.5", **_ROLLED_OUT},
            {"domain": "hopper/stock", **_ROLLED_OUT, "behavior": "random"},
        ],
        "modality": {
            "num_steps": max(4, steps // 20),
            "batch_size": 4,
            "crop_steps": 20,
            "encoder_width": 8,
            "decoder_width": 8,
            "checkpoint_interval_steps": 5,
            "log_interval_steps": 5,
        },
        **{
            stage: {"num_steps": steps, **_OFTEN}
            for stage in ("advantage", "alignment", "density", "dynamics", "correction")
        },
        "policy": {"num_steps": 2 * steps, **_OFTEN, "correct_transitions": True},
        "evaluation": {"num_episodes": 2, "interval_steps": steps},
    }


class Workspace:
    """A separate folder with the experiment's file, its store and its results."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.store, self.run_dir = folder, folder / STORE, folder / RUN_DIR
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(yaml.safe_dump(experiment(steps)))

    def command(self, name: str) -> list[str]:
        """`run` computes everything but the stage of the diagnosis, which is `diagnose`'s."""
        arguments = {"run": [CONFIG, "--run-dir", RUN_DIR, "--num-cpus", "2"], "diagnose": [RUN_DIR]}[name]
        return [sys.executable, "-m", "v2a_ray.cli.main", name, *arguments]

    def start(self, name: str, log: Path) -> subprocess.Popen[bytes]:
        """The command in a session of its own; what it says goes into `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(name),
                cwd=self.folder,
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, names: Sequence[str] = ("run", "diagnose")) -> str:
        """Run the commands to their end and return what they said. Raises RuntimeError when one fails."""
        said = ""
        for name in names:
            done = subprocess.run(
                self.command(name), cwd=self.folder, env=environment(), capture_output=True, text=True, check=False
            )
            said += done.stdout + done.stderr
            if done.returncode:
                raise RuntimeError(f"{name} ended with status {done.returncode}:\n{said}")
        return said

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of everything that has to be the same: each file of each artifact, and the results.

        Records of artifacts hold seconds, so of `result.json` the evaluation counts.
        """
        found = {}
        for record in sorted(self.store.glob("*/*/artifact.json")):
            if record.parent.suffix:  # in the making, or set aside
                continue
            for file in sorted(record.parent.rglob("*")):
                if file.is_file() and file != record:
                    found[str(file.relative_to(self.store))] = _digest(file.read_bytes())
        for name in ("actor.safetensors", "curves.parquet"):
            found[f"{RUN_DIR}/{name}"] = _digest((self.run_dir / name).read_bytes())
        found[f"{RUN_DIR}/result.json"] = _digest(repr(read_json(self.run_dir / "result.json")["target"]).encode())
        return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names of files that are missing, new or different."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def environment() -> dict[str, str]:
    """This process's, with a folder for Ray's sessions whose name leaves room for that of a socket."""
    return os.environ | {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": tempfile.gettempdir()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
