"""Sources that one process does not hold: their facts are read a group of episodes at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from v2a_ray.data.checks import SourceFacts, overlap
from v2a_ray.data.checks.overlap import find_duplicates
from v2a_ray.data.collection.rolling import EpisodeCollector
from v2a_ray.data.table import folder
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import read_table_folder, write_table
from v2a_ray.domains import parse_domain

NAMES = (
    "hopper",
    "hopper/gravity-0.5",
    "hopper/action_delay-2",
    "hopper/action_noise-0.1",
    "walker2d",
    "hopper@modern",
)
DOMAINS = [parse_domain(name) for name in NAMES]


def collected(behavior: str, count: int, seed: int) -> EpisodeTable:
    return EpisodeCollector(parse_domain("hopper"), behavior, seed).collect(range(count))


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    """Short and long episodes, an end without an arrival, and numbers that are not finite."""
    whole = concatenate([collected("random", 25, 1), collected("medium", 3, 1)])
    following, reward = whole.next_observation.copy(), whole.reward.copy()
    ends = whole.offsets[1:][whole.terminated] - 1
    following[ends[3]] = whole.observation[ends[3]]
    following[5, 2], reward[[7, 8]] = np.nan, np.inf
    return whole.replace(next_observation=following, reward=reward)


def assert_equal(first: Any, second: Any) -> None:
    """Equal to the bit, whatever they hold."""
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == second.dtype
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_equal(value, second[key])
    elif hasattr(first, "__dataclass_fields__"):
        for name in first.__dataclass_fields__:
            assert_equal(getattr(first, name), getattr(second, name))
    elif isinstance(first, tuple):
        for each, other in zip(first, second, strict=True):
            assert_equal(each, other)
    else:
        assert first == second


def test_facts_of_a_folder_are_those_of_its_table(
    table: EpisodeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "ROW_GROUP_EPISODES", 3)
    write_table(table, tmp_path / "table", robot="hopper", num_files=2)
    whole = SourceFacts.of(read_table_folder(tmp_path / "table"), DOMAINS)
    assert whole.rewards is not None and len(whole.fits) == 4
    assert_equal(SourceFacts.of_folder(tmp_path / "table", DOMAINS), whole)


def test_copies_are_found_in_samples_of_hashes(
    table: EpisodeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, other = table.select(range(table.num_episodes // 2)), collected("medium", 2, 2)
    monkeypatch.setattr(overlap, "MAX_HASHES", 100)
    contents = {}
    for name, each in {"all": table, "half": half, "other": other}.items():
        write_table(each, tmp_path / name, robot="hopper")
        contents[name] = SourceFacts.of_folder(tmp_path / name, []).content
    assert all(len(content.hashes) < 200 for content in contents.values())
    (finding,) = find_duplicates(contents)
    assert finding.where == "all" and finding.message.endswith(" of a sample of 1 in 32 are also in half")
