"""Finds the same transitions in several sources, whatever their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.content import row_hashes
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.table.episodes import EpisodeTable

# Continuous states never repeat by chance; a few common transitions may come from equal seeds.
LARGEST_SHARE = 0.05


@dataclass(frozen=True)
class Content:
    """Digests that show whether two tables hold the same transitions.

    Attributes:
        num_transitions: of the table.
        digest: of the transitions in order; independent of names and of the segmentation into episodes.
        hashes: distinct 64-bit hashes of the transitions, sorted.
    """

    num_transitions: int
    digest: str
    hashes: NDArray[np.uint64]

    @staticmethod
    def of(table: EpisodeTable) -> Content:
        """The content of a table."""
        return Content(table.num_transitions, _digest(table), _distinct(row_hashes(table)))


def find_duplicates(contents: Mapping[str, Content]) -> list[Finding]:
    """Every pair of tables that are the same or have more than a few transitions in common, whatever their names.

    Args:
        contents: name of the source to the content of its table.
    """
    # Pairs are compared only by hashes that occur in more than one table, which are usually few.
    everything = [content.hashes for content in contents.values()]
    together = np.sort(np.concatenate(everything)) if everything else np.empty(0, np.uint64)
    shared = _distinct(together[1:][together[1:] == together[:-1]])
    common_hashes = {
        name: content.hashes[np.isin(content.hashes, shared, kind="sort")] for name, content in contents.items()
    }
    findings = []
    for (first, mine), (second, other) in combinations(contents.items(), 2):
        if mine.digest == other.digest:
            message = f"is the same recording as {second}: all {mine.num_transitions} transitions, in order"
            findings.append(found("duplicate", message, place(first)))
            continue
        common = len(np.intersect1d(common_hashes[first], common_hashes[second], assume_unique=True))
        smaller = min(len(mine.hashes), len(other.hashes))
        if common > LARGEST_SHARE * smaller:
            message = f"{common} of {smaller} distinct transitions are also in {second}"
            findings.append(found("duplicate", message, place(first)))
    return findings


def _distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted distinct values; for large arrays much faster than `np.unique`, which hashes."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _digest(table: EpisodeTable) -> str:
    digest = hashlib.sha256(f"{table.observation_dim},{table.action_dim}".encode())
    for field in (table.observation, table.action, table.reward, table.next_observation):
        digest.update(np.ascontiguousarray(field).data)
    return digest.hexdigest()
