"""Converting with many tasks gives the same bits and the same findings, word for word, as one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.builders import arrays_of, assert_same, write_hdf5
from tests.data.test_mixture import hopper_table
from v2a_ray.data.formats import d4rl
from v2a_ray.data.formats.d4rl import Scan
from v2a_ray.data.formats.location import locate
from v2a_ray.data.formats.readers import examine_table
from v2a_ray.data.mixing.mixture import relabel
from v2a_ray.data.table.folder import part_files, read_manifest, read_table_folder, write_table
from v2a_ray.domains import parse_domain
from v2a_ray.errors import DataError

HOPPER = parse_domain("hopper/gravity-0.5")


def recording(lengths=(120,) * 6 + (80, 1, 40), **options):
    table = hopper_table(lengths)
    table = table.replace(terminated=np.arange(len(lengths)) % 2 == 0, truncated=np.arange(len(lengths)) % 2 == 1)
    return arrays_of(table, **options)


def with_resets():
    """Smooth dynamics that start near one state, with rows that jump to a start."""
    generator = np.random.default_rng(0)
    states = np.zeros((8, 151, 11), np.float32)
    actions = generator.uniform(-1, 1, (8, 150, 3)).astype(np.float32)
    states[:, 0] = 0.01 * generator.normal(size=(8, 11))
    for step in range(150):
        drive = np.concatenate([actions[:, step]] * 4, axis=1)[:, :11]
        states[:, step + 1] = 0.97 * states[:, step] + 0.3 * drive
    arrays = {
        "observations": states[:, :-1].reshape(-1, 11),
        "next_observations": states[:, 1:].reshape(-1, 11),
        "actions": actions.reshape(-1, 3),
        "rewards": np.ones(1200, np.float32),
        "terminals": np.zeros(1200, bool),
    }
    for row in (149, 599, 1049):
        arrays["next_observations"][row] = arrays["observations"][row + 1]
    return arrays


def single_rows():
    drawn = np.random.default_rng(0).permutation(760)[:400]
    return {key: values[drawn] for key, values in recording(timeouts=False).items()}


def repeated():
    return {key: np.concatenate([values[:480]] * 2) for key, values in recording().items()}


def standing(copies=0):
    """States in which Hopper stands, so that no part of the file has a finding; the first rows may come again."""
    generator = np.random.default_rng(0)
    states = generator.normal(0, 0.01, (8, 101, 11)).astype(np.float32)
    states[..., 0] += 1.25
    arrays = {
        "observations": states[:, :-1].reshape(-1, 11),
        "next_observations": states[:, 1:].reshape(-1, 11),
        "actions": generator.uniform(-1, 1, (800, 3)).astype(np.float32),
        "rewards": np.ones(800, np.float32),
        "terminals": np.zeros(800, bool),
        "timeouts": np.arange(800) % 100 == 99,
    }
    return {key: np.concatenate([values, values[:copies]]) for key, values in arrays.items()}


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "clean": recording,
    "standing": standing,
    "standing, one episode twice": lambda: standing(100),
    "without timeouts": lambda: recording(timeouts=False),
    "without next observations": lambda: recording(next_observations=False),
    "without either": lambda: recording(timeouts=False, next_observations=False),
    "resets": with_resets,
    "unordered": single_rows,
    "repeated": repeated,
}


@pytest.mark.parametrize("case", FILES)
def test_many_tasks_and_one_process_agree(
    case, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from v2a_ray.orchestration.data import convert
    from v2a_ray.orchestration.data.convert import convert_hdf5

    # Several tasks look for transitions that repeat.
    monkeypatch.setattr(convert, "HASHES_AT_ONCE", 300)
    monkeypatch.setattr(d4rl, "SCAN_ROWS", 37)
    if case == "standing":
        monkeypatch.delattr(convert, "read_parts")  # no process reads the whole table
    location = locate(write_hdf5(tmp_path / "a.hdf5", FILES[case]()))
    table, findings = examine_table(location, robot=HOPPER.robot_spec)
    table = relabel(table, "near", HOPPER, "medium")
    expected = write_table(table, tmp_path / "one", robot=HOPPER.robot, findings=findings)
    calls = []
    manifest = convert_hdf5(
        location,
        tmp_path / "many",
        domain=HOPPER,
        name="near",
        behavior="medium",
        rows_per_slice=200,
        progress=lambda done, total: calls.append((done, total)),
    )
    num_parts = len(part_files(tmp_path / "many"))
    assert num_parts > 1 and calls[-1] == (3 * num_parts, 3 * num_parts)
    assert_same(read_table_folder(tmp_path / "many"), table)
    assert manifest["findings"] == expected["findings"]
    assert manifest["content_hash"] == expected["content_hash"] == read_manifest(tmp_path / "many")["content_hash"]
    assert manifest["sources"] == expected["sources"]
    if case == "standing, one episode twice":
        assert "100 of 900 transitions are copies" in manifest["findings"][0]["message"]
    if case == "resets":
        assert "149, 599, 1049" in manifest["findings"][0]["message"]


def test_an_error_is_the_same_and_leaves_no_files(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.convert import convert_hdf5

    arrays = recording()
    arrays["actions"][[130, 700], 1] = np.nan
    location = locate(write_hdf5(tmp_path / "a.hdf5", arrays))
    (first,) = [f for f in examine_table(location, robot=HOPPER.robot_spec).findings if f.severity == "error"]
    with pytest.raises(DataError) as caught:
        convert_hdf5(location, tmp_path / "many", domain=HOPPER, name="near", rows_per_slice=200)
    assert caught.value.what == first.message and caught.value.where == first.where
    assert "(2 not finite in all)" in first.message
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), rows_per_slice=st.integers(1, 500))
def test_slices_are_whole_episodes_and_cover_the_file(lengths, rows_per_slice) -> None:
    from v2a_ray.orchestration.data.hdf5_source import slice_bounds

    bounds = np.cumsum([0, *lengths])
    slices = slice_bounds(Scan(bounds, np.ones(len(lengths), bool)), rows_per_slice)
    edges = [slices[0][0], *(end for _, end in slices)]
    assert edges[0] == 0 and edges[-1] == bounds[-1] and set(edges) <= set(bounds.tolist())
    assert all(begin < end for begin, end in slices)
    assert [begin for begin, _ in slices] == edges[:-1]
