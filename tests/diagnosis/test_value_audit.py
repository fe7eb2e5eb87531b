"""The value audit on advantages with known errors."""

from __future__ import annotations

import numpy as np
import pytest

from v2a_ray.diagnosis.value_audit import audit_value, discordant_pairs, top_overlap

COUNT = 2000
DOMAIN = np.repeat(["a", "b"], COUNT // 2)
TRUTH = np.random.default_rng(0).normal(size=COUNT)
# A global advantage over two dynamics with opposite values: right in one domain, wrong in the other.
GLOBAL = np.where(DOMAIN == "a", TRUTH, -TRUTH)


def test_value_audit_of_a_global_and_a_conditioned_advantage() -> None:
    audit = audit_value(GLOBAL, TRUTH, (TRUTH, TRUTH), DOMAIN, 0.5)
    assert audit.of_everything.rank_correlation == pytest.approx({"a": 1.0, "b": -1.0})
    assert audit.of_everything.top_overlap == {"a": 1.0, "b": 0.0}
    assert audit.of_everything.mean_rank_correlation == pytest.approx(0.0)
    assert audit.conditioned is not None and audit.conditioned.discordant == 0.0
    assert audit.of_everything.discordant == pytest.approx(0.5, abs=0.05)
    assert audit.gain == pytest.approx(1.0) and audit.closed == pytest.approx(1.0)
    assert audit.grade == "good"


def test_value_audit_grades_harmful_conditioning_bad_and_useless_fair() -> None:
    assert audit_value(TRUTH, GLOBAL, (TRUTH, TRUTH), DOMAIN, 0.5).grade == "bad"
    assert audit_value(TRUTH, TRUTH, (TRUTH, TRUTH), DOMAIN, 0.5).grade == "fair"


def test_value_audit_with_disagreeing_oracles_is_unknown() -> None:
    other = np.random.default_rng(1).normal(size=COUNT)
    audit = audit_value(GLOBAL, TRUTH, (TRUTH, other), DOMAIN, 0.5)
    assert audit.ceiling.mean_rank_correlation == pytest.approx(0.0, abs=0.1)
    assert audit.grade == "unknown"


def test_value_audit_without_a_latent_has_no_gain() -> None:
    audit = audit_value(GLOBAL, None, (TRUTH, TRUTH), DOMAIN, 0.5)
    assert audit.conditioned is None and audit.gain is None and audit.grade == "unknown"


def test_top_overlap_and_discordant_pairs_by_hand() -> None:
    assert top_overlap(np.asarray([4, 3, 2, 1]), np.asarray([4, 1, 3, 2]), 0.5) == 0.5
    labels = np.asarray(["a", "b"])
    assert discordant_pairs(np.asarray([0.0, 1.0]), np.asarray([1.0, 0.0]), labels) == 1.0
    assert discordant_pairs(np.asarray([0.0, 1.0]), np.asarray([1.0, 0.0]), np.asarray(["a", "a"])) is None
