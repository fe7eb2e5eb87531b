"""A sweep whose store and results are in object storage, against the same sweep on a disk.

The storage is moto's S3 server, in Python, in a process of its own on this machine: what is measured is what the way
through the protocol costs here, not what a network or Amazon would. Both sides find the columns that trials share.

`--requests` counts instead what is asked of the storage, which does not depend on the machine: for one small artifact
that is made, found and read, and for a sweep.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.record import Result, interleaved, record
from benchmarks.sweep_overhead import Bench, end
from v2a_ray.engine.stores import open_store
from v2a_ray.objects import cache_root

TARGET = 0.7
BUCKET = "bench"
OPERATIONS = ("GET", "PUT", "LIST", "HEAD", "DELETE")
_REQUEST = re.compile(r'"(GET|PUT|HEAD|POST|DELETE) /bench([^ ]*) HTTP')
_LISTED = re.compile(r"list-type=2&prefix=([^&]*)")


class S3Server:
    """moto's S3 server on loopback with one bucket; this process and those that it starts use it."""

    def __init__(self, log: Path) -> None:
        self.log, self._seen = log, 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ.update(keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})

    def make_bucket(self) -> None:
        """Wait for the server, and make the bucket."""
        import fsspec

        for _ in range(60):
            time.sleep(1)
            try:
                fsspec.filesystem("s3").mkdir(BUCKET)
                break
            except Exception:  # not up yet
                continue
        self.requests()

    def requests(self) -> Counter[tuple[str, str]]:
        """Requests since the last call, by what they are about and operation."""
        with self.log.open() as file:
            file.seek(self._seen)
            lines = file.readlines()
            self._seen = file.tell()
        return Counter(_about(found[1], found[2]) for line in lines if (found := _REQUEST.search(line)))


def _about(method: str, path: str) -> tuple[str, str]:
    """What a request is about, and its operation."""
    if method == "POST":
        return "removals", "DELETE"
    listed = _LISTED.search(path)
    operation = "LIST" if listed else method
    parts = (listed[1] if listed else path.lstrip("/").partition("?")[0]).split("/")
    if parts[0] == "store":
        return (parts[1] if len(parts) > 1 and parts[1] in ("records", "leases", "work") else "files"), operation
    inside = parts[1] if len(parts) > 1 else ""
    return {"tune": "Tune's state", ".lease": "lease of results"}.get(inside, "results"), operation


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """The server while the block runs."""
    server = S3Server(log)
    try:
        server.make_bucket()
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def artifact_requests(server: S3Server) -> None:
    """Print what one artifact of four small files takes."""

    def fill(output: Path, work: Path) -> None:
        for number in range(4):
            (output / f"part-{number}").write_text(f"{number}" * 1000)

    address = f"s3://{BUCKET}/store"
    open_store(address).get_or_make("policy", "key", fill, {})
    _say("an artifact is made", server.requests())
    open_store(address).find("policy", "key")
    _say("it is found by another process of the node", server.requests())
    shutil.rmtree(cache_root())
    open_store(address).find("policy", "key")
    _say("it is read on another node", server.requests())
    open_store(address).find("policy", "none")
    _say("one is looked for that is not there", server.requests())


def _say(what: str, counts: Counter[tuple[str, str]]) -> None:
    by_operation = Counter[str]()
    for (_, operation), count in counts.items():
        by_operation[operation] += count
    cells = [str(by_operation[operation]) for operation in OPERATIONS]
    print(f"| {what} | {' | '.join(cells)} | {counts.total()} |", flush=True)


def count_requests(bench: Bench, server: S3Server, count: int) -> None:
    """Print a table in Markdown."""
    print(f"| | {' | '.join(OPERATIONS)} | all |\n|{' --- |' * (len(OPERATIONS) + 2)}")
    artifact_requests(server)
    store = f"store=s3://{BUCKET}/store"
    end(bench.sweep(f"axes.seed={bench.seeds(1)}", store, run=f"s3://{BUCKET}/results-0"))  # the columns
    server.requests()
    end(bench.sweep(f"axes.seed={bench.seeds(count)}", store, run=f"s3://{BUCKET}/results-1"))
    counts = server.requests()
    for about in sorted({about for about, _ in counts}):
        _say(f"sweep of {count}: {about}", Counter({each: n for each, n in counts.items() if each[0] == about}))
    _say(f"sweep of {count}", counts)


def main() -> None:
    """Measure both in turn, or count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few trials, once, no recording")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--requests", action="store_true", help="count requests, measure no time")
    given = parser.parse_args()
    count = 4 if given.quick else given.trials
    with tempfile.TemporaryDirectory() as name, s3_server(Path(name) / "server.log") as server:
        os.environ["V2A_CACHE"] = str(Path(name) / "cache")
        bench = Bench(Path(name))
        if given.requests:
            count_requests(bench, server, count)
            return
        runs = iter(range(10**6))

        def seconds_per_trial(place: str, store: str) -> float:
            """From the command to its end, without what a sweep of one trial takes: Ray's start and the columns."""

            def timed(num_trials: int) -> float:
                start = time.monotonic()
                where = place.format(next(runs))
                end(bench.sweep(f"axes.seed={bench.seeds(num_trials)}", f"store={store}", run=where))
                return time.monotonic() - start

            return (timed(count + 1) - timed(1)) / count

        disk = ("disk-{}", str(bench.store.root))
        remote = (f"s3://{BUCKET}/results-{{}}", f"s3://{BUCKET}/store")
        for place, store in (disk, remote):
            end(bench.sweep(f"axes.seed={bench.seeds(1)}", f"store={store}", run=place.format(next(runs))))
        measured = interleaved(
            lambda: seconds_per_trial(*remote),
            lambda: seconds_per_trial(*disk),
            1 if given.quick else given.repetitions,
            less_is_better=True,
        )
    name = f"a trivial trial in object storage (moto on loopback), {count} of them, against a disk"
    record([Result(name, *measured[:2], "s/trial", measured[2], TARGET)], write=not given.quick)


if __name__ == "__main__":
    main()
