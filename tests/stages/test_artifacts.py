"""The artifact store when several processes make the same artifact at a time, and when a disk damages what it holds."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from benchmarks.harm import HARMS, flip
from v2a_ray.checksums import read_sealed, write_sealed
from v2a_ray.engine import store as artifacts
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import StorageError


def write(text: str, output: Path) -> None:
    (output / "weights").write_text(text)


def make(store: ArtifactStore, text: str) -> bool:
    """Make an artifact at once; returns whether it was there."""
    return store.get_or_make("policy", "key", lambda output, _: write(text, output), {}).cached


@pytest.mark.parametrize("checkpoints", [False, True])
def test_the_first_to_finish_wins_and_the_other_gets_what_it_made(tmp_path: Path, checkpoints: bool) -> None:
    store = ArtifactStore(tmp_path)

    def make_slowly(output: Path, work: Path) -> None:
        write("slow", output)
        work.mkdir()
        # The same on another node, whose processes may have the numbers of this one's.
        assert not make(ArtifactStore(tmp_path), "fast")
        assert (output / "weights").read_text() == "slow"
        if checkpoints:
            (work / "checkpoint").write_text("its folder is gone")

    artifact = store.get_or_make("policy", "key", make_slowly, {})
    assert (artifact.path / "weights").read_text() == "fast"
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["key"]
    assert make(store, "late")


def test_nothing_is_left_of_processes_that_were_killed(tmp_path: Path) -> None:
    killed = tmp_path / "policy" / "key.tmp-0123abcd"
    killed.mkdir(parents=True)
    (killed / "weights").write_text("torn")
    assert not make(ArtifactStore(tmp_path), "whole")
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["key"]


def test_an_artifact_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    def fail(output: Path, work: Path) -> None:
        (work / "no folder" / "checkpoint").write_text("")

    with pytest.raises(StorageError, match="No such file"):
        ArtifactStore(tmp_path).get_or_make("policy", "key", fail, {})
    assert not list((tmp_path / "policy").iterdir())


def make_table(output: Path, _: Path) -> None:
    """An artifact with files at two depths."""
    write("weights", output)
    (output / "table").mkdir()
    (output / "table" / "part").write_bytes(bytes(range(256)))


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["weights", "table/part", "artifact.json"])
def test_what_a_disk_damages_is_said_set_aside_and_made_again(
    name: str, harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {"about": 1}).path
    HARMS[harm](whole / name)
    store = ArtifactStore(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert store.find("policy", "key") is None
    (warning,) = caplog.messages
    (aside,) = (tmp_path / "policy").glob("key.damaged-*")
    assert str(whole) in warning and Path(name).name in warning and aside.name in warning
    assert (aside / "table").is_dir()  # nothing is lost: who wants to can look at it
    with pytest.raises(StorageError, match="gone or was damaged"):
        store.require("policy", "key")
    assert not store.get_or_make("policy", "key", make_table, {"about": 1}).cached
    assert (whole / "weights").read_text() == "weights" and (whole / "table/part").read_bytes() == bytes(range(256))
    assert store.require("policy", "key").cached and len(caplog.messages) == 1


def test_a_record_without_checksums_counts_as_damaged(tmp_path: Path) -> None:
    path = ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {}).path
    record = read_sealed(path / "artifact.json")
    del record["files"]
    write_sealed(path / "artifact.json", record)
    assert ArtifactStore(tmp_path).find("policy", "key") is None


def test_a_damaged_artifact_in_the_way_of_a_finished_one_is_set_aside(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def make_beside_another(output: Path, work: Path) -> None:
        make_table(output, work)
        other = ArtifactStore(tmp_path / "other").get_or_make("policy", "key", make_table, {}).path
        flip(other / "weights")
        shutil.copytree(other, store.path("policy", "key"))

    store.get_or_make("policy", "key", make_beside_another, {})
    assert ArtifactStore(tmp_path).require("policy", "key")
    assert len(list((tmp_path / "policy").glob("key.damaged-*"))) == 1


def test_a_large_artifact_is_hashed_once_an_hour_and_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LARGE_BYTES", 1)
    path = ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {}).path
    note = tmp_path / "checked" / "policy-key.json"
    noted = read_sealed(note)
    flip(path / "weights")  # which no disk does without a trace: it leaves the times as they were
    status = (path / "weights").stat()
    rotten = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    write_sealed(note, noted | {"states": noted["states"] | {"weights": rotten}})
    assert ArtifactStore(tmp_path).find("policy", "key"), "what docs/robustness.md says that cannot be seen"
    write_sealed(note, read_sealed(note) | {"time": noted["time"] - artifacts.VERIFIED_SECONDS})
    assert ArtifactStore(tmp_path).find("policy", "key") is None
    ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {})
    flip(path / "weights")
    assert ArtifactStore(tmp_path).find("policy", "key") is None
