"""Reads the folders of finished runs and sweeps, in the same way for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from v2a_ray.errors import ConfigError, DataError, told
from v2a_ray.experiments.sweep import trial_folder_name
from v2a_ray.files import read_json
from v2a_ray.settings.measures import RANK_SCORE, score_of_evaluation

RESULT_FILE = "result.json"
SWEEP_FILE = "sweep.yaml"
RESULTS_FILE = "results.parquet"
TRIALS = "trials"
"""Folder in a sweep's folder with one folder per finished trial."""
_AXIS = "axis/"


@dataclass(frozen=True)
class PolicyRecord:
    """One policy of a run or a sweep, finished or not.

    Attributes:
        folder: the folder of its `result.json`, which exists only if it is finished.
        labels: axis of the sweep to its value's label; empty for a run.
        method: displayed name of the method, with its modifications.
        task: the task on which methods are compared.
        status: `finished`, `failed: reason`, `stopped at step N` or `not finished`.
        result: the content of `result.json`; empty if it is not finished.
    """

    folder: Path
    labels: Mapping[str, str]
    method: str
    task: str
    seed: int
    status: str
    result: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return bool(self.result)

    @property
    def score(self) -> float | None:
        """See `score_of`; None if it is not finished."""
        return score_of(self.result) if self.result else None

    @property
    def rank(self) -> float:
        """Criterion for the best finished policy: the score, or the mean return if there is no score."""
        return float(self.result["target"]["return_mean"]) if self.score is None else self.score

    def curves(self) -> pa.Table:
        """Recorded metrics over update steps. Raises DataError when the file is gone."""
        try:
            return pq.read_table((self.folder / "curves.parquet").resolve())
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"its curves cannot be read: {told(error)}", where=str(self.folder), remedy="run it again"
            ) from error


def is_sweep(folder: Path) -> bool:
    """Whether a sweep was started in `folder`."""
    return (folder / SWEEP_FILE).is_file()


def read_records(folder: Path) -> list[PolicyRecord]:
    """Every policy of the run or sweep in `folder`. Raises DataError if it is neither or has no results yet."""
    if not is_sweep(folder):
        return [_of_run(folder)]
    file = folder / RESULTS_FILE
    try:
        rows = pq.read_table(file).to_pylist()
        return [_of_row(folder, row) for row in rows]
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise DataError(
            f"no results of a sweep: {told(error)}", where=str(file), remedy=f"v2a sweep --resume {folder}"
        ) from error


def trial_folders(folder: Path, trial: str | None, best: bool, every: bool) -> list[Path]:
    """Folders of the chosen finished trials of a sweep, in the sweep's order; for a run, the run's folder.

    `best` chooses the highest score (`score_of`). Raises ConfigError unless there is exactly one choice for a sweep and
    none for a run; DataError if the trial does not exist.
    """
    chosen = [option for option, given in (("--trial", trial), ("--best", best), ("--all", every)) if given]
    if not is_sweep(folder):
        if chosen:
            raise ConfigError("is no sweep, of which a trial could be chosen", where=str(folder), remedy="leave it out")
        return [folder]
    remedy = "--trial NAME, --best or --all"
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other", where=str(folder), remedy=f"one of {remedy}")
    done = [record for record in read_records(folder) if record.finished]
    names = [record.folder.name for record in done]
    if not done:
        raise DataError("no trial of the sweep is finished", where=str(folder), remedy=f"v2a sweep --resume {folder}")
    if not chosen:
        raise ConfigError(f"is a sweep of {len(done)} finished trials", where=str(folder), remedy=_choices(names))
    if trial is not None and trial not in names:
        raise DataError(f"no finished trial {trial!r}", where=str(folder), remedy=_choices(names, trial))
    if best:
        done = [max(done, key=lambda record: record.rank)]
    return [record.folder for record in done if trial in (None, record.folder.name)]


def _choices(names: Sequence[str], near: str = "") -> str:
    """A remedy that lists the options, with the names closest to `near`."""
    shown = get_close_matches(near, names, n=3, cutoff=0.3) or names[:3]
    more = f" ({len(names)} in {TRIALS}/)" if len(names) > len(shown) else ""
    return f"--best, --all, or --trial with one of {'; '.join(shown)}{more}"


def read_result(folder: Path) -> dict[str, Any]:
    """The content of `result.json`. Raises DataError if it does not exist or is not a run's result."""
    file = folder / RESULT_FILE
    try:
        result: dict[str, Any] = read_json(file)
        score_of(result), int(result["config"]["seed"])
        for stage in result["stages"]:
            str(stage["name"]), str(stage["artifact"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a finished run or a sweep: {told(error)}",
            where=str(file),
            remedy="give a folder that `v2a run` or `v2a sweep` wrote",
        ) from error
    return result


def score_of(result: Mapping[str, Any]) -> float | None:
    """The score that policies are compared by: the mean normalised score in the target, or without a simulator the
    held-out number that they are ranked by. None if the target has no reference returns."""
    target = result["target"]
    if target.keys().isdisjoint(("normalized_score_mean", RANK_SCORE)):
        raise KeyError("normalized_score_mean")
    return score_of_evaluation(target)


def _of_run(folder: Path) -> PolicyRecord:
    result = read_result(folder)
    trial, config = result.get("trial", {}), result["config"]
    changed = ", ".join(f"{key}={value}" for key, value in result.get("modifications", {}).items())
    title = f"{config['method']} (modified: {changed})" if changed else config["method"]
    return PolicyRecord(
        folder,
        trial.get("labels", {}),
        trial.get("method", title),
        trial.get("task", config["name"]),
        int(config["seed"]),
        "finished",
        result,
    )


def _of_row(folder: Path, row: Mapping[str, Any]) -> PolicyRecord:
    labels = {name.removeprefix(_AXIS): value for name, value in row.items() if name.startswith(_AXIS)}
    place = folder / TRIALS / trial_folder_name(labels, row["config/name"])
    if (place / RESULT_FILE).exists():
        return _of_run(place)
    status = row["status"] if row["status"] != "finished" else f"not in {TRIALS}/"
    method, task = row.get("method_label", row["method"]), row.get("task", "")
    return PolicyRecord(place, labels, method, task, int(row["config/seed"]), status, {})
