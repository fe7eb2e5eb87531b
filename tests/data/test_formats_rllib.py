"""RLlib: we read its recordings, its algorithms train on our files, and nothing is unpickled."""

import os
import pickle
from pathlib import Path

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import assert_same, make_table
from v2a_ray.data.formats.numpy_msgpack import pack
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.errors import DataError


def episodes_of(path):
    """The states in a recording."""
    from v2a_ray.data.formats.numpy_msgpack import unpack

    return [unpack(item) for item in pq.read_table(path).column("item").to_pylist()]


def write_states(states, path):
    pq.write_table(pa.table({"item": pa.array([pack(state) for state in states], pa.binary())}), path)
    return path


@pytest.fixture
def states(tmp_path: Path):
    export_table(make_table((5, 1, 4)), tmp_path / "made", format="rllib")
    return episodes_of(tmp_path / "made")


def test_rllib_rebuilds_the_episodes(tmp_path: Path) -> None:
    mnp = pytest.importorskip("msgpack_numpy")
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    table = make_table((5, 1, 4))
    export_table(table, tmp_path / "made", format="rllib")
    items = pq.read_table(tmp_path / "made").column("item").to_pylist()
    for index, item in enumerate(items):
        episode = SingleAgentEpisode.from_state(msgpack.unpackb(item, object_hook=mnp.decode))
        rows = table.rows(index)
        assert episode.id_ == table.episode_id[index]
        assert len(episode) == table.lengths[index]
        np.testing.assert_array_equal(
            episode.get_observations(), [*table.observation[rows], table.next_observation[rows][-1]]
        )
        assert (episode.is_terminated, episode.is_truncated) == (table.terminated[index], table.truncated[index])
        assert episode.custom_data["source"] == "made"


def test_episodes_that_rllib_recorded_are_read(tmp_path: Path) -> None:
    """Written by OfflineSingleAgentEnvRunner: lists instead of arrays, in chunks with a lookback."""
    mnp = pytest.importorskip("msgpack_numpy")
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    table = make_table((6, 3), terminated=[True, False])
    packed = []
    for index in range(2):
        rows = table.rows(index)
        steps = zip(table.next_observation[rows], table.action[rows], table.reward[rows], strict=True)
        episode = SingleAgentEpisode(id_=f"e{index}")
        episode.add_env_reset(table.observation[rows][0])
        for step, (observation, action, reward) in enumerate(steps):
            last = step == table.lengths[index] - 1
            episode.add_env_step(
                observation, action, reward, terminated=last and index == 0, truncated=last and index == 1
            )
            if step == 3:
                packed.append(msgpack.packb(episode.get_state(), default=mnp.encode))
                episode = episode.cut(len_lookback_buffer=2)
        packed.append(msgpack.packb(episode.get_state(), default=mnp.encode))
    # The chunks of the first episode, out of order, in two files in a subfolder.
    folder = tmp_path / "hopper" / "run-000001-00001"
    folder.mkdir(parents=True)
    for name, items in (("0.parquet", packed[1:]), ("1.parquet", packed[:1])):
        pq.write_table(pa.table({"item": pa.array(items, pa.binary())}), folder / name)
    read, findings = read_table(tmp_path)
    assert findings == []
    assert read.episode_id == ("e0", "e1")
    assert_same(read, table, labels=False)


