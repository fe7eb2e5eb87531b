"""A sweep whose store and results are in object storage, against the same sweep on a disk.

The storage is moto's S3 server, in Python, in a process of its own on this machine: what is measured is what the way
through the protocol costs here, not what a network or Amazon would. Both sides find the columns that trials share.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.record import Result, interleaved, record
from benchmarks.sweep_overhead import Bench, end

TARGET = 0.7


@contextmanager
def s3_server(bucket: str) -> Iterator[None]:
    """An S3 server on loopback with one bucket; this process and those that it starts use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"})
    try:
        import fsspec

        for _ in range(60):
            time.sleep(1)
            try:
                fsspec.filesystem("s3").mkdir(bucket)
                break
            except Exception:  # not up yet
                continue
        yield
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few trials, once, no recording")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    count = 4 if given.quick else given.trials
    with tempfile.TemporaryDirectory() as name, s3_server("bench"):
        os.environ["V2A_CACHE"] = str(Path(name) / "cache")
        bench = Bench(Path(name))
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
        remote = ("s3://bench/results-{}", "s3://bench/store")
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
