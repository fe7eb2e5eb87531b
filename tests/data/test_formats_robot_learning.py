"""LeRobot, robomimic and tables whose columns the user names, as robots record them, and what is wrong with them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import arrays_of, assert_same, csv_columns, make_table, write_csv
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.known_formats import detect_format
from v2a_ray.data.formats.names import chosen, natural
from v2a_ray.data.formats.readers import examine_table, export_table, read_table
from v2a_ray.data.inspection.listing import list_datasets
from v2a_ray.errors import DataError

TABLE = make_table((5, 3, 4))
SCALARS = Columns(
    observation="observation_*",
    action="action_*",
    next_observation="next_observation_*",
    reward="reward",
    episode="episode",
    terminated="terminated",
    timeout="timeout",
)


def without_next(columns):
    return {name: values for name, values in columns.items() if not name.startswith("next_")}


def lists(values):
    return pa.array(values.tolist(), pa.list_(pa.float32()))


def lerobot_v21(folder, table=TABLE, **changes):
    """As LeRobot 0.3 writes: a file per episode, no next observations, a camera."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    features = {"observation.images.top": {"dtype": "video", "shape": [4, 4, 3], "names": None}}
    info = {"codebase_version": "v2.1", "total_frames": table.num_transitions, "features": features}
    (folder / "meta/info.json").write_text(json.dumps(info | changes))
    for episode in range(table.num_episodes):
        rows, length = table.rows(episode), int(table.lengths[episode])
        done = np.zeros(length, dtype=bool)
        done[-1] = table.terminated[episode]
        columns = {
            "observation.state": lists(table.observation[rows]),
            "action": lists(table.action[rows]),
            "next.reward": pa.array(table.reward[rows]),
            "next.done": pa.array(done),
            "frame_index": pa.array(np.arange(length)),
            "episode_index": pa.array([episode] * length),
        }
        pq.write_table(pa.table(columns), folder / f"data/chunk-000/episode_{episode:06d}.parquet")
    return folder


def demos(path, table=TABLE, change=lambda file: None):
    """As robomimic writes: keys of observations, one of them a picture; the state is split in two."""
    with h5py.File(path, "w") as file:
        for episode in range(table.num_episodes):
            rows, group = table.rows(episode), f"data/demo_{episode}"
            file[f"{group}/obs/joint_vel"] = table.observation[rows][:, 1:]
            file[f"{group}/obs/angle"] = table.observation[rows][:, 0]
            file[f"{group}/obs/camera"] = np.zeros((int(table.lengths[episode]), 4, 4, 3), np.uint8)
            file[f"{group}/next_obs/joint_vel"] = table.next_observation[rows][:, 1:]
            file[f"{group}/next_obs/angle"] = table.next_observation[rows][:, 0]
            file[f"{group}/actions"] = table.action[rows].astype(np.float64)
            file[f"{group}/rewards"] = table.reward[rows]
            file[f"{group}/dones"] = table.terminal_rows[rows].astype(np.int64)
        change(file)
    return path


def checks(findings):
    return [finding.check for finding in findings]


def test_names_are_chosen_in_natural_order() -> None:
    present = ["q10", "q2", "dq1", "q1", "joint[0]"]
    assert sorted(present, key=natural) == ["dq1", "joint[0]", "q1", "q2", "q10"]
    names = chosen(["q*", "d*", "q1", "joint[0]"], present, "file", "observation")
    assert names == ["q1", "q2", "q10", "dq1", "joint[0]"]
    with pytest.raises(DataError, match=r"nothing is called 'dp1'.*\n.*did you mean dq1"):
        chosen(["dp1"], present, "file", "observation")


def test_lerobot_with_a_file_per_episode(tmp_path: Path) -> None:
    table, findings = read_table(lerobot_v21(tmp_path / "a"))
    # The first episode is terminal and keeps its last row; of the others nobody knows where that arrived.
    assert table.lengths.tolist() == [5, 2, 4]
    assert table.terminated.tolist() == [True, False, True]
    np.testing.assert_array_equal(table.observation[:5], TABLE.observation[:5])
    np.testing.assert_array_equal(table.next_observation[:4], TABLE.observation[1:5])
    assert checks(findings) == ["videos_ignored", "next_observation_derived"]
    assert "observation.images.top" in findings[0].message


