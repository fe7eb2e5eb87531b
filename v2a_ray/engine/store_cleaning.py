"""Lists and clears a store. Clearing removes only files that this product wrote."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from v2a_ray.data.formats.digests import FOLDER as DIGESTS
from v2a_ray.engine.stage import artifact_kinds
from v2a_ray.engine.store import MARKER, NOTES, RECORD, Artifact, ArtifactStore
from v2a_ray.errors import StorageError
from v2a_ray.files import read_json

_KEY = re.compile(r"[0-9a-f]{20}")
_LEFTOVER = re.compile(r"[0-9a-f]{20}\.(work|tmp|damaged)(-[0-9a-f]{8})?")
_NOTES = {DIGESTS: re.compile(r"[0-9a-f]{32}\.json"), NOTES: re.compile(r"[a-z]+-[0-9a-f]{20}\.json")}
_STATES = {"work": "unfinished", "tmp": "unfinished", "damaged": "damaged"}


@dataclass(frozen=True)
class Leftover:
    """A folder that is not a usable artifact.

    Attributes:
        path: its folder.
        state: `unfinished`, `damaged` (set aside) or `unusable` (a damaged record, or an earlier version).
    """

    path: Path
    state: str


@dataclass(frozen=True)
class Cleared:
    """What `clear` removed."""

    num_artifacts: int
    num_leftovers: int
    num_bytes: int


def artifacts(store: ArtifactStore) -> list[Artifact]:
    """Every finished artifact, by its record. Raises StorageError if the folder is not a store."""
    _require_store(store)
    looked = (store.look(path.parent.name, path.name) for path in _folders(store))
    return [artifact for artifact in looked if artifact]


def leftovers(store: ArtifactStore) -> list[Leftover]:
    """All other folders with names of artifacts. Raises StorageError if the folder is not a store."""
    _require_store(store)
    found = []
    for path in _folders(store):
        if match := _LEFTOVER.fullmatch(path.name):
            found.append(Leftover(path, _STATES[match[1]]))
        elif _KEY.fullmatch(path.name) and (path / RECORD).is_file() and not store.look(path.parent.name, path.name):
            found.append(Leftover(path, "unusable"))
    return found


def clear(store: ArtifactStore) -> Cleared:
    """Remove all artifacts, leftovers and the store's notes, and nothing else.

    Raises:
        StorageError: the folder is not a store, or something cannot be removed.
    """
    done, rest = artifacts(store), leftovers(store)
    paths = [artifact.path for artifact in done] + [leftover.path for leftover in rest]
    num_bytes = sum(folder_bytes(path) for path in paths)
    try:
        for path in paths:
            shutil.rmtree(path)
        for folder, pattern in _NOTES.items():
            for note in (store.root / folder).glob("*.json"):
                if pattern.fullmatch(note.name):
                    note.unlink()
        for folder in (*artifact_kinds(), *_NOTES):
            _remove_if_empty(store.root / folder)
    except OSError as error:
        raise StorageError(
            f"cannot be removed: {error.strerror or error}",
            where=str(error.filename or store.root),
            remedy="check its owner, then run the same command again",
        ) from error
    return Cleared(len(done), len(rest), num_bytes)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def _require_store(store: ArtifactStore) -> None:
    """Raise StorageError unless the folder has a store's marker or, in earlier versions, an artifact's record."""
    if not (store.root / MARKER).is_file() and not any(_names_itself(path) for path in _folders(store)):
        raise StorageError(
            "this folder is not an artifact store",
            where=str(store.root),
            remedy="give the folder that `v2a run` prints as `artifacts`, with --store DIR or V2A_STORE",
        )


def _names_itself(folder: Path) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(folder / RECORD)
        return bool((record["stage"], record["key"]) == (folder.parent.name, folder.name))
    return False


def _folders(store: ArtifactStore) -> Iterator[Path]:
    """Folders that may be artifacts; symbolic links are skipped, because they are the user's."""
    for stage in artifact_kinds():
        for path in sorted((store.root / stage).glob("*")):
            if path.is_dir() and not path.is_symlink():
                yield path


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
