"""Reads the facts of a source from its table folder, a group of episodes in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.content import row_hashes
from v2a_ray.data.checks.overlap import FIELDS, Content, Digests, beginning_with, distinct, zero_bits
from v2a_ray.data.checks.rewards import RewardSample, sample_rewards, sampled_rows
from v2a_ray.data.checks.source_dynamics import SAMPLE_ROWS, Fit, fit_domains
from v2a_ray.data.fidelity.resimulation import known_states, spread
from v2a_ray.data.table.folder import read_episodes, read_field, read_lengths, read_row_groups
from v2a_ray.domains import Domain, RobotDomain

ROWS_AT_ONCE = 2**16
"""Numbers of rows take eight times the memory of a mask."""


def read_facts(
    path: Path, domains: Sequence[Domain]
) -> tuple[tuple[int, int], Content, RewardSample | None, dict[Domain, Fit]]:
    """What `SourceFacts` holds: dimensions, content, sampled rewards, fits of domains."""
    lengths = read_lengths(path)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    num_transitions = int(offsets[-1])
    sampled, zeros = sampled_rows(num_transitions), zero_bits(num_transitions)
    robots = [domain for domain in domains if isinstance(domain, RobotDomain)]
    # One growing buffer each: small arrays of a group would lie between the large ones of the next, whose memory could
    # not be used again.
    hashes = bytearray()
    rewards: list[RewardSample] = []
    known: dict[str, bytearray] = {}
    """By name of the robot: which rows can be predicted, as bool."""
    first, dims, has_rewards = 0, (0, 0), False
    for table in read_row_groups(path):
        dims = table.observation_dim, table.action_dim
        hashes += beginning_with(row_hashes(table), zeros).tobytes()
        has_rewards |= bool(np.isfinite(table.reward).any())
        mine = sampled[np.searchsorted(sampled, first) : np.searchsorted(sampled, first + table.num_transitions)]
        rewards.append(sample_rewards(table, mine - first))
        for spec in {domain.robot: domain.robot_spec for domain in robots}.values():
            if dims == (spec.observation_dim, spec.action_dim):
                known.setdefault(spec.name, bytearray()).extend(known_states(table, spec).tobytes())
        first += table.num_transitions
    digests = Digests(*dims)
    for name in FIELDS:
        for values in read_field(path, name):
            digests.add(values)
    content = Content(num_transitions, digests.digest, distinct(np.frombuffer(hashes, np.uint64)), zeros)
    sample = RewardSample(*(np.concatenate(each) for each in zip(*rewards, strict=True))) if has_rewards else None
    fits: dict[Domain, Fit] = {}
    for domain in robots:
        if mask := known.get(domain.robot_spec.name):
            fits |= _fit(path, domain, _spread(np.frombuffer(mask, bool)), offsets)
    return dims, content, sample, fits


def _spread(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows at which a mask is true, at most `SAMPLE_ROWS` and evenly spread."""
    counts = np.add.reduceat(mask, np.arange(0, len(mask), ROWS_AT_ONCE), dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(counts)])
    chosen, rows = spread(int(before[-1]), SAMPLE_ROWS), []
    for number, block in zip(chosen, np.searchsorted(before, chosen, side="right") - 1, strict=True):
        begin = block * ROWS_AT_ONCE
        rows.append(begin + np.flatnonzero(mask[begin : begin + ROWS_AT_ONCE])[number - before[block]])
    return np.asarray(rows, dtype=np.int64)


def _fit(path: Path, domain: Domain, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[Domain, Fit]:
    """How well a domain predicts the given rows: their episodes alone are read."""
    if not len(rows):
        return {}
    episode = np.searchsorted(offsets, rows, side="right") - 1
    chosen, place = np.unique(episode, return_inverse=True)
    table = read_episodes(path, chosen)
    return fit_domains(table, [domain], table.offsets[place] + rows - offsets[episode])
