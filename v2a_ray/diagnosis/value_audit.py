"""Value audit. V2A's premise is that one global advantage misranks transitions; is it true, and does z repair it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.diagnosis.measures import rank_correlation

Float = NDArray[np.floating[Any]]
Labels = NDArray[np.str_]
NUM_PAIRS = 200_000
NOTICEABLE = 0.02
"""Smaller differences of rank correlations are ignored. A judgement: the variation over seeds was not measured."""
RELIABLE = 0.3
"""If two oracles agree less than this, their noise is larger than their signal."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of one candidate advantage with the oracles.

    Attributes:
        rank_correlation: per domain, over its transitions.
        top_overlap: per domain, the fraction of the best xi by the candidate that is among the best xi by the oracle;
            xi is chance.
        mixed_top_overlap: the same over the whole mix.
        discordant: fraction of pairs of transitions from two domains ordered unlike the oracles; 0.5 is chance.
    """

    rank_correlation: dict[str, float | None]
    top_overlap: dict[str, float]
    mixed_top_overlap: float
    discordant: float | None

    @property
    def mean_rank_correlation(self) -> float | None:
        """Mean over domains."""
        values = [value for value in self.rank_correlation.values() if value is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class ValueAudit:
    """Agreement of the candidates with the oracles.

    Attributes:
        keep_fraction: xi of the run's filter.
        of_everything: agreement of A(s, a).
        conditioned: agreement of A(s, a, z), if the run has z.
        ceiling: agreement of two oracles that differ only in their seed; noise allows no higher agreement.
    """

    keep_fraction: float
    domains: list[str]
    of_everything: Agreement
    conditioned: Agreement | None
    ceiling: Agreement

    @property
    def gain(self) -> float | None:
        """Increase of the mean rank correlation with the oracles due to z."""
        if self.conditioned is None:
            return None
        with_z, without = self.conditioned.mean_rank_correlation, self.of_everything.mean_rank_correlation
        return None if with_z is None or without is None else with_z - without

    @property
    def closed(self) -> float | None:
        """Fraction of the gap between A(s, a) and the ceiling that z closes; None if there is no gap."""
        ceiling, without = self.ceiling.mean_rank_correlation, self.of_everything.mean_rank_correlation
        if self.gain is None or ceiling is None or without is None or ceiling - without < NOTICEABLE:
            return None
        return self.gain / (ceiling - without)

    @property
    def grade(self) -> str:
        """`good`: z repairs at least a quarter of the misassignment. `bad`: z makes it worse.

        `unknown` if the oracles agree with each other less than RELIABLE.
        """
        ceiling = self.ceiling.mean_rank_correlation
        if self.gain is None or ceiling is None or ceiling < RELIABLE:
            return "unknown"
        if self.gain < -NOTICEABLE:
            return "bad"
        return "good" if self.gain >= NOTICEABLE and (self.closed is None or self.closed >= 0.25) else "fair"


def audit_value(
    of_everything: Float,
    conditioned: Float | None,
    oracles: tuple[Float, Float],
    domain: Labels,
    keep_fraction: float,
    seed: int = 0,
) -> ValueAudit:
    """Compare advantages (n,) with the mean of two oracles (n,), domain by domain and across domains (n,)."""
    truth = (oracles[0] + oracles[1]) / 2

    def agreement(candidate: Float, against: Float = truth) -> Agreement:
        names = [str(name) for name in np.unique(domain)]
        inside = {name: domain == name for name in names}
        return Agreement(
            {name: rank_correlation(candidate[mask], against[mask]) for name, mask in inside.items()},
            {name: top_overlap(candidate[mask], against[mask], keep_fraction) for name, mask in inside.items()},
            top_overlap(candidate, against, keep_fraction),
            discordant_pairs(candidate, against, domain, seed),
        )

    return ValueAudit(
        keep_fraction=keep_fraction,
        domains=[str(name) for name in np.unique(domain)],
        of_everything=agreement(of_everything),
        conditioned=None if conditioned is None else agreement(conditioned),
        ceiling=agreement(*oracles),
    )


def top_overlap(candidate: Float, truth: Float, fraction: float) -> float:
    """Fraction of the best `fraction` by `candidate` (n,) that is among the best `fraction` by `truth` (n,)."""
    count = max(1, round(fraction * len(truth)))
    best = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (candidate, truth)]
    return len(best[0] & best[1]) / count


def discordant_pairs(candidate: Float, truth: Float, domain: Labels, seed: int = 0) -> float | None:
    """Fraction of random pairs from two domains that `candidate` and `truth` order oppositely; None for one domain."""
    generator = np.random.default_rng(seed)
    first, second = generator.integers(len(truth), size=(2, NUM_PAIRS))
    across = domain[first] != domain[second]
    if not across.any():
        return None
    first, second = first[across], second[across]
    opposite = (candidate[first] - candidate[second]) * (truth[first] - truth[second]) < 0
    return float(opposite.mean())
