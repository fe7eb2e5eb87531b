"""Batched policies that another sweep trains at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.engine.trainer import silent
from v2a_ray.errors import StorageError
from v2a_ray.experiments.reading import resolve
from v2a_ray.orchestration.train import compute
from v2a_ray.orchestration.train.work import Work


def write(name: str, content: str) -> Callable[[Path, Path], None]:
    def make(output: Path, _: Path) -> None:
        (output / name).write_text(content)

    return make


def work(seed: int) -> Work:
    target = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 100}
    source = {"domain": "hopper/gravity-0.5", "behavior": "random", "num_transitions": 100}
    config = resolve({"name": "pack", "method": "iql_mixed", "seed": seed, "target": target, "sources": [source]})
    plan = make_plan(config)
    return Work(config, plan, plan["policy"])


def store_with_inputs(folder: Path, works: Sequence[Work]) -> ArtifactStore:
    """A store with an artifact for every input of the policies."""
    store = ArtifactStore(folder)
    for each in works:
        for node in (each.plan[name] for name in each.node.inputs.values()):
            store.get_or_make(node.stage, node.key, write("rows", "rows"), {})
    return store


def write_all(jobs: Sequence[Job]) -> list[None]:
    for job in jobs:
        (job.output / "weights").write_text("mine")
    return [None] * len(jobs)


def test_a_policy_finished_by_another_sweep_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works, packs = [work(0), work(1)], []
    store = store_with_inputs(tmp_path, works)

    def train(jobs: Sequence[Job]) -> list[None]:
        packs.append(len(jobs))
        if len(jobs) == 2:
            other = ArtifactStore(tmp_path)
            key = works[0].node.key
            other.get_or_make("policy", key, write("weights", "other"), {})
        return write_all(jobs)

    monkeypatch.setattr(compute, "fit_policies", train)
    assert compute.make_policies(works, store, [silent, silent]) == [None, None]
    assert packs == [2, 1]
    written = [(store.path("policy", each.node.key) / "weights").read_text() for each in works]
    assert written == ["other", "mine"]


def test_a_full_disk_is_still_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(jobs: Sequence[Job]) -> list[None]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compute, "fit_policies", full)
    works = [work(0), work(1)]
    with pytest.raises(StorageError, match="No space left"):
        compute.make_policies(works, store_with_inputs(tmp_path, works), [silent, silent])
