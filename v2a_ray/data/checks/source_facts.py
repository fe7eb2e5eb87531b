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


def read_facts(
    path: Path, domains: Sequence[Domain]
) -> tuple[tuple[int, int], Content, RewardSample | None, dict[Domain, Fit]]:
    """What `SourceFacts` holds: dimensions, content, sampled rewards, fits of domains."""
    lengths = read_lengths(path)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    num_transitions = int(offsets[-1])
    sampled, zeros = sampled_rows(num_transitions), zero_bits(num_transitions)
    robots = [domain for domain in domains if isinstance(domain, RobotDomain)]
    hashes: list[NDArray[np.uint64]] = []
    rewards: list[RewardSample] = []
    known: dict[str, list[NDArray[np.bool_]]] = {}
    """By name of the robot: which rows can be predicted, in each group."""
    first, dims, has_rewards = 0, (0, 0), False
    for table in read_row_groups(path):
        dims = table.observation_dim, table.action_dim
        hashes.append(beginning_with(row_hashes(table), zeros))
        has_rewards |= bool(np.isfinite(table.reward).any())
        mine = sampled[np.searchsorted(sampled, first) : np.searchsorted(sampled, first + table.num_transitions)]
        rewards.append(sample_rewards(table, mine - first))
        for spec in {domain.robot: domain.robot_spec for domain in robots}.values():
            if dims == (spec.observation_dim, spec.action_dim):
                known.setdefault(spec.name, []).append(known_states(table, spec))
        first += table.num_transitions
    digests = Digests(*dims)
    for name in FIELDS:
        for values in read_field(path, name):
            digests.add(values)
    content = Content(num_transitions, digests.digest, distinct(np.concatenate(hashes)), zeros)
    sample = RewardSample(*(np.concatenate(each) for each in zip(*rewards, strict=True))) if has_rewards else None
    fits: dict[Domain, Fit] = {}
    for domain in robots:
        if masks := known.get(domain.robot_spec.name):
            fits |= _fit(path, domain, _spread(masks), offsets)
    return dims, content, sample, fits


def _spread(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Rows at which the concatenation of masks is true, at most `SAMPLE_ROWS` and evenly spread."""
    counts = np.cumsum([0, *(mask.sum() for mask in masks)])
    firsts = np.cumsum([0, *(len(mask) for mask in masks)])
    chosen = spread(int(counts[-1]), SAMPLE_ROWS)
    rows = []
    for number, group in zip(chosen, np.searchsorted(counts, chosen, side="right") - 1, strict=True):
        rows.append(firsts[group] + np.flatnonzero(masks[group])[number - counts[group]])
    return np.asarray(rows, dtype=np.int64)


def _fit(path: Path, domain: Domain, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[Domain, Fit]:
    """How well a domain predicts the given rows: their episodes alone are read."""
    if not len(rows):
        return {}
    episode = np.searchsorted(offsets, rows, side="right") - 1
    chosen, place = np.unique(episode, return_inverse=True)
    table = read_episodes(path, chosen)
    return fit_domains(table, [domain], table.offsets[place] + rows - offsets[episode])
