"""How often a trial reports: what is told anew is told at once, what is told again now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from v2a_ray.orchestration.train.listener import Event
from v2a_ray.orchestration.train.progress_actor import reporter


@pytest.mark.parametrize(("least_seconds", "steps"), [(0.0, [10, 20, 30, 40, 50, 60]), (60.0, [10, 40, 50, 60])])
def test_reports_of_the_same_metrics_are_left_out_for_a_while(least_seconds: float, steps: list[int]) -> None:
    sent: list[Event] = []
    actor = SimpleNamespace(report=SimpleNamespace(remote=sent.append))
    report = reporter(actor, "key", "policy", least_seconds)
    for step in (10, 20, 30, 40, 50, 60):
        report(step, 60, {"policy/loss": 1.0} | ({"evaluation/return_mean": 2.0} if step == 40 else {}))
    assert [event.step for event in sent] == steps
