"""What a command may replace: only what this product wrote itself, told by a mark, never by a name.

A file of ours carries `MARK` in its bytes. A folder of ours carries `INVENTORY`, which lists the files that were
written into it; with anything else in it, it is somebody's, and stays as it is. A folder of results, which grows,
carries `RESULTS`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from v2a_ray.checksums import file_digest
from v2a_ray.errors import StorageError
from v2a_ray.files import parse_json, prepare_folder, replacing, sync, temporary_name, write_json

MARK = "made by v2a_ray, which may replace it"
"""Stands as it is in the bytes of every file that is written for use elsewhere; in a folder, in its `v2a.json`."""
ABOUT = "v2a.json"
INVENTORY = ".v2a_ray-files.json"
RESULTS = ".v2a_ray-results.json"
MAX_NAMED = 5
MAX_NAME_BYTES = 120
_OTHER_NAME = "choose another name for the output"


def require_ours(output: Path) -> None:
    """Raise StorageError unless `output` is a free name for a file, or a file that the platform wrote."""
    _require_a_place(output)
    if output.is_dir():
        raise StorageError("is a folder, not a file", where=str(output), remedy=_OTHER_NAME)
    if output.exists():
        if not output.is_file():
            raise not_ours(str(output))
        with output.open("rb") as stream:
            if not carries_mark(stream):
                raise not_ours(str(output))


def require_replaceable(output: str | Path) -> None:
    """Raise StorageError at once for what `require_ours` or `require_our_folder` would refuse after all work is done.

    A remote address is looked at when it is written.
    """
    if "://" in str(output):
        return
    path = Path(output)
    if path.is_dir():
        require_our_folder(path)
    else:
        require_ours(path)


def carries_mark(stream: BinaryIO) -> bool:
    """Whether `MARK` stands in a file, which may be large."""
    overlap = b""
    while block := stream.read(2**20):
        if MARK.encode() in overlap + block:
            return True
        overlap = block[-len(MARK) :]
    return False


def not_ours(where: str, foreign: Sequence[str] = ()) -> StorageError:
    """That a file, or what is in a folder, was not written by the platform."""
    what = f"holds what v2a_ray did not write: {_named(foreign)}" if foreign else "exists and v2a_ray did not write it"
    return StorageError(what, where=where, remedy=_OTHER_NAME)


def require_our_folder(output: Path) -> None:
    """Raise StorageError unless `output` is a free name for a folder, an empty one, or one that holds nothing but what
    the platform wrote into it."""
    _require_a_place(output)
    if not output.exists():
        return
    if not output.is_dir():
        raise StorageError("is a file, not a folder", where=str(output), remedy=_OTHER_NAME)
    resolved, here = output.resolve(), Path.cwd().resolve()
    if here.is_relative_to(resolved):
        what = "is the folder that you are in" if here == resolved else "holds the folder that you are in"
        raise StorageError(f"{what}; it would be replaced", where=str(output), remedy=_OTHER_NAME)
    foreign = foreign_files(output)
    if foreign:
        raise not_ours(str(output), foreign)


def require_apart(output: str | Path, inputs: Sequence[str | Path]) -> None:
    """Raise StorageError when writing `output` would replace one of the `inputs`, or a folder that one lies in."""
    place = Path(output).resolve()
    for each in inputs:
        if Path(each).resolve().is_relative_to(place):
            raise StorageError(f"would replace what is read: {each}", where=str(output), remedy=_OTHER_NAME)


def foreign_files(folder: Path) -> list[str]:
    """Names of everything in `folder` that is not as its inventory lists it, sorted; without an inventory all."""
    listed = _inventory(folder)
    found = []
    for root, folders, files in os.walk(folder):
        for name in [*files, *(each for each in folders if (Path(root) / each).is_symlink())]:
            path = Path(root) / name
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file() or inside not in listed:
                found.append(inside)
            elif inside != INVENTORY and file_digest(path) != listed[inside]:
                found.append(f"{inside} (changed since)")
        if not files and not folders and Path(root) != folder:
            found.append(Path(root).relative_to(folder).as_posix() + "/")
    return sorted(found)


def write_inventory(folder: Path) -> None:
    """Say which files, with which content, were written into a folder that is complete now."""
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    write_json(folder / INVENTORY, {"made_by": MARK, "files": dict(sorted(files.items()))})


def _inventory(folder: Path) -> dict[str, str]:
    file = folder / INVENTORY
    if file.is_symlink() or not file.is_file():
        return {}
    return listed_files(file.read_bytes())


def listed_files(inventory: bytes) -> dict[str, str]:
    """SHA-256 by name of the files in an inventory, itself among them; none where it is damaged or another's."""
    try:
        content = parse_json(inventory)
        files = {str(name): str(digest) for name, digest in content["files"].items()}
        return {INVENTORY: "", **files} if content["made_by"] == MARK else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def require_results_folder(folder: Path) -> None:
    """Raise StorageError unless results may be written into `folder`: it is new, empty, or has been before."""
    _require_a_place(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StorageError("is a file, not a folder", where=str(folder), remedy="choose another name for the results")
    mark = folder / RESULTS
    if mark.is_file() and not mark.is_symlink():
        return
    held = sorted(path.name for path in folder.iterdir())
    if held:
        raise StorageError(
            f"is no folder of results; it holds {_named(held)}",
            where=str(folder),
            remedy="choose an empty or new folder for the results",
        )


def prepare_results_folder(folder: Path) -> Path:
    """Make a folder that results are written into and say so in it. Raises StorageError as `require_results_folder`."""
    require_results_folder(folder)
    prepared = prepare_folder(folder)
    if not (prepared / RESULTS).exists():
        write_json(prepared / RESULTS, {"made_by": MARK})
    return prepared


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _require_a_place(output: Path) -> None:
    """Raise StorageError for a path that no output can have: none, a link, or one that ends in `..`."""
    text = str(output)
    # Path("") is the present folder, as "." is.
    if output.name in ("", "..") or "\0" in text:
        raise StorageError("is no name for an output", where=repr(text), remedy="name a file or folder to write")
    try:
        is_link = output.is_symlink()
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=text, remedy=_OTHER_NAME) from None
    if is_link:
        raise StorageError("is a symbolic link", where=text, remedy="give the folder or file that it leads to")


