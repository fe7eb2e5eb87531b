"""The same transitions in several sources, whatever they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np

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
    hashes = {name: np.unique(row_hashes(table)) for name, table in tables.items()}
    findings = []
    for (first, first_rows), (second, second_rows) in combinations(hashes.items(), 2):
        if contents[first] == contents[second]:
            message = f"is the same recording as {second}: all {tables[first].num_transitions} transitions, in order"
            findings.append(found("duplicate", message, place(first)))
            continue
        common = len(np.intersect1d(first_rows, second_rows, assume_unique=True))
        smaller = min(len(first_rows), len(second_rows))
        if common > LARGEST_SHARE * smaller:
            message = f"{common} of {smaller} distinct transitions are also in {second}"
            findings.append(found("duplicate", message, place(first)))
    return findings


def _content(table: EpisodeTable) -> str:
    """Hash of the transitions in order, of nothing that a name or another segmentation into episodes changes."""
    digest = hashlib.sha256(f"{table.observation_dim},{table.action_dim}".encode())
    for field in (table.observation, table.action, table.reward, table.next_observation):
        digest.update(np.ascontiguousarray(field).data)
    return digest.hexdigest()
