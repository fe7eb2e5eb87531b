"""The results of a sweep while it runs: the table on disk, and curves with the trials' parameters for TensorBoard."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.finished import RESULTS_FILE, TRIALS
from v2a_ray.experiments.sweep import SAMPLE, Sweep, Trial, layer_of
from v2a_ray.files import read_json, replacing, write_whole
from v2a_ray.orchestration.sweep.population import FINISHED, finished_member, member_folder, values_at_end
from v2a_ray.orchestration.sweep.trial_folders import is_written, write_trial
from v2a_ray.orchestration.sweep.trial_status import TrialStatusLog
from v2a_ray.outputs import file_name
from v2a_ray.report.curves import plot_cells
from v2a_ray.report.result_tables import TrialResult, cells_markdown, result_row, write_rows
from v2a_ray.report.search_table import search_markdown
from v2a_ray.settings.yaml_files import at, merge

REFRESH_SECONDS = 5.0
"""Least time between two writes of the table while trials end. No result is lost: the table is made from artifacts."""


class Results:
    """The result of every trial, from artifacts and the trial status log alone, so that a sweep can be resumed."""

    def __init__(self, sweep: Sweep, folder: Path, store: ArtifactStore, trials: Callable[[], list[Trial]]) -> None:
        """`trials` returns the trials of the sweep so far; a search adds trials."""
        self.sweep, self.folder, self.store, self.trials = sweep, folder, store, trials
        self.statuses = TrialStatusLog(folder)
        self.rows: dict[str, dict[str, Any]] = {}
        """By name of the trial: flattening a configuration takes as long as all else, and a row seldom changes."""
        self._by_policy: dict[str, list[Trial]] = {}
        self._num_known = 0
        """How many of the trials are in `_by_policy`."""
        self._changed: set[str] = set()
        """Keys of the policies whose trials have changed since the tables were written."""
        self.computed: set[str] = set()
        """Keys of the artifacts that this process had computed; all others were found in the store."""
        self.results: dict[str, TrialResult] = {}
        self.due = 0.0
        """When the tables may be written again, in monotonic seconds."""

    def finished(self, trial: Trial) -> bool:
        """Whether the trial was trained to its end."""
        if self.sweep.config.scheduler.is_population:
            return finished_member(self._member(trial)) is not None
        return self.store.find("policy", trial.plan["policy"].key) is not None

    def over(self, trial: Trial) -> bool:
        """Whether the trial is finished, or a scheduler ended it."""
        outcome = self.statuses.by_policy.get(trial.plan["policy"].key)
        return self.finished(trial) or (outcome is not None and outcome.status == "stopped")

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
            curves = _curves(artifact.path)
            return TrialResult(
                trial.labels, trial.config, evaluation, artifact.seconds, "finished", keys, curves, trial.labelled
            )
        outcome = self.statuses.by_policy.get(keys["policy"])
        stopped = outcome.metrics if outcome else {}
        return TrialResult(trial.labels, trial.config, stopped, None, self.status(trial), keys, None, trial.labelled)

    def of_policy(self, key: str) -> list[Trial]:
        """The trials whose policy has this key."""
        every = self.trials()
        for trial in every[self._num_known :]:
            self._by_policy.setdefault(trial.plan["policy"].key, []).append(trial)
        self._num_known = len(every)
        return self._by_policy.get(key, [])

    def refresh(self, policy: str) -> None:
        """Write tables and curves after a change of this policy, unless that was done a moment ago.

        A sweep of thousands of trials spends at most a twentieth of its time on them, and looks only at what changed.
        """
        self._changed.add(policy)
        if time.monotonic() >= self.due:
            changed = [trial for key in self._changed for trial in self.of_policy(key)]
            new = [trial for trial in self.trials() if trial.name not in self.results]
            self._write([*changed, *new])

    def refresh_all(self) -> list[TrialResult]:
        """Look at every trial, write tables and curves, and return what they say."""
        return self._write(self.trials())

    def _write(self, looked_at: Sequence[Trial]) -> list[TrialResult]:
        """Look at some trials again and write the tables and curves of all, each replaced atomically."""
        start = time.monotonic()
        self._changed.clear()
        for trial in looked_at:
            self._keep(trial)
        results = [self.results[trial.name] for trial in self.trials()]
        write_rows([self.rows[trial.name] for trial in self.trials()], self.folder / RESULTS_FILE)
        search = self.sweep.config.search
        write_whole(self.folder / "table.md", search_markdown(results, search) if search else cells_markdown(results))
        cells: dict[str, dict[str, list[Any]]] = {}
        for result in results:
            if result.curves is not None:
                cells.setdefault(result.task, {}).setdefault(result.method, []).append(result.curves)
        if cells:
            with replacing(self.folder / "curves.png") as fresh:
                plot_cells(cells, fresh, self.sweep.name)
        self.due = time.monotonic() + max(REFRESH_SECONDS, 20 * (time.monotonic() - start))
        return results

    def _keep(self, trial: Trial) -> None:
        known = self.results.get(trial.name)
        if known is None or known.status != self.status(trial):
            self.results[trial.name] = self.result(trial)
            self.rows[trial.name] = result_row(self.results[trial.name])

    def publish(self, trial: Trial) -> None:
        """Write what others use of a finished trial: its folder in `trials/`, and its curves for TensorBoard."""
        if self.finished(trial) and not self._is_published(trial):
            is_member = self.sweep.config.scheduler.is_population
            found = [(name, self.store.find(node.stage, node.key)) for name, node in trial.plan.items()]
            stages = [
                (name, dataclasses.replace(artifact, cached=artifact.key not in self.computed))
                for name, artifact in found
                if artifact and not (is_member and name == "policy")
            ]
            result = self.result(trial)
            write_trial(self.folder, trial, result.config, stages, self._policy_folder(trial))
            self._write_curves(trial, result)

    def _is_published(self, trial: Trial) -> bool:
        folder = self.folder / TRIALS / trial.folder_name
        return self._tensorboard(trial).exists() and is_written(folder, trial.config, self._policy_folder(trial))

    def _policy_folder(self, trial: Trial) -> Path:
        """Where the files of a finished policy lie."""
        if self.sweep.config.scheduler.is_population:
            return self._member(trial) / FINISHED
        return self.store.path("policy", trial.plan["policy"].key)

    def _tensorboard(self, trial: Trial) -> Path:
        return self.folder / "tensorboard" / file_name("-".join(trial.labels.values()))

    def _write_curves(self, trial: Trial, result: TrialResult) -> None:
        """Once, with what the trial differs in from the others."""
        folder = self._tensorboard(trial)
        if result.curves is None or folder.exists():
            return
        config = result.config.model_dump(mode="json")
        drawn = self.sweep.config.search.space if self.sweep.config.search else {}
        parameters = {**trial.labels, **{key: at(config, key) for key in drawn}}
        with SummaryWriter(str(folder)) as writer:
            for row in result.curves.to_pylist():
                step = row.pop("step")
                for name, value in row.items():
                    if value is not None:
                        writer.add_scalar(name, value, step)
            names = ("normalized_score_mean", "return_mean")
            scores = {f"final/{name}": score for name in names if (score := result.evaluation[name]) is not None}
            writer.add_hparams(parameters, scores, run_name=".")

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
        curves = _curves(folder / FINISHED)
        upstream = {name: key for name, key in keys.items() if name != "policy"}
        return TrialResult(trial.labels, config, evaluation, None, "finished", upstream, curves, trial.labelled)


def _curves(policy: Path) -> pa.Table:
    """The curves of a finished policy. Threads cost more than they gain on so small a file."""
    return pq.ParquetFile(policy / "curves.parquet").read(use_threads=False)