def test_lerobot_flags_may_be_named_anew(tmp_path: Path) -> None:
    folder = lerobot_v21(tmp_path / "a")
    assert not read_table(folder, columns=Columns(terminated=False)).table.terminated.any()
    assert read_table(folder, columns=Columns(observation="action")).table.observation.shape[1] == 2


def test_lerobot_that_is_incomplete_or_old(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    folder = lerobot_v21(tmp_path / "half" / "a")
    (folder / "data/chunk-000/episode_000001.parquet").unlink()
    assert "episodes_missing" in checks(read_table(folder).findings)
    with pytest.raises(DataError, match=r"codebase_version v1\.6 is not read"):
        read_table(lerobot_v21(tmp_path / "old", codebase_version="v1.6"))
    (tmp_path / "old/meta/info.json").write_text("[]")
    with pytest.raises(DataError, match="codebase_version none is not read"):
        read_table(tmp_path / "old")


def test_a_folder_of_lerobot_folders_is_a_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_table(TABLE, tmp_path / name, format="lerobot")
    with pytest.raises(DataError, match="inside lie a, b"):
        detect_format(tmp_path)
    assert [listed.format for listed in list_datasets(tmp_path)] == ["lerobot", "lerobot"]


def test_lerobot_episodes_of_other_widths_name_their_file(tmp_path: Path) -> None:
    folder = lerobot_v21(tmp_path / "a")
    file = folder / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file)
    wide = lists(np.zeros((table.num_rows, 5)))
    pq.write_table(table.set_column(0, "observation.state", wide), file)
    with pytest.raises(DataError, match=r"episode_000001\.parquet · field observations: has 5 features where .* has 3"):
        read_table(folder)
    ragged = pa.array([[1.0, 2.0, 3.0]] * 2 + [[1.0]], pa.list_(pa.float32()))
    pq.write_table(table.set_column(0, "observation.state", ragged), file)
    with pytest.raises(DataError, match=r"000001\.parquet · field observation\.state · row 2: has 1 features where"):
        read_table(folder)
    text = pa.array(["a"] * table.num_rows)
    pq.write_table(table.set_column(0, "observation.state", text), file)
    with pytest.raises(DataError, match=r"000001\.parquet · field observation\.state: holds string, not numbers"):
        read_table(folder)


