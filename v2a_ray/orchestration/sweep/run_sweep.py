"""A sweep with Ray Tune: upstream first, then trials that only train policies.

Every distinct upstream artifact (tables, modality, advantage, alignment) is computed once, as Ray tasks, before Tune
starts. The artifact store and the sweep's folder hold all finished work, so after a kill the same command continues
where the sweep stopped.

<folder>/sweep.yaml      the file merged with its base and overrides; `v2a sweep --resume` reads it
<folder>/trials.json     what identifies the sweep: the digest of all labels and configurations
<folder>/trial_status.jsonl  trials that left no artifact: ended early, or failed
<folder>/results.parquet one row per trial; like table.md and curves.png renewed while the sweep runs
<folder>/trials/NAME/    of every finished trial what `v2a run` leaves in its folder
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.tune import Callback, Stopper

from v2a_ray.checksums import read_sealed, write_sealed
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.engine.trainer import Metrics
from v2a_ray.errors import ConfigError, StorageError
from v2a_ray.experiments.finished import SWEEP_FILE
from v2a_ray.experiments.plugins import sources_of
from v2a_ray.experiments.reading import store_of
from v2a_ray.experiments.sweep import Sweep, Trial, make_sweep
from v2a_ray.experiments.sweep_config import SweepConfig
from v2a_ray.files import sole_writer, write_whole
from v2a_ray.orchestration.cluster.join import alive_nodes
from v2a_ray.orchestration.cluster.requirements import check_cluster, require_resources
from v2a_ray.orchestration.sweep.results import Results
from v2a_ray.orchestration.sweep.search import Suggestions
from v2a_ray.orchestration.sweep.trial_status import TrialStatus
from v2a_ray.orchestration.sweep.trials import as_json
from v2a_ray.orchestration.sweep.tuning import make_tuner, trial_resources, trial_workers
from v2a_ray.orchestration.train.compute import Listener, compute_all
from v2a_ray.orchestration.train.progress_actor import Event, make_progress_actor
from v2a_ray.orchestration.train.work import Work
from v2a_ray.outputs import storage_errors
from v2a_ray.report.result_tables import TrialResult
from v2a_ray.result_folders import address_of
from v2a_ray.settings.yaml_files import read_yaml, validate

TRIALS_FILE = "trials.json"


def open_sweep(folder: Path) -> Sweep:
    """Read the sweep in a folder, to resume it. Raises ConfigError when the folder holds none."""
    path = folder / SWEEP_FILE
    remedy = "v2a sweep CONFIG --run-dir DIR"
    if not path.exists():
        raise ConfigError("no sweep was started here", where=str(folder), remedy=remedy)
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(error.what, where=error.where, remedy=remedy) from None
    if not all(isinstance(content.get(part), dict) for part in ("sweep", "over")):
        raise ConfigError("not what a sweep leaves to be gone on with", where=str(path), remedy=remedy)
    return make_sweep(validate(SweepConfig, content["sweep"], path), path, content["over"])


def run_sweep(sweep: Sweep, folder: Path, listener: Listener | None = None) -> list[TrialResult]:
    """Compute upstream artifacts once, then all trials; write table, curves and results into `folder`.

    A failed trial does not stop the other trials. Raises ConfigError when the folder holds another sweep, and
    StorageError when a disk is full or another process runs the sweep.
    """
    with sole_writer(folder):
        return _run(sweep, folder, listener or Listener())


def _run(sweep: Sweep, folder: Path, listener: Listener) -> list[TrialResult]:
    asked, where = trial_resources(sweep), "policy.num_threads, policy.num_workers, resources.gpus_per_trial"
    require_resources(asked, where, listener.warned, count=trial_workers(sweep))
    store = store_of(sweep.trials[0].config)
    store.prepare()
    if sweep.config.scheduler.is_population and address_of(folder) and len(alive_nodes()) > 1:
        raise ConfigError(
            "members of a population exchange checkpoints in the results folder, and it is in object storage",
            where="scheduler.kind",
            remedy="--run-dir in a folder that all nodes mount, or a cluster of one node",
        )
    _claim(sweep, folder)
    upstream = {
        node.key: Work(trial.config, trial.plan, node)
        for trial in [*sweep.trials, *sweep.probes]
        for node in trial.plan.values()
        if node.stage != "policy"
    }
    check_cluster(store, folder, list(upstream.values()), listener.warned)
    artifacts = compute_all(list(upstream.values()), store, listener)
    progress_actor = f"v2a-sweep-{uuid.uuid4()}"
    plugins = sorted({path for trial in sweep.trials for path in trial.config.plugins})
    common = {"folder": str(folder), "progress_actor": progress_actor} | ({"plugins": plugins} if plugins else {})
    search = Suggestions(sweep, folder, common) if sweep.suggests else None
    results = Results(sweep, folder, store, search.trials if search else lambda: sweep.trials)
    results.computed |= {key for key, artifact in artifacts.items() if not artifact.cached}
    missing = []
    for number, trial in enumerate([] if search else sweep.trials):
        if results.finished(trial):
            _say_reused(trial, store, listener)
            with storage_errors(folder):
                results.publish(trial)
        elif not results.over(trial):
            missing.append(number)
    if missing or (search and search.num_left > 0):
        _train(sweep, folder, missing, common, results, listener, search)
    with storage_errors(folder):
        final = results.refresh_all()
    _remove_checkpoints(results, store)
    return final


def require_same_sweep(sweep: Sweep, folder: Path) -> None:
    """Raise ConfigError when the folder holds another sweep."""
    held = None
    with suppress(OSError, ValueError):  # a damaged file identifies no sweep, and is written again
        held = read_sealed(folder / TRIALS_FILE)
    content = _identity(sweep)
    if held and {name: held.get(name) for name in content} != content:
        raise ConfigError(
            "the folder holds a sweep with other trials",
            where=str(folder),
            remedy="choose another folder with --run-dir; finished trials are reused from the artifact store anyway",
        )


def _identity(sweep: Sweep) -> dict[str, Any]:
    """Equal for equal sweeps; the number of a search's draws may differ."""
    drawn = sweep.config.search.model_dump(mode="json", exclude={"num_trials"}) if sweep.config.search else None
    digest = hashlib.sha256()
    for trial in sweep.trials:
        digest.update(as_json(trial).encode() + b"\n")
    return {"num_trials": len(sweep.trials), "digest": digest.hexdigest(), "search": drawn}


