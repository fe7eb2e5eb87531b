"""The filter audit against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.diagnosis.cases import SHORT, evidence, settings
from v2a_ray.diagnosis.filter_audit import audit_filter, draw_batches, nearest_distance, own_distance
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.policy.config import FILTERS
from v2a_ray.stages.policy.filtering import SourceFilter

TOP_HALF = {"rule": "top_fraction", "keep_fraction": 0.5, "alignment_weight": 1.0, "weight": "one"}


def with_filter(**rule: object) -> ExperimentConfig:
    policy = {"filter": TOP_HALF | rule, "batch_size": 128}
    return settings(alignment={"kind": "contrastive"}, advantage={"kind": "none"}, policy=policy)


def test_filter_audit_counts_kept_transitions_by_part() -> None:
    # 400 near transitions above 400 far ones: about half of a batch is near, and the best half passes.
    audit = audit_filter(evidence(config=with_filter()), oracle=None)
    near = [part for part in audit.parts if part.domain == SHORT["near"]]
    far = [part for part in audit.parts if part.domain == SHORT["far"]]
    assert audit.overall.acceptance == pytest.approx(0.5, abs=1e-9)
    assert sum(part.kept_share for part in near) > 0.95
    assert sum(part.drawn_share for part in near) == pytest.approx(0.5, abs=0.02)
    assert all(part.acceptance > 0.9 for part in near) and all(part.acceptance < 0.1 for part in far)
    assert audit.overall.mismatch.kept is not None and audit.overall.mismatch.refused is not None
    assert audit.overall.mismatch.kept < 0.02 < 0.15 < audit.overall.mismatch.refused


def test_filter_audit_precision_recall_and_lift() -> None:
    case = evidence(config=with_filter())
    oracle = np.random.default_rng(3).normal(size=len(case.rows))
    audit = audit_filter(case, oracle)
    # A quarter of the source is near and above the median; the kept rows are nearly all near, half above the median.
    assert audit.near_domains == [SHORT["near"]]
    assert audit.base_rate == pytest.approx(0.25)
    assert audit.precision == pytest.approx(0.5, abs=0.05) and audit.recall == pytest.approx(0.97, abs=0.05)
    assert audit.lift == pytest.approx(2.0, abs=0.2) and audit.grade == "good"
    assert audit.overall.oracle_rank.kept == pytest.approx(0.5, abs=0.05)


def test_filter_audit_of_a_random_score() -> None:
    case = evidence(config=with_filter())
    noise = np.random.default_rng(4).normal(size=len(case.rows)).astype(np.float32)
    oracle = np.random.default_rng(5).normal(size=len(case.rows))
    audit = audit_filter(evidence(config=with_filter(), alignment=noise), oracle)
    assert audit.lift == pytest.approx(1.0, abs=0.25)
    assert audit.overall.mismatch_correlation == pytest.approx(0.0, abs=0.1)


def test_filter_audit_without_a_rule_accepts_everything() -> None:
    audit = audit_filter(evidence(config=settings(method="iql_mixed"), alignment=None, held_out=None), oracle=None)
    assert audit.overall.acceptance == 1.0 and audit.overall.mismatch.refused is None
    assert audit.grade == "unknown"


def test_filter_audit_of_a_calibrated_filter_that_refuses_everything() -> None:
    config = with_filter(rule="calibrated")
    audit = audit_filter(evidence(config=config, held_out=np.full(50, 5.0, np.float32)), oracle=None)
    assert audit.eligible_share == 0.0 and audit.overall.acceptance == 0.0


def test_draw_batches_counts_drawn_and_kept_transitions() -> None:
    everything = SourceFilter.prepare(FILTERS(**TOP_HALF))
    # The better one of two drawn rows passes, so a row of rank u in [0, 1] passes with probability u.
    values = torch.linspace(0, 1, 2000)
    draws = draw_batches(everything, {"alignment": values}, 2000, batch_size=2)
    assert draws.drawn.sum() == 2 * draws.kept.sum() == 40_000
    passing = draws.kept / draws.drawn
    assert np.abs(passing.reshape(10, -1).mean(axis=1) - (np.arange(10) + 0.5) / 10).max() < 0.03


def test_distances_to_target_states() -> None:
    case = evidence()
    assert nearest_distance(case.target.observation, case.target) == pytest.approx(0.0)
    moved = case.target.observation + case.target.observation.std(axis=0)
    # One standard deviation in every dimension; another state may be nearer.
    assert nearest_distance(moved, case.target).max() <= 1.0 + 1e-6
    own = own_distance(case.target)
    assert own is not None and 0 < own < 2
    assert own_distance(case.target.select([0])) is None
