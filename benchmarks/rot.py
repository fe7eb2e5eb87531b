"""Flips, truncates, empties and removes every kind of file in a finished store, and computes the experiment again.

    python -m benchmarks.rot           # every kind of file and of harm; some ten minutes on two cores
    python -m benchmarks.rot --quick   # one file of every stage, flipped

A trial starts from a copy of a finished store and damages one file in one artifact of every stage: a bit in its middle
is flipped, its second half is cut off, its content is lost, or the file is missing. Then the experiment is computed
again, and every file of every artifact, the policy in the results and its evaluation are compared with the originals,
byte for byte. `repaired`: a warning named the artifact, or the stage with the ignored checkpoint, and the result is the
same. `same`: no warning, because the file is a note, a journal or a missing checkpoint.

Checkpoints and journals are damaged in a store whose stages were all interrupted half-way.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import chdir, suppress
from itertools import zip_longest
from pathlib import Path

from benchmarks.every_stage import CONFIG, RUN_DIR, Workspace, differences
from benchmarks.harm import HARMS
from v2a_ray.diagnosis.diagnose import diagnose
from v2a_ray.diagnosis.evidence import open_run
from v2a_ray.engine import store as artifacts
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.stage import STAGES, artifact_kinds
from v2a_ray.experiments.reading import load_experiment, store_of
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.data.collect import collect_data
from v2a_ray.orchestration.train.compute import make_stage
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.orchestration.train.run import run_experiment
from v2a_ray.orchestration.train.work import Work, input_paths

STEPS = 200
Kinds = dict[str, Path]
"""How a kind of file is called in the table, and one file of the kind, relative to the workspace."""
TrialStatusLog = dict[tuple[str, str], str]
"""Kind of file and harm to `repaired`, `same`, or `WRONG: ` with what is."""


class Heard(Listener):
    """Keeps the names of stages that left a damaged checkpoint, and the package's warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def progressed(self, event: Event) -> None:
        """See `Listener`."""
        if "discarded" in event.metrics:
            self.texts.append(event.name)

    def filter(self, record: logging.LogRecord) -> bool:
        """Of a logger: keep what it says."""
        self.texts.append(record.getMessage())
        return True


class HalfDoneError(Exception):
    """A stage was stopped half-way."""


def main() -> int:
    """Run the measure; the status is 0 if every result was the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="v2a-rot-") as folder, ray_session(num_cpus=2):
        statuses = measure(Path(folder), random.Random(given.seed), quick=given.quick)
    print(report(statuses))
    return 0 if {*statuses.values()} <= {"repaired", "same"} else 1


def measure(folder: Path, draw: random.Random, *, quick: bool) -> TrialStatusLog:
    """All trials."""
    finished = Workspace(folder / "finished", STEPS)
    compute(finished, Heard())
    expected = finished.fingerprint()
    statuses: TrialStatusLog = {}
    rounds = [dict(pair for pair in row if pair) for row in zip_longest(*kinds(finished, draw))]
    for harm in ["flipped"] if quick else HARMS:
        for harmed in rounds[:1] if quick else rounds:
            statuses |= trial(finished, harmed, harm, expected)
    if not quick:
        interrupted = Workspace(folder / "interrupted", STEPS)
        _copy(finished, interrupted)
        harmed = interrupt(interrupted)
        for harm in HARMS:
            statuses |= trial(interrupted, harmed, harm, expected)
    return statuses


def trial(origin: Workspace, harmed: Kinds, harm: str, expected: dict[str, str]) -> TrialStatusLog:
    """Harm files in a copy of `origin` and compute everything again."""
    place = Workspace(origin.folder.with_name("harmed"), STEPS)
    _copy(origin, place)
    for file in harmed.values():
        HARMS[harm](place.folder / file)
    heard, logger = Heard(), logging.getLogger(artifacts.__name__)
    logger.addFilter(heard.filter)
    try:
        compute(place, heard)
        wrong = differences(expected, place.fingerprint())
    except Exception as error:  # whatever it is, it is a finding
        wrong = [f"{type(error).__name__}: {error}"]
    finally:
        logger.removeFilter(heard.filter)
    shutil.rmtree(place.folder)
    found = {}
    for name, file in harmed.items():
        # store/<stage>/<key>/..., store/<stage>/<key>.work/..., or a file of the store's own
        key, stage = file.parts[2].partition(".")[0] if len(file.parts) > 2 else "", file.parts[1]
        said = any((key and key in text) or text.partition("/")[0] == stage for text in heard.texts)
        found[name, harm] = f"WRONG: {wrong}" if wrong else "repaired" if said else "same"
    print(harm, {name: outcome for (name, _), outcome in found.items()}, file=sys.stderr, flush=True)
    return found


def kinds(workspace: Workspace, draw: random.Random) -> list[list[tuple[str, Path]]]:
    """By stage, every kind of file with one drawn of the kind; the store's own notes come as one more stage."""
    of_kind: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(workspace.store.rglob("*")):
        if file.is_file():
            stage, *inner = file.relative_to(workspace.store).parts
            name = f"{stage}: {'/'.join(inner[1:])}" if len(inner) > 1 else f"{stage}: *.json" if inner else stage
            of_kind[stage if len(inner) > 1 else ""][name].append(file)
    order = [*artifact_kinds(), ""]
    return [
        [(name, draw.choice(files).relative_to(workspace.folder)) for name, files in sorted(of_kind[stage].items())]
        for stage in sorted(of_kind, key=order.index)
    ]


