"""Where tasks run, and how much memory they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tests.orchestration.tiny_sweeps import SETTINGS
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.reading import resolve
from v2a_ray.orchestration.cluster import away_from_head
from v2a_ray.orchestration.cluster.capacity import Capacity, NodeType
from v2a_ray.orchestration.train.memory import file_memory, reserved_memory, stage_memory
from v2a_ray.orchestration.train.work import Work

GIB = 2**30


def nodes(**resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"NodeID": identity(name), "Resources": each} for name, each in resources.items()]


def identity(name: str) -> str:
    """Of a node, as Ray has them."""
    return name.encode().hex().ljust(56, "0")


def test_tasks_without_cores_avoid_a_head_without_and_spare_nodes_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    there = nodes(head={"memory": 1}, gpu={"CPU": 8, "GPU": 1}, cpu={"CPU": 2})
    monkeypatch.setattr(away_from_head, "alive_nodes", lambda: there)
    strategies = [away_from_head.away_from_head()["scheduling_strategy"] for _ in range(20)]
    assert all(isinstance(each, NodeAffinitySchedulingStrategy) for each in strategies)
    assert {(each.node_id, each.soft) for each in strategies} == {(identity("cpu"), True)}
    del there[2]
    assert away_from_head.away_from_head()["scheduling_strategy"].node_id == identity("gpu")
    del there[0]
    assert away_from_head.away_from_head() == {}, "where every node has cores, Ray chooses"


def test_small_tasks_ask_for_no_memory_and_large_ones_for_no_more_than_a_node_has() -> None:
    there = Capacity((NodeType("head", {"memory": 2 * GIB}, 1), NodeType("node", {"CPU": 4, "memory": 8 * GIB}, 9)))
    assert reserved_memory(GIB // 4, there) == {}
    assert reserved_memory(3 * GIB, there) == {"memory": 3 * GIB}
    assert reserved_memory(99 * GIB, there) == {"memory": int(0.9 * 8 * GIB)}
    assert reserved_memory(99 * GIB, Capacity((NodeType("node", {"CPU": 4}, 1),))) == {}


def test_a_stage_asks_for_its_tables_and_a_reader_for_its_file(tmp_path: Path) -> None:
    from tests.data.test_mixture import hopper_table

    write_table(hopper_table((500, 500)), tmp_path / "recorded", robot="hopper")
    recorded = {"domain": "hopper/stock", "path": str(tmp_path / "recorded"), "name": "recorded"}
    config = resolve(SETTINGS | {"method": "v2a", "name": "tiny", "sources": [recorded]})
    plan, store = make_plan(config), ArtifactStore(tmp_path / "store")
    source = plan["source"]
    write_table(hopper_table((500, 500)), store.path("source", source.key) / "table", robot="hopper")
    assert stage_memory(Work(config, plan, plan["modality"]), store) == 2 * 1000 * 27 * 4
    little = config.model_copy(update={"loading": config.loading.model_copy(update={"memory_gib": 1e-5})})
    assert stage_memory(Work(little, plan, plan["modality"]), store) == 2 * int(1e-5 * GIB)
    size = sum(file.stat().st_size for file in (tmp_path / "recorded").iterdir())
    assert file_memory(Work(config, plan, plan["data/recorded"])) == 4 * size
    assert file_memory(Work(config, plan, plan["data/target"])) == 0