@contextmanager
def taking_the_place_of(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well and vanishes otherwise.

    Whenever the process is killed, the old folder or the new one is there. Raises StorageError, before and after the
    block, when `path` is anything that `require_our_folder` refuses.
    """
    require_our_folder(path)
    partial = temporary_name(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        write_inventory(partial)
        sync(partial)
        require_our_folder(path)
        if path.exists():
            _exchange(partial, path)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders of one file system in one step where Linux can; else in two."""
    at_current_folder, exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    if renameat2 and renameat2(at_current_folder, names[0], at_current_folder, names[1], exchange) == 0:
        return
    old = temporary_name(second)
    second.rename(old)
    first.rename(second)
    old.rename(first)


def file_name(text: str) -> str:
    """`text` as a name inside a folder: what could lead elsewhere or cannot be shown is written as %XX."""
    name = quote(text, errors="surrogatepass", safe=" !#$&'()+,-.;=@[]^_`{}~·×±λξ")
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) > MAX_NAME_BYTES:
        # Two long texts that begin alike are two names.
        name = f"{name[: MAX_NAME_BYTES - 9]}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return name or "%00"


def require_name(text: str) -> str:
    """`text`, which becomes a file's name. Raises ValueError for what would lead elsewhere or cannot be shown."""
    if not text or text != text.strip() or text.startswith("."):
        raise ValueError("a name starts and ends with a letter, digit or sign that is seen, and not with a dot")
    if re.search(r"[/\\\x00-\x1f\x7f]", text) or not text.isprintable():
        raise ValueError("a name has no slash, backslash or control character")
    if len(text.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise ValueError(f"a name has at most {MAX_NAME_BYTES} bytes")
    return text


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well and vanishes otherwise.

    Raises StorageError when it cannot be written, or when `path` holds what the platform did not write.
    """
    with storage_errors(path), taking_the_place_of(path) as partial:
        yield partial


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well and vanishes otherwise.

    What is written has to carry `outputs.MARK`: a file that does not is never replaced. Raises StorageError.
    """
    with storage_errors(path):
        require_ours(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            yield fresh


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=str(path), remedy="check free space and permissions"
        ) from error
