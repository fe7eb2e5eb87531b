"""Finds the same transitions in several sources, whatever their names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.content import row_hashes
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.table.episodes import EpisodeTable

# Continuous states never repeat by chance; a few common transitions may come from equal seeds.
LARGEST_SHARE = 0.05
FIELDS = ("observation", "action", "reward", "next_observation")
MAX_HASHES = 2**23
"""Of one table, 64 MiB. Of larger ones a part of the hashes is compared, the same part of each."""


@dataclass(frozen=True)
class Content:
    """Digests that show whether two tables hold the same transitions.

    Attributes:
        num_transitions: of the table.
        digest: of the transitions in order; independent of names and of the segmentation into episodes.
        hashes: distinct 64-bit hashes of the transitions, sorted; of a table of more than `MAX_HASHES` those alone
            that begin with `zeros` zero bits.
        zeros: number of bits.
    """

    num_transitions: int
    digest: str
    hashes: NDArray[np.uint64]
    zeros: int = 0

    @staticmethod
    def of(table: EpisodeTable) -> Content:
        """The content of a table."""
        digests = Digests(table.observation_dim, table.action_dim)
        for name in FIELDS:
            digests.add(getattr(table, name))
        zeros = zero_bits(table.num_transitions)
        hashes = distinct(beginning_with(row_hashes(table), zeros))
        return Content(table.num_transitions, digests.digest, hashes, zeros)


def find_duplicates(contents: Mapping[str, Content]) -> list[Finding]:
    """Every pair of tables that are the same or have more than a few transitions in common, whatever their names.

    Args:
        contents: name of the source to the content of its table.
    """
    zeros = max((content.zeros for content in contents.values()), default=0)
    everything = [beginning_with(content.hashes, zeros) for content in contents.values()]
    contents = {
        name: replace(content, hashes=hashes)
        for (name, content), hashes in zip(contents.items(), everything, strict=True)
    }
    sampled = f" of a sample of 1 in {2**zeros}" if zeros else ""
    # Pairs are compared only by hashes that occur in more than one table, which are usually few.
    together = np.sort(np.concatenate(everything)) if everything else np.empty(0, np.uint64)
    shared = distinct(together[1:][together[1:] == together[:-1]])
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
            message = f"{common} of {smaller} distinct transitions{sampled} are also in {second}"
            findings.append(found("duplicate", message, place(first)))
    return findings


def zero_bits(num_transitions: int) -> int:
    """With how many zero bits the hashes of a table begin that are kept."""
    return max(0, math.ceil(math.log2(max(1, num_transitions) / MAX_HASHES)))


def beginning_with(hashes: NDArray[np.uint64], zeros: int) -> NDArray[np.uint64]:
    """The hashes that begin with this number of zero bits."""
    return hashes[hashes >> np.uint64(64 - zeros) == 0] if zeros else hashes


def distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted distinct values; for large arrays much faster than `np.unique`, which hashes."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


class Digests:
    """The digest of a table, from the values of `FIELDS` one field after the other, in pieces."""

    def __init__(self, observation_dim: int, action_dim: int) -> None:
        self._sha = hashlib.sha256(f"{observation_dim},{action_dim}".encode())

    def add(self, values: NDArray[np.float32]) -> None:
        """The next values."""
        self._sha.update(np.ascontiguousarray(values).data)

    @property
    def digest(self) -> str:
        """Of all so far."""
        return self._sha.hexdigest()