def interrupt(workspace: Workspace) -> Kinds:
    """Take every stage's artifact away and leave what it had when it was about half done."""

    def stop(step: int, num_steps: int, *_: object) -> None:
        # A checkpoint is written after the report of its step.
        if step > num_steps / 2:
            raise HalfDoneError

    with chdir(workspace.folder):
        config = load_experiment(Path(CONFIG), [])
        plan, store = make_plan(config), store_of(config)
        for node in reversed(plan.values()):
            shutil.rmtree(store.path(node.stage, node.key))
            with suppress(HalfDoneError):
                if node.stage == "data" and node.spec:
                    collect_data([node.spec], progress=stop, journals=[store.work("data", node.key)])
                elif node.stage in STAGES:
                    work = Work(config, plan, node)
                    make_stage(work, input_paths(work, store), store, stop)
    found = {}
    for file in sorted(workspace.store.glob("*/*.work/**/*")):
        if file.is_file():
            name = "part of a journal" if file.suffix == ".parquet" else file.name
            found[f"{file.relative_to(workspace.store).parts[0]}.work: {name}"] = file.relative_to(workspace.folder)
    return found


def compute(workspace: Workspace, listener: Listener) -> None:
    """What `v2a run` and `v2a diagnose` do."""
    with chdir(workspace.folder):
        config = load_experiment(Path(CONFIG), [])
        run_experiment(config, make_plan(config), Path(RUN_DIR), listener)
        diagnose(open_run(Path(RUN_DIR)), quick=False, max_rows=1000, progress=lambda *_: None)


def _copy(origin: Workspace, place: Workspace) -> None:
    """A copy, whose results name the artifacts of its own store."""
    shutil.rmtree(place.folder)
    shutil.copytree(origin.folder, place.folder)
    file = place.run_dir / "result.json"
    file.write_text(file.read_text().replace(str(origin.folder.resolve()), str(place.folder.resolve())))


def report(statuses: TrialStatusLog) -> str:
    """The table, as plain text."""
    harms = list(dict.fromkeys(harm for _, harm in statuses))
    lines = [f"{'file':<40}" + "".join(f"{harm:>11}" for harm in harms)]
    for name in dict.fromkeys(name for name, _ in statuses):
        cells = [statuses[name, harm].partition(":")[0] for harm in harms]
        lines.append(f"{name:<40}" + "".join(f"{cell:>11}" for cell in cells))
    totals = Counter(outcome.partition(":")[0] for outcome in statuses.values())
    lines.append(", ".join(f"{word}: {count}" for word, count in sorted(totals.items())))
    wrong = {f"{name} {harm}: {text}" for (name, harm), text in statuses.items() if text.startswith("WRONG")}
    return "\n".join([*lines, *sorted(wrong)])


if __name__ == "__main__":
    sys.exit(main())
