"""Kills an experiment with every stage at random moments, runs it again, and compares it with an undisturbed run.

    python -m benchmarks.kills           # 52 SIGKILL and 22 SIGTERM; some forty minutes on two cores
    python -m benchmarks.kills --quick   # 2 and 1, to see that it runs

Rounds follow one another until all signals were sent. A round starts with an empty store. It starts the command, kills
a process, and starts the command again if it has ended, a few times. Then the command runs to its end, and every file
of every artifact, the policy in the results and its evaluation are compared with the undisturbed run, byte for byte.

The killed process (the driver or one of its Ray workers) and the moment are drawn. Three of four moments lie within a
drawn stage, so that short stages have their share; the fourth is any time after the start. Only processes that this
script started, and their children, get a signal.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.every_stage import Workspace, differences
from v2a_ray.engine.stage import artifact_kinds

STEPS = 1200
LONGEST_SECONDS = 400.0
LONGEST_STAGE_SECONDS = 4.0
LONGEST_RUN_SECONDS = 30.0
SHARE_IN_STAGES, SHARE_OF_WORKERS = 0.75, 0.6
ATTEMPTS = 3
POLL_SECONDS = 0.02
_EVENT = re.compile(r"^\S+ \S+ (?:computed (\S+)|(\S+): started)", re.MULTILINE)


@dataclass
class Tally:
    """The signals sent, the processes that got them, the stages at work, and the results."""

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    stages: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_resumed: int = 0
    num_rounds: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Of undisturbed commands."""

    def num(self, name: str) -> int:
        """How often this signal was sent."""
        return sum(count for (sent, _), count in self.sent.items() if sent == name)


class Command:
    """One command at work, and the processes that it has started."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.name, self.log = name, workspace.folder / f"{time.monotonic_ns()}.log"
        self.process = workspace.start(name, self.log)
        self.me = psutil.Process(self.process.pid)
        self.deadline = time.monotonic() + LONGEST_SECONDS

    def is_running(self) -> bool:
        """Whether it has not ended. Raises TimeoutError when it takes too long."""
        if time.monotonic() > self.deadline:
            raise TimeoutError(f"{self.name} hangs:\n{self.said()}")
        return self.process.poll() is None

    def wait(self, seconds: float = LONGEST_SECONDS, stage: str | None = None) -> bool:
        """Let it go on for a time, or until it is at a stage; returns whether it is still running then."""
        end = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < end and (stage is None or stage not in self.stages()):
            time.sleep(POLL_SECONDS)
        return self.is_running()

    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    def stages(self) -> list[str]:
        """The stages at work, as far as it said so; those of the diagnosis have one name."""
        if self.name == "diagnose":
            return ["diagnosis"]
        running: dict[str, None] = {}
        for done, started in _EVENT.findall(self.said()):
            if started:
                running[started] = None
            else:
                running.pop(done, None)
        return list(dict.fromkeys(name.partition("/")[0] for name in running))

    def workers(self) -> list[psutil.Process]:
        """Ray's workers that have something to do."""
        found = []
        for child in self._descendants():
            with suppress(psutil.Error):
                title = " ".join(child.cmdline())
                if title.startswith("ray::") and "IDLE" not in title:
                    found.append(child)
        return found

    def kill(self, victim: psutil.Process, number: signal.Signals) -> None:
        """Send the signal; after one to the driver, wait until the driver and all that it started are gone."""
        family = self._descendants()
        victim.send_signal(number)
        if victim.pid == self.me.pid:
            self.wait()
            _, alive = psutil.wait_procs(family, timeout=30)
            for process in alive:
                process.kill()

    def _descendants(self) -> list[psutil.Process]:
        try:
            return self.me.children(recursive=True)
        except psutil.Error:
            return []


