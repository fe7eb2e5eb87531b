"""The artifact store when several processes, on several nodes, make the same artifact at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from v2a_ray.errors import StorageError
from v2a_ray.stages.artifacts import ArtifactStore


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
