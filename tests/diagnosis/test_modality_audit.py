"""Probes and clusters on latents with and without information on the domain."""

from __future__ import annotations

import numpy as np
import pytest

from v2a_ray.diagnosis.modality_audit import audit_modality, principal_plane, probe_accuracy

DOMAIN = np.repeat(["a", "b", "c"], 20)
BEHAVIOR = np.tile(["expert", "medium"], 30)
NOISE = np.random.default_rng(0).normal(size=(60, 4))


def test_modality_audit_of_a_latent_that_encodes_the_domain() -> None:
    centres = {"a": [10, 0, 0, 0], "b": [0, 10, 0, 0], "c": [0, 0, 10, 0]}
    latent = NOISE * 0.1 + np.asarray([centres[name] for name in DOMAIN])
    audit = audit_modality(latent, DOMAIN, BEHAVIOR)
    assert audit.probe_domain == 1.0 and audit.chance_domain == pytest.approx(1 / 3)
    assert audit.adjusted_rand == audit.mutual_information == pytest.approx(1.0)
    assert audit.silhouette is not None and audit.silhouette > 0.9
    assert audit.probe_behavior is not None and audit.probe_behavior < 0.75
    assert audit.grade == "good"


def test_modality_audit_does_not_grade_separate_encoders() -> None:
    """Sources with equal dynamics and encoders that differ by a constant: a probe can still separate them."""
    latent = NOISE * 0.1 + np.asarray([{"a": 0.0, "b": 1.0, "c": 2.0}[name] for name in DOMAIN])[:, None]
    audit = audit_modality(latent, DOMAIN, BEHAVIOR, separate_fits=True)
    assert audit.probe_domain == 1.0 and audit.grade == "unknown"


def test_modality_audit_grades_noise_bad() -> None:
    audit = audit_modality(NOISE, DOMAIN, BEHAVIOR)
    assert audit.probe_domain is not None and audit.probe_domain < 0.55
    assert audit.adjusted_rand == pytest.approx(0.0, abs=0.15)
    assert audit.grade == "bad"


def test_modality_audit_detects_a_latent_of_the_behaviour() -> None:
    latent = NOISE * 0.1 + (BEHAVIOR == "expert")[:, None]
    audit = audit_modality(latent, DOMAIN, BEHAVIOR)
    assert audit.probe_behavior == 1.0 and audit.grade == "bad"


def test_modality_audit_of_a_single_domain_is_unknown() -> None:
    audit = audit_modality(NOISE, np.repeat("a", 60), BEHAVIOR)
    assert audit.probe_domain is None and audit.silhouette is None and audit.grade == "unknown"
    assert probe_accuracy(NOISE[:3], np.asarray(["a", "a", "b"])) is None


def test_probe_accuracy_is_balanced_over_unequal_domains() -> None:
    # Always predicting the large domain would be right for nine of ten episodes.
    rare = np.asarray(["a"] * 54 + ["b"] * 6)
    accuracy = probe_accuracy(NOISE, rare)
    assert accuracy is not None and accuracy < 0.75


def test_principal_plane_has_the_largest_variance() -> None:
    latent = NOISE * np.asarray([10.0, 1.0, 0.1, 0.01])
    plane = principal_plane(latent)
    assert plane.shape == (60, 2) and plane.std(axis=0) == pytest.approx(latent.std(axis=0)[:2], rel=0.05)
    assert principal_plane(NOISE[:, :1]).shape == (60, 2)
