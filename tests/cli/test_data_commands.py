"""`v2a data convert`, `inspect` and `export` as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.cli.command import v2a
from v2a_ray.cli.data_commands import app
from v2a_ray.data.formats.known_formats import FORMATS
from v2a_ray.data.formats.readers import export_table, read_table
from v2a_ray.data.table.episodes import EpisodeTable, unlabelled


def hopper_like(lengths: tuple[int, ...] = (5, 1, 4)) -> EpisodeTable:
    """Random walks with the sizes of Hopper's observations and actions."""
    generator = np.random.default_rng(0)
    walks = [generator.normal(size=(length + 1, 11)).cumsum(axis=0).astype(np.float32) for length in lengths]
    return unlabelled(
        observation=np.concatenate([walk[:-1] for walk in walks]),
        action=generator.uniform(-1, 1, (sum(lengths), 3)).astype(np.float32),
        reward=np.ones(sum(lengths), np.float32),
        next_observation=np.concatenate([walk[1:] for walk in walks]),
        lengths=lengths,
        terminated=[True, False, True],
        episode_id=[f"hopper/{index}" for index in range(3)],
    )


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


WRITTEN = [name for name, entry in FORMATS.items() if entry.is_written]


@pytest.mark.parametrize("name", WRITTEN)
def test_convert_and_export_every_format(name: str, tmp_path: Path) -> None:
    given, converted, exported = tmp_path / "given", f"file://{tmp_path}/table", tmp_path / "exported"
    export_table(hopper_like(), given, format=name)
    assert call("inspect", given).exit_code == 0
    done = call("convert", given, "--domain", "hopper/gravity-0.5", "--name", "mine", "-o", converted)
    assert done.exit_code == 0, done.output
    table = read_table(converted).table
    assert set(table.source) == {"mine"}
    np.testing.assert_array_equal(table.next_observation, hopper_like().next_observation)
    done = call("export", converted, "--format", name, "-o", exported)
    assert f"3 episodes, 10 transitions as {name}: {exported}" in done.output
    np.testing.assert_array_equal(read_table(exported, format=name).table.observation, table.observation)


def test_convert_labels_with_the_behavior_that_is_stated_or_in_the_name(tmp_path: Path) -> None:
    given = tmp_path / "hopper-medium-v2.hdf5"
    export_table(hopper_like(), given)
    for name, options in {"medium": (), "mine": ("--behavior", "mine")}.items():
        done = call("convert", given, "--domain", "hopper", *options, "-o", tmp_path / name)
        assert done.exit_code == 0 and set(read_table(tmp_path / name).table.behavior) == {name}
    call("convert", tmp_path / "mine", "--domain", "hopper", "-o", tmp_path / "again")
    assert set(read_table(tmp_path / "again").table.behavior) == {"mine"}, "a table's own labels are statements"


def test_help_names_every_format() -> None:
    for command in ("convert", "export"):
        text = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output
        assert all(name in text for name in (WRITTEN if command == "export" else FORMATS))


def test_an_unknown_ending_says_which_formats_exist(tmp_path: Path) -> None:
    export_table(hopper_like(), tmp_path / "a.npz")
    done = v2a("data", "export", "a.npz", "-o", "a.xlsx", cwd=tmp_path)
    assert done.returncode == 2
    assert "a.xlsx: the ending '.xlsx' stands for no format" in done.stderr
    assert "d4rl (.hdf5 .h5), npz (.npz)" in " ".join(done.stderr.split())
    assert not (tmp_path / "a.xlsx").exists()
