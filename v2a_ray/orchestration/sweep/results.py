"""The results of a sweep while it runs: the tables on disk, the trials' folders, and what trackers get of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from v2a_ray.engine.context import CHECKPOINT
from v2a_ray.engine.store import Artifact, ArtifactStore
from v2a_ray.engine.trainer import recorded_history
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULTS_FILE, TRIALS
from v2a_ray.experiments.sweep import SAMPLE, Sweep, Trial, layer_of
from v2a_ray.experiments.sweep_config import OBJECTIVES
from v2a_ray.files import read_json, replacing, write_whole
from v2a_ray.orchestration.sweep.population import FINISHED, finished_member, member_folder, values_at_end
from v2a_ray.orchestration.sweep.trial_folders import is_written, write_trial
from v2a_ray.orchestration.sweep.trial_status import TrialStatusLog
from v2a_ray.orchestration.train.tracking import Tracking
from v2a_ray.outputs import file_name
from v2a_ray.report.curves import plot_cells
from v2a_ray.report.result_tables import TrialResult, cells_markdown, result_row, write_rows
from v2a_ray.report.search_table import search_markdown
from v2a_ray.report.tracked_film import film_of
from v2a_ray.report.trackers import TENSORBOARD, TrackedPolicy, parameters
from v2a_ray.settings.yaml_files import merge

CURVES = "curves.parquet"
"""In a policy's folder."""
REFRESH_SHARE = 0.05
"""Part of the time that writing tables and curves may take: where trials end faster, one write is for several."""
FIRST_TABLE_SECONDS = 5.0
"""Before the first tables; a shorter sweep has them at its end. The first figure alone takes half a second."""


