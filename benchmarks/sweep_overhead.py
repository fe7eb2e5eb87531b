"""The overhead of a sweep besides training: compared with bare Ray Tune, over many trials, and when it is resumed.

Trials are minimal: one update step of a tiny policy, one evaluation episode, columns that are in the store. Everything
is measured from outside, through `v2a sweep` and its artifacts, so that every part of the engine counts.

- per trial: the time from the first policy to the last divided by their number, so that starting Ray does not count.
  Bare Tune makes the same policies with a trainable of ten lines.
- bookkeeping: the time per trial in the last quarter of a long sweep, compared with the first quarter.
- upstream: how often artifacts before the policies were computed, compared with their number, in a sweep that is
  interrupted and resumed.
- resume: seconds from the command to the first policy that is begun.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import Result, interleaved, record
from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.stage import artifact_kinds
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.files import read_json, write_json
from v2a_ray.stages.registered import fit_of

OVERHEAD_TARGET = 1 / 1.3
BOOKKEEPING_TARGET = 1 / 1.5
UPSTREAM_TARGET = 1.0
RESUME_SECONDS = 30.0
NUM_CPUS = 2
ROOT = Path(__file__).parents[1]
POLL_SECONDS = 0.05


class Bench:
    """A folder with a sweep file and a store, and commands that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(folder / "store")
        self._seeds, self._runs = itertools.count(), itertools.count()
        settings = experiment(self.store.root)
        axes = {"method": ["igdf"], "seed": [0]}
        # Batched policies would make one trial of several.
        content = {"name": "trivial", "settings": settings, "axes": axes, "policies_per_trial": 1}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(content))

    def seeds(self, count: int) -> list[int]:
        """As many that no trial has had."""
        return list(itertools.islice(self._seeds, count))

    def sweep(self, *overrides: str, run: str | None = None) -> subprocess.Popen[str]:
        """`v2a sweep` in a process of its own."""
        name = run or f"run-{next(self._runs)}"
        command = ["-m", "v2a_ray.cli.main", "sweep", "sweep.yaml", *overrides, "--run-dir", name]
        return self._start(*command, "--num-cpus", str(NUM_CPUS))

    def bare(self, seeds: Sequence[int]) -> subprocess.Popen[str]:
        """The same trials by Tune alone."""
        path = self.folder / f"bare-{next(self._runs)}"
        path.mkdir()
        settings = experiment(self.store.root) | {"method": "igdf"}
        configs = [resolve(settings | {"seed": seed}).model_dump(mode="json") for seed in seeds]
        write_json(path / "trials.json", configs)
        return self._start("-m", "benchmarks.sweep_overhead", "--bare", str(path))

    def policies(self) -> dict[str, float]:
        """Key of every finished policy to the time at which it was."""
        files = self.store.root.glob("policy/*/artifact.json")
        return {file.parent.name: file.stat().st_mtime for file in files}

    def begun(self) -> set[str]:
        """Folders of policies that are finished or being made."""
        return {path.name for path in self.store.root.glob("policy/*") if not path.name.endswith(".work")}

    def num_upstream(self) -> int:
        """Artifacts of other stages."""
        others = (stage for stage in artifact_kinds() if stage != "policy")
        return sum(len(list(self.store.root.glob(f"{stage}/*/artifact.json"))) for stage in others)

    def finished(self, start: Callable[[], subprocess.Popen[str]]) -> list[float]:
        """Run a command to its end; the times at which the policies that it made were finished."""
        before = self.policies()
        end(start())
        return sorted(moment for key, moment in self.policies().items() if key not in before)

    def _start(self, *command: str) -> subprocess.Popen[str]:
        # Both may import `benchmarks`, which is not installed.
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def experiment(store: Path) -> dict[str, Any]:
    """Next to nothing to compute."""
    rolled_out = {"behavior": "random", "num_transitions": 300}
    return {
        "name": "trivial",
        "target": rolled_out | {"domain": "hopper/stock"},
        "sources": [rolled_out | {"domain": "hopper/gravity-0.5", "policy_domain": "hopper/stock"}],
        "store": str(store),
        # Trials differ by the policy alone: both sides find the columns.
        "upstream_seed": 0,
        "advantage": {"num_steps": 1, "width": 8},
        "alignment": {"num_steps": 1, "width": 8},
        "policy": {"num_steps": 1, "width": 8},
        "evaluation": {"num_episodes": 1, "interval_steps": 0},
    }


