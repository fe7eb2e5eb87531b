"""A command replaces only files and folders that v2a_ray wrote itself. A mark identifies them, never a name.

A file carries `MARK` in its bytes. A folder carries `INVENTORY`, which lists the files that were written into it; a
folder that holds anything else belongs to the user and is left alone. A results folder, which grows, carries `RESULTS`.
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
from v2a_ray.objects import require_folder_name

MARK = "made by v2a_ray, which may replace it"
"""Appears literally in the bytes of every exported file; in an exported folder, in its `v2a.json`."""
ABOUT = "v2a.json"
INVENTORY = ".v2a_ray-files.json"
RESULTS = ".v2a_ray-results.json"
MAX_NAMED = 5
MAX_NAME_BYTES = 120
_OTHER_NAME = "choose another name for the output"


def require_ours(output: Path) -> None:
    """Raise StorageError unless `output` does not exist yet or is a file that the platform wrote."""
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
    """Raise StorageError now, before any work, if `require_ours` or `require_our_folder` would refuse `output` later.

    A remote address is checked only when it is written.
    """
    if "://" in str(output):
        return
    path = Path(output)
    if path.is_dir():
        require_our_folder(path)
    else:
        require_ours(path)


def carries_mark(stream: BinaryIO) -> bool:
    """Whether a file, which may be large, contains `MARK`."""
    overlap = b""
    while block := stream.read(2**20):
        if MARK.encode() in overlap + block:
            return True
        overlap = block[-len(MARK) :]
    return False


def not_ours(where: str, foreign: Sequence[str] = ()) -> StorageError:
    """The error for a file, or for `foreign` files in a folder, that the platform did not write."""
    what = f"holds what v2a_ray did not write: {_named(foreign)}" if foreign else "exists and v2a_ray did not write it"
    return StorageError(what, where=where, remedy=_OTHER_NAME)


def require_our_folder(output: Path) -> None:
    """Raise StorageError unless `output` does not exist yet, is an empty folder, or holds only files that the platform
    wrote into it."""
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
    """Raise StorageError when writing `output` would replace one of the `inputs` or a folder that contains one."""
    place = Path(output).resolve()
    for each in inputs:
        if Path(each).resolve().is_relative_to(place):
            raise StorageError(f"would replace what is read: {each}", where=str(output), remedy=_OTHER_NAME)


def foreign_files(folder: Path) -> list[str]:
    """Sorted names of everything in `folder` that its inventory does not list as it is now; without inventory, all."""
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
    """Write the inventory of a complete folder: the names and SHA-256 of its files."""
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    write_json(folder / INVENTORY, {"made_by": MARK, "files": dict(sorted(files.items()))})


def _inventory(folder: Path) -> dict[str, str]:
    file = folder / INVENTORY
    if file.is_symlink() or not file.is_file():
        return {}
    return listed_files(file.read_bytes())


def listed_files(inventory: bytes) -> dict[str, str]:
    """File names and SHA-256 of an inventory, including its own name; empty if it is damaged or not ours."""
    try:
        content = parse_json(inventory)
        files = {str(name): str(digest) for name, digest in content["files"].items()}
        return {INVENTORY: "", **files} if content["made_by"] == MARK else {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def require_results_folder(folder: Path) -> None:
    """Raise StorageError unless `folder` is new, empty, or a results folder already."""
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
    """Create a results folder and mark it. Raises StorageError as `require_results_folder`."""
    require_results_folder(folder)
    prepared = prepare_folder(folder)
    if not (prepared / RESULTS).exists():
        write_json(prepared / RESULTS, {"made_by": MARK})
    return prepared


def _named(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _require_a_place(output: Path) -> None:
    """Raise StorageError for an empty path, a symbolic link, or a path that ends in `..`."""
    text = str(output)
    require_folder_name(text)
    # Path("") is the current folder, as "." is.
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
    """A temporary folder beside `path` that replaces it when the block succeeds and is removed otherwise.

    If the process is killed, `path` is the old folder or the new one. Raises StorageError, before and after the block,
    when `require_our_folder` refuses `path`.
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
    """Swap two folders of one file system: atomically if Linux supports it, else in several steps."""
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
    """`text` as a file name: characters that could change the folder or cannot be printed are written as %XX."""
    name = quote(text, errors="surrogatepass", safe=" !#$&'()+,-.;=@[]^_`{}~·×±λξ")
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) > MAX_NAME_BYTES:
        # Two long texts with the same beginning must get different names.
        name = f"{name[: MAX_NAME_BYTES - 9]}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return name or "%00"


def require_name(text: str) -> str:
    """Check that `text` can be a file name. Raises ValueError for slashes, leading dots and unprintable characters."""
    if not text or text != text.strip() or text.startswith("."):
        raise ValueError("a name is not empty, has no space at its ends, and does not start with a dot")
    if re.search(r"[/\\\x00-\x1f\x7f]", text) or not text.isprintable():
        raise ValueError("a name has no slash, backslash or control character")
    if len(text.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise ValueError(f"a name has at most {MAX_NAME_BYTES} bytes")
    return text


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block succeeds and is removed otherwise.

    Raises StorageError when it cannot be written, or when `path` holds files that the platform did not write.
    """
    with storage_errors(path), taking_the_place_of(path) as partial:
        yield partial


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces it when the block succeeds and is removed otherwise.

    The content must contain `outputs.MARK`: a file without the mark is never replaced. Raises StorageError.
    """
    with storage_errors(path):
        require_ours(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            yield fresh


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn OSError, such as a full disk or a missing permission, into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}", where=str(path), remedy="check free space and permissions"
        ) from error