def test_robomimic_takes_keys_of_low_dimension_sorted(tmp_path: Path) -> None:
    path = demos(tmp_path / "a.hdf5")
    assert detect_format(path).name == "robomimic"
    table, findings = read_table(path)
    assert_same(table, TABLE, labels=False)
    assert checks(findings) == ["videos_ignored"] and "camera" in findings[0].message
    swapped = read_table(path, columns=Columns(observation=["joint_vel", "angle"])).table
    np.testing.assert_array_equal(swapped.observation, TABLE.observation[:, [1, 2, 0]])
    assert read_table(path, columns=Columns(observation="joint_*")).table.observation.shape[1] == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda file: file.__delitem__("data/demo_1/obs/angle"), r"episode demo_1 · group obs · field angle: missing"),
        (lambda file: file.__delitem__("data/demo_2/actions"), r"episode demo_2 · field actions: missing"),
        (lambda file: replace(file, "data/demo_2/actions", np.zeros((4, 7))), "demo_2 · field actions: has 7 features"),
        (lambda file: replace(file, "data/demo_1/actions", np.zeros((9, 2))), "demo_1 · field actions: has 9 rows"),
        (lambda file: replace(file, "data/demo_1/obs/angle", np.zeros(9)), "demo_1 .* field joint_vel: has 3 rows"),
        (lambda file: replace(file, "data/demo_0/rewards", [b"a"] * 5), "demo_0 · field rewards: holds .*not numbers"),
        (lambda file: file["data"].__setitem__("demo_9", h5py.SoftLink("/data/demo_0")), "demo_9: is a soft link"),
    ],
)
def test_bad_demonstrations(change, message, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(demos(tmp_path / "a.hdf5", change=change))
    assert caught.value.remedy


def replace(file, name, values) -> None:
    del file[name]
    file[name] = values


def test_robomimic_picture_as_an_observation_and_names_that_are_none(tmp_path: Path) -> None:
    path = demos(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match=r"demo_0 · group obs · field camera: has shape \(5, 4, 4, 3\)"):
        read_table(path, columns=Columns(observation="camera"))
    with pytest.raises(DataError, match=r"nothing is called 'joint_pos'.*\n.*did you mean joint_vel"):
        read_table(path, columns=Columns(observation="joint_pos"))
    with pytest.raises(DataError, match="field episode: is given by robomimic's layout"):
        read_table(path, columns=Columns(episode="demo"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_a_table(kind, tmp_path: Path) -> None:
    columns = csv_columns(TABLE)
    if kind == "csv":
        write_csv(TABLE, tmp_path / "a")
    else:
        pq.write_table(pa.table(columns), tmp_path / "a")
    assert_same(read_table(tmp_path / "a", columns=SCALARS).table, TABLE, labels=False)


def test_lists_in_parquet_are_features_too(tmp_path: Path) -> None:
    columns = {"state": lists(TABLE.observation), "force": pa.array(TABLE.reward), "a": lists(TABLE.action)}
    pq.write_table(pa.table(columns | {"run": pa.array(TABLE.episode_of_row)}), tmp_path / "a.parquet")
    named = Columns(observation=["force", "state"], action="a", reward="force", episode="run")
    table = read_table(tmp_path / "a.parquet", columns=named).table
    assert table.lengths.tolist() == [4, 2, 3]
    np.testing.assert_array_equal(table.observation[:4, 1:], TABLE.observation[:4])
    np.testing.assert_array_equal(table.observation[:4, 0], TABLE.reward[:4])


def test_a_folder_of_csv_has_a_recording_in_each(tmp_path: Path) -> None:
    for index, length in enumerate((5, 3)):
        (tmp_path / "a").mkdir(exist_ok=True)
        write_csv(make_table((length,), [False], seed=index), tmp_path / f"a/run_{index}.csv")
    named = Columns(observation="observation_*", action="action_*", reward="reward")
    table, findings = read_table(tmp_path / "a", columns=named)
    assert table.lengths.tolist() == [5, 3]
    assert findings == []


def test_rows_that_lie_apart_are_ordered(tmp_path: Path) -> None:
    columns = csv_columns(TABLE) | {"t": np.arange(12)}
    shuffled = np.random.default_rng(0).permutation(12)
    pq.write_table(pa.table({name: values[shuffled] for name, values in columns.items()}), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", columns=SCALARS.model_copy(update={"step": "t"})).table
    assert sorted(table.lengths.tolist()) == [3, 4, 5]
    assert table.num_transitions == 12


@pytest.mark.parametrize(
    "text, message",
    [
        ("q1;q2;a\n1;2;0\n3;x;0\n", r"a\.csv: not readable as CSV: .*'x'"),
        ("q1,q2,a\n1,2\n", "not readable as CSV: .*Expected 3 columns, got 2"),
        ("q1,q1,a\n1,2,0\n", "field q1: names two columns"),
        ("q1\n1\n", "first line is no header"),
        ("q1,q2,a\n", "holds zero rows"),
        ("q1,q2,a\n1,,0\n", r"field q2 · row 0: has null entries"),
        ("q1,q2,b\n1,2,3\n", "field action: nothing is called 'a'"),
    ],
)
def test_bad_csv(text, message, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / "a.csv", columns=Columns(observation="q*", action="a"))
    assert caught.value.where and caught.value.remedy


def test_a_role_of_one_column_takes_one(tmp_path: Path) -> None:
    write_csv(TABLE, tmp_path / "a.csv")
    with pytest.raises(DataError, match="field reward: matches action_0, action_1"):
        read_table(tmp_path / "a.csv", columns=Columns(reward="action_*"))


def test_formats_with_fixed_names_refuse_columns(tmp_path: Path) -> None:
    export_table(TABLE, tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: is npz, whose arrays have fixed names"):
        read_table(tmp_path / "a.npz", columns=SCALARS)


def test_csv_without_names_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("q1,a\n1,2\n")
    with pytest.raises(DataError, match=r"is of no known format(.|\n)*of CSV name the `columns`"):
        read_table(tmp_path / "a.csv")


REWARDS = """
def travelled(observation, action, next_observation):
    return next_observation[:, 0] - observation[:, 0]

def wrong_shape(observation, action, next_observation):
    return observation

def not_finite(observation, action, next_observation):
    return observation[:, 0] / 0

def fails(observation, action, next_observation):
    raise KeyError("gripper")
"""


@pytest.fixture
def rewards_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "rewards_of_test.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rewards_of_test"


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_rewards_that_are_missing(tmp_path: Path, rewards_module) -> None:
    write_csv(TABLE, tmp_path / "a.csv")
    named = SCALARS.model_copy(update={"reward": None})
    (tmp_path / "b.csv").write_text((tmp_path / "a.csv").read_text().replace("reward", "pay"))
    assert checks(examine_table(tmp_path / "b.csv", columns=named).findings) == ["rewards_missing"]
    constant = read_table(tmp_path / "b.csv", columns=named, reward=-1.0)
    assert (constant.table.reward == -1).all() and constant.findings == []
    travelled = read_table(tmp_path / "b.csv", reward=f"{rewards_module}:travelled").table
    np.testing.assert_array_equal(travelled.reward, TABLE.next_observation[:, 0] - TABLE.observation[:, 0])
    for function, message in (
        ("wrong_shape", r"returned shape \(12, 3\) for 12 transitions"),
        ("not_finite", "is -?inf in transition 0"),
        ("fails", "failed: KeyError: 'gripper'"),
        ("absent", "cannot be imported"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / "b.csv", reward=f"{rewards_module}:{function}")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_named_rewards_replace_unusable_ones(value: float, tmp_path: Path) -> None:
    reward = TABLE.reward.copy()
    reward[3:] = value
    export_table(TABLE.replace(reward=reward), tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="field reward"):
        read_table(tmp_path / "a.hdf5")
    named = read_table(tmp_path / "a.hdf5", reward=-1.0)
    assert (named.table.reward == -1).all() and named.findings == []
    export_table(TABLE.replace(reward=reward, observation=TABLE.observation * np.nan), tmp_path / "b.hdf5")
    with pytest.raises(DataError, match="field observation"):
        read_table(tmp_path / "b.hdf5", reward=-1.0)


def test_arrays_of_the_writers_are_those_of_the_table(tmp_path: Path) -> None:
    """What LeRobot and robomimic read of ours: one row per step, flags at the ends of episodes."""
    export_table(TABLE, tmp_path / "a", format="lerobot")
    frames = pq.read_table(tmp_path / "a/data/chunk-000/file-000.parquet")
    assert frames.column("frame_index").to_pylist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]
    assert np.flatnonzero(frames.column("next.done")).tolist() == [4, 11]
    episodes = pq.read_table(tmp_path / "a/meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert episodes["dataset_from_index"] == [0, 5, 8] and episodes["length"] == [5, 3, 4]
    assert pq.read_table(tmp_path / "a/meta/tasks.parquet").to_pandas().iloc[0].name == "reinforcement learning"
    export_table(TABLE, tmp_path / "a.hdf5", format="robomimic")
    with h5py.File(tmp_path / "a.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_1/obs/observation"], TABLE.observation[5:8])
        assert file["data"].attrs["total"] == len(arrays_of(TABLE)["rewards"])
