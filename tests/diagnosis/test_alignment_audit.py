"""The alignment audit on scores of known quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.diagnosis.cases import MIX, NAMES, SHORT, evidence, settings
from v2a_ray.diagnosis.alignment_audit import audit_alignment
from v2a_ray.diagnosis.measures import auc, explained, rank_correlation, ranks_within, weighted_mean
from v2a_ray.diagnosis.mismatch import examined_episodes


def test_alignment_audit_of_a_perfect_score() -> None:
    audit = audit_alignment(evidence())
    assert audit.rank_correlation == pytest.approx(1.0)
    assert audit.auc_same_dynamics == 1.0 and audit.auc_near == 1.0
    assert audit.auc_behavior == pytest.approx(0.5, abs=0.1)
    assert audit.between_domains > 0.5 > audit.between_behaviors
    assert audit.grade == "good"
    assert all(part.rank_correlation == pytest.approx(1.0) for part in audit.parts)
    assert [(part.domain, part.num_transitions) for part in audit.parts] == [
        *[(SHORT["near"], 200)] * 2,
        *[(SHORT["far"], 200)] * 2,
    ]


def test_alignment_audit_grades_a_shuffled_score_bad() -> None:
    perfect = evidence()
    assert perfect.alignment is not None
    shuffled = np.random.default_rng(0).permutation(perfect.alignment)
    audit = audit_alignment(evidence(alignment=shuffled))
    assert audit.rank_correlation == pytest.approx(0.0, abs=0.1)
    assert audit.auc_near == pytest.approx(0.5, abs=0.05)
    assert audit.grade == "bad"


def test_alignment_audit_grades_a_behaviour_score_bad() -> None:
    case = evidence()
    by_behavior = (case.behavior == "medium").astype(np.float32)
    by_behavior += np.random.default_rng(0).normal(0, 0.1, len(by_behavior)).astype(np.float32)
    audit = audit_alignment(evidence(alignment=by_behavior - case.mismatch))
    assert audit.auc_behavior == pytest.approx(1.0)
    assert audit.between_behaviors > audit.between_domains
    assert audit.grade == "bad"


def test_alignment_audit_without_a_mismatch_uses_labels_only() -> None:
    audit = audit_alignment(evidence(mismatch=None, unknown="action noise"))
    assert audit.rank_correlation is None and audit.auc_near is None and audit.grade == "unknown"
    assert audit.auc_same_dynamics == 1.0 and audit.between_domains > 0.5


def test_source_of_the_target_domain_counts_as_same_dynamics() -> None:
    # Held-out data score lowest. If the target's domain is the near one, half of the "same" data score highest.
    low: dict[str, Any] = {
        "held_out": np.full(200, -10.0, np.float32),
        "parts": [("near", "medium", 10), ("far", "medium", 10)],
    }
    own = settings(target={"domain": NAMES["near"], "path": "not-read"})
    assert audit_alignment(evidence(**low)).auc_same_dynamics == 0.0
    assert audit_alignment(evidence(config=own, **low)).auc_same_dynamics == 0.5


def test_measures_by_hand() -> None:
    assert auc([2.0, 3.0], [1.0, 2.0]) == 0.875  # three pairs won, one tied
    assert auc([], [1.0]) is None
    assert rank_correlation([1, 2, np.nan, 3], [10, 20, 0, 30]) == pytest.approx(1.0)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert weighted_mean(np.asarray([1.0, 3.0, np.nan]), np.asarray([1.0, 3.0, 9.0])) == 2.5
    assert weighted_mean(np.asarray([1.0]), np.asarray([0.0])) is None
    assert ranks_within(np.asarray([5.0, 1.0, 7.0, 8.0]), ["a", "a", "b", "b"]).tolist() == [0.75, 0.25, 0.25, 0.75]
    # The domains have means 0 and 10; the second has parts at 9 and 11; there is no variance inside parts.
    shares = explained([0.0, 0.0, 9.0, 11.0], ["a", "a", "b", "b"], ["p", "p", "q", "r"])
    assert shares == pytest.approx([25 / 25.5, 0.5 / 25.5, 0.0])


def test_examined_episodes_samples_every_part_evenly() -> None:
    case = evidence(parts=[*MIX[:3], ("far", "expert", 100)])
    chosen = examined_episodes(case.source, max_rows=520)
    sources = [case.source.source[episode] for episode in chosen]
    assert {name: sources.count(name) for name in set(sources)} == {
        "near-medium": 2,
        "near-expert": 2,
        "far-medium": 2,
        "far-expert": 20,
    }
