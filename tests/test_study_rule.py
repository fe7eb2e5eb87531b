"""The study's rule: the numbers of a task, and what is said of a rule that is fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.study import rule
from benchmarks.study.rule import Numbers
from tests.data.builders import make_table
from v2a_ray.data.config import TargetSpec
from v2a_ray.data.mixing.mixture import take
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import parse_domain
from v2a_ray.export.selection import SelectionData, mean_return


def data_of(target: EpisodeTable, source: EpisodeTable) -> SelectionData:
    return SelectionData(target, None, source, has_rewards=True, domain=parse_domain("hopper/stock"))


def test_return_is_known_without_episodes() -> None:
    """Three episodes of 40 steps that end in a terminal state, with reward 2, are worth 80 each, drawn in any way."""
    table = make_table([40, 40, 40], terminated=[True] * 3).replace(reward=np.full(120, 2.0, np.float32))
    assert mean_return(table, 1000) == pytest.approx(80.0)
    spec = TargetSpec(
        domain="hopper/stock", path="pool", num_transitions=60_000, subsample="transitions", replacement=True
    )
    assert mean_return(take(table, spec), 1000) == pytest.approx(80.0, rel=0.1)


def test_episodes_without_terminal_last_as_long_as_the_robots_do() -> None:
    table = make_table([100, 100], terminated=[False, False]).replace(reward=np.full(200, 0.5, np.float32))
    assert mean_return(table, 1000) == pytest.approx(500.0)


def moving(count: int, seed: int, factor: float = 1.0, offset: float = 0.0) -> EpisodeTable:
    """Transitions in which s' - s is `factor` times the action, from states around `offset`."""
    table, generator = make_table([2] * (count // 2), seed=seed), np.random.default_rng(seed)
    state = generator.normal(offset, 1, table.observation.shape).astype(np.float32)
    motion = np.pad(np.float32(factor) * table.action, [(0, 0), (0, 1)])
    return table.replace(observation=state, next_observation=state + motion)


def test_numbers_tell_behaviour_and_dynamics_apart() -> None:
    target = moving(4_000, seed=0)
    sources = (moving(2_000, 1), moving(2_000, 1, offset=9.0), moving(2_000, 1, factor=-1.0))
    same, elsewhere, reversed_motion = (rule.numbers_of("map", "task", data_of(target, each)) for each in sources)
    assert same.overlap == reversed_motion.overlap == pytest.approx(0.95, abs=0.02) and elsewhere.overlap < 0.01
    assert same.mismatch == pytest.approx(0.0, abs=0.1)
    assert reversed_motion.mismatch > 0.5
    assert same.size == pytest.approx(np.log10(4_000))


def test_a_transition_that_was_drawn_often_is_not_its_own_neighbour() -> None:
    once = moving(400, seed=0)
    often = once.select(np.repeat(np.arange(once.num_episodes), 20))
    assert rule.compared(often, moving(2_000, 1)) == rule.compared(once, moving(2_000, 1))


def numbers_and_rows(sweep: str, folder: Path, seed: int) -> list[Numbers]:
    """Twelve tasks in which mixing gains 10 points if the source has the higher return, and costs 10 otherwise."""
    generator, rows, found = np.random.default_rng(seed), [], []
    for number in range(12):
        target_return, source_return = generator.uniform(100, 3000, 2)
        gain = 10.0 if source_return > target_return else -10.0
        found.append(Numbers(sweep, f"task {number}", 3.0, target_return, source_return, 0.7, 0.8))
        for method, score in (("iql_target", 50.0), ("iql_mixed", 50.0 + gain), ("v2a", 99.0)):
            rows.append(
                {
                    "axis/cell": f"task {number}",
                    "axis/method": method,
                    "axis/seed": "0",
                    "status": "finished",
                    "normalized_score_mean": score,
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{sweep}.parquet")
    return found


def test_rule_is_judged_on_tasks_that_it_was_not_fitted_to(tmp_path: Path) -> None:
    numbers = [
        *numbers_and_rows("map_hopper", tmp_path, 0),
        *numbers_and_rows("map_walker2d", tmp_path, 1),
        # Its rows are not there yet, or are of another task.
        Numbers("map_walker2d", "another", 3.0, 1.0, 2.0, 0.5, 0.5),
    ]
    lines = rule.report(numbers, tmp_path).splitlines()
    tested = [line for line in lines if line.startswith("| map_walker2d | 12 |")]
    assert any("| tree of two questions | 100% | 0.0 |" in line for line in tested), tested
    gained = rule.gains("map_walker2d", tmp_path)
    share = np.mean([gain > 0 for gain in gained.values()])
    assert any(f"| always mix | {share:.0%} | {10 * (1 - share):.1f} |" in line for line in tested), tested
    assert any("advantage_of_source" in line for line in lines[-6:])
