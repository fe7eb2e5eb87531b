"""The content of a table's manifest, computed part by part, so that different processes can write the parts.

Statistics are merged in double precision (`data.statistics`): the same parts give the same bits, and another partition
of the same episodes gives the same numbers up to rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.table.episodes import LABELS, EpisodeTable
from v2a_ray.data.table.statistics import Moments

SCHEMA_VERSION = 1
STATISTICS = ("observation", "action", "reward")


@dataclass(frozen=True)
class PartSummary:
    """The contribution of one part to the manifest.

    Attributes:
        digests: one hash per episode, in order.
        labels: per episode (source, domain, behavior).
        lengths, returns: per episode.
        moments: field -> mean and spread over the transitions.
    """

    digests: list[bytes]
    labels: list[tuple[str, str, str]]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    moments: dict[str, Moments]

    def to_json(self) -> str:
        """The summary as lossless text, so that it can be a value in a table."""
        plain = {
            "digests": [digest.hex() for digest in self.digests],
            "labels": self.labels,
            "lengths": self.lengths.tolist(),
            "returns": self.returns.tolist(),
            "moments": {name: moments.to_dict() for name, moments in self.moments.items()},
        }
        return json.dumps(plain)

    @staticmethod
    def from_json(text: str) -> PartSummary:
        """Inverse of `to_json`."""
        plain = json.loads(text)
        return PartSummary(
            digests=[bytes.fromhex(digest) for digest in plain["digests"]],
            labels=[(source, domain, behavior) for source, domain, behavior in plain["labels"]],
            lengths=np.asarray(plain["lengths"], dtype=np.int64),
            returns=np.asarray(plain["returns"], dtype=np.float64),
            moments={name: Moments.from_dict(moments) for name, moments in plain["moments"].items()},
        )


def content_hash(table: EpisodeTable) -> str:
    """Hash of everything in a table, in order. It does not depend on the division into files."""
    return _combine(_episode_digests(table))


def summarize_part(table: EpisodeTable) -> PartSummary:
    """The contribution of `table` to the manifest."""
    values = {name: getattr(table, name).reshape(table.num_transitions, -1) for name in STATISTICS}
    return PartSummary(
        digests=_episode_digests(table),
        labels=list(zip(table.source, table.domain, table.behavior, strict=True)),
        lengths=table.lengths,
        returns=table.returns,
        moments={name: Moments.of(array) for name, array in values.items()},
    )


def make_manifest(parts: Sequence[PartSummary], *, robot: str, findings: Sequence[Finding] = ()) -> dict[str, Any]:
    """The manifest of a table made of `parts`, as plain values for JSON. Parts must be in the order of the table."""
    lengths = np.concatenate([part.lengths for part in parts])
    returns = np.concatenate([part.returns for part in parts])
    count = int(lengths.sum())
    labels = [label for part in parts for label in part.labels]
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "robot": robot,
        "observation_dim": len(parts[0].moments["observation"].mean),
        "action_dim": len(parts[0].moments["action"].mean),
        "num_episodes": len(lengths),
        "num_transitions": count,
        "num_files": len(parts),
        "content_hash": _combine([digest for part in parts for digest in part.digests]),
        "length": _spread(lengths.astype(np.float64)),
        "return": _spread(returns),
        "sources": [
            {**dict(zip(LABELS, label, strict=True)), **_counts(labels, label, lengths, returns)}
            for label in dict.fromkeys(labels)
        ],
    }
    for name in STATISTICS:
        moments = Moments.merge([part.moments[name] for part in parts])
        manifest |= {f"{name}_mean": moments.mean.tolist(), f"{name}_std": moments.std.tolist()}
    return manifest | {"findings": [finding.to_dict() for finding in findings]}


def _counts(
    labels: list[tuple[str, str, str]],
    label: tuple[str, str, str],
    lengths: NDArray[np.int64],
    returns: NDArray[np.float64],
) -> dict[str, Any]:
    chosen = np.asarray([other == label for other in labels])
    return {
        "num_episodes": int(chosen.sum()),
        "num_transitions": int(lengths[chosen].sum()),
        "return": _spread(returns[chosen]),
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _episode_digests(table: EpisodeTable) -> list[bytes]:
    arrays = [np.ascontiguousarray(getattr(table, name)) for name in ("observation", "action", "reward")]
    arrays.append(np.ascontiguousarray(table.next_observation))
    shape = f"{table.observation_dim},{table.action_dim}"
    digests = []
    for episode in range(table.num_episodes):
        names = [getattr(table, name)[episode] for name in ("episode_id", *LABELS)]
        flags = [bool(table.terminated[episode]), bool(table.truncated[episode])]
        # repr() keeps the fields apart: ("ab", "c") and ("a", "bc") differ.
        digest = hashlib.sha256(repr((shape, names, flags)).encode())
        for array in arrays:
            digest.update(array[table.rows(episode)].data)
        digests.append(digest.digest())
    return digests


def _combine(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()
