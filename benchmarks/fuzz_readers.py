"""Reads randomly changed files of every format: each must give a whole table or one message.

    python -m benchmarks.fuzz_readers                 # 10,000 files
    python -m benchmarks.fuzz_readers --files 500     # fewer

A worker process with 4 GiB of address space reads the files, and an audit hook records every file that it opens for
writing, renames or removes. A file that takes over 10 s of CPU, or 120 s, is a hang; a process that ends is a crash;
any result but a table or a `V2AError` is a traceback; and a process that had over 2 GiB in memory is counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import V2AError
from v2a_ray.settings.yaml_files import read_yaml

ADDRESS_SPACE, MAX_RESIDENT = 4 * 2**30, 2 * 2**30
MAX_CPU_SECONDS, MAX_SECONDS = 10.0, 120.0
"""Of one file. What a busy machine adds is no hang, and who waits for a pipe takes no CPU."""
FORMATS = ("d4rl", "npz", "minari", "rllib", "rllib-columns", "parquet")
YAML = "name: a\nmethod: iql\nsources:\n  - &s {domain: hopper/stock, num_transitions: 100}\n  - *s\nseed: 1\n"
FAILURES = ("traceback", "hang", "crash", "write outside")


def small_table() -> EpisodeTable:
    """Two episodes of 8 and 5 steps of random numbers."""
    generator = np.random.default_rng(0)
    observation = generator.normal(size=(15, 3)).astype(np.float32)
    kept = np.delete(np.arange(15), [8, 14])
    return EpisodeTable(
        observation=observation[kept],
        action=generator.uniform(-1, 1, (13, 2)).astype(np.float32),
        reward=generator.normal(size=13).astype(np.float32),
        next_observation=observation[kept + 1],
        offsets=np.asarray([0, 8, 13]),
        terminated=np.asarray([True, False]),
        truncated=np.asarray([False, True]),
        **dict.fromkeys(("source", "domain", "behavior"), ("a", "a")),
        episode_id=("0", "1"),
    )


def seeds(folder: Path) -> dict[str, Path]:
    """One valid dataset or settings file per reader."""
    table, found = small_table(), {}
    for name in FORMATS:
        found[name] = folder / {"d4rl": "d4rl.hdf5", "npz": "npz.npz"}.get(name, name)
        export_table(table, found[name], format=name)
    for name, groups in (("d4rl group", ("data",)), ("d4rl trajectories", ("traj_0", "traj_1"))):
        found[name] = folder / f"{name}.hdf5"
        with h5py.File(found["d4rl"]) as flat, h5py.File(found[name], "w") as file:
            for group in groups:
                for key in flat:
                    flat.copy(key, file.require_group(group))
    found["yaml"] = folder / "yaml.yaml"
    found["yaml"].write_text(YAML)
    return found


def mutate(path: Path, generator: random.Random) -> str:
    """Change one file of a dataset, and return a description of the change."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    file = generator.choice(files)
    structured: dict[str, Callable[[Path, random.Random], None]] = {
        ".hdf5": _change_hdf5,
        ".npz": _change_npz,
        ".parquet": _change_parquet,
        ".json": _change_json,
        ".yaml": _change_yaml,
    }
    if file.suffix in structured and generator.random() < 0.5:
        structured[file.suffix](file, generator)
        return "structure"
    content = bytearray(file.read_bytes())
    kind = generator.choice(["flip", "cut", "length", "swap", "name"])
    at = generator.randrange(max(1, len(content) - 8))
    if kind == "flip":
        for _ in range(generator.randint(1, 20)):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "length":
        content[at : at + 8] = generator.choice([2**31 - 1, 2**40, 2**63 - 1, 0]).to_bytes(8, "little")
    elif kind == "swap":
        content[at : at + 16] = content[: generator.randint(0, 32)]
    else:
        name = generator.choice([b"observations", b"rewards", b"obs", b"actions", b"name", b"seed"])
        content = content.replace(name, generator.randbytes(len(name)))
    file.write_bytes(content)
    return kind