class Results:
    """The result of every trial, from artifacts and the trial status log alone, so that a sweep can be resumed."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        store: ArtifactStore,
        trials: Callable[[], list[Trial]],
        tracking: Tracking,
    ) -> None:
        """`trials` returns the trials of the sweep so far; a search adds trials."""
        self.sweep, self.folder, self.store, self.trials, self.tracking = sweep, folder, store, trials, tracking
        self.statuses = TrialStatusLog(folder)
        self.rows: dict[str, dict[str, Any]] = {}
        """By name of the trial: flattening a configuration takes as long as all else, and a row seldom changes."""
        self.computed: set[str] = set()
        """Keys of the artifacts that this process had computed; all others were found in the store."""
        self.results: dict[str, TrialResult] = {}
        self.changed: dict[str, Trial] = {}
        """By name: the trials that have ended since the tables were written."""
        self.due = time.monotonic() + FIRST_TABLE_SECONDS
        """When the tables may be written again, in monotonic seconds."""
        self._by_policy: dict[str, list[Trial]] = {}
        self._num_indexed = 0

    def finished(self, trial: Trial) -> bool:
        """Whether the trial was trained to its end."""
        if self.sweep.config.scheduler.is_population:
            return finished_member(self._member(trial)) is not None
        return self.store.find("policy", trial.plan["policy"].key) is not None

    def over(self, trial: Trial) -> bool:
        """Whether the trial is finished, or a scheduler ended it."""
        outcome = self.statuses.by_policy.get(trial.plan["policy"].key)
        return (outcome is not None and outcome.status == "stopped") or self.finished(trial)

    def looking_at(self, trials: Sequence[Trial]) -> AbstractContextManager[None]:
        """A block in which `finished`, `over` and `status` of many trials ask the store at once."""
        return self.store.surveyed({("policy", trial.plan["policy"].key) for trial in trials})

    def status(self, trial: Trial) -> str:
        """`finished`, `stopped at step 1,000`, `failed: reason` or `not finished`."""
        if self.finished(trial):
            return "finished"
        outcome = self.statuses.by_policy.get(trial.plan["policy"].key)
        return outcome.describe() if outcome else "not finished"

    def result(self, trial: Trial) -> TrialResult:
        """The result of one trial so far."""
        keys = {name: node.key for name, node in trial.plan.items()}
        if self.finished(trial):
            if self.sweep.config.scheduler.is_population:
                return self._member_result(trial, keys)
            artifact = self.store.find("policy", keys["policy"])
            assert artifact
            evaluation = read_json(artifact.path / "evaluation.json")
            curves = artifact.path / CURVES
            return TrialResult(
                trial.labels, trial.config, evaluation, artifact.seconds, "finished", keys, curves, trial.labelled
            )
        outcome = self.statuses.by_policy.get(keys["policy"])
        stopped = outcome.metrics if outcome else {}
        return TrialResult(trial.labels, trial.config, stopped, None, self.status(trial), keys, None, trial.labelled)

    def trials_of(self, policy: str) -> list[Trial]:
        """The trials whose policy has this key."""
        trials = self.trials()
        # A search adds trials, and a policy ends more often than that.
        if len(trials) != self._num_indexed:
            self._by_policy, self._num_indexed = {}, len(trials)
            for trial in trials:
                self._by_policy.setdefault(trial.plan["policy"].key, []).append(trial)
        return self._by_policy.get(policy, [])

    def refresh_if_due(self) -> None:
        """Write tables and curves if a trial has ended since, unless writing them takes too much of the time.

        Only trials that have ended, and new ones, are looked at.
        """
        if self.changed and time.monotonic() >= self.due:
            new = [trial for trial in self.trials() if trial.name not in self.results]
            self._write([*self.changed.values(), *new])

    def refresh(self) -> list[TrialResult]:
        """Look at every trial, write tables and curves, and return what they say."""
        return self._write(self.trials())

    def _write(self, looked_at: Sequence[Trial]) -> list[TrialResult]:
        """Look at some trials again and write the tables and curves of all, each replaced atomically."""
        start = time.monotonic()
        self.changed.clear()
        with self.looking_at(looked_at):
            for trial in looked_at:
                self._keep(trial)
        results = [self.results[trial.name] for trial in self.trials()]
        changed = write_rows([self.rows[trial.name] for trial in self.trials()], self.folder / RESULTS_FILE)
        write_whole(self.folder / "table.md", self._table(results))
        picture = self.folder / "curves.png"
        # The rows name the policies. Of the same ones thousands of curves need not be read and drawn again.
        if changed or not picture.exists():
            self._draw(results, picture)
        end = time.monotonic()
        self.due = end + (end - start) / REFRESH_SHARE
        return results

    def _draw(self, results: Sequence[TrialResult], picture: Path) -> None:
        cells: dict[str, dict[str, list[Any]]] = {}
        for result in results:
            if result.curves is not None:
                cells.setdefault(result.task, {}).setdefault(result.method, []).append(result.curves)
        if cells:
            with replacing(picture) as fresh:
                plot_cells(cells, fresh, self.sweep.name)

    def _table(self, results: Sequence[TrialResult]) -> str:
        search = self.sweep.config.search
        return search_markdown(results, search, self.sweep.objectives) if search else cells_markdown(results)

    def _keep(self, trial: Trial) -> None:
        known = self.results.get(trial.name)
        if known is None or known.status != self.status(trial):
            self._take(trial, self.result(trial))

    def _take(self, trial: Trial, result: TrialResult) -> None:
        self.results[trial.name] = result
        self.rows[trial.name] = result_row(result)

    def publish(self, trial: Trial) -> TrialResult:
        """Write what others use of a finished trial: its folder in `trials/`, and what trackers show."""
        result = self.result(trial)
        self._take(trial, result)
        if not is_written(self.folder / TRIALS / trial.folder_name, result.config, self.output(trial)):
            write_trial(self.folder, trial, result.config, self._stages(trial), self.output(trial))
        key, output = trial.plan["policy"].key, self.output(trial)
        film = film_of(result.config, output, self.folder / TRIALS / trial.folder_name)
        if self.tracking.lacks(trial.folder_name, key, film):
            tracked = replace(self._tracked(trial, result), curves=[("", output / CURVES)], film=film)
            self.tracking.log(tracked, key)
        return result

    def _stages(self, trial: Trial) -> list[tuple[str, Artifact]]:
        """(name, artifact) of the trial's stages in the order of the plan."""
        is_member = self.sweep.config.scheduler.is_population
        found = [(name, self.store.find(node.stage, node.key)) for name, node in trial.plan.items()]
        return [
            (name, replace(artifact, cached=artifact.key not in self.computed))
            for name, artifact in found
            if artifact and not (is_member and name == "policy")
        ]

    def publish_failure(self, trial: Trial, reason: str) -> None:
        """Show trackers a trial that failed, with its metrics up to the last checkpoint."""
        key = trial.plan["policy"].key
        is_member = self.sweep.config.scheduler.is_population
        work = self._member(trial) if is_member else self.store.work("policy", key)
        history = recorded_history(work / CHECKPOINT)
        self.tracking.log(replace(self._tracked(trial, self.result(trial)), history=history, failure=reason), key)

    def output(self, trial: Trial) -> Path:
        """The folder with the files of a finished trial's policy."""
        if self.sweep.config.scheduler.is_population:
            return self._member(trial) / FINISHED
        return self.store.path("policy", trial.plan["policy"].key)

    def _tracked(self, trial: Trial, result: TrialResult) -> TrackedPolicy:
        """What trackers get of a trial, without its curves."""
        config = result.config.model_dump(mode="json")
        drawn = list(self.sweep.config.search.space) if self.sweep.config.search else []
        scores = {name: result.evaluation.get(name) for name in OBJECTIVES}
        return TrackedPolicy(
            folder=self.folder,
            events=self.folder / TENSORBOARD / file_name("-".join(trial.labels.values())),
            group=self.sweep.name,
            name=trial.folder_name,
            parameters=parameters(trial.labels, config, [*sorted(trial.labelled), *drawn]),
            tags={"task": result.task, "method": result.method, "seed": str(result.config.seed)},
            # The pure Python dumper would take longer than all else of a short trial.
            config=yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False),
            curves=[],
            scores={name: score for name, score in scores.items() if score is not None},
        )

    def _member(self, trial: Trial) -> Path:
        # A population has one task, so a member's number is the number of its draw.
        return member_folder(self.folder, int(trial.labels[SAMPLE]))

    def _member_result(self, trial: Trial, keys: Mapping[str, str]) -> TrialResult:
        """The result of a population's member, with its final settings."""
        folder = self._member(trial)
        entries = finished_member(folder)
        assert entries
        layer = layer_of(values_at_end(entries))
        config = ExperimentConfig.model_validate(merge(trial.config.model_dump(mode="json"), layer))
        evaluation = read_json(folder / FINISHED / "evaluation.json")
        curves = folder / FINISHED / CURVES
        upstream = {name: key for name, key in keys.items() if name != "policy"}
        return TrialResult(trial.labels, config, evaluation, None, "finished", upstream, curves, trial.labelled)
