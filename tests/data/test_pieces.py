"""Processes that share tables read every episode once, for any numbers of part files and readers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import assert_same
from tests.data.test_mixture import hopper_table
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.data.table.folder import part_path, write_table
from v2a_ray.data.table.pieces import Piece, pieces, shards
from v2a_ray.errors import DataError

LENGTHS = (3, 1, 4, 1, 5, 9, 2)


@settings(max_examples=25, deadline=None)
@given(num_files=st.tuples(st.integers(1, 4), st.integers(1, 4)), num_readers=st.integers(1, 14))
def test_every_episode_has_one_reader_and_every_reader_an_episode(num_files, num_readers) -> None:
    tables = [hopper_table(LENGTHS), hopper_table(LENGTHS[::-1], seed=1)]
    tables[1] = tables[1].replace(episode_id=tuple(f"other/{name}" for name in tables[1].episode_id))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "first", Path(folder) / "second"]
        for table, path, count in zip(tables, paths, num_files, strict=True):
            write_table(table, path, num_files=count)
        everything = concatenate(tables)
        assert_same(concatenate([piece.read() for piece in pieces(paths, num_readers)]), everything)
        parts = [concatenate([piece.read() for piece in mine]) for mine in shards(paths, num_readers)]
        assert len(parts) == num_readers and all(part.num_episodes for part in parts)
        assert sorted(concatenate(parts).episode_id) == sorted(everything.episode_id)


def test_enough_part_files_are_not_divided(tmp_path: Path) -> None:
    write_table(hopper_table(LENGTHS), tmp_path, num_files=3)  # of 2, 3 and 2 episodes
    first, second, third = (part_path(tmp_path, index) for index in range(3))
    assert shards([tmp_path], 2) == [[Piece(first, 0, 2), Piece(third, 0, 2)], [Piece(second, 0, 3)]]


def test_too_few_part_files_are_divided_by_episodes(tmp_path: Path) -> None:
    write_table(hopper_table(LENGTHS), tmp_path, num_files=1)
    assert shards([tmp_path], 3) == [[Piece(tmp_path, 0, 2)], [Piece(tmp_path, 2, 5)], [Piece(tmp_path, 5, 7)]]


def test_fewer_episodes_than_readers_are_refused(tmp_path: Path) -> None:
    write_table(hopper_table(LENGTHS), tmp_path, num_files=2)
    with pytest.raises(DataError, match="7 episodes cannot be shared by 8 workers") as error:
        shards([tmp_path], 8)
    assert str(tmp_path) in str(error.value) and "modality.num_workers" in str(error.value)
