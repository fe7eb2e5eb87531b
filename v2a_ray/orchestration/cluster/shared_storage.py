"""Checks that the store is the same folder on every node: the driver and the nodes read each other's files.

Stages run on any node and exchange files. If each node had its own folder, a sweep would fail after hours with "no such
file", so the check comes before any computation. Nodes import this module to answer, so it imports little.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from v2a_ray.errors import StorageError
from v2a_ray.orchestration.cluster.join import alive_nodes, first_line, on_every_node

APPEAR_SECONDS = 3.0
"""Time for network storage to show a new file on the other nodes."""
REMEDY = "name storage that all nodes mount at the same path (NFS, EFS, Filestore, Lustre, ...), or run on one node"


@dataclass(frozen=True)
class Answer:
    """The answer of one node.

    Attributes:
        problems: folder to the problem with it on this node.
        written: the file that the node wrote into the probe of each folder without problems.
        absent: files and folders of the data that the node does not have.
    """

    problems: dict[str, str]
    written: list[str]
    absent: list[str]


def require_shared_storage(
    folders: Sequence[Path], data: Sequence[Path] = (), nodes: Collection[str] | None = None
) -> None:
    """Raise StorageError unless every node reads and writes the same `folders`. Does nothing on a single node.

    Args:
        folders: existing folders that this process can write to.
        data: files and folders that must be on all nodes or on none; the reader reports those that are on none.
        nodes: identities of the nodes to ask; by default all.
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
        answers = on_every_node(_visit, list(folders), token, list(data), nodes=nodes)
        good: dict[str, Answer] = {}
        for node, answer in answers.items():
            if isinstance(answer, Exception):
                what = f"cannot be asked: {first_line(answer)}"
                raise StorageError(what, where=f"node {node}", remedy=REMEDY) from answer
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
    """Runs on a node: read the driver's file, and write a file for the driver to read."""
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
    """The problem with a folder on this node, or None."""
    if not folder.is_dir():
        return "does not exist there"
    message = _probe(folder, token) / "driver"
    if not _appears(message):
        return "is another folder there: what this process writes does not appear, so the storage is not shared"
    return None if message.read_text() == token else "holds other content there"


def _probe(folder: Path, token: str) -> Path:
    return folder / f".probe-{token}"


def _appears(file: Path) -> bool:
    """Whether a file exists, or appears within `APPEAR_SECONDS`."""
    deadline = time.monotonic() + APPEAR_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
