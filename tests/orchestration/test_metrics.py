"""Metrics as Prometheus reads them, and the board that shows them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import ray

from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.orchestration.train.listener import Event
from v2a_ray.orchestration.train.metrics import MetricsListener

BOARD = Path(__file__).parents[2] / "cluster/grafana/v2a.json"
SECONDS = 60


def scraped() -> str:
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def value(text: str, name: str, **labels: str) -> float | None:
    """The value of the series that has these labels."""
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{key}="{word}"' in line for key, word in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return None


def test_a_sweeps_metrics_are_scraped_and_the_board_asks_for_no_other(ray_cluster: None) -> None:
    metrics = MetricsListener("scraped")
    metrics.planned("policies", 5, "a free core")
    one, other = Node("policy", "policy near 0", "a"), Node("policy", "policy near 1", "b")
    for node in (one, other):
        metrics.started(node)
    metrics._since -= 20.0  # steps per second are set every ten seconds
    metrics.progressed(Event("a", one.name, 400, 1000, {"evaluation/return_mean": 90.0}))
    metrics.done(one, Artifact("policy", "a", Path("store"), 3.0, cached=True), 41.5)
    deadline = time.monotonic() + SECONDS
    while value(text := scraped(), "ray_v2a_nodes", experiment="scraped", state="done") != 1.0:
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    states = {
        state: value(text, "ray_v2a_nodes", experiment="scraped", state=state)
        for state in ("done", "running", "failed", "waiting")
    }
    assert states == {"done": 1.0, "running": 1.0, "failed": 0.0, "waiting": 3.0}
    assert value(text, "ray_v2a_artifacts_total", experiment="scraped", stage="policy", how="found") == 1.0
    assert value(text, "ray_v2a_evaluation_score", experiment="scraped", policy="policy near 0") == 41.5
    assert 15 < (value(text, "ray_v2a_steps_per_second", experiment="scraped") or 0) <= 20
    board = json.loads(BOARD.read_text())
    asked = set(re.findall(r"ray_v2a_\w+", json.dumps(board)))
    assert asked == set(re.findall(r"^(ray_v2a_\w+)\{", text, re.MULTILINE))
