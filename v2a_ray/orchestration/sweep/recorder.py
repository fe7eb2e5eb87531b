"""What becomes of trials while Tune runs them: written to the sweep's folder, and told to the listener."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.tune import Callback, Stopper

from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.engine.trainer import Metrics
from v2a_ray.experiments.sweep import Trial
from v2a_ray.experiments.sweep_config import OBJECTIVES
from v2a_ray.orchestration.cluster.node_watch import NodeWatch
from v2a_ray.orchestration.sweep.results import Results
from v2a_ray.orchestration.sweep.trial_status import TrialStatus
from v2a_ray.orchestration.sweep.trials import as_json
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.orchestration.train.progress_actor import make_progress_actor


class Recorder(Callback):
    """Writes results to disk as trials report, and tells the listener what ended."""

    def __init__(self, results: Results, listener: Listener, watch: NodeWatch) -> None:
        self.results, self.listener = results, listener
        self.stopper = SweepStopper(watch)
        self.last: dict[str, Metrics] = {}
        """The newest evaluation of each running trial, by key of the policy."""
        self._told: set[str] = set()
        """Names of trials whose end was told; a retry may report an end again."""
        self._over: set[str] = set()
        """Keys of their policies, whose late events are dropped."""
        self._lock = threading.Lock()
        """Of the calls to the listener, which two threads make."""

    def tell_finished(self, trial: Trial, found: bool, seconds: float = 0.0) -> None:
        """Publish a finished trial, and say so. Raises OSError."""
        result = self.results.publish(trial)
        node = _shown(trial)
        there = self.results.store.find("policy", node.key)
        artifact = there or Artifact("policy", node.key, self.results.output(trial), seconds, found)
        self._tell(trial, partial(self.listener.done, node, replace(artifact, cached=found), result.score))

    def tell_stopped(self, trial: Trial) -> None:
        """Say that a scheduler ended the trial."""
        outcome = self.results.statuses.by_policy[trial.plan["policy"].key]
        self._tell(trial, partial(self.listener.stopped, _shown(trial), outcome.metrics["step"]))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """See `Callback`."""
        policy = result["policy"]
        if not {"failed", "finished"} & result.keys():
            self.last[policy] = {name: float(result[name]) for name in ("step", *OBJECTIVES) if name in result}
            return
        self.last.pop(policy, None)
        with self._room():
            if "failed" in result:
                self.fail(policy, result["failed"])
                return
            self.results.computed.add(policy)
            for mine in self.results.trials_of(policy):
                self.tell_finished(mine, found=False, seconds=result.get("time_total_s", 0.0))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`. The scheduler ended a trial that reported neither its end nor a failure."""
        result = trial.last_result
        if result.get("policy") in self.last and not {"finished", "failed"} & result.keys():
            policy = result["policy"]
            with self._room():
                self.results.statuses.add(TrialStatus(policy, "stopped", metrics=self.last.pop(policy)))
                for mine in self.results.trials_of(policy):
                    self.tell_stopped(mine)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`. The trial's process or node died, and it is tried again."""
        for mine in self._unfinished(trial):
            self.listener.warned(f"{mine.name}: its process or node died; it goes on from its checkpoint")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`. The trial died more often than it may."""
        lines = str(trial.get_error() or "its process or node died").strip().splitlines()
        with self._room():
            for policy in dict.fromkeys(mine.plan["policy"].key for mine in self._unfinished(trial)):
                self.fail(policy, lines[-1])

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """See `Callback`. Renews the tables when a trial has ended since they were written."""
        with self._room():
            self.results.refresh_if_due()

    def fail(self, policy: str, reason: str) -> None:
        """Record that a policy failed, by its key, and say so. Raises OSError."""
        self.results.statuses.add(TrialStatus(policy, "failed", reason))
        for mine in self.results.trials_of(policy):
            self.results.publish_failure(mine, reason)
            self._tell(mine, partial(self.listener.failed, _shown(mine), reason))

    def _tell(self, trial: Trial, call: Callable[[], None]) -> None:
        self.results.changed[trial.name] = trial
        with self._lock:
            if trial.name not in self._told:
                self._told.add(trial.name)
                self._over.add(trial.plan["policy"].key)
                call()

    @contextmanager
    def _room(self) -> Iterator[None]:
        """End the sweep if its folder cannot be written; Tune alone would show a traceback."""
        try:
            yield
        except OSError as error:
            self.stopper.reason = f"{self.results.folder}: cannot be written: {error.strerror or error}"

    def _unfinished(self, trial: Any) -> list[Trial]:
        """The trials without an end that a Tune trial trains."""
        settings = trial.config
        if "suggestion" in settings:
            number = f"{settings['suggestion']['number']:04d}"
            cell = self.results.sweep.trials[settings["trials"][0]].labels
            mine = [each for each in self.results.trials() if each.labels == cell | {"suggestion": number}]
        else:
            numbers = [settings["member"]["number"]] if "member" in settings else settings["trials"]
            mine = [self.results.sweep.trials[number] for number in numbers]
        return [each for each in mine if not self.results.over(each)]

    @contextmanager
    def listening(self, actor_name: str, plugins: Mapping[str, str]) -> Iterator[None]:
        """Hand the trials to Tune's processes, and pass their reports on to the listener, while the block runs."""
        trials = [as_json(trial) for trial in self.results.sweep.trials]
        progress_actor = make_progress_actor(actor_name, plugins, trials)
        ray.get(progress_actor.plugins.remote())
        thread = threading.Thread(target=self._listen, args=[progress_actor], daemon=True)
        thread.start()
        try:
            yield
        finally:
            ray.kill(progress_actor)
            thread.join(timeout=5)

    def _listen(self, progress_actor: Any) -> None:
        started: set[str] = set()
        while True:
            try:
                events: list[Event] = ray.get(progress_actor.drain.remote())
            except ray.exceptions.RayError:
                return  # the sweep has ended
            for event in events:
                with self._lock:
                    if event.key in self._over:
                        continue
                    if event.key not in started:
                        started.add(event.key)
                        self.listener.started(Node("policy", event.name, event.key))
                    self.listener.progressed(event)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and we never read that pickle.
        return {}


class SweepStopper(Stopper):
    """Ends the sweep when a trial cannot write or a late node is not fit: other trials would fail in the same way."""

    def __init__(self, watch: NodeWatch) -> None:
        self.watch, self.reason = watch, ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if result.get("unwritable"):
            self.reason = result["failed"]
        return False

    def stop_all(self) -> bool:
        """See `Stopper`."""
        return bool(self.reason or self.watch.problem)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its stopper, and we never read that pickle.
        return {}


def _shown(trial: Trial) -> Node:
    """The policy's node under the trial's name."""
    return replace(trial.plan["policy"], name=trial.name)