def _change_hdf5(path: Path, generator: random.Random) -> None:
    """Rename an array, or replace it (or all) by one of another type or of an enormous shape."""
    with h5py.File(path, "a") as file:
        keys: list[str] = []
        file.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
        every = generator.random() < 0.5
        rows = generator.choice([0, 14, 10**6, 10**10, 10**15])
        kind = generator.choice(["f2", "f8", "i8", "S4", "c8", "f4"])
        for key in keys if every else [generator.choice(keys)]:
            if not every and generator.random() < 0.3:
                file.move(key, generator.choice(["x", "[/x]", "\x1b[31m", "episode_²"]))
                continue
            shape = (rows, *file[key].shape[1:])
            del file[key]
            file.create_dataset(key, shape, kind, chunks=(64, *shape[1:]), maxshape=(None, *shape[1:]))


def _change_npz(path: Path, generator: random.Random) -> None:
    """Rename an array, or give it another type or shape."""
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    key = generator.choice(list(arrays))
    values = arrays.pop(key)
    new = generator.choice([values.T, values[:-1], values.astype("S4"), values * 1j, values[..., None], values[:0]])
    arrays[generator.choice([key, "x", "[/x]", "\x1b[31m"])] = new
    np.savez(path, **arrays)


def _change_parquet(path: Path, generator: random.Random) -> None:
    """Rename, drop or repeat a column, give it another type, take some or all of its rows or values away."""
    table = pq.read_table(path)
    index = generator.randrange(table.num_columns)
    name, column = table.column_names[index], table.column(index)
    kind = generator.choice(["rename", "drop", "twice", "type", "nulls", "inner nulls", "shorter lists", "no rows"])
    if kind == "no rows":
        table = table.slice(0, 0)
    elif kind in ("rename", "twice"):
        other = generator.choice(["x", "[/x]", "\x1b[31m", name])
        table = (table.drop_columns(name) if kind == "rename" else table).append_column(other, column)
    elif kind == "drop":
        table = table.drop_columns(name)
    else:
        values = column.to_pylist()
        row = generator.randrange(len(values)) if values else 0
        if kind == "type":
            strange = [["a"], {"a": 1}, "a", 2**62, b"\xff", 1.5, [[[1.0]]], True]
            values = [generator.choice(strange)] * len(values)
        elif kind == "nulls":
            values[row : row + 1] = [None] if values else []
        else:
            values = [_shortened(value, None if kind == "inner nulls" else ...) for value in values]
        table = table.set_column(index, name, pa.array(values))
    pq.write_table(table, path)


def _shortened(value: Any, last: Any) -> Any:
    """A list without its last element, or with `last` there; what is no list stays as it is."""
    if not isinstance(value, list) or not value:
        return value
    return value[:-1] if last is ... else [*value[:-1], last]


STRANGE: tuple[Any, ...] = (None, True, -1, 10**30, 1e308, "", "[/x]", "\x1b[31m", [], {}, [[]], "../../x")