def end(process: subprocess.Popen[str]) -> str:
    """What a command printed, once it has ended well."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}:\n{output}")
    return output


def per_trial(moments: Sequence[float]) -> float:
    """Seconds from one finished policy to the next, on average."""
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def overhead(bench: Bench, num_trials: int, repetitions: int) -> Result:
    """Seconds per trial against bare Tune's; both find the columns."""

    def ours() -> float:
        seeds = bench.seeds(num_trials)
        return per_trial(bench.finished(lambda: bench.sweep(f"axes.seed={seeds}")))

    def reference() -> float:
        return per_trial(bench.finished(lambda: bench.bare(bench.seeds(num_trials))))

    measured = interleaved(ours, reference, repetitions, less_is_better=True)
    name = f"a trivial trial, {num_trials} of them, against bare Tune"
    return Result(name, *measured[:2], "s/trial", measured[2], OVERHEAD_TARGET)


def bookkeeping(bench: Bench, num_trials: int) -> Result:
    """Seconds per trial at the end of a long sweep against those at its beginning."""
    moments = bench.finished(lambda: bench.sweep(f"axes.seed={bench.seeds(num_trials)}"))
    quarter = max(2, num_trials // 4)
    first, last = per_trial(moments[:quarter]), per_trial(moments[-quarter:])
    name = f"last {quarter} of {num_trials} trials against the first {quarter}"
    return Result(name, last, first, "s/trial", first / last, BOOKKEEPING_TARGET)


def interrupted(bench: Bench, num_trials: int) -> list[Result]:
    """A sweep of two methods that is interrupted after a quarter of its policies and goes on."""
    grid = ("axes.method=[igdf,dvdf]", f"axes.seed={bench.seeds(num_trials // 2)}")
    before, upstream = bench.policies(), bench.num_upstream()
    process = bench.sweep(*grid, run="interrupted")
    while len(bench.policies()) - len(before) < num_trials // 4:
        if process.poll() is not None:
            end(process)
        time.sleep(POLL_SECONDS)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    begun, start = bench.begun(), time.monotonic()
    process = bench.sweep(*grid, run="interrupted")
    while bench.begun() <= begun and process.poll() is None:
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - start
    output += end(process)
    computed = [line for line in output.splitlines() if " computed " in line and "policy" not in line]
    made = bench.num_upstream() - upstream
    return [
        Result(
            f"upstream artifacts of {num_trials} trials, interrupted once, against times computed",
            len(computed),
            made,
            "computations",
            made / len(computed),
            UPSTREAM_TARGET,
        ),
        Result(
            f"an interrupted sweep of {num_trials} trials begins its next one, against {RESUME_SECONDS:.0f} s",
            seconds,
            RESUME_SECONDS,
            "s",
            RESUME_SECONDS / seconds,
            1.0,
        ),
    ]


def run_bare(folder: Path) -> None:
    """The policies of the experiments in `trials.json` with nothing but Tune."""
    from ray import tune

    from v2a_ray.orchestration.cluster.session import ray_session

    def train(settings: dict[str, Any]) -> None:
        config = ExperimentConfig.model_validate(read_json(folder / "trials.json")[settings["number"]])
        store, plan = ArtifactStore(Path(config.store or "")), make_plan(config)
        node = plan["policy"]
        inputs = {role: store.path(plan[name].stage, plan[name].key) for role, name in node.inputs.items()}
        artifact = store.get_or_make(
            "policy", node.key, lambda output, work: fit_of("policy", config)(Job(config, inputs, output, work)), {}
        )
        evaluation = read_json(artifact.path / "evaluation.json")
        tune.report({"normalized_score_mean": evaluation["normalized_score_mean"]})

    numbers = list(range(len(read_json(folder / "trials.json"))))
    with ray_session(NUM_CPUS):
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"number": tune.grid_search(numbers)},
            # Like ours, a process serves many trials; otherwise we would measure only the start of processes.
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(name="bare", storage_path=str(folder), verbose=0),
        ).fit()


def main() -> None:
    """Measure all four; about twenty minutes on two idle cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few trials each, once, no recording")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.bare)
        return
    compared, many, resumed = (2, 4, 4) if arguments.quick else (20, 200, 40)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary))
        end(bench.sweep(f"axes.seed={bench.seeds(1)}"))  # the columns
        results = [
            overhead(bench, compared, 1 if arguments.quick else arguments.repetitions),
            bookkeeping(bench, many),
            *interrupted(bench, resumed),
        ]
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