def _claim(sweep: Sweep, folder: Path) -> None:
    """Write the sweep's files into `folder`, unless it holds another sweep (ConfigError)."""
    require_same_sweep(sweep, folder)
    with storage_errors(folder):
        write_sealed(folder / TRIALS_FILE, {"name": sweep.name, **_identity(sweep)})
        write_whole(folder / SWEEP_FILE, yaml.safe_dump(sweep.content, sort_keys=False))


def _say_reused(trial: Trial, store: ArtifactStore, listener: Listener) -> None:
    node = dataclasses.replace(trial.plan["policy"], name=trial.name)
    if artifact := store.find("policy", node.key):
        listener.done(node, artifact)


def _train(
    sweep: Sweep,
    folder: Path,
    missing: Sequence[int],
    common: dict[str, Any],
    results: Results,
    listener: Listener,
    search: Suggestions | None,
) -> None:
    """Run Tune over the trials with the numbers `missing`, or over the suggestions of `search`."""
    stopper = _StopWhenUnwritable()
    recorder = _Recorder(results, stopper)
    tuner = make_tuner(sweep, folder, missing, common, [recorder], stopper, search)
    with _listening(common, results, listener):
        grid = tuner.fit()
    for result in grid:
        if result.error:
            reason = str(result.error).strip().splitlines()[-1]
            for policy in recorder.policies(result.config or {}):
                results.statuses.add(TrialStatus(policy, "failed", reason))
    if stopper.reason:
        with suppress(OSError):
            results.refresh_all()
        raise StorageError(
            stopper.reason,
            remedy="free space, or choose another store or --run-dir; the same command goes on where it stopped",
        )


