"""Finished runs and sweeps: all readers agree on which folders are finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from v2a_ray.diagnosis.evidence import open_run
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.finished import read_records, trial_folders
from v2a_ray.report.comparison import compare


def without_references(folder: Path, return_mean: float) -> None:
    """A finished run whose target has no reference returns, and so no score."""
    part = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 10}
    folder.mkdir(parents=True)
    target = {"normalized_score_mean": None, "return_mean": return_mean, "num_episodes": 1}
    config = {"name": "run", "method": "iql_target", "seed": 0, "target": part, "sources": [part]}
    result = {"config": config, "target": target, "stages": [], "versions": {}}
    (folder / "result.json").write_text(json.dumps(result))


def test_run_without_reference_returns_is_finished(tmp_path: Path) -> None:
    without_references(tmp_path / "run", 3.0)
    (record,) = read_records(tmp_path / "run")
    assert record.finished and record.score is None
    assert open_run(tmp_path / "run").score is None
    assert trial_folders(tmp_path / "run", None, False, False) == [tmp_path / "run"]


def test_runs_without_scores_are_not_compared(tmp_path: Path) -> None:
    without_references(tmp_path / "run", 3.0)
    with pytest.raises(ConfigError, match="no policy has a score"):
        compare(read_records(tmp_path / "run"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": {}, "target": {}, "stages": [{}]}'])
def test_all_readers_refuse_the_same_folders(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    for reader in (read_records, open_run):
        with pytest.raises(DataError, match="not a finished run"):
            reader(tmp_path)