def main() -> int:
    """Run the measure; the status is 0 if nothing differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=52)
    parser.add_argument("--terms", type=int, default=22)
    given = parser.parse_args()
    wanted = {"SIGKILL": 2, "SIGTERM": 1} if given.quick else {"SIGKILL": given.kills, "SIGTERM": given.terms}
    with tempfile.TemporaryDirectory(prefix="v2a-kills-") as folder:
        tally = measure(Path(folder), wanted, random.Random(given.seed))
    print(report(tally))
    return 1 if tally.wrong else 0


def measure(folder: Path, wanted: Mapping[str, int], draw: random.Random) -> Tally:
    """Rounds until every signal in `wanted` was sent as often as it says."""
    undisturbed = Workspace(folder / "undisturbed", STEPS)
    undisturbed.finish()
    expected, tally = undisturbed.fingerprint(), Tally()
    while any(tally.num(name) < count for name, count in wanted.items()):
        workspace = Workspace(folder / f"round-{tally.num_rounds}", STEPS)
        _disturb(workspace, wanted, draw, tally)
        tally.num_rounds += 1
        wrong = _finish(workspace, tally) or differences(expected, workspace.fingerprint())
        tally.wrong += [f"round {tally.num_rounds}: {what}" for what in wrong]
        shutil.rmtree(workspace.folder)
        print(f"round {tally.num_rounds}: {dict(tally.sent)} so far, {len(wrong)} wrong", file=sys.stderr, flush=True)
    return tally


def _finish(workspace: Workspace, tally: Tally) -> list[str]:
    """Run the command to its end, again if it fails: a Ray that a busy machine does not start in time is no result."""
    for _ in range(ATTEMPTS):
        try:
            said = workspace.finish() + "".join(
                log.read_text(errors="replace") for log in workspace.folder.glob("*.log")
            )
            tally.num_resumed += said.count("goes on at step")
            return []
        except RuntimeError as error:
            tally.failures.append(str(error).strip().splitlines()[-1])
    return [f"{ATTEMPTS} commands failed: {tally.failures[-1]}"]


def _disturb(workspace: Workspace, wanted: Mapping[str, int], draw: random.Random, tally: Tally) -> None:
    """Up to twelve signals in one store, to commands that are started for it."""
    command: Command | None = None
    for _ in range(draw.randint(6, 12)):
        left = {name: count - tally.num(name) for name, count in wanted.items() if count > tally.num(name)}
        missing = [stage for stage in artifact_kinds() if not any(workspace.store.glob(f"{stage}/*/artifact.json"))]
        if not (left and missing):
            break
        stage = draw.choice(missing)
        if stage == "diagnosis" and not (workspace.run_dir / "result.json").exists():
            if command:
                command.wait()
            workspace.finish(["run"])
        if command is None or not command.wait(0):
            command = Command(workspace, "diagnose" if stage == "diagnosis" else "run")
        (name,) = draw.choices(list(left), weights=list(left.values()))
        _strike(command, signal.Signals[name], stage, draw, tally)
    if command:
        command.wait()


def _strike(command: Command, number: signal.Signals, stage: str, draw: random.Random, tally: Tally) -> None:
    """Send one signal to one process at one moment, unless the command ends before."""
    if draw.random() < SHARE_IN_STAGES:
        reached = command.wait(stage=stage) and command.wait(draw.uniform(0, LONGEST_STAGE_SECONDS))
    else:
        reached = command.wait(draw.uniform(0, LONGEST_RUN_SECONDS))
    if not reached:
        return
    workers = command.workers()
    victim = draw.choice(workers) if workers and draw.random() < SHARE_OF_WORKERS else command.me
    role = "driver" if victim.pid == command.me.pid else "worker"
    stages = command.stages()
    try:
        command.kill(victim, number)
    except psutil.NoSuchProcess:
        return  # it ended by itself at this very moment
    tally.sent[number.name, role] += 1
    for at_work in stages or ["none yet"]:
        tally.stages[at_work, role] += 1
    if role == "driver":
        tally.statuses[number.name, command.process.returncode] += 1


def report(tally: Tally) -> str:
    """The signals and their results, as plain text."""
    lines = [f"{tally.num_rounds} rounds; stages that went on from a checkpoint: {tally.num_resumed}"]
    lines += [f"{name} to a {role}: {count}" for (name, role), count in sorted(tally.sent.items())]
    lines += [f"status of a driver after {name}: {status} ({n} times)" for (name, status), n in tally.statuses.items()]
    lines.append(f"{'at work when it came':<22}{'driver':>8}{'worker':>8}")
    for stage in ("none yet", *artifact_kinds()):
        lines.append(f"{stage:<22}{tally.stages[stage, 'driver']:>8}{tally.stages[stage, 'worker']:>8}")
    lines += [f"an undisturbed command failed and was run again: {what}" for what in tally.failures]
    lines.append(f"files or results that differ from the undisturbed run: {len(tally.wrong)}")
    return "\n".join([*lines, *tally.wrong])


if __name__ == "__main__":
    sys.exit(main())
