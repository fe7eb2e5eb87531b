"""Estimates of sweeps against counts and seconds computed by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from v2a_ray import processor
from v2a_ray.checksums import write_sealed
from v2a_ray.engine import rates as engine_rates
from v2a_ray.engine.plan import Node, make_plan
from v2a_ray.engine.rates import RATES_FILE, Rates, Tables, packaged_rates
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.estimate import Estimate, estimate
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.experiments.reading import resolve
from v2a_ray.report.estimate_text import against_truth
from v2a_ray.settings.yaml_files import merge
from v2a_ray.stages.registered import costs_of

RATES = Rates(
    processor="an abacus",
    command="python -m nothing",
    process_gib=0.5,
    seconds={
        "collect hopper": (0.1, 0.0),
        "source": (0.01, 0.0),
        "rows": (0.001, 0.0),
        "alignment contrastive": (1.0, 0.001),
        "policy iql": (2.0, 0.01),
        "evaluate hopper": (0.001, 0.0),
        "start": (5.0, 0.0),
    },
)
SETTINGS: dict[str, Any] = {
    "name": "worked out",
    "method": "igdf",
    "upstream_seed": 0,
    "target": {"domain": "hopper", "behavior": "random", "num_transitions": 100},
    "sources": [{"domain": "hopper/gravity-0.5", "behavior": "random", "num_transitions": 200}],
    "alignment": {"num_steps": 3, "batch_size": 2, "width": 10},
    "policy": {"num_steps": 10, "batch_size": 4, "width": 8},
    "evaluation": {"num_episodes": 2, "interval_steps": 5},
}
POLICY_SECONDS = 54.6
"""5 s to start, 10 steps of 2 + 0.01 × 4 × 8² s, and 2 × 2 episodes of 1,000 steps of 0.001 s."""
CHAIN_SECONDS = 25.8
"""200 transitions take 0.1 s each to collect, 0.01 s to mix and 0.001 s to write as rows; then 3 alignment steps take
1 + 0.001 × 2 × 10² s each."""
UPSTREAM_SECONDS = 35.9
"""`CHAIN_SECONDS`, plus collecting the target's 100 transitions and writing their rows."""


@dataclass(frozen=True)
class Trial:
    config: ExperimentConfig
    plan: dict[str, Node]


def trial(**over: Any) -> Trial:
    config = resolve(merge(SETTINGS, over))
    return Trial(config, make_plan(config))


def guess(trials: list[Trial], folder: Path, num_cpus: int = 1, **more: Any) -> Estimate:
    return estimate(trials, ArtifactStore(folder / "store"), num_cpus, rates=RATES, **more)


def put(folder: Path, of: Trial, stage: str, seconds: float) -> None:
    """Store an artifact that took `seconds`."""
    path = ArtifactStore(folder / "store").path(stage, of.plan[stage].key)
    path.mkdir(parents=True)
    config = of.config.model_dump(mode="json")
    record = {"stage": stage, "key": path.name, "seconds": seconds, "config": config, "files": {}}
    write_sealed(path / "artifact.json", record)


def test_estimate_counts_shared_artifacts_once_and_writes_nothing(tmp_path: Path) -> None:
    found = guess([trial(seed=0), trial(seed=1)], tmp_path)
    assert {stage.stage: stage.num_artifacts for stage in found.stages} == {
        "data": 2,
        "source": 1,
        "rows": 2,
        "alignment": 1,
        "policy": 2,
    }
    assert found.num_trials == 2 and found.process_gib == 0.5 and found.threads_per_trial == 1
    assert [stage.num_found for stage in found.stages] == [0] * 5
    assert list(tmp_path.iterdir()) == []


def test_estimated_seconds_by_hand(tmp_path: Path) -> None:
    found = guess([trial(seed=0), trial(seed=1)], tmp_path)
    seconds = {stage.stage: stage.seconds for stage in found.stages}
    expected = {"data": 30.0, "source": 2.0, "rows": 0.3, "alignment": 3.6, "policy": 2 * POLICY_SECONDS}
    assert seconds == pytest.approx(expected)
    assert found.cpu_hours * 3600 == pytest.approx(UPSTREAM_SECONDS + 2 * POLICY_SECONDS)
    assert {basis for stage in found.stages for basis in stage.basis} == {"measured"}


@pytest.mark.parametrize(
    ("num_cpus", "at_a_time", "seconds"),
    [
        (1, None, UPSTREAM_SECONDS + 2 * POLICY_SECONDS),
        # The chain of the source limits the duration, for any number of cores.
        (2, None, CHAIN_SECONDS + POLICY_SECONDS),
        (64, None, CHAIN_SECONDS + POLICY_SECONDS),
        (4, 1, CHAIN_SECONDS + 2 * POLICY_SECONDS),
    ],
)
def test_estimated_hours_depend_on_the_cores(
    tmp_path: Path, num_cpus: int, at_a_time: int | None, seconds: float
) -> None:
    found = guess([trial(seed=0), trial(seed=1)], tmp_path, num_cpus, max_concurrent_trials=at_a_time)
    assert found.hours * 3600 == pytest.approx(seconds)
    assert found.num_at_once == min(num_cpus, at_a_time or 2, 2)


