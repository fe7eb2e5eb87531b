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

import hashlib
import importlib
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from v2a_ray.checksums import read_sealed, write_sealed
from v2a_ray.engine.store import Artifact, ArtifactStore
from v2a_ray.errors import ConfigError, StorageError
from v2a_ray.experiments.finished import SWEEP_FILE
from v2a_ray.experiments.plugins import sources_of
from v2a_ray.experiments.reading import store_of
from v2a_ray.experiments.sweep import Sweep, loggers_of, make_sweep
from v2a_ray.experiments.sweep_config import SweepConfig
from v2a_ray.files import sole_writer, write_whole
from v2a_ray.orchestration.cluster.capacity import may_have_several_nodes
from v2a_ray.orchestration.cluster.importable import Named, require_importable
from v2a_ray.orchestration.cluster.join import code_digest
from v2a_ray.orchestration.cluster.node_watch import NodeWatch, watching
from v2a_ray.orchestration.cluster.requirements import check_cluster, require_resources, shared_folders
from v2a_ray.orchestration.sweep.recorder import Recorder
from v2a_ray.orchestration.sweep.results import Results
from v2a_ray.orchestration.sweep.trials import as_json
from v2a_ray.orchestration.sweep.tuning import make_tuner, trial_resources, trial_workers
from v2a_ray.orchestration.train.compute import compute_all, failure_reason
from v2a_ray.orchestration.train.listener import Listener, Listeners
from v2a_ray.orchestration.train.metrics import MetricsListener
from v2a_ray.orchestration.train.status import StatusFile
from v2a_ray.orchestration.train.tracking import Tracking
from v2a_ray.orchestration.train.work import Work
from v2a_ray.outputs import storage_errors
from v2a_ray.report.result_tables import TrialResult
from v2a_ray.report.trackers import TENSORBOARD, require_trackers
from v2a_ray.result_folders import address_of
from v2a_ray.settings.yaml_files import read_yaml, validate

if TYPE_CHECKING:
    from v2a_ray.orchestration.sweep.search import Suggestions

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

    A failed trial does not stop the other trials, nor does a failed stage stop those that do not need it. Raises
    ConfigError when the folder holds another sweep, and StorageError when a disk is full or another process runs the
    sweep.
    """
    loggers = loggers_of(sweep)
    require_trackers(loggers)
    mine = listener or Listener()
    with (
        sole_writer(folder),
        StatusFile(folder, "sweep", sweep.name) as status,
        Tracking(folder, [TENSORBOARD, *loggers], mine.warned) as tracking,
    ):
        return _run(sweep, folder, Listeners([mine, status, MetricsListener(sweep.name)]), tracking)


def _suggestions(sweep: Sweep, folder: Path, common: Mapping[str, Any]) -> Suggestions:
    # Optuna is an extra, which a grid does not need.
    from v2a_ray.orchestration.sweep.search import Suggestions

    return Suggestions(sweep, folder, common)


def _run(sweep: Sweep, folder: Path, listener: Listener, tracking: Tracking) -> list[TrialResult]:
    asked, where = trial_resources(sweep), "policy.num_threads, policy.num_workers, resources.gpus_per_trial"
    require_resources(asked, where, listener.warned, count=trial_workers(sweep))
    store = store_of(sweep.trials[0].config)
    store.prepare()
    if sweep.config.scheduler.is_population and address_of(folder) and may_have_several_nodes():
        raise ConfigError(
            "members of a population exchange checkpoints in the results folder, and it is in object storage",
            where="scheduler.kind",
            remedy="--run-dir in a folder that all nodes mount, or a cluster of one node",
        )
    _claim(sweep, folder)
    upstream = upstream_works(sweep)
    check_cluster(store, folder, upstream, listener.warned)
    listener.planned("stages", len(upstream), "a free core", f"{sweep.num_trials:,} policies")
    named = Named.by(trial.config for trial in sweep.trials)
    with watching(shared_folders(store, folder), listener.warned, named) as watch:
        # A search needs every cell, and so does a population.
        failed: dict[str, Exception] | None = None if sweep.suggests or sweep.config.scheduler.is_population else {}
        artifacts = compute_all(upstream, store, listener, watch, failed)
        hopeless = _without_inputs(sweep, failed or {})
        if hopeless and all(trial.plan["policy"].key in hopeless for trial in sweep.trials):
            raise next(iter(hopeless.values()))
        listener.planned("policies", sweep.num_trials, _waits_for(sweep, asked))
        return _compute_policies(sweep, folder, store, artifacts, hopeless, listener, tracking, watch)


def _without_inputs(sweep: Sweep, failed: Mapping[str, Exception]) -> dict[str, Exception]:
    """Policies, by key, that need a failed node, and its error."""
    plans = [trial.plan for trial in sweep.trials]
    found = ((plan["policy"].key, node.key) for plan in plans for node in plan.values() if node.key in failed)
    return {policy: failed[key] for policy, key in found}


def _compute_policies(
    sweep: Sweep,
    folder: Path,
    store: ArtifactStore,
    artifacts: Mapping[str, Artifact],
    hopeless: Mapping[str, Exception],
    listener: Listener,
    tracking: Tracking,
    watch: NodeWatch,
) -> list[TrialResult]:
    """Train the policies that are not in the store, but for the `hopeless` ones, whose inputs failed (by key)."""
    progress_actor = f"v2a-sweep-{uuid.uuid4()}"
    plugins = sorted({path for trial in sweep.trials for path in trial.config.plugins})
    common: dict[str, Any] = {"folder": str(folder), "progress_actor": progress_actor, "code": code_digest()}
    if plugins:
        common["plugins"] = plugins
    search = _suggestions(sweep, folder, common) if sweep.suggests else None
    results = Results(sweep, folder, store, search.trials if search else lambda: sweep.trials, tracking)
    results.computed |= {key for key, artifact in artifacts.items() if not artifact.cached}
    recorder = Recorder(results, listener, watch)
    missing = []
    with results.looking_at(results.trials()):
        for number, trial in enumerate(results.trials()):
            if results.finished(trial):
                with storage_errors(folder):
                    recorder.tell_finished(trial, found=True)
            elif results.over(trial):
                recorder.tell_stopped(trial)
            elif error := hopeless.get(trial.plan["policy"].key):
                with storage_errors(folder):
                    recorder.fail(trial.plan["policy"].key, f"a stage that it needs failed: {failure_reason(error)}")
            elif not search:
                missing.append(number)
    if missing or (search and search.num_left > 0):
        require_importable(watch.named)
        _train(sweep, folder, missing, common, recorder, search, watch)
    with storage_errors(folder):
        final = results.refresh()
    _remove_checkpoints(results, store)
    return final


def require_same_sweep(sweep: Sweep, folder: Path) -> None:
    """Raise ConfigError when the folder holds another sweep."""
    _require_same(_identity(sweep), folder)


def _require_same(content: Mapping[str, Any], folder: Path) -> None:
    held = None
    with suppress(OSError, ValueError):  # a damaged file identifies no sweep, and is written again
        held = read_sealed(folder / TRIALS_FILE)
    if held and {name: held.get(name) for name in content} != content:
        raise ConfigError(
            "the folder holds a sweep with other trials",
            where=str(folder),
            remedy="choose another folder with --run-dir; finished trials are reused from the artifact store anyway",
        )


def _identity(sweep: Sweep) -> dict[str, Any]:
    """Equal for equal sweeps; the number of a search's draws may differ, and where policies are logged."""
    drawn = sweep.config.search.model_dump(mode="json", exclude={"num_trials"}) if sweep.config.search else None
    digest = hashlib.sha256()
    for trial in sweep.trials:
        digest.update(as_json(trial, without={"loggers", "film_seconds"}).encode() + b"\n")
    return {"num_trials": len(sweep.trials), "digest": digest.hexdigest(), "search": drawn}