def test_an_unfinished_episode_and_a_gap_between_chunks(states, tmp_path: Path) -> None:
    states[0] |= {"is_terminated": False, "t_started": 3}
    states[1] |= {"id_": states[0]["id_"]}
    table, findings = read_table(write_states(states, tmp_path / "a.parquet"))
    assert table.num_episodes == 3
    assert len(set(table.episode_id)) == 3
    assert [finding.check for finding in findings] == ["episode_unfinished"]


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_arrays_are_refused(states, tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    bomb = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(Bomb(exploded))}
    for kind in (b"O", b"", "O"):
        states[1]["infos"]["data"] = bomb | {b"kind": kind}
        path = write_states(states, tmp_path / "a.parquet")
        with pytest.raises(DataError, match="row 1: holds an array of Python objects, which is a pickle"):
            read_table(path)
    assert not exploded.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("actions"), "row 1: is no episode of vectors: it has no 'actions'"),
        (lambda state: state["rewards"].update(data=np.zeros((1, 3))), "row 1: is no episode of vectors"),
        (lambda state: state["rewards"].update(data=np.zeros(3)), "has 2 observations, 1 actions and 3 rewards"),
        (lambda state: state["observations"].update(data=np.zeros((2, 4))), r"has .* dimensions \(4, 2\)"),
        (
            lambda state: state["rewards"].update(data=np.asarray([np.nan])),
            "episode 1 · step 0 · field reward: value nan",
        ),
        (lambda state: state["rewards"].update(data=["a"]), "is no episode of vectors"),
        (lambda state: state["observations"].update(data={"x": 1}), "is no episode of vectors"),
    ],
)
def test_bad_states(change, message, states, tmp_path: Path) -> None:
    change(states[1])
    with pytest.raises(DataError, match=message):
        read_table(write_states(states, tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    "items, message",
    [
        (pa.array([b""], pa.binary()), "row 0: not readable"),
        (pa.array([b"\x81\xa1"], pa.binary()), "row 0: not readable"),
        (pa.array([pickle.dumps({"id_": 1})], pa.binary()), "row 0: not readable"),
        (pa.array([pack([1, 2])], pa.binary()), "row 0: is no episode of vectors"),
        (pa.array([None], pa.binary()), "row 0: not readable"),
        (pa.array([1]), "field item: holds int64, not bytes"),
        (pa.array([], pa.binary()), "holds zero rows"),
    ],
)
def test_bad_items(items, message, tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": items}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet")


@pytest.fixture
def columns(tmp_path: Path):
    export_table(make_table((5, 1, 4)), tmp_path / "columns", format="rllib-columns")
    return pq.read_table(tmp_path / "columns")


def test_rows_of_an_episode_are_brought_together(columns, tmp_path: Path) -> None:
    steps = pa.array([0, 1, 2, 3, 4, 0, 0, 1, 2, 3])
    shuffled = columns.append_column("t", steps).take([5, 6, 9, 8, 7, 0, 4, 3, 2, 1])
    pq.write_table(shuffled, tmp_path / "a.parquet")
    table, findings = read_table(tmp_path / "a.parquet")
    assert_same(table, make_table((5, 1, 4)).select([1, 2, 0]), labels=False)
    assert [finding.check for finding in findings] == ["rows_moved"]


def test_tensors_of_ray_data_are_read(tmp_path: Path) -> None:
    from ray.data.extensions import ArrowTensorArray

    table = make_table((5, 1, 4))
    export_table(table, tmp_path / "columns", format="rllib-columns")
    arrow = pq.read_table(tmp_path / "columns")
    for name, values in (("obs", table.observation), ("new_obs", table.next_observation), ("actions", table.action)):
        index = arrow.column_names.index(name)
        arrow = arrow.set_column(index, name, ArrowTensorArray.from_numpy(values))
    pq.write_table(arrow, tmp_path / "a.parquet")
    assert_same(read_table(tmp_path / "a.parquet").table, table, labels=False)


def set_column(name, values):
    return lambda table: table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda table: table.drop_columns(["rewards"]), "field rewards: missing"),
        (set_column("obs", pa.array([b"x"] * 10)), "field obs: is compressed by RLlib, which pickles"),
        (
            set_column("obs", pa.array([[1.0, 2.0]] * 9 + [[1.0]])),
            "field obs · row 9: has 1 features where the first row has 2",
        ),
        (set_column("obs", pa.array([1.0] * 10)), "field obs: holds double, not lists of numbers"),
        (set_column("obs", pa.array([None] + [[1.0]] * 9)), "field obs · row 0: has null entries"),
        (set_column("rewards", pa.array([[1.0, 2.0]] * 10)), "field rewards: holds list.*, not numbers"),
        (set_column("eps_id", pa.array([["a"]] * 10)), "field eps_id: holds list.*, not names"),
        (set_column("eps_id", pa.array(["a"] * 9 + [None])), "field eps_id: has null entries"),
        (lambda table: table.append_column("t", pa.array([[1.0, 2.0]] * 10)), "field t: holds list.*, not numbers"),
        (lambda table: table.slice(0, 0), "field obs: holds zero rows"),
    ],
)
def test_bad_columns(change, message, columns, tmp_path: Path) -> None:
    pq.write_table(change(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rllib", "rllib-columns"])
def test_rllib_trains_on_the_export(name, ray_cluster: None, tmp_path: Path) -> None:
    """Behaviour cloning learns a policy that is a function of the observation."""
    pytest.importorskip("msgpack_numpy")
    import gymnasium
    import torch
    from ray.rllib.algorithms.bc import BCConfig

    table = make_table((60,) * 20)
    observation, next_observation = table.observation / 8, table.next_observation / 8
    table = table.replace(
        observation=observation, next_observation=next_observation, action=np.tanh(observation[:, :2])
    )
    export_table(table, tmp_path / "export", format=name)

    def act(module):
        """The mean action for every observation."""
        with torch.no_grad():
            outputs = module.forward_inference({"obs": torch.from_numpy(table.observation)})
        return outputs["action_dist_inputs"].numpy()[:, :2]

    config = (
        BCConfig()
        .environment(
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        )
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .offline_data(
            input_=[str(tmp_path / "export")],
            input_read_method="read_parquet",
            input_read_episodes=name == "rllib",
            input_read_batch_size=8 if name == "rllib" else None,
            dataset_num_iters_per_learner=20,
            map_batches_kwargs={"concurrency": 1, "num_cpus": 0},
            iter_batches_kwargs={"prefetch_batches": 0},
        )
        .debugging(seed=0)
        .training(train_batch_size_per_learner=128, lr=3e-3)
    )
    algorithm = config.build_algo()
    errors: list[float] = []
    try:
        # The amount of data per iteration depends on the load of Ray Data, so iterations are not counted.
        while len(errors) < 40 and min(errors, default=np.inf) > 0.5 * table.action.var():
            algorithm.train()
            results = algorithm.learner_group.foreach_learner(lambda learner: act(learner.module["default_policy"]))
            errors.append(((next(iter(results)).get() - table.action) ** 2).mean())
    finally:
        algorithm.stop()
    assert errors[-1] < 0.5 * table.action.var(), (errors, table.action.var())