def test_fewer_trials_run_at_once_with_several_threads(tmp_path: Path) -> None:
    trials = [trial(seed=seed, policy={"num_threads": 2}) for seed in range(4)]
    assert guess(trials, tmp_path, num_cpus=5).num_at_once == 2


def test_stored_artifacts_cost_nothing_and_calibrate_the_rates(tmp_path: Path) -> None:
    trials = [trial(seed=0), trial(seed=1)]
    put(tmp_path, trials[0], "policy", 2 * POLICY_SECONDS)
    policies = guess(trials, tmp_path).stages[-1]
    assert (policies.num_artifacts, policies.num_found, policies.basis) == (2, 1, ("store",))
    assert policies.seconds == pytest.approx(2 * POLICY_SECONDS)


def test_estimate_scales_other_sizes_and_prefers_equal_ones(tmp_path: Path) -> None:
    # The rates give 5 + 10 (2 + 0.01 × 4 × 16²) + 4 = 131.4 seconds, so this machine is half as fast.
    put(tmp_path, trial(policy={"width": 16}), "policy", 2 * 131.4)
    assert guess([trial(seed=1)], tmp_path).stages[-1].seconds == pytest.approx(2 * POLICY_SECONDS)
    put(tmp_path, trial(seed=0), "policy", 3 * POLICY_SECONDS)
    assert guess([trial(seed=1)], tmp_path).stages[-1].seconds == pytest.approx(3 * POLICY_SECONDS)


def test_a_toy_in_the_store_does_not_spoil_the_estimate(tmp_path: Path) -> None:
    """Nearly all of what it took was starting."""
    put(tmp_path, trial(policy={"num_steps": 10}), "policy", 40 * POLICY_SECONDS)
    long = [trial(seed=1, policy={"num_steps": 1000})]
    policies = guess(long, tmp_path).stages[-1]
    assert policies.basis == ("measured",)
    expected = policies.seconds
    put(tmp_path, trial(seed=2, policy={"num_steps": 1000}), "policy", 1.5 * expected)
    policies = guess(long, tmp_path).stages[-1]
    assert policies.seconds == pytest.approx(1.5 * expected) and policies.basis == ("store",)


def test_start_and_slope_are_told_apart(tmp_path: Path) -> None:
    # As measured a policy of n steps takes 9 + 4.56 n seconds (with its two evaluations); here 100 more and twice that.
    def seconds(num_steps: int) -> float:
        measured = guess([trial(policy={"num_steps": num_steps, "width": 8}, evaluation={"interval_steps": 0})], empty)
        return 100 + 2 * measured.stages[-1].seconds

    empty = tmp_path / "empty"
    for seed, num_steps in enumerate((100, 200, 400, 800)):
        there = trial(seed=seed, policy={"num_steps": num_steps}, evaluation={"interval_steps": 0})
        put(tmp_path, there, "policy", seconds(num_steps))
    asked = [trial(seed=9, policy={"num_steps": 1600}, evaluation={"interval_steps": 0})]
    assert guess(asked, tmp_path).stages[-1].seconds == pytest.approx(seconds(1600))


def test_how_far_artifacts_scatter_is_said_where_enough_are_there(tmp_path: Path) -> None:
    asked = [trial(seed=99)]
    assert guess(asked, tmp_path).spread_hours is None
    for seed, factor in enumerate((0.8, 0.9, 1.0, 1.1, 1.2)):
        put(tmp_path, trial(seed=seed), "policy", factor * POLICY_SECONDS)
    found = guess(asked, tmp_path)
    low, high = found.stages[-1].spread_seconds
    assert (low, high) == pytest.approx((0.84 * POLICY_SECONDS, 1.16 * POLICY_SECONDS))
    hours = found.spread_hours
    assert hours and hours[0] < found.hours < hours[1]
    text = against_truth(found, 3600.0)
    assert text.startswith("took 1.0 hours; ") and "scatter" in text and text.endswith("were estimated")


def test_unmeasured_kind_is_reported_as_unknown(tmp_path: Path) -> None:
    policies = guess([trial(method="rllib_bc")], tmp_path).stages[-1]
    assert (policies.num_unknown, policies.seconds, policies.basis) == (1, 0.0, ("unknown",))
    # 12 seconds for 10 steps in the store give 18 seconds for 15 steps.
    put(tmp_path, trial(method="rllib_bc"), "policy", 12.0)
    policies = guess([trial(method="rllib_bc", policy={"num_steps": 15})], tmp_path).stages[-1]
    assert (policies.num_unknown, policies.basis) == (0, ("store",)) and policies.seconds == pytest.approx(18.0)


