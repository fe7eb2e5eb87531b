"""How a run or sweep is, from the files in its folder alone: running, finished or dead, and why nothing moves."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from v2a_ray.errors import DataError
from v2a_ray.experiments.finished import RESULT_FILE, SWEEP_FILE, is_sweep, read_records
from v2a_ray.files import read_json
from v2a_ray.report.tally import duration, total_line

STATUS_FILE = "status.json"
HEARTBEAT_SECONDS = 10.0
"""How often the file is written while work goes on."""
DEAD_SECONDS = 6 * HEARTBEAT_SECONDS
"""Without a heartbeat; a busy machine or file system may be late."""
QUIET_SECONDS = 300.0
"""Without any report, after which it is said."""
MAX_SHOWN = 10


def describe(folder: Path, place: str) -> list[str]:
    """Lines about the run or sweep in a folder; `place` is the folder or address that the user gave.

    Raises DataError when the folder holds neither.
    """
    status = _read(folder)
    if not status and not is_sweep(folder) and not (folder / RESULT_FILE).exists():
        raise DataError(
            "no run or sweep was started here",
            where=place,
            remedy=f"give a folder with {STATUS_FILE}, {SWEEP_FILE} or {RESULT_FILE}",
        )
    state = _state(folder, status)
    title = status.get("name", folder.name)
    lines = [f"{title} · {state}"]
    if status:
        over = {} if state == "running" else {"num_running": 0, "waiting": {}, "seconds_left": None, "then": ""}
        lines.append(total_line({**status, **over}))
    if state == "running":
        lines += [*_running(status), *_hindrances(status)]
    elif state != "finished":
        lines += [status["reason"]] if status.get("reason") else []
        again = f"v2a sweep --resume {place}" if is_sweep(folder) else f"the same `v2a run` with --run-dir {place}"
        lines.append(f"finished work is kept; go on with: {again}")
    if state != "running" and is_sweep(folder):
        lines += _table(folder)
    failures = status.get("failed", [])
    lines += [f"failed: {name}: {reason}" for name, reason in failures[-MAX_SHOWN:]]
    return lines


def _read(folder: Path) -> dict[str, Any]:
    """The content of the status file; empty when there is none, or it is damaged."""
    with suppress(OSError, ValueError):
        content = read_json(folder / STATUS_FILE)
        if isinstance(content, dict) and {"state", "what", "waiting", "written", "running"} <= content.keys():
            return content
    return {}


def _state(folder: Path, status: Mapping[str, Any]) -> str:
    """`running`, `finished`, or what ended it."""
    if not status:
        finished = (folder / RESULT_FILE).exists()
        return "finished" if finished else "not running"
    if status["state"] != "running":
        return str(status["state"])
    if status["host"] == platform.node() and not _is_alive(int(status["pid"])):
        return f"dead: its process ended without a word, after {_clock(status['written'])}"
    silent = time.time() - status["written"]
    if silent > DEAD_SECONDS:
        return f"dead, or cut off: nothing from {status['host']} for {duration(silent)}"
    return "running"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _running(status: Mapping[str, Any]) -> Iterator[str]:
    now = time.time()
    for node in status["running"][:MAX_SHOWN]:
        steps = f"step {node['step']:,} of {node['num_steps']:,}" if node["num_steps"] else "no steps yet"
        note = f" · {node['note']}" if node["note"] else ""
        yield f"  {node['name']}: {steps} · for {duration(now - node['began'])}{note}"
    if status["num_running"] > MAX_SHOWN:
        yield f"  and {status['num_running'] - MAX_SHOWN:,} more"


def _hindrances(status: Mapping[str, Any]) -> Iterator[str]:
    """What keeps waiting work from running."""
    cluster, now = status.get("cluster", {}), time.time()
    if lost := cluster.get("lost"):
        yield f"nodes lost since the start: {', '.join(lost)}; what ran there is tried again"
    for kind in ("CPU", "GPU"):
        if kind in cluster and any(status["waiting"].values()):
            there, free = cluster[kind]
            yield f"{there - free:g} of {there:g} {kind}s are reserved on {cluster['nodes']} node(s)"
    if status["num_running"] == 0 and any(status["waiting"].values()):
        yield "nothing runs: Ray is starting processes, or no node has room; `v2a status --address` shows the nodes"
    if now - status["reported"] > QUIET_SECONDS:
        yield f"nothing was reported for {duration(now - status['reported'])}"


def _table(folder: Path) -> list[str]:
    """The policies of a sweep that does not run, by what became of them."""
    try:
        records = read_records(folder)
    except DataError:
        return ["no policy has ended yet"]
    counts = Counter(record.status.split(":")[0].split(" at ")[0] for record in records)
    lines = [f"policies: {', '.join(f'{count:,} {status}' for status, count in counts.items())}"]
    done = [record for record in records if record.score is not None]
    if done:
        best = max(done, key=lambda record: record.rank)
        lines.append(f"best {best.score:.1f}: {best.folder.name}")
    failed = [record for record in records if record.status.startswith("failed")]
    return lines + [f"  {record.folder.name}: {record.status}" for record in failed[:MAX_SHOWN]]


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
