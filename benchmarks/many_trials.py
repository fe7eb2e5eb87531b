"""What a trial costs as sweeps grow: to plan it, to run it, and to find it finished when a sweep is resumed.

Trials are those of `sweep_overhead`: next to nothing to compute. Sweeps run as `v2a sweep` in a process of their own.

- plan: CPU seconds of `load_sweep` per trial, on one small source and on a mix of nine files.
- run: wall time per trial from the first finished policy to the last, CPU time of the driver alone per trial, and what
  its memory grew by per trial between a quarter and the end of the trials.
- resume: a store in which all policies are finished; their files are hard links to those of one policy, under the
  records and keys of their own. Twice: when the results folder is made for the first time, and from the complete one.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import yaml

from benchmarks.record import measured_on
from benchmarks.sweep_overhead import POLL_SECONDS, Bench, end, per_trial
from v2a_ray.checksums import read_sealed, sealed
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.settings.yaml_files import read_yaml

ROOT = Path(__file__).parents[1]
MIB = 2**20


def seeds(count: int) -> str:
    """The override for so many trials."""
    return f"axes.seed={list(range(count))}"


def nine_files(folder: Path) -> Path:
    """A sweep on a mix of nine data files, of which planning reads the digests alone."""
    settings = read_yaml(ROOT / "tune_configs" / "hopper_nine.yaml")
    del settings["name"]
    for number, part in enumerate([settings["target"], *settings["sources"]]):
        file = folder / f"{number}.hdf5"
        file.write_bytes(bytes([number]) * 2**20)
        part |= {"path": str(file)}
    content = {"name": "nine", "settings": settings | {"store": str(folder / "store")}, "axes": {"seed": [0]}}
    path = folder / "nine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def plan_seconds(path: Path, count: int) -> float:
    """CPU seconds per trial."""
    before = time.process_time()
    load_sweep(path, [seeds(count)])
    return (time.process_time() - before) / count


def run(bench: Bench, count: int) -> dict[str, float]:
    """A sweep of `count` new trials to its end."""
    before = set(bench.policies())
    process = bench.sweep(f"axes.seed={bench.seeds(count)}")
    driver, quarter, last = psutil.Process(process.pid), (0.0, 0), (0.0, 0)
    cpu = 0.0
    # Somebody has to read what it prints: a full pipe would stop it after some 700 trials.
    reader = ThreadPoolExecutor(1)
    said = reader.submit(process.communicate)
    # Whoever lists a folder of thousands of policies all the time slows down what is measured.
    while process.poll() is None:
        time.sleep(max(POLL_SECONDS, count / 500))
        finished = len(bench.begun()) - len(before)
        try:
            last = driver.memory_info().rss, finished
            cpu = sum(driver.cpu_times()[:2])
        except psutil.Error:
            break
        if finished >= count // 4 and not quarter[1]:
            quarter = last
    output, _ = said.result()
    reader.shutdown()
    if process.returncode:
        raise SystemExit(output)
    moments = sorted(moment for key, moment in bench.policies().items() if key not in before)
    grown, more = last[0] - quarter[0], last[1] - quarter[1]
    return {"wall": per_trial(moments), "driver": cpu / count, "memory": grown / more if more > 0 else float("nan")}


def finish_without_training(bench: Bench, count: int) -> None:
    """Policies of `count` trials in the store, made of one that was trained."""
    end(bench.sweep(seeds(1)))
    (trained,) = (file.parent for file in bench.store.root.glob("policy/*/artifact.json"))
    record = read_sealed(trained / "artifact.json")
    for trial in load_sweep(bench.folder / "sweep.yaml", [seeds(count)]).trials:
        key = trial.plan["policy"].key
        folder = trained.with_name(key)
        if folder.exists():
            continue
        folder.mkdir()
        for file in trained.iterdir():
            if file.name != "artifact.json":
                os.link(file, folder / file.name)
        # Not brought to the disk one by one, which is no part of what is measured.
        (folder / "artifact.json").write_text(json.dumps(sealed(record | {"key": key})))


def resume(bench: Bench, count: int) -> str:
    """Wall time of the whole command, and the CPU time of its driver."""
    before, start = os.times(), time.monotonic()
    said = end(bench.sweep(seeds(count), run="resumed"))
    seconds, after = time.monotonic() - start, os.times()
    # The command waits for its Ray, so this counts Ray's processes too.
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    assert said.count("reused") >= count and "computed" not in said, said[-2000:]
    return f"{seconds:.1f} s, CPU {cpu:.1f} s"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=int, nargs="*", default=[200, 2000, 10_000], metavar="TRIALS")
    parser.add_argument("--run", type=int, nargs="*", default=[200, 2000], metavar="TRIALS")
    parser.add_argument("--resume", type=int, nargs="*", default=[200, 2000, 10_000], metavar="TRIALS")
    parser.add_argument("--quick", action="store_true", help="a few trials each")
    given = parser.parse_args()
    if given.quick:
        given.plan, given.run, given.resume = [8], [8], [8]
    print(f"{measured_on()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.0f} at the start\n")
    print("| | trials | |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        _print_all(Path(name), given.plan, given.run, given.resume)


def _print_all(folder: Path, plans: Sequence[int], runs: Sequence[int], resumes: Sequence[int]) -> None:
    path, bench = nine_files(folder), Bench(folder)
    load_sweep(path), load_sweep(folder / "sweep.yaml")  # imports
    for count in plans:
        for words, file in (("one source", folder / "sweep.yaml"), ("nine files", path)):
            _say(f"plan, {words}, CPU", count, f"{1e3 * plan_seconds(file, count):.2f} ms a trial")
    if runs:
        end(bench.sweep(f"axes.seed={bench.seeds(1)}"))  # the columns
    for count in runs:
        cost = run(bench, count)
        _say("run, wall time", count, f"{cost['wall']:.3f} s a trial")
        _say("run, CPU of the driver", count, f"{1e3 * cost['driver']:.1f} ms a trial")
        _say("run, memory of the driver", count, f"{cost['memory'] / 1024:.0f} KiB a trial")
    for count in resumes:
        with tempfile.TemporaryDirectory() as name:
            other = Bench(Path(name))
            finish_without_training(other, count)
            _say("all found finished, results folder new", count, resume(other, count))
            _say("all found finished, resumed", count, resume(other, count))


def _say(what: str, count: int, value: str) -> None:
    print(f"| {what} | {count:,} | {value} |", flush=True)


if __name__ == "__main__":
    main()
