"""`v2a cache`: it lists and removes artifacts, and never touches other files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harm import flip
from tests.cli.command import v2a_here
from v2a_ray.engine.stage import artifact_kinds
from v2a_ray.engine.store import ArtifactStore, stage_key


def make(store: Path, stage: str, seed: int = 0) -> Path:
    """An artifact of 1 MiB."""

    def fill(output: Path, _: Path) -> None:
        (output / "weights").write_bytes(bytes(2**20))

    return ArtifactStore(store).get_or_make(stage, stage_key(stage, {}, {}, seed), fill, {}).path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def cache(*arguments: str, cwd: Path) -> tuple[int, str]:
    done = v2a_here("cache", *arguments, cwd=cwd)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_process_of_its_own_knows_every_stage(tmp_path: Path) -> None:
    """Nothing else in it has imported the stages."""
    script = "from v2a_ray.engine.stage import artifact_kinds; print(*artifact_kinds())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert {"data", "rows", "modality", "policy", "diagnosis"} <= set(done.stdout.split())


def users_files(project: Path) -> dict[str, bytes]:
    """A project whose folders have the names of stages, as folders of projects do."""
    for stage in artifact_kinds():
        (project / stage / "notes").mkdir(parents=True)
        (project / stage / "notes" / "thesis.txt").write_text("years of work")
        (project / stage / "mine.csv").write_text("1,2")
        (project / stage / "run.work").mkdir()
        (project / stage / "run.work" / "artifact.json").write_text('{"stage": "none"}')
    (project / "digests").mkdir()
    (project / "digests" / "users.json").write_text("{}")
    return contents(project)


@pytest.mark.parametrize("arguments", [[], ["--clear"]])
@pytest.mark.parametrize("place", ["project", "project/data", "nowhere", "."])
def test_a_folder_that_is_no_store_is_refused(place: str, arguments: list[str], tmp_path: Path) -> None:
    before = users_files(tmp_path / "project")
    code, message = cache(*arguments, "--store", place, cwd=tmp_path)
    assert code == 2 and "error:" in message and "not an artifact store" in message and "Traceback" not in message
    assert contents(tmp_path / "project") == before


def test_clearing_removes_artifacts_and_nothing_else_and_says_how_much(tmp_path: Path) -> None:
    before = users_files(tmp_path)
    made = [make(tmp_path, "policy"), make(tmp_path, "policy", seed=1), make(tmp_path, "data")]
    flip(make(tmp_path, "rows") / "weights")
    assert ArtifactStore(tmp_path).find("rows", stage_key("rows", {}, {})) is None
    unfinished = tmp_path / "modality" / f"{stage_key('modality', {}, {})}.work"
    unfinished.mkdir()
    (unfinished / "checkpoint.safetensors").write_bytes(bytes(2**20))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("the target of a link")
    link = tmp_path / "policy" / f"{stage_key('policy', {}, {}, 9)}.work"
    link.symlink_to(elsewhere)
    _, listed = cache("--store", ".", cwd=tmp_path)
    assert all(path.name in listed for path in made) and "damaged" in listed and unfinished.name in listed
    code, message = cache("--clear", "--store", ".", cwd=tmp_path)
    assert code == 0 and f"removed 3 artifacts and 2 unfinished or damaged ones, 5.0 MiB, from {tmp_path}" in message
    left = contents(tmp_path)
    assert left.pop("v2a-store.json") and left.pop("elsewhere/file") and link.is_symlink()
    assert left == before
    assert cache("--clear", "--store", ".", cwd=tmp_path)[1].startswith("removed 0 artifacts and 0 unfinished")


def test_a_store_of_an_earlier_version_is_known_by_its_artifacts(tmp_path: Path) -> None:
    record = make(tmp_path, "policy") / "artifact.json"
    (tmp_path / "v2a-store.json").unlink()
    content = json.loads(record.read_text())
    record.write_text(json.dumps({name: content[name] for name in ("stage", "key", "seconds")}))
    assert "unusable" in cache("--store", ".", cwd=tmp_path)[1]
    assert cache("--clear", "--store", ".", cwd=tmp_path)[1].startswith("removed 0 artifacts and 1 unfinished")
    assert not contents(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"stage": "policy"}', "\0\0"])
def test_damaged_records_do_not_stop_the_list(text: str, tmp_path: Path) -> None:
    whole, damaged = make(tmp_path, "policy"), make(tmp_path, "policy", seed=1)
    (damaged / "artifact.json").write_text(text)
    code, listed = cache("--store", ".", cwd=tmp_path)
    assert code == 0 and whole.name in listed and damaged.name in listed and listed.count("unusable") == 1
