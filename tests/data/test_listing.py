"""The datasets under a folder, listed without reading observations."""

from pathlib import Path
from urllib.parse import quote

import h5py
import pyarrow.parquet as pq
import pytest

from tests.data.builders import make_table
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.formats.arrays import arrays_of
from v2a_ray.data.formats.readers import examine_table, export_table
from v2a_ray.data.inspection.inspect import inspect_datasets
from v2a_ray.data.inspection.listing import list_datasets
from v2a_ray.data.mixing.mixture import load_data
from v2a_ray.data.table.folder import write_table
from v2a_ray.settings.behavior_names import behavior_of_name


def test_counts_of_every_format_that_stores_them(tmp_path: Path) -> None:
    table = make_table((5, 7, 9), seed=0)
    formats = ("d4rl", "npz", "minari", "parquet", "lerobot", "robomimic", "rllib-columns")
    for name, format_name in zip(("a.hdf5", "b.npz", "c", "d.parquet", "e", "f.hdf5", "g"), formats, strict=True):
        export_table(table, tmp_path / name, format=format_name)
    (tmp_path / "d.parquet/manifest.json").unlink(missing_ok=True)
    (tmp_path / "z.npz").write_bytes(b"PK\x03\x04 and nothing else")
    listed = {each.name: each for each in list_datasets(tmp_path)}
    assert listed.pop("z.npz").unreadable
    assert [each.format for each in listed.values()] == list(formats)
    assert {name: (each.num_episodes, each.num_transitions) for name, each in listed.items()} == dict.fromkeys(
        listed, (3, 21)
    )
    for name in ("a.hdf5", "b.npz", "d.parquet", "g"):
        assert listed[name].mean_return == pytest.approx(table.returns.mean(), rel=1e-5)


def test_what_the_readers_read_is_listed(tmp_path: Path) -> None:
    """HDF5 with a group per trajectory or one group, flags or none, and tables whose folders say the labels."""
    lengths = (5, 7, 9)
    tables = [make_table((length,), seed=length) for length in lengths]
    for name, group in (("trajectories.h5", "traj_{}"), ("nested.h5", "data/traj_{}"), ("unflagged.h5", "t{}")):
        with h5py.File(tmp_path / name, "w") as file:
            if name == "trajectories.h5":
                file["metadata/note"] = "no trajectory"
            for index, table in enumerate(tables):
                for key, values in arrays_of(table).items():
                    if (name, key) != ("unflagged.h5", "timeouts"):
                        file[f"{group.format(index)}/{key}"] = values
    with h5py.File(tmp_path / "one_group.h5", "w") as file:
        for key, values in arrays_of(make_table(lengths, seed=0)).items():
            file[f"recorded/{key}"] = values
    whole = make_table(lengths, seed=0).to_arrow()
    for index, domain in enumerate(("hopper/stock", "hopper/gravity-0.5", "hopper/stock")):
        folder = tmp_path / "hive" / f"domain={quote(domain, safe='')}" / "behavior=medium"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(whole.slice(index, 1).drop_columns(["domain", "behavior"]), folder / f"{index}.parquet")
    listed = {each.name: each for each in list_datasets(tmp_path)}
    assert [each.name for each in listed.values() if each.unreadable] == []
    assert set(listed) == {"hive", "nested.h5", "one_group.h5", "trajectories.h5", "unflagged.h5"}
    for name, each in listed.items():
        read = examine_table(tmp_path / name).table
        assert (each.num_episodes, each.num_transitions) == (read.num_episodes, read.num_transitions) == (3, 21), name
        assert each.mean_return == pytest.approx(read.returns.mean(), rel=1e-5), name
    assert (listed["hive"].domain, listed["hive"].behavior) == ("hopper/gravity-0.5, hopper/stock", "medium")


def test_what_the_readers_refuse_is_listed_with_their_reason(tmp_path: Path) -> None:
    table = make_table((5,), seed=0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, values in arrays_of(table).items():
            file[f"one/{key}"] = values
            if key != "timeouts":
                file[f"two/{key}"] = values
    pq.write_table(table.to_arrow().drop_columns(["behavior"]), tmp_path / "b.parquet")
    listed = {each.name: each.problems for each in list_datasets(tmp_path) if each.unreadable}
    assert listed["a.h5"] == "missing, where other trajectories have it"
    assert "missing" in listed["b.parquet"]


@pytest.mark.parametrize(
    ("name", "behavior"),
    [
        ("hopper_medium-replay.hdf5", "medium-replay"),
        ("hopper-medium-v2", "medium"),
        ("D4RL/hopper/expert-v0", "expert"),
        ("minari://D4RL/hopper/medium-expert-v0", "medium-expert"),
        ("hopper_gravity_0.5_medium_expert.hdf5", "medium-expert"),
        ("s3://bucket/halfcheetah-full-replay-v2.hdf5", "full-replay"),
        ("pen-human-v1", "human"),
        ("my_robot.hdf5", None),
        ("unmediumly.hdf5", None),
        ("medium_or_expert.hdf5", None),
        ("expert/part-0.parquet", None),
    ],
)
def test_the_behavior_is_read_from_a_name(name: str, behavior: str | None) -> None:
    assert behavior_of_name(name) == behavior


def test_behaviors_are_listed_and_label_what_states_none(tmp_path: Path) -> None:
    table = make_table((5, 7), seed=0)
    export_table(table, tmp_path / "hopper_medium-replay.hdf5", format="d4rl")
    export_table(table, tmp_path / "D4RL/hopper/expert-v0", format="minari")
    write_table(table.labelled(source="mine", domain="hopper/stock", behavior="simple"), tmp_path / "own_random")
    listed = {each.name: each.behavior for each in list_datasets(tmp_path)}
    assert listed == {
        "D4RL/hopper/expert-v0": "expert",
        "hopper_medium-replay.hdf5": "medium-replay",
        "own_random": "simple",
    }
    assert [each.behavior for each in inspect_datasets([str(tmp_path / name) for name in listed]).sources] == list(
        listed.values()
    )

    real = f"real?action_dim={table.action_dim}&observation_dim={table.observation_dim}"
    spec = SourceSpec(domain=real, path="hopper_medium-replay.hdf5")
    assert set(load_data(spec, spec.label, tmp_path).table.behavior) == {"medium-replay"}
    assert spec.label == "real-unknown", "the name of the part, which results depend on, is as before"
    stated = spec.model_copy(update={"behavior": "mine"})
    assert set(load_data(stated, stated.label, tmp_path).table.behavior) == {"mine"}
