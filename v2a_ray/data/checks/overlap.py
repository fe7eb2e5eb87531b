"""The same transitions in several sources, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.content import row_hashes
from v2a_ray.data.checks.registry import found
from v2a_ray.data.findings import Finding, place
from v2a_ray.data.table import EpisodeTable

# Continuous states never repeat by chance; a few common transitions may be a shared start from equal seeds.
LARGEST_SHARE = 0.05


def find_duplicates(tables: Mapping[str, EpisodeTable]) -> list[Finding]:
    """Every pair of tables that are the same or have more than a few transitions in common, whatever their names.

    Args:
        tables: name of the source to its table.
    """
    contents = {name: _content(table) for name, table in tables.items()}
    hashes = {name: _distinct(row_hashes(table)) for name, table in tables.items()}
    sizes = {name: len(values) for name, values in hashes.items()}
    # Pairs are compared by what occurs in more than one table, which is mostly nothing.
    everything = np.sort(np.concatenate(list(hashes.values()))) if hashes else np.empty(0, np.uint64)
    shared = _distinct(everything[1:][everything[1:] == everything[:-1]])
    hashes = {name: values[np.isin(values, shared, kind="sort")] for name, values in hashes.items()}
    findings = []
    for (first, first_rows), (second, second_rows) in combinations(hashes.items(), 2):
        if contents[first] == contents[second]:
            message = f"is the same recording as {second}: all {tables[first].num_transitions} transitions, in order"
            findings.append(found("duplicate", message, place(first)))
            continue
        common = len(np.intersect1d(first_rows, second_rows, assume_unique=True))
        smaller = min(sizes[first], sizes[second])
        if common > LARGEST_SHARE * smaller:
            message = f"{common} of {smaller} distinct transitions are also in {second}"
            findings.append(found("duplicate", message, place(first)))
    return findings


def _distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sorted, each once; for large arrays much faster than `np.unique`, which hashes."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _content(table: EpisodeTable) -> str:
    """Hash of the transitions in order, of nothing that a name or another segmentation into episodes changes."""
    digest = hashlib.sha256(f"{table.observation_dim},{table.action_dim}".encode())
    for field in (table.observation, table.action, table.reward, table.next_observation):
        digest.update(np.ascontiguousarray(field).data)
    return digest.hexdigest()
