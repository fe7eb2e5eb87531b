"""The cost of checking that artifacts are whole, and of flushing files to the disk before they are renamed.

    python -m benchmarks.artifact_checks           # an artifact of 2 GiB; needs as much free space
    python -m benchmarks.artifact_checks --quick   # of 64 MiB

Times are wall times, each the median of three.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from v2a_ray.engine.store import NOTES, ArtifactStore
from v2a_ray.files import replacing

CHECKPOINT_BYTES = 2**22
"""About the size of a policy of width 256 with its optimisers."""
PIECE = 2**24


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    size = 2**26 if parser.parse_args().quick else 2**31
    with tempfile.TemporaryDirectory(prefix="v2a-checks-") as folder:
        root = Path(folder)
        store = ArtifactStore(root)
        large = store.get_or_make("source", "large", lambda output, _: _fill(output / "rows", size), {})
        small = store.get_or_make("policy", "small", lambda output, _: _fill(output / "actor", 2**19), {})
        print(f"an artifact of {size / 2**30:g} GiB")
        print(f"  hashed                          {_median(lambda: _find(root, large.stage, large.key)):10.3f} s")
        print(
            f"  hashed less than an hour ago    {_median(lambda: ArtifactStore(root).find('source', 'large')):10.6f} s"
        )
        print("an artifact of 0.5 MiB")
        print(
            f"  in a process that has not seen it {_median(lambda: ArtifactStore(root).find('policy', 'small')):8.6f} s"
        )
        store.find(small.stage, small.key)
        print(f"  in one that has                 {_median(lambda: store.find('policy', 'small')):10.6f} s")
        print(f"a checkpoint of {CHECKPOINT_BYTES / 2**20:g} MiB")
        content = os.urandom(CHECKPOINT_BYTES)
        print(f"  written and brought to the disk {_median(lambda: _save(root / 'checkpoint', content)):10.6f} s")
        with patch.object(os, "fsync"):
            print(f"  written                         {_median(lambda: _save(root / 'checkpoint', content)):10.6f} s")


def _find(root: Path, stage: str, key: str) -> None:
    (root / NOTES / f"{stage}-{key}.json").unlink(missing_ok=True)
    assert ArtifactStore(root).find(stage, key)


def _save(path: Path, content: bytes) -> None:
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for begin in range(0, size, PIECE):
            file.write(os.urandom(min(PIECE, size - begin)))


def _median(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
