"""Every registered format: what is written is read back, and D4RL files become the right episodes."""

import importlib

import numpy as np
import pytest
from builders import arrays_of, assert_same, make_table, write_hdf5

from v2a_ray.data.findings import Finding
from v2a_ray.data.readers import FORMATS, detect_format, read_table


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name, tmp_path):
    table = make_table((5, 1, 4, 7))
    path = tmp_path / f"data{FORMATS[name].suffixes[0]}"
    importlib.import_module(FORMATS[name].module).write(table, path)
    assert detect_format(path).name == name
    reading = read_table(path)
    assert_same(reading.table, table, labels=name == "parquet")
    assert reading.findings == []
    assert reading.ordered


def test_breaks_end_episodes_without_timeouts(tmp_path):
    table = make_table((5, 3, 4))
    arrays = arrays_of(table, timeouts=False)
    arrays["rewards"], arrays["terminals"] = arrays["rewards"][:, None], arrays["terminals"].astype(float)[:, None]
    read, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    assert_same(read, table, labels=False)
    assert findings == []


def test_without_next_observations_the_last_row_of_a_cut_episode_goes(tmp_path):
    table = make_table((5, 3, 4), terminated=[True, False, False])
    path = write_hdf5(tmp_path / "a.hdf5", arrays_of(table, next_observations=False))
    read, findings = read_table(path)
    assert read.lengths.tolist() == [5, 2, 3]
    assert read.terminated.tolist() == [True, False, False]
    np.testing.assert_array_equal(read.next_observation[5:7], table.observation[6:8])
    assert [finding.check for finding in findings] == ["next_observation_derived"]
    assert "2 last rows" in findings[0].message


def test_without_next_observations_and_timeouts_terminals_end_episodes(tmp_path):
    arrays = arrays_of(make_table((5, 3, 4)), timeouts=False, next_observations=False)
    read, findings = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    # The second episode was cut, and nothing in the file says where.
    assert read.lengths.tolist() == [5, 7]
    assert read.terminated.tolist() == [True, True]
    assert "episode_ends_unknown" in checks(findings)


def test_unordered_transitions_are_legal_and_said(tmp_path):
    table = make_table((200,), terminated=[False])
    drawn = np.random.default_rng(0).permutation(200)[:100]
    arrays = {key: values[drawn] for key, values in arrays_of(table, timeouts=False).items()}
    reading = read_table(write_hdf5(tmp_path / "a.hdf5", arrays))
    assert not reading.ordered
    assert reading.table.num_transitions == 100
    assert "unordered" in checks(reading.findings)


def test_float64_observations_with_float32_successors_are_one_episode(tmp_path):
    table = make_table((50,), terminated=[False])
    arrays = arrays_of(table, timeouts=False)
    arrays["observations"] = arrays["observations"].astype(np.float64) + 1e-9
    assert read_table(write_hdf5(tmp_path / "a.hdf5", arrays)).table.num_episodes == 1


def checks(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]