def _change_json(path: Path, generator: random.Random) -> None:
    """Give an entry of a JSON file another type, name or an enormous value."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return
    path.write_text(json.dumps(_one_changed(content, generator)))


def _change_yaml(path: Path, generator: random.Random) -> None:
    """The same for settings; or nest, alias or lengthen one beyond all measure."""
    kind = generator.choice(["value", "deep", "aliases", "digits"])
    if kind == "value":
        path.write_text(yaml.safe_dump(_one_changed(yaml.safe_load(path.read_text()), generator)))
    elif kind == "deep":
        path.write_text("a: " + "[" * 10**5)
    elif kind == "aliases":
        levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) or 1}]\n" for i in range(1, 30))
        path.write_text("a0: &a0 [1]\n" + levels)
    else:
        path.write_text(f"seed: {'9' * 10**6}\n")


def _one_changed(content: Any, generator: random.Random) -> Any:
    """`content` with one entry, at any depth, replaced or renamed."""
    if isinstance(content, dict) and content and generator.random() < 0.9:
        key = generator.choice(sorted(content))
        rest = {each: value for each, value in content.items() if each != key}
        if generator.random() < 0.2:
            return {**rest, generator.choice(["x", "[/x]", "\x1b[31m"]): content[key]}
        return {**rest, key: _one_changed(content[key], generator)}
    if isinstance(content, list) and content and generator.random() < 0.9:
        index = generator.randrange(len(content))
        return [*content[:index], _one_changed(content[index], generator), *content[index + 1 :]]
    return generator.choice(STRANGE)


def read_what_comes() -> None:
    """The worker: reads paths from its input, and answers each with a line of JSON."""
    written: list[str] = []
    # Libraries that are imported on first use may write their caches; readers are not to blame for that.
    for path in json.loads(sys.stdin.readline()):
        _read(Path(path))
    print(json.dumps("ready"), flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            written.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    for line in sys.stdin:
        written.clear()
        try:
            _read(Path(json.loads(line)))
            outcome, detail = "table", ""
        except V2AError:
            outcome, detail = "message", ""
        except Exception as error:
            outcome, detail = "traceback", f"{type(error).__name__}: {str(error)[:150]}"
        if written:
            outcome, detail = "write outside", written[0]
        print(json.dumps([outcome, detail, _most_resident()]), flush=True)


def _most_resident() -> int:
    """Bytes. `getrusage` would count what the parent held when it forked this process."""
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak) * 1024


def _read(path: Path) -> None:
    if path.suffix == ".yaml":
        read_yaml(path)
        return
    table = read_table(path).table
    assert table.num_transitions == table.offsets[-1] and np.isfinite(table.observation).all()


class Worker:
    """A process that reads files, started again when it has ended."""

    def __init__(self, valid: list[str]) -> None:
        self.valid = valid
        self.process: Any = None

    def read(self, path: Path) -> tuple[str, str, int]:
        """The outcome, what is known of it, and the most bytes the process had in memory."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.fuzz_readers", "--worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            self._send(self.valid)
            self._answer(self.process, MAX_SECONDS)
            self.process.stdout.readline()  # that its imports are done
        self._send(str(path))
        ready = self._answer(self.process, MAX_CPU_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return tuple(json.loads(line))
        self.close()
        return ("crash" if ready else "hang"), "", 0

    @staticmethod
    def _answer(process: Any, max_cpu_seconds: float) -> bool:
        """Wait until a line can be read, or the process has ended; false when that takes too long."""

        def spent() -> float:
            times = psutil.Process(process.pid).cpu_times()
            return times.user + times.system

        begun, before = time.monotonic(), spent()
        while not select.select([process.stdout], [], [], 1.0)[0]:
            if spent() - before > max_cpu_seconds or time.monotonic() - begun > MAX_SECONDS:
                return False
        return True

    def _send(self, value: object) -> None:
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.process = None


def fuzz(files: int, seed: int, kept: Path | None = None) -> Iterator[tuple[str, str, str, str, int]]:
    """Reader, mutation, outcome, detail and resident bytes of each file; those that fail are copied to `kept`."""
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        (root := Path(folder) / "valid").mkdir()
        valid = seeds(root)
        worker = Worker([str(path) for path in valid.values()])
        for number in range(files):
            name, original = list(valid.items())[number % len(valid)]
            path = Path(folder) / original.name
            (shutil.copytree if original.is_dir() else shutil.copyfile)(original, path)
            kind = mutate(path, generator)
            outcome, detail, resident = worker.read(path)
            yield name, kind, outcome, detail, resident
            if outcome in FAILURES and kept:
                kept.mkdir(parents=True, exist_ok=True)
                path.rename(kept / f"{number}-{original.name}")
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        worker.close()


def main() -> None:
    """Print counts per reader, and every failure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that fail")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        read_what_comes()
        return
    counts: Counter[tuple[str, str]] = Counter()
    failures: Counter[str] = Counter()
    most = 0
    for name, kind, outcome, detail, resident in fuzz(options.files, options.seed, options.keep):
        counts[name, outcome] += 1
        most = max(most, resident)
        if outcome in FAILURES:
            failures[f"{name} · {kind}: {outcome} {detail}"] += 1
    statuses = ("table", "message", *FAILURES)
    print(f"| reader | {' | '.join(statuses)} |\n|{' --- |' * (len(statuses) + 1)}")
    for name in dict.fromkeys(name for name, _ in counts):
        print(f"| {name} | {' | '.join(str(counts[name, outcome]) for outcome in statuses)} |")
    over = " (over 2 GiB)" if most > MAX_RESIDENT else ""
    print(f"\n{sum(counts.values()):,} files; most memory of a process: {most / 2**20:,.0f} MiB{over}")
    for text, count in failures.most_common():
        print(f"{count} × {text}")
    sys.exit(bool(failures) or most > MAX_RESIDENT)


if __name__ == "__main__":
    main()
