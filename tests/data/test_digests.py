"""Digests of data files are cached while the file is unchanged, but never for a file that may still change."""

import hashlib
import json
import os
import time
from pathlib import Path

import fsspec
import pytest
from pyarrow import fs

from benchmarks.harm import HARMS
from v2a_ray.data.formats import digests
from v2a_ray.data.formats.digests import digest_path
from v2a_ray.data.formats.location import Location
from v2a_ray.errors import DataError


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch):
    """Names of the files whose bytes were read."""
    names, original = [], hashlib.file_digest

    def recording(stream, name):
        names.append(stream.name.rsplit("/", 1)[-1])
        return original(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", recording)
    return names


def test_a_settled_file_is_read_once_and_a_changed_one_again(
    tmp_path: Path, hashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.05)
    file, store = tmp_path / "a.hdf5", tmp_path / "store"
    file.write_bytes(b"one")
    time.sleep(0.1)
    first = digest_path(file, store)
    assert digest_path(file, store) == first == digest_path(file)
    assert hashed == ["a.hdf5"] * 2  # The second read was the call without a store.
    # The same size and the same modification time, as after `cp -p`.
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest_path(file, store) != first
    assert hashed == ["a.hdf5"] * 3


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, hashed) -> None:
    file = tmp_path / "a.hdf5"
    file.write_bytes(b"one")
    assert digest_path(file, tmp_path) == digest_path(file, tmp_path)
    assert hashed == ["a.hdf5"] * 2


def test_a_damaged_cache_entry_only_costs_time(tmp_path: Path, hashed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    file = tmp_path / "a.hdf5"
    file.write_bytes(b"one")
    time.sleep(0.05)
    digest = digest_path(file, tmp_path / "store")
    (note,) = (tmp_path / "store" / digests.FOLDER).iterdir()
    note.write_text('{"file":')
    assert digest_path(file, tmp_path / "store") == digest and len(hashed) == 2


def test_the_digest_of_a_folder_covers_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    digest = digest_path(tmp_path)
    (tmp_path / "b").write_text("c")
    assert digest_path(tmp_path) != digest


@pytest.mark.parametrize("place", ["data/NAME/inner", "NAME/data"])
def test_names_of_folders_that_hold_labels_are_part_of_the_digest(tmp_path: Path, place: str) -> None:
    storage, digests_of = fsspec.filesystem("memory"), {}
    for name in ("behavior=medium", "behavior=expert", "first", "run=3"):
        dataset, inner = (part.replace("NAME", name) for part in (place.partition("data")[0] + "data", place))
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "a=1.parquet").write_bytes(b"rows")
        storage.pipe(f"/{tmp_path.name}/{inner}/a=1.parquet", b"rows")
        digests_of[name] = (digest_path(tmp_path / dataset), digest_path(f"memory://{tmp_path.name}/{dataset}"))
        (tmp_path / inner / "a=1.parquet").unlink()
        storage.rm(f"/{tmp_path.name}/{inner}/a=1.parquet")
    for medium, expert in zip(digests_of["behavior=medium"], digests_of["behavior=expert"], strict=True):
        assert medium != expert
    # Other names hold nothing, and stores have keys of such folders.
    content = hashlib.sha256(hashlib.sha256(b"rows").digest()).hexdigest()
    assert {*digests_of["first"], *digests_of["run=3"]} == {content}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        digest_path(tmp_path / "absent")


def test_a_remote_file_without_a_modification_time_is_read() -> None:
    storage = fsspec.filesystem("memory")
    storage.pipe("/digests/a.hdf5", b"one")
    first = digest_path("memory://digests/a.hdf5")
    assert digest_path("memory://digests/a.hdf5") == first
    storage.pipe("/digests/a.hdf5", b"two")
    assert digest_path("memory://digests/a.hdf5") != first
    with pytest.raises(DataError, match="no such file"):
        digest_path("memory://digests/absent")


def test_a_remote_file_is_known_by_address_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # fsspec's local file system knows times, as object storage does, and uses the same code.
    storage = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("file")))
    path = tmp_path / "a.hdf5"
    path.write_bytes(b"one")
    location = Location("s3://bucket/a.hdf5", str(path), storage)
    monkeypatch.setattr(Location, "open", lambda self: pytest.fail("its bytes were read"))
    first = digest_path(location)
    assert digest_path(location) == first
    os.utime(path, ns=(0, 10**18))
    assert digest_path(location) != first


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_cache_entry_does_not_change_the_digest(
    harm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 0.0)
    file = tmp_path / "a.hdf5"
    file.write_bytes(b"one")
    time.sleep(0.02)
    expected = digest_path(file, tmp_path / "store")
    (note,) = (tmp_path / "store" / "digests").iterdir()
    (flip_digit if harm == "flipped" else HARMS[harm])(note)
    assert digest_path(file, tmp_path / "store") == expected


def flip_digit(note) -> None:
    """Change one bit of the digest: still JSON, but another number."""
    digest = json.loads(note.read_text())["sha256"]
    other = digest.translate(str.maketrans("0246", "1357"))
    note.write_text(note.read_text().replace(digest, other))
