"""Minari: we read the files of its own package, and its own package loads our files."""

import json
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest

from tests.data.builders import assert_same, make_table
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:`")
minari = pytest.importorskip("minari")
from minari.data_collector import EpisodeBuffer  # noqa: E402


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Minari's folder of datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def test_a_recorded_dataset_is_read(root) -> None:
    env = gymnasium.make("Hopper-v5")
    env.action_space.seed(0)
    buffers = []
    for episode in range(2):
        observation, ended = env.reset(seed=episode)[0], False
        columns = {"observations": [observation], "actions": [], "rewards": [], "terminations": [], "truncations": []}
        while not ended:
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            for key, value in zip(columns, (observation, action, reward, terminated, truncated), strict=True):
                columns[key].append(value)
            ended = terminated or truncated
        buffers.append(EpisodeBuffer(id=episode, **columns))
    env.close()
    lengths = [len(buffer.rewards) for buffer in buffers]
    dataset = minari.create_dataset_from_buffers("made/hopper/test-v0", buffers, env="Hopper-v5")
    for path in (root / "made/hopper/test-v0", root / "made/hopper/test-v0/data", "minari://made/hopper/test-v0"):
        table, findings = read_table(path)
        assert findings == []
        assert table.lengths.tolist() == lengths
        assert table.terminated.all()
        expected = np.concatenate([dataset[0].observations[1:], dataset[1].observations[1:]]).astype(np.float32)
        np.testing.assert_array_equal(table.next_observation, expected)
        assert table.episode_id[0] == "made/hopper/test-v0/000000"


def test_minari_loads_what_is_written(tmp_path: Path) -> None:
    table = make_table((5, 1, 4))
    export_table(table, tmp_path / "mine", format="minari")
    dataset = minari.MinariDataset(tmp_path / "mine" / "data")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 10)
    assert dataset.spec.dataset_id == "mine-v0"
    assert dataset.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    for index, episode in enumerate(dataset.iterate_episodes()):
        rows = table.rows(index)
        np.testing.assert_array_equal(episode.observations[1:], table.next_observation[rows])
        np.testing.assert_array_equal(episode.actions, table.action[rows])
        assert episode.terminations.tolist()[-1] == table.terminated[index]
        assert episode.truncations.tolist()[-1] == table.truncated[index]
    assert dataset.storage.get_episode_metadata([1]).__next__()["v2a_source"] == b"made"


def test_labels_are_stored_as_fixed_length_text(tmp_path: Path) -> None:
    """One flipped bit in the heap of variable-length texts, found by fuzzing, made every reader hang."""
    folder, file = written(tmp_path)
    with file:
        for group in file.values():
            for name in group.attrs:
                assert not getattr(group.attrs.get_id(name).get_type(), "is_variable_str", lambda: False)(), name
        file["episode_0"].attrs["v2a_source"] = "of variable length"
    assert read_table(folder).table.source == ("unknown", "made", "made")


def written(tmp_path: Path):
    """A dataset's folder and its open file."""
    export_table(make_table((5, 1, 4)), tmp_path / "a", format="minari")
    return tmp_path / "a", h5py.File(tmp_path / "a/data/main_data.hdf5", "a")


def replace(file, key, values) -> None:
    del file[key]
    if values is not None:
        file[key] = values


@pytest.mark.parametrize(
    "key, values, message",
    [
        ("actions", None, "group episode_1 · field actions: missing"),
        ("actions", np.zeros((3, 2)), "field actions: has 3 rows, expected 1"),
        ("observations", np.zeros((1, 3)), "field observations: has 1 rows, expected 2: 1 rewards"),
        ("observations", np.zeros((2, 4)), r"group episode_1: has .* dimensions \(4, 2\)"),
        ("rewards", np.float32(0), r"field rewards: has shape \(\)"),
        ("rewards", np.zeros(0), "field rewards: holds zero rows"),
        ("rewards", np.asarray([b"a"]), "field rewards: holds .* not numbers"),
        ("rewards", np.asarray([np.nan]), "episode 1 · step 0 · field reward: value nan"),
    ],
)
def test_bad_episodes(key, values, message, tmp_path: Path) -> None:
    path, file = written(tmp_path)
    with file:
        replace(file["episode_1"], key, values)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_dictionary_observations_are_refused(tmp_path: Path) -> None:
    path, file = written(tmp_path)
    with file:
        replace(file["episode_0"], "observations", None)
        file["episode_0/observations/position"] = np.zeros((6, 3))
    with pytest.raises(DataError, match="field observations: is a dictionary or tuple of arrays"):
        read_table(path)


def test_a_terminal_inside_an_episode(tmp_path: Path) -> None:
    path, file = written(tmp_path)
    with file:
        file["episode_0/terminations"][2] = True
    with pytest.raises(DataError, match="step 2 · field terminations: is set before the episode's last step"):
        read_table(path)


def test_missing_episodes_are_a_warning(tmp_path: Path) -> None:
    path, file = written(tmp_path)
    with file:
        del file["episode_1"]
    table, findings = read_table(path)
    assert_same(table, make_table((5, 1, 4)).select([0, 2]))
    assert [finding.check for finding in findings] == ["episodes_missing"]
    assert "holds 2 episodes where 3 are announced; 1 numbers are missing, the first is 1" in findings[0].message


@pytest.mark.parametrize(
    "metadata, message",
    [
        ("not json", "is no JSON"),
        ("[1]", "is no JSON object"),
        (json.dumps({"data_format": "arrow"}), "data_format 'arrow' is not read"),
    ],
)
def test_bad_metadata(metadata, message, tmp_path: Path) -> None:
    path, file = written(tmp_path)
    file.close()
    (path / "data/metadata.json").write_text(metadata)
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_download_without_a_network(root, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(minari, "download_dataset", refuse)
    with pytest.raises(DataError, match="minari://made/none-v0: cannot be downloaded: no route to host\n  try"):
        read_table("minari://made/none-v0")
