"""How often a trial is started again after a failure of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune import FailureConfig, RunConfig

from v2a_ray.orchestration.sweep.retries import GIVEN_UP, Retries


@pytest.mark.parametrize(("dies", "reason"), [(True, "exit"), pytest.param(False, "no luck", marks=pytest.mark.slow)])
def test_a_trial_gives_up_after_its_retries_and_says_why(
    ray_cluster: None, tmp_path: Path, dies: bool, reason: str
) -> None:
    # Nested, so that Ray ships it whole: workers cannot import this file.
    def train(settings: dict[str, Any]) -> None:
        if GIVEN_UP in settings:
            tune.report({"reason": settings[GIVEN_UP]})
            return
        with Path(settings["file"]).open("a") as file:
            file.write("begun\n")
        if dies:
            os._exit(1)
        raise RuntimeError("no luck")

    config = RunConfig(
        name="retries",
        storage_path=str(tmp_path),
        verbose=0,
        callbacks=[Retries(max_retries=1)],
        failure_config=FailureConfig(max_failures=-1),
    )
    (result,) = tune.Tuner(train, param_space={"file": str(tmp_path / "log")}, run_config=config).fit()
    assert (tmp_path / "log").read_text() == "begun\n" * 2
    assert result.metrics and reason in result.metrics["reason"]
