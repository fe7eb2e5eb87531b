"""Where knowing the dynamics would pay: the table of single sources, and what tells which of them is near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.study import ceiling, nearest, run, selection
from benchmarks.study.where_z_matters import COMMON, RARE, laboratory
from tests.test_study import rows
from v2a_ray.experiments.choice import CANDIDATES, FILTER, MIX, SOURCE, TARGET


@pytest.mark.parametrize("near", [RARE, COMMON])
def test_model_that_is_told_the_dynamics_explains_the_target_by_its_own(
    near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "FIT_STEPS", 300)
    table = laboratory({RARE: 1_000, COMMON: 1_000})
    target = table.select(np.flatnonzero(np.asarray(table.domain) == near))
    explained = nearest.ToldModel.fit(table, seed=0).explained(nearest.some(target))
    assert explained.keys() == {RARE, COMMON}
    assert max(explained, key=lambda name: explained[name]) == near


def test_part_of_a_table_is_whole_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = laboratory({RARE: 1_000, COMMON: 1_000}, episode_steps=50)
    monkeypatch.setattr(nearest, "MAX_TRANSITIONS", 120)
    assert nearest.some(table).lengths.tolist() == [50, 50, 50]
    monkeypatch.setattr(nearest, "MAX_TRANSITIONS", 10_000)
    assert nearest.some(table).num_transitions == table.num_transitions


def test_what_every_estimator_puts_first_by_hand() -> None:
    def row(estimator: str, domain: str, score: float, seed: str = "0") -> dict[str, Any]:
        place = {"robot": "walker2d", "cell": "random 1 rows from both expert", "seed": seed}
        return {**place, "estimator": estimator, "domain": domain, "score": score}

    found = [
        *(row("h, modality", domain, score) for domain, score in (("friction-0.5", -2.0), ("otdf-morph", -1.0))),
        *(row("told, fit 1", domain, score) for domain, score in (("friction-0.5", -1.0), ("otdf-morph", -2.0))),
        *(row("told, fit 2", domain, score) for domain, score in (("friction-0.5", -1.0), ("otdf-morph", -2.0))),
        *(row("told, fit 1", domain, score, "1") for domain, score in (("friction-0.5", -3.0), ("otdf-morph", -2.0))),
    ]
    head, _, line = nearest.report(found).splitlines()
    assert head == "| target, from source | h, modality | told |"
    assert line == "| walker2d: random 1 rows from both expert | otdf-morph | **near** 2, otdf-morph 1 |"


def test_gain_of_the_near_source_is_over_the_better_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "ROWS", tmp_path)
    pq.write_table(rows({"bad": {TARGET: [1.0], MIX: [10.0]}}), tmp_path / "baselines_walker2d.parquet")
    pq.write_table(rows({"bad": {MIX: [42.0]}}), tmp_path / "map_walker2d_ceiling.parquet")
    pq.write_table(rows({"bad": {SOURCE: [60.0]}}), tmp_path / "map_walker2d_near_source.parquet")
    pq.write_table(rows({"bad, gravity-0.5 alone": {MIX: [9.0]}}), tmp_path / "map_walker2d_far_alone.parquet")
    scores = {TARGET: 1.0, FILTER: 2.0, MIX: 10.0, SOURCE: 18.0}
    found = [
        {"task": "bad", "seed": "0", "method": method, "score": scores[method], "lower_value": scores[method]}
        | {"td_error": 1.0, "source_earns_more": True if method == SOURCE else None}
        for method in CANDIDATES
    ]
    selection.write_rows(found, tmp_path / "selection_walker2d_map.parquet")
    place = {"robot": "walker2d", "cell": "bad", "domain": "gravity-0.5"}
    measured = [
        place | {"seed": str(seed), "estimator": estimator, "score": -far * (1 + seed)}
        for estimator, far in ((nearest.SIMULATED_SOURCE, 0.015), (nearest.REPLAYED_SOURCE, 1.0))
        for seed in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(measured), tmp_path / "nearest.parquet")
    *_, line, _, _, _, distances = ceiling.report("walker2d").splitlines()
    assert line == "| bad | 1 | 1.0 | 10.0 | 60.0 | 42.0 | 9.0 |  | +32.0 | 18.0 (25 %) |"
    assert distances == "| bad |  | 0.030, 2.0 |  |"


def test_unknown_cell_is_refused_with_those_that_there_are() -> None:
    content = {"name": "map", "axes": {"cell": {"near": {}, "far": {}}, "seed": {"0": {}}}}
    assert run.wanted(content, "cell", None) == ["near", "far"] and run.wanted(content, "cell", ["far"]) == ["far"]
    with pytest.raises(SystemExit, match="map has no cell 'middle'; it has: near; far"):
        run.wanted(content, "cell", ["middle"])


def test_far_sources_stand_beside_the_mix_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "ROWS", tmp_path)
    pq.write_table(
        rows({"bad": {TARGET: [1.0], MIX: [10.0]}, "good": {TARGET: [9.0], MIX: [8.0]}}), tmp_path / "real.parquet"
    )
    alone = {"bad, gravity_0.5 alone": {MIX: [12.0]}, "bad, kinematic alone": {MIX: [4.0]}}
    pq.write_table(rows(alone), tmp_path / "real_alone.parquet")
    *_, line = ceiling.far_report().splitlines()
    assert line == "| bad | 1.0 | 10.0 | **12.0** | 4.0 |  |"
