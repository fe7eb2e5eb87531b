"""The artifact store with concurrent writers of one artifact, and with files damaged on disk."""

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
    """Make an artifact; returns whether it already existed."""
    return store.get_or_make("policy", "key", lambda output, _: write(text, output), {}).cached


@pytest.mark.parametrize("checkpoints", [False, True])
def test_first_finished_artifact_is_kept_and_returned_to_both(tmp_path: Path, checkpoints: bool) -> None:
    store = ArtifactStore(tmp_path)

    def make_slowly(output: Path, work: Path) -> None:
        write("slow", output)
        work.mkdir()
        # Another node makes the same artifact; its process ids may equal those of this node.
        assert not make(ArtifactStore(tmp_path), "fast")
        assert (output / "weights").read_text() == "slow"
        if checkpoints:
            (work / "checkpoint").write_text("its folder is gone")

    artifact = store.get_or_make("policy", "key", make_slowly, {})
    assert (artifact.path / "weights").read_text() == "fast"
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["key"]
    assert make(store, "late")


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    killed = tmp_path / "policy" / "key.tmp-0123abcd"
    killed.mkdir(parents=True)
    (killed / "weights").write_text("torn")
    assert not make(ArtifactStore(tmp_path), "whole")
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["key"]


def test_unwritable_artifact_raises_a_storage_error(tmp_path: Path) -> None:
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
def test_damaged_artifact_is_reported_set_aside_and_recomputed(
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
    assert (aside / "table").is_dir()  # the damaged artifact can still be inspected
    with pytest.raises(StorageError, match="gone or was damaged"):
        store.require("policy", "key")
    assert not store.get_or_make("policy", "key", make_table, {"about": 1}).cached
    assert (whole / "weights").read_text() == "weights" and (whole / "table/part").read_bytes() == bytes(range(256))
    assert store.require("policy", "key").cached and len(caplog.messages) == 1


def test_record_without_checksums_counts_as_damaged(tmp_path: Path) -> None:
    path = ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {}).path
    record = read_sealed(path / "artifact.json")
    del record["files"]
    write_sealed(path / "artifact.json", record)
    assert ArtifactStore(tmp_path).find("policy", "key") is None


def test_finished_artifact_replaces_a_damaged_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def make_beside_another(output: Path, work: Path) -> None:
        make_table(output, work)
        other = ArtifactStore(tmp_path / "other").get_or_make("policy", "key", make_table, {}).path
        flip(other / "weights")
        shutil.copytree(other, store.path("policy", "key"))

    store.get_or_make("policy", "key", make_beside_another, {})
    assert ArtifactStore(tmp_path).require("policy", "key")
    assert len(list((tmp_path / "policy").glob("key.damaged-*"))) == 1


def test_large_artifact_is_hashed_hourly_and_when_its_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "LARGE_BYTES", 1)
    path = ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {}).path
    note = tmp_path / "checked" / "policy-key.json"
    noted = read_sealed(note)
    flip(path / "weights")  # then pretend that size and times did not change
    status = (path / "weights").stat()
    rotten = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    write_sealed(note, noted | {"states": noted["states"] | {"weights": rotten}})
    assert ArtifactStore(tmp_path).find("policy", "key"), "docs/robustness.md says that this stays unnoticed"
    write_sealed(note, read_sealed(note) | {"time": noted["time"] - artifacts.VERIFIED_SECONDS})
    assert ArtifactStore(tmp_path).find("policy", "key") is None
    ArtifactStore(tmp_path).get_or_make("policy", "key", make_table, {})
    flip(path / "weights")
    assert ArtifactStore(tmp_path).find("policy", "key") is None
