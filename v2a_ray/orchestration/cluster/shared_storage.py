"""Is the store the same folder on every node? Asked before anything is computed, by writing here and reading there.

Stages run on any node and hand each other files. A folder that each node has for itself would fail after hours, with
"no such file" in the middle of a sweep. Nodes import this module to answer, so it imports little.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from v2a_ray.errors import StorageError
from v2a_ray.orchestration.cluster.join import alive_nodes, first_line, on_every_node

APPEAR_SECONDS = 3.0
"""In which network storage shows a new file on the other nodes."""
REMEDY = "name storage that all nodes mount at the same path (NFS, EFS, Filestore, Lustre, ...), or run on one node"


@dataclass(frozen=True)
class Answer:
    """What a node found.

    Attributes:
        problems: folder to what is wrong with it there.
        written: the file it wrote into the probe of every folder that is all right.
        absent: files and folders that are not there.
    """

    problems: dict[str, str]
    written: list[str]
    absent: list[str]


def require_shared_storage(folders: Sequence[Path], data: Sequence[Path] = ()) -> None:
    """Raise StorageError unless every node reads and writes the same `folders`; on a cluster of one node do nothing.

    Args:
        folders: they exist, and this process can write to them.
        data: files and folders that all nodes have, or none: one that is nowhere is for its reader to tell.
    """
    if len(alive_nodes()) < 2:
        return
    token = uuid.uuid4().hex
    with ExitStack() as stack:
        for folder in folders:
            probe = _probe(folder, token)
            probe.mkdir()
            stack.callback(shutil.rmtree, probe, ignore_errors=True)
            (probe / "driver").write_text(token)
        answers = on_every_node(_visit, list(folders), token, list(data))
        good: dict[str, Answer] = {}
        for node, answer in answers.items():
            if isinstance(answer, Exception):
                raise StorageError(f"cannot be asked: {first_line(answer)}", where=f"node {node}", remedy=REMEDY)
            for folder, problem in answer.problems.items():
                raise StorageError(problem, where=f"{folder} on node {node}", remedy=REMEDY)
            for file in answer.written:
                if not _appears(Path(file)):
                    where = f"{Path(file).parent.parent} on node {node}"
                    raise StorageError("what the node writes does not appear here", where=where, remedy=REMEDY)
            good[node] = answer
    for path in map(str, data):
        lacking = [node for node, answer in good.items() if path in answer.absent]
        if 0 < len(lacking) < len(good):
            raise StorageError(
                f"the data are on other nodes, and not on {', '.join(lacking)}", where=path, remedy=REMEDY
            )


def _visit(folders: Sequence[Path], token: str, data: Sequence[Path]) -> Answer:
    """Runs on a node: read what the driver wrote, and write a file for it to read."""
    problems, written = {}, []
    for folder in folders:
        try:
            if problem := _problem(folder, token):
                problems[str(folder)] = problem
                continue
            file = _probe(folder, token) / uuid.uuid4().hex
            file.write_text(token)
            written.append(str(file))
        except OSError as error:
            problems[str(folder)] = f"cannot be used there: {error.strerror or error}"
    return Answer(problems, written, [str(path) for path in data if not path.exists()])


def _problem(folder: Path, token: str) -> str | None:
    """What is wrong with a folder as this node sees it."""
    if not folder.is_dir():
        return "does not exist there"
    message = _probe(folder, token) / "driver"
    if not _appears(message):
        return "is another folder there: what this process writes does not appear, so the storage is not shared"
    return None if message.read_text() == token else "holds other content there"


def _probe(folder: Path, token: str) -> Path:
    return folder / f".probe-{token}"


def _appears(file: Path) -> bool:
    """Whether a file is there, or soon is."""
    deadline = time.monotonic() + APPEAR_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