def _claim(sweep: Sweep, folder: Path) -> None:
    """Write the sweep's files into `folder`, unless it holds another sweep (ConfigError)."""
    identity = _identity(sweep)
    _require_same(identity, folder)
    with storage_errors(folder):
        write_sealed(folder / TRIALS_FILE, {"name": sweep.name, **identity})
        write_whole(folder / SWEEP_FILE, yaml.safe_dump(sweep.content, sort_keys=False))


def upstream_works(sweep: Sweep) -> list[Work]:
    """What is computed before the policies, each once, with a title where several have one name."""
    users: dict[str, tuple[Work, list[dict[str, str]]]] = {}
    for trial in [*sweep.trials, *sweep.probes]:
        for node in trial.plan.values():
            if node.stage != "policy":
                users.setdefault(node.key, (Work(trial.config, trial.plan, node), []))[1].append(trial.labels)
    names = Counter(work.node.name for work, _ in users.values())
    varying = {axis for axis, labels in sweep.axes.items() if len(labels) > 1}
    works = []
    for work, labels in users.values():
        first = labels[0]
        common = [f"{axis}={first[axis]}" for axis in varying if all(each[axis] == first[axis] for each in labels)]
        apart = ", ".join(sorted(common)) or work.node.key[:6]
        works.append(replace(work, title=f"{work.node.name} [{apart}]") if names[work.node.name] > 1 else work)
    return works


def _waits_for(sweep: Sweep, asked: Mapping[str, float]) -> str:
    """What a policy waits for that could be trained."""
    if sweep.config.resources.max_concurrent_trials:
        return f"a place of {sweep.config.resources.max_concurrent_trials} (resources.max_concurrent_trials)"
    return "a free GPU" if "GPU" in asked else "a free core"


def _train(
    sweep: Sweep,
    folder: Path,
    missing: Sequence[int],
    common: dict[str, Any],
    recorder: Recorder,
    search: Suggestions | None,
    watch: NodeWatch,
) -> None:
    """Run Tune over the trials with the numbers `missing`, or over the suggestions of `search`."""
    # The tables' intervals need it. Tune's workers start meanwhile; at the first table they would wait for it.
    threading.Thread(target=importlib.import_module, args=("scipy.stats",), daemon=True).start()
    tuner = make_tuner(sweep, folder, missing, common, [recorder], recorder.stopper, search)
    with recorder.listening(common["progress_actor"], sources_of(common.get("plugins", []))):
        tuner.fit()
    watch.raise_problem()
    if recorder.stopper.reason:
        with suppress(OSError):
            recorder.results.refresh()
        raise StorageError(
            recorder.stopper.reason,
            remedy="free space, or choose another store or --run-dir; the same command goes on where it stopped",
        )


def _remove_checkpoints(results: Results, store: ArtifactStore) -> None:
    """Remove the checkpoints of trials that a scheduler ended; these trials are not resumed."""
    with results.looking_at(results.trials()):
        for trial in results.trials():
            if results.over(trial):
                store.discard_work("policy", trial.plan["policy"].key)
