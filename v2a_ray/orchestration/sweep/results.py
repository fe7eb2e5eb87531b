"""The results of a sweep while it runs: the table on disk, and curves with the trials' parameters for TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.sweep import SAMPLE, Sweep, Trial, layer_of
from v2a_ray.files import read_json
from v2a_ray.orchestration.sweep.population import FINISHED, finished_member, member_folder, values_at_end
from v2a_ray.orchestration.sweep.trial_status import Outcomes
from v2a_ray.outputs import file_name
from v2a_ray.report.result_tables import TrialResult, result_row, write_rows
from v2a_ray.settings.loading import at, merge

RESULTS_FILE = "results.parquet"
REFRESH_SECONDS = 5.0
"""Least time between two writes of the table while trials end. No result is lost: the table is made from artifacts."""


class Results:
    """The result of every trial, from artifacts and the trial status log alone, so that a sweep can be resumed."""

    def __init__(self, sweep: Sweep, folder: Path, store: ArtifactStore, trials: Callable[[], list[Trial]]) -> None:
        """`trials` returns the trials of the sweep so far; a search adds trials."""
        self.sweep, self.folder, self.store, self.trials = sweep, folder, store, trials
        self.outcomes = Outcomes(folder)
        self.rows: dict[str, dict[str, Any]] = {}
        """Rows by name of the trial, cached because flattening a configuration is slow and rows seldom change."""
        self.written = 0.0

    def finished(self, trial: Trial) -> bool:
        """Whether the trial was trained to its end."""
        if self.sweep.config.scheduler.is_population:
            return finished_member(self._member(trial)) is not None
        return self.store.find("policy", trial.plan["policy"].key) is not None

    def over(self, trial: Trial) -> bool:
        """Whether the trial is finished, or a scheduler ended it."""
        outcome = self.outcomes.by_policy.get(trial.plan["policy"].key)
        return self.finished(trial) or (outcome is not None and outcome.status == "stopped")

    def status(self, trial: Trial) -> str:
        """`finished`, `stopped at step 1,000`, `failed: reason` or `not finished`."""
        if self.finished(trial):
            return "finished"
        outcome = self.outcomes.by_policy.get(trial.plan["policy"].key)
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
            curves = pq.read_table(artifact.path / "curves.parquet")
            return TrialResult(
                trial.labels, trial.config, evaluation, artifact.seconds, "finished", keys, curves, trial.labelled
            )
        outcome = self.outcomes.by_policy.get(keys["policy"])
        stopped = outcome.metrics if outcome else {}
        return TrialResult(trial.labels, trial.config, stopped, None, self.status(trial), keys, None, trial.labelled)

    def refresh(self, *, at_once: bool = False) -> None:
        """Replace the table on disk atomically, at most every `REFRESH_SECONDS` unless `at_once`."""
        if not at_once and time.monotonic() - self.written < REFRESH_SECONDS:
            return
        write_rows([self._row(trial) for trial in self.trials()], self.folder / RESULTS_FILE)
        self.written = time.monotonic()

    def _row(self, trial: Trial) -> dict[str, Any]:
        known = self.rows.get(trial.name)
        if known is None or known["status"] != self.status(trial):
            self.rows[trial.name] = result_row(self.result(trial))
        return self.rows[trial.name]

    def write_curves(self, trial: Trial) -> None:
        """Write a finished trial's curves and parameters for TensorBoard, once."""
        folder = self.folder / "tensorboard" / file_name("-".join(trial.labels.values()))
        result = self.result(trial)
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
            scores = {f"final/{name}": result.evaluation[name] for name in ("normalized_score_mean", "return_mean")}
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
        curves = pq.read_table(folder / FINISHED / "curves.parquet")
        upstream = {name: key for name, key in keys.items() if name != "policy"}
        return TrialResult(trial.labels, config, evaluation, None, "finished", upstream, curves, trial.labelled)
