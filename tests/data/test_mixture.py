"""From a specification to a labelled table."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.builders import arrays_of, write_hdf5
from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.config import SourceSpec, TargetSpec
from v2a_ray.data.mixing.mixture import collection_requests, load_data, load_source, take
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError


def hopper_table(lengths=(30, 20, 25), seed=0) -> EpisodeTable:
    """Random states of a Hopper that stands upright until it falls at the end of every episode."""
    generator = np.random.default_rng(seed)
    count = sum(lengths)
    states = generator.normal(size=(count + 1, 11)).astype(np.float32)
    states[:, 0], states[:, 1] = generator.uniform(1.0, 1.5, count + 1), generator.uniform(-0.1, 0.1, count + 1)
    following = states[1:].copy()
    following[np.cumsum(lengths) - 1, 0] = 0.5
    table = EpisodeTable(
        observation=states[:-1],
        action=generator.uniform(-1, 1, (count, 3)).astype(np.float32),
        reward=np.ones(count, np.float32),
        next_observation=following,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        terminated=np.ones(len(lengths), bool),
        truncated=np.zeros(len(lengths), bool),
        episode_id=("",) * len(lengths),
        source=("",) * len(lengths),
        domain=("",) * len(lengths),
        behavior=("",) * len(lengths),
    )
    return table.labelled(source="made", domain="unknown", behavior="unknown")


def test_a_source_is_cut_and_labelled(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table()))
    spec = SourceSpec(domain="hopper/gravity-0.5", behavior="medium", path="a.hdf5", num_transitions=40)
    table, findings = load_source(spec, tmp_path)
    assert findings == []
    assert table.lengths.tolist() == [30, 10]
    assert table.truncated.tolist() == [False, True]
    assert set(table.source) == {"hopper-gravity-0.5-medium"}
    assert set(table.domain) == {"hopper/gravity-0.5@d4rl"}
    assert set(table.behavior) == {"medium"}


def test_fewer_transitions_than_asked_for_is_a_warning(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table()))
    spec = TargetSpec(domain="hopper", path="a.hdf5", num_transitions=1000)
    table, findings = load_data(spec, "target", tmp_path)
    assert table.num_transitions == 75
    assert [finding.check for finding in findings] == ["fewer"]


def test_whole_episodes_are_drawn_by_seed() -> None:
    table = hopper_table((10,) * 20)
    drawn = {
        seed: take(table, TargetSpec(domain="hopper", path="x", num_transitions=35, subsample="episodes", seed=seed))
        for seed in (0, 1)
    }
    again = take(table, TargetSpec(domain="hopper", path="x", num_transitions=35, subsample="episodes", seed=0))
    assert drawn[0].episode_id == again.episode_id != drawn[1].episode_id
    assert drawn[0].lengths.tolist() == [10, 10, 10, 5]
    assert len(set(drawn[0].episode_id)) == 4


def test_unordered_transitions_are_a_target_but_no_source(tmp_path: Path) -> None:
    arrays = arrays_of(hopper_table((400,)), timeouts=False)
    drawn = np.random.default_rng(0).permutation(400)[:100]
    write_hdf5(tmp_path / "a.hdf5", {key: values[drawn] for key, values in arrays.items()})
    reading = load_data(TargetSpec(domain="hopper", path="a.hdf5"), "target", tmp_path)
    assert isinstance(reading.findings[0], Finding) and not reading.ordered
    with pytest.raises(DataError, match=r"not in order of time.*\n.*can only be a target"):
        load_source(SourceSpec(domain="hopper", path="a.hdf5"), tmp_path)


def test_requests_add_up_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    thirds = [("random", 1 / 3), ("snapshot-000100", 1 / 3), ("medium", 1 / 3)]
    monkeypatch.setattr("v2a_ray.data.mixing.mixture.behavior_components", lambda *_: thirds)
    spec = SourceSpec(domain="hopper", behavior="medium-replay", num_transitions=1000, seed=7)
    requests = collection_requests(spec)
    assert [request.num_transitions for request in requests] == [334, 333, 333]
    assert {request.seed for request in requests} == {7}
    assert {request.domain for request in requests} == {parse_domain("hopper").name}
