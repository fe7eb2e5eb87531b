"""Alignment audit: does the score h order source transitions by how well they fit the target's dynamics?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2a_ray.diagnosis.evidence import Evidence
from v2a_ray.diagnosis.measures import auc, explained, rank_correlation, weighted_mean


@dataclass(frozen=True)
class PartAlignment:
    """One part of the source.

    Attributes:
        rank_correlation: Spearman's correlation of h with minus the mismatch, inside the part.
    """

    domain: str
    behavior: str
    num_transitions: int
    mean_alignment: float
    mean_mismatch: float | None
    rank_correlation: float | None


@dataclass(frozen=True)
class AlignmentAudit:
    """The quality of h as a measure of dynamics mismatch.

    Attributes:
        kind: the estimator.
        rank_correlation: Spearman's correlation of h with minus the true mismatch, over the source; 1 is perfect, 0 is
            chance.
        auc_same_dynamics: probability that a transition with the target's dynamics (held-out target data, and source
            data of the target's domain) scores above one with other dynamics; 0.5 is chance.
        auc_near: the same for source data of near domains against the other source data.
        auc_behavior: how well h separates behaviours of ONE domain, in either direction, mean over domains. 0.5, no
            separation, is best, because their dynamics are the same.
        between_domains, between_behaviors, inside_parts: shares of the variance of h.
        mean_held_out: mean h of held-out target data.
    """

    kind: str
    rank_correlation: float | None
    auc_same_dynamics: float | None
    auc_near: float | None
    auc_behavior: float | None
    between_domains: float
    between_behaviors: float
    inside_parts: float
    mean_held_out: float
    parts: list[PartAlignment]

    @property
    def grade(self) -> str:
        """`good`: ordered by dynamics. `bad`: hardly better than chance, or h depends on behaviour more than dynamics.

        A rank correlation of 0.5 orders two of three pairs correctly (Kendall's tau is about a third), 0.2 orders 57 %.
        """
        if self.rank_correlation is None:
            return "unknown"
        if self.rank_correlation < 0.2 or self.between_behaviors > self.between_domains:
            return "bad"
        return "good" if self.rank_correlation >= 0.5 else "fair"


def audit_alignment(evidence: Evidence) -> AlignmentAudit:
    """Compare the column h, which the run must have, with the true mismatch and the labels."""
    assert evidence.alignment is not None and evidence.held_out is not None
    h, mismatch = evidence.alignment[evidence.rows], evidence.mismatch
    domain, behavior = evidence.domain, evidence.behavior
    same, near = domain == evidence.target_domain, np.isin(domain, evidence.near_domains)
    parts = []
    for part in evidence.parts:
        inside = evidence.of_part(part)
        mean = correlation = None
        if mismatch is not None:
            mean = weighted_mean(mismatch[inside], np.ones(inside.sum()))
            correlation = rank_correlation(h[inside], -mismatch[inside])
        parts.append(PartAlignment(*part, int(inside.sum()), float(h[inside].mean()), mean, correlation))
    told_apart = [
        max(value, 1 - value)
        for name in evidence.domains
        for first, second in _pairs([label for each, label in evidence.parts if each == name])
        if (value := auc(h[evidence.of_part((name, first))], h[evidence.of_part((name, second))])) is not None
    ]
    between_domains, between_behaviors, inside_parts = explained(
        h, domain, np.char.add(np.char.add(domain, " "), behavior)
    )
    return AlignmentAudit(
        kind=evidence.run.config.alignment.kind,
        rank_correlation=None if mismatch is None else rank_correlation(h, -mismatch),
        auc_same_dynamics=auc(np.concatenate([h[same], evidence.held_out]), h[~same]),
        auc_near=auc(h[near], h[~near]),
        auc_behavior=float(np.mean(told_apart)) if told_apart else None,
        between_domains=between_domains,
        between_behaviors=between_behaviors,
        inside_parts=inside_parts,
        mean_held_out=float(evidence.held_out.mean()),
        parts=parts,
    )


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(first, second) for index, first in enumerate(names) for second in names[index + 1 :]]