class _Recorder(Callback):
    """Writes results to disk as trials report."""

    def __init__(self, results: Results, stopper: _StopWhenUnwritable) -> None:
        self.results, self.stopper = results, stopper
        self.last: dict[str, Metrics] = {}
        """The newest evaluation of each running trial, by key of the policy."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """See `Callback`."""
        policy = result["policy"]
        if not {"failed", "finished"} & result.keys():
            names = ("step", "normalized_score_mean", "return_mean")
            self.last[policy] = {name: float(result[name]) for name in names if name in result}
            return
        self.last.pop(policy, None)
        with self._room():
            if "failed" in result:
                self.results.statuses.add(TrialStatus(policy, "failed", result["failed"]))
            else:
                self.results.computed.add(policy)
                for mine in self.results.of_policy(policy):
                    self.results.publish(mine)
            self.results.refresh(policy)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`. The scheduler ended a trial that reported neither its end nor a failure."""
        result = trial.last_result
        if result.get("policy") in self.last and not {"finished", "failed"} & result.keys():
            with self._room():
                self.results.statuses.add(
                    TrialStatus(result["policy"], "stopped", metrics=self.last.pop(result["policy"]))
                )
                self.results.refresh(result["policy"])

    @contextmanager
    def _room(self) -> Iterator[None]:
        """End the sweep if its folder cannot be written; Tune alone would show a traceback."""
        try:
            yield
        except OSError as error:
            self.stopper.reason = f"{self.results.folder}: cannot be written: {error.strerror or error}"

    def policies(self, settings: dict[str, Any]) -> list[str]:
        """Keys of the policies without an artifact that a Tune trial with these settings trains."""
        if "suggestion" in settings:
            number = f"{settings['suggestion']['number']:04d}"
            cell = self.results.sweep.trials[settings["trials"][0]].labels
            mine = [trial for trial in self.results.trials() if trial.labels == cell | {"suggestion": number}]
        else:
            numbers = [settings["member"]["number"]] if "member" in settings else settings["trials"]
            mine = [self.results.sweep.trials[number] for number in numbers]
        return [trial.plan["policy"].key for trial in mine if not self.results.over(trial)]

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and we never read that pickle.
        return {}


class _StopWhenUnwritable(Stopper):
    """Ends the sweep when a trial cannot write, because every other trial would fail in the same way."""

    reason = ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if result.get("unwritable"):
            self.reason = result["failed"]
        return False

    def stop_all(self) -> bool:
        """See `Stopper`."""
        return bool(self.reason)


@contextmanager
def _listening(common: Mapping[str, Any], results: Results, listener: Listener) -> Iterator[None]:
    """Hand the trials to Tune's processes, and pass their reports on to `listener`, while the block runs."""
    trials = [as_json(trial) for trial in results.sweep.trials]
    progress_actor = make_progress_actor(common["progress_actor"], sources_of(common.get("plugins", [])), trials)
    ray.get(progress_actor.drain.remote())
    stop = threading.Event()
    started: set[str] = set()

    def listen() -> None:
        while not stop.wait(0.5):
            try:
                events: list[Event] = ray.get(progress_actor.drain.remote())
            except ray.exceptions.RayError:
                return
            for event in events:
                if event.name not in started:
                    started.add(event.name)
                    listener.started(Node("policy", event.name, ""))
                listener.progressed(event)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)
        ray.kill(progress_actor)


def _remove_checkpoints(results: Results, store: ArtifactStore) -> None:
    """Remove the checkpoints of trials that a scheduler ended; these trials are not resumed."""
    for trial in results.trials():
        if results.over(trial):
            store.discard_work("policy", trial.plan["policy"].key)
