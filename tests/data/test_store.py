"""Table folders are complete or absent, and their manifest describes the content."""

import errno
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.builders import assert_same, make_table
from v2a_ray.data.table.folder import part_files, read_manifest, read_table_folder, write_table
from v2a_ray.data.table.manifest import content_hash
from v2a_ray.errors import DataError, StorageError


@pytest.mark.parametrize("num_files", [1, 2, 3, 8])
def test_the_partition_changes_neither_content_nor_hash(num_files, tmp_path: Path) -> None:
    table = make_table((5, 3, 4, 6, 2))
    manifest = write_table(table, tmp_path / "table", num_files=num_files)
    assert_same(read_table_folder(tmp_path / "table"), table)
    assert manifest["content_hash"] == content_hash(table)
    assert len(part_files(tmp_path / "table")) == min(num_files, 5)


def test_the_hash_sees_every_field_and_the_order() -> None:
    table = make_table()
    others = [
        table.replace(reward=table.reward + 1),
        table.replace(terminated=~table.terminated),
        table.replace(behavior=("other",) * 3),
        table.select([1, 0, 2]),
    ]
    assert len({content_hash(each) for each in [table, *others]}) == 5


def test_manifest(tmp_path: Path) -> None:
    table = make_table((5, 3, 4))
    write_table(table, tmp_path / "table", robot="walker", num_files=2, extra={"made_by": "test"})
    manifest = read_manifest(tmp_path / "table")
    assert (manifest["robot"], manifest["num_episodes"], manifest["num_transitions"]) == ("walker", 3, 12)
    assert (manifest["observation_dim"], manifest["action_dim"], manifest["made_by"]) == (3, 2, "test")
    np.testing.assert_allclose(manifest["observation_mean"], table.observation.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(manifest["observation_std"], table.observation.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(manifest["return"]["mean"], table.returns.mean())
    assert manifest["sources"][0]["num_transitions"] == 12


def test_a_failed_write_leaves_the_old_folder_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table"
    write_table(make_table(seed=1), path)
    before = read_manifest(path)

    def full(*_args, **_options) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_table(make_table(seed=2), path)
    assert read_manifest(path) == before
    assert [each.name for each in tmp_path.iterdir()] == ["table"]


def test_a_path_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        write_table(make_table(), tmp_path / "file" / "table")


def test_replacing_a_folder_leaves_no_old_parts(tmp_path: Path) -> None:
    write_table(make_table(), tmp_path / "table", num_files=3)
    write_table(make_table(seed=1), tmp_path / "table", num_files=1)
    assert_same(read_table_folder(tmp_path / "table"), make_table(seed=1))


def test_a_lost_part_is_found(tmp_path: Path) -> None:
    write_table(make_table(), tmp_path / "table", num_files=3)
    part_files(tmp_path / "table")[1].unlink()
    with pytest.raises(DataError, match=r"2 episodes and .* where its manifest says 3 and 12"):
        read_table_folder(tmp_path / "table")


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    write_table(make_table(), tmp_path / "table")
    file = tmp_path / "table" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    with pytest.raises(DataError, match="schema version 99"):
        read_table_folder(tmp_path / "table")


def test_tables_of_other_programs_are_cast(tmp_path: Path) -> None:
    table = make_table()
    loose = pa.list_(pa.list_(pa.float64()))
    arrow = table.to_arrow()
    for name in ("observation", "action", "next_observation"):
        values = pa.array([[list(step) for step in episode] for episode in arrow[name].to_pylist()], loose)
        arrow = arrow.set_column(arrow.schema.get_field_index(name), name, values)
    pq.write_table(arrow, tmp_path / "a.parquet")
    assert_same(read_table_folder(tmp_path / "a.parquet"), table)
