"""Several sources become one table through Ray Data: whole episodes, planned order."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.data.builders import assert_same
from tests.data.test_mixture import hopper_table
from v2a_ray.data.mixing.mixture import relabel
from v2a_ray.data.table.episodes import episode_schema
from v2a_ray.data.table.folder import part_files, read_manifest, read_table_folder, write_table
from v2a_ray.data.table.manifest import content_hash
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError

HOPPER = parse_domain("hopper")


def write_sources(folder, tables):
    from v2a_ray.orchestration.data.ingest import IngestSource

    for name, table in tables.items():
        write_table(table, folder / name, num_files=2)
    return [IngestSource(folder / name, name, "hopper/gravity-0.5", "medium") for name in tables]


@pytest.mark.parametrize("num_bytes", [0, 8 * 2**20], ids=["ray data", "one process"])
def test_ingest(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes) -> None:
    from v2a_ray.orchestration.data import ingest as module
    from v2a_ray.orchestration.data.ingest import ingest

    monkeypatch.setattr(module, "ONE_PROCESS_BYTES", num_bytes)

    tables = {"near": hopper_table((5, 6, 7, 8)), "far": hopper_table((9, 10), seed=1)}
    sources = write_sources(tmp_path, tables)
    manifest = ingest(sources, tmp_path / "all", robot=HOPPER.robot_spec, num_files=3)
    combined = read_table_folder(tmp_path / "all")

    # Sources take turns in proportion, each in its own order, and nothing is lost or changed.
    assert combined.source == ("near", "far", "near", "near", "far", "near")
    assert combined.episode_id[:2] == ("near/made/000000", "far/made/000000")
    for name, table in tables.items():
        part = combined.select(np.flatnonzero(np.asarray(combined.source) == name))
        expected = relabel(table, name, parse_domain("hopper/gravity-0.5"), "medium")
        assert_same(part.replace(episode_id=expected.episode_id), expected)
    assert pq.read_schema(part_files(tmp_path / "all")[0]).equals(episode_schema(11, 3))

    assert manifest == read_manifest(tmp_path / "all")
    assert manifest["content_hash"] == content_hash(combined)
    assert (manifest["num_episodes"], manifest["num_transitions"], manifest["num_files"]) == (6, 45, 3)

    # A check that fails inside Ray raises its own single error and leaves no folder.
    damaged = tables["far"].action.copy()
    damaged[10, 1] = np.nan
    sources = write_sources(tmp_path, {"near": tables["near"], "far": tables["far"].replace(action=damaged)})
    with pytest.raises(DataError, match=r"far · episode made/000001 · step 1 · field action: value nan"):
        ingest(sources, tmp_path / "bad", robot=HOPPER.robot_spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "far", "near"]


def test_one_process_writes_the_same_bits_as_ray_data(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from v2a_ray.orchestration.data import ingest as module

    sources = write_sources(tmp_path, {"near": hopper_table((9,) * 30), "far": hopper_table((8,) * 20, seed=1)})
    held_out = {"far": np.asarray([3, 7])}
    assert module.is_small(sources)
    module.ingest(sources, tmp_path / "here" / "table", robot=HOPPER.robot_spec, held_out=held_out)
    monkeypatch.setattr(module, "ONE_PROCESS_BYTES", 0)
    module.ingest(sources, tmp_path / "there" / "table", robot=HOPPER.robot_spec, held_out=held_out)
    here, there = (
        {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "here", tmp_path / "there")
    )
    assert len([name for name in here if name.endswith(".parquet")]) == 10
    assert here == there


def test_a_large_table_has_more_parts(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from v2a_ray.orchestration.data import ingest as module

    sources = write_sources(tmp_path, {"near": hopper_table((9,) * 30), "far": hopper_table((8,) * 20, seed=1)})
    assert module.ingest(sources, tmp_path / "few", robot=HOPPER.robot_spec)["num_files"] == module.MIN_FILES
    monkeypatch.setattr(module, "PART_BYTES", 2000)
    many = module.ingest(sources, tmp_path / "many", robot=HOPPER.robot_spec)
    assert many["num_files"] > 10
    assert_same(read_table_folder(tmp_path / "many"), read_table_folder(tmp_path / "few"))


def test_no_source(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.ingest import ingest

    with pytest.raises(DataError, match="there is no source"):
        ingest([], tmp_path / "all", robot=HOPPER.robot_spec)
