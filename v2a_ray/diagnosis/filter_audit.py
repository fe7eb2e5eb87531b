"""Filter audit: which source transitions reach the policy, and whether they are the right ones.

The filter ranks a transition within its batch, so a transition passes with some probability. It is measured by drawing
batches as the policy stage does and counting. The columns of the filter do not change during training, so neither does
the probability.

Shape suffixes: N transitions of the source, n examined transitions, B batch, b kept transitions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.diagnosis.evidence import Evidence
from v2a_ray.diagnosis.measures import rank_correlation, ranks_within, weighted_mean
from v2a_ray.stages.policy.filtering import SourceFilter, normalized_columns

Float = NDArray[np.floating[Any]]
DRAWS_PER_TRANSITION = 20
MAX_BATCHES = 20_000
MAX_TARGET_STATES = 20_000


@dataclass(frozen=True)
class Draws:
    """How often each of N transitions was drawn, and how often it passed."""

    drawn: NDArray[np.int64]
    kept: NDArray[np.int64]


@dataclass(frozen=True)
class Contrast:
    """Means over the transitions that pass and over the refused ones; None if there are none or values are unknown."""

    kept: float | None
    refused: float | None


@dataclass(frozen=True)
class Selection:
    """The filter's selection from the source, or from one part of it.

    Attributes:
        drawn_share, kept_share: share of all drawn transitions, and of all kept ones.
        acceptance: probability that a drawn transition passes.
        mismatch: true dynamics mismatch.
        oracle_rank: rank, from 0 to 1, of the oracle advantage among the transitions of the same domain.
        distance: distance of the state to the nearest state of the target data, in the target's standard deviations.
        episode_return: undiscounted return of the episode.
        mismatch_correlation: rank correlation of passing with minus the mismatch.
        oracle_correlation: rank correlation of passing with the oracle rank.
    """

    domain: str
    behavior: str
    drawn_share: float
    kept_share: float
    acceptance: float
    mismatch: Contrast
    oracle_rank: Contrast
    distance: Contrast
    episode_return: Contrast
    mismatch_correlation: float | None
    oracle_correlation: float | None


@dataclass(frozen=True)
class FilterAudit:
    """The filter's selection, overall and by part. A good transition is of a near domain with oracle rank above 0.5.

    Attributes:
        rule, keep_fraction, alignment_weight: settings of the filter.
        eligible_share: share of eligible transitions in the source; below one only with the calibrated rule.
        overall: over the whole source; its domain and behaviour are empty.
        parts: the same inside each part.
        near_domains: see `Evidence.near_domains`.
        base_rate: share of good transitions in the source.
        precision: share of good transitions among those that pass.
        recall: probability that a good transition passes.
        target_distance: mean distance of a target state to the nearest state of the target's other episodes, in the
            units of `Selection.distance`; states that are no farther are already covered by the target data.
    """

    rule: str
    keep_fraction: float
    alignment_weight: float
    eligible_share: float
    overall: Selection
    parts: list[Selection]
    near_domains: list[str]
    base_rate: float | None
    precision: float | None
    recall: float | None
    target_distance: float | None

    @property
    def lift(self) -> float | None:
        """Precision over base rate; 1 for a random selection."""
        return self.precision / self.base_rate if self.precision is not None and self.base_rate else None

    @property
    def grade(self) -> str:
        """`bad`: lift below 1.1, hardly better than a random selection. `good`: lift of at least 1.5."""
        if self.rule == "none" or self.lift is None:
            return "unknown"
        if self.lift < 1.1:
            return "bad"
        return "good" if self.lift >= 1.5 else "fair"


def audit_filter(evidence: Evidence, oracle: Float | None) -> FilterAudit:
    """Draw and filter as the policy stage did; `oracle`: (n,) oracle advantages of the examined transitions."""
    config = evidence.run.config.policy
    columns = {"alignment": evidence.alignment, "advantage": evidence.advantage}
    present = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items() if values is not None}
    present |= normalized_columns(config.filter, present)
    tensors = {name: torch.from_numpy(values.copy()) for name, values in present.items()}
    held_out = None if evidence.held_out is None else np.asarray(evidence.held_out, dtype=np.float32)
    alignment = None if evidence.alignment is None else np.asarray(evidence.alignment, dtype=np.float32)
    source_filter = SourceFilter.prepare(config.filter, alignment, held_out)
    size = config.batch_size * (1 if config.data == "mixed" else 2)
    draws = draw_batches(source_filter, tensors, evidence.source.num_transitions, size)
    drawn, kept = draws.drawn[evidence.rows], draws.kept[evidence.rows]
    refused = drawn - kept
    rank = None if oracle is None else ranks_within(oracle, evidence.domain)
    distance = nearest_distance(evidence.source.observation[evidence.rows], evidence.target)
    returns = evidence.source.returns[evidence.source.episode_of_row[evidence.rows]]

    def contrast(values: Float | None, inside: NDArray[np.bool_]) -> Contrast:
        if values is None:
            return Contrast(None, None)
        return Contrast(*(weighted_mean(values[inside], weights[inside]) for weights in (kept, refused)))

    def selection(inside: NDArray[np.bool_], domain: str = "", behavior: str = "") -> Selection:
        passing = kept / np.maximum(drawn, 1)
        seen = inside & (drawn > 0)
        mismatch = evidence.mismatch
        return Selection(
            domain=domain,
            behavior=behavior,
            drawn_share=float(drawn[inside].sum() / max(1, drawn.sum())),
            kept_share=float(kept[inside].sum() / max(1, kept.sum())),
            acceptance=float(kept[inside].sum() / max(1, drawn[inside].sum())),
            mismatch=contrast(mismatch, inside),
            oracle_rank=contrast(rank, inside),
            distance=contrast(distance, inside),
            episode_return=contrast(returns, inside),
            mismatch_correlation=None if mismatch is None else rank_correlation(passing[seen], -mismatch[seen]),
            oracle_correlation=None if rank is None else rank_correlation(passing[seen], rank[seen]),
        )

    base_rate = precision = recall = None
    if evidence.near_domains and rank is not None:
        worth = np.isin(evidence.domain, evidence.near_domains) & (rank > 0.5)
        base_rate = float(worth.mean())
        precision, recall = weighted_mean(worth, kept), weighted_mean(kept / np.maximum(drawn, 1), worth * drawn)
    eligible = source_filter.eligible
    return FilterAudit(
        rule=config.filter.rule,
        keep_fraction=config.filter.keep_fraction,
        alignment_weight=config.filter.alignment_weight,
        eligible_share=1.0 if eligible is None else len(eligible) / evidence.source.num_transitions,
        overall=selection(np.ones(len(evidence.rows), dtype=bool)),
        parts=[selection(evidence.of_part(part), *part) for part in evidence.parts],
        near_domains=evidence.near_domains,
        base_rate=base_rate,
        precision=precision,
        recall=recall,
        target_distance=own_distance(evidence.target),
    )


def draw_batches(
    source_filter: SourceFilter, columns: dict[str, Tensor], num_transitions: int, batch_size: int, seed: int = 0
) -> Draws:
    """Filter batches of `batch_size` until every transition was drawn about `DRAWS_PER_TRANSITION` times.

    Ineligible transitions count as drawn and refused.
    """
    eligible = torch.arange(num_transitions) if source_filter.eligible is None else source_filter.eligible
    drawn, kept = (torch.zeros(num_transitions, dtype=torch.int64) for _ in range(2))
    generator = torch.Generator().manual_seed(seed)
    num_batches = min(MAX_BATCHES, math.ceil(DRAWS_PER_TRANSITION * len(eligible) / batch_size))
    for _ in range(num_batches):
        index_B = eligible[torch.randint(len(eligible), (batch_size,), generator=generator)]
        keep_b, _ = source_filter({name: values[index_B] for name, values in columns.items()}, batch_size)
        drawn += torch.bincount(index_B, minlength=num_transitions)
        kept += torch.bincount(index_B[keep_b], minlength=num_transitions)
    ineligible = torch.ones(num_transitions, dtype=torch.bool)
    ineligible[eligible] = False
    drawn[ineligible] = DRAWS_PER_TRANSITION
    return Draws(drawn.numpy(), kept.numpy())


def nearest_distance(states_nO: Float, target: EpisodeTable) -> Float:
    """(n,): distance to the nearest target state, root mean square over dimensions in target standard deviations."""
    scaled, states_MO, _ = _scaled(target)
    return np.asarray(KDTree(states_MO).query(states_nO / scaled)[0])


def own_distance(target: EpisodeTable) -> float | None:
    """Mean distance of target states to the nearest state of another target episode; None for a single episode."""
    _, states_MO, episodes = _scaled(target)
    distances = [
        KDTree(states_MO[episodes != episode]).query(states_MO[episodes == episode])[0]
        for episode in np.unique(episodes)
        if (episodes != episode).any()
    ]
    return float(np.concatenate(distances).mean()) if distances else None


def _scaled(target: EpisodeTable) -> tuple[Float, Float, NDArray[np.int64]]:
    """The scale (O,), target states (M, O) divided by it, and their episodes (M,); at most MAX_TARGET_STATES."""
    rows = np.linspace(0, target.num_transitions - 1, min(target.num_transitions, MAX_TARGET_STATES)).astype(np.int64)
    states = target.observation[rows].astype(np.float64)
    divisor = np.maximum(states.std(axis=0), 1e-3) * math.sqrt(states.shape[1])
    return divisor, states / divisor, target.episode_of_row[rows]