def test_estimate_counts_all_policies_of_a_search(tmp_path: Path) -> None:
    put(tmp_path, trial(), "policy", POLICY_SECONDS)
    found = guess([trial()], tmp_path, num_cpus=8, policies_per_cell=40)
    assert (found.num_trials, found.stages[-1].num_artifacts, found.stages[-1].num_found) == (40, 40, 0)
    assert found.stages[-1].seconds == pytest.approx(40 * POLICY_SECONDS)
    assert found.num_at_once == 8


def test_estimate_counts_only_upstream_stages_of_probes(tmp_path: Path) -> None:
    found = guess([trial()], tmp_path, probes=[trial(alignment={"width": 20})])
    counts = {stage.stage: [stage.num_artifacts, stage.seconds] for stage in found.stages}
    # 3 steps of 1 + 0.001 × 2 × 20² more.
    assert counts["alignment"] == pytest.approx([2, 3.6 + 5.4])
    assert counts["policy"] == pytest.approx([1, POLICY_SECONDS]) and counts["data"][0] == 2


def test_table_memory_is_estimated_if_sizes_are_known(tmp_path: Path) -> None:
    # Rows of 2 × 11 + 3 + 2 numbers of 4 bytes; the larger of two tasks.
    trials = [trial(), trial(target={"num_transitions": 300})]
    assert guess(trials, tmp_path).table_gib == pytest.approx(500 * 27 * 4 / 2**30)
    (tmp_path / "recorded.hdf5").write_bytes(b"content")
    recorded = trial(target={"path": str(tmp_path / "recorded.hdf5"), "num_transitions": None})
    found = guess([recorded], tmp_path)
    assert found.table_gib is None
    assert {stage.stage: stage.num_unknown for stage in found.stages}["data"] == 1


def test_records_of_other_versions_are_ignored(tmp_path: Path) -> None:
    put(tmp_path, trial(), "policy", 1e6)
    record = ArtifactStore(tmp_path / "store").path("policy", trial().plan["policy"].key) / "artifact.json"
    for damaged in (True, False):
        write_sealed(record, {"seconds": 1e6, "config": {"nonsense": True}})
        if damaged:
            record.write_bytes(record.read_bytes()[:-20])
        assert guess([trial(seed=1)], tmp_path).stages[-1].seconds == pytest.approx(POLICY_SECONDS)


@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("rllib_")])
def test_every_own_method_has_measured_rates(method: str) -> None:
    config, measured = trial(method=method).config, packaged_rates().seconds
    for node in make_plan(config).values():
        works = costs_of(node.stage, config, Tables(200, 100), node.spec)
        assert works and {work.kind for work in works} <= measured.keys()


@pytest.mark.parametrize("encoder", ["gru", "pooled"])
@pytest.mark.parametrize("optimization", ["em", "joint"])
def test_every_form_of_the_modality_has_measured_rates(encoder: str, optimization: str) -> None:
    config = trial(method="v2a", modality={"encoder": encoder, "optimization": optimization}).config
    assert (packaged_rates().of(costs_of("modality", config, Tables(200, 100)) or []) or 0) > 0


@pytest.mark.parametrize("robot", ["hopper", "walker2d", "halfcheetah", "ant", "ant111"])
def test_every_robot_has_measured_rates(robot: str) -> None:
    domains = {"target": {"domain": robot}, "sources": {0: {"domain": f"{robot}/gravity-0.5"}}}
    config, measured = trial(**domains).config, packaged_rates()
    works = costs_of("policy", config, Tables(200, 100)) or []
    works += costs_of("data", config, Tables(200, 100), config.target) or []
    assert len(works) == 4 and (measured.of(works) or 0) > 0


@pytest.mark.parametrize(
    ("flags", "named"), [("sse avx2 avx512f", "AVX512"), ("sse avx2", "AVX2"), ("neon", None)], ids=lambda value: value
)
def test_rates_of_a_similar_processor_are_used(flags: str, named: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "processor_facts", lambda: {"flags": flags})
    packaged_rates.cache_clear()
    chosen, measured = packaged_rates(), json.loads(RATES_FILE.read_text())
    packaged_rates.cache_clear()
    assert chosen.processor == measured.get(named, next(iter(measured.values())))["processor"]


def test_missing_rates_are_taken_from_another_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = list(json.loads(RATES_FILE.read_text()).values())
    packaged_rates.cache_clear()
    monkeypatch.setattr(
        engine_rates,
        "read_json",
        lambda path: {"AVX2": {**parts[0], "seconds": {"start": [7.0, 0.0]}}, "other": parts[0]},
    )
    monkeypatch.setattr(processor, "processor_facts", lambda: {"flags": "sse avx2"})
    found = packaged_rates().seconds
    packaged_rates.cache_clear()
    assert found["start"] == (7.0, 0.0) and found["policy iql"] == tuple(parts[0]["seconds"]["policy iql"])
