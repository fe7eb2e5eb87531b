"""Locations of data: a local path, NFS, or object storage, named by a path or URI.

`s3://`, `gs://`, `hdfs://` and `file://` go through `pyarrow.fs`; every other scheme (`memory://`, `az://`, `hf://`, …)
through fsspec, if its package is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from v2a_ray.errors import DataError, StorageError
from v2a_ray.outputs import INVENTORY, carries_mark, listed_files, not_ours

REMEDY = "check the path and its permissions"


@dataclass(frozen=True)
class Location:
    """A file or folder of some file system; it need not exist.

    Attributes:
        name: as the user wrote it, for messages.
        path: inside the file system.
        filesystem: of pyarrow.
    """

    name: str
    path: str
    filesystem: fs.FileSystem

    def __str__(self) -> str:
        return self.name

    @property
    def stem(self) -> str:
        """The last part of the path without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def local(self) -> Path | None:
        """The path, if the operating system can open it."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def __truediv__(self, part: str) -> Location:
        return Location(f"{self.name.rstrip('/')}/{part}", f"{self.path.rstrip('/')}/{part}", self.filesystem)

    def kind(self) -> fs.FileType:
        """Whether it is a file, a folder, or absent. Raises DataError if this cannot be determined."""
        with reading(self):
            if self.local is not None and self.local.is_symlink():
                # Reports a loop of symbolic links, which pyarrow calls absent.
                self.local.stat()
            if self.local is not None and self.local.exists() and not (self.local.is_file() or self.local.is_dir()):
                # Opening a FIFO blocks until another process writes to it.
                raise DataError("is neither a file nor a folder", where=str(self), remedy="give a file or a folder")
            return self.filesystem.get_file_info(self.path).type

    @property
    def is_folder(self) -> bool:
        return bool(self.kind() == fs.FileType.Directory)

    def exists(self) -> bool:
        return bool(self.kind() != fs.FileType.NotFound)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """A seekable binary file. Raises DataError if it cannot be read, also from inside the block."""
        with reading(self):
            stream = self.local.open("rb") if self.local is not None else self.filesystem.open_input_file(self.path)
            with stream:
                yield stream

    def first_bytes(self, count: int) -> bytes:
        with self.open() as file:
            return bytes(file.read(count))

    def names(self) -> list[str]:
        """Sorted paths, relative to this folder, of all files below it.

        Files and folders whose names begin with a dot or underscore are skipped: they are temporary or bookkeeping
        files. Raises DataError if the folder cannot be read.
        """
        with reading(self):
            found = self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True))
            prefix = self.path.rstrip("/") + "/"
            names = [info.path.removeprefix(prefix) for info in found if info.type != fs.FileType.Directory]
        return sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")))

    def member(self, part: str) -> Location:
        """A file below this folder. Raises DataError if it is a link out of the folder."""
        inside = self / part
        if self.local is not None:
            with reading(inside):
                resolved = (self.local / part).resolve()
            if not resolved.is_relative_to(self.local.resolve()):
                raise DataError(
                    f"leads out of its dataset's folder, to {resolved}",
                    where=str(inside),
                    remedy="copy the file into the folder",
                )
        return inside


@contextmanager
def reading(location: Location | Path | str) -> Iterator[None]:
    """Turn the errors of a file system into a DataError."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(location), remedy="check the path") from error
    except UnicodeError as error:
        raise DataError(
            "has a name that is not UTF-8, or holds one that is not", where=str(location), remedy="rename the file"
        ) from error
    except (OSError, RuntimeError, pa.ArrowException) as error:
        # pathlib raises RuntimeError for a loop of symbolic links.
        message = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"cannot be read: {message}", where=str(location), remedy=REMEDY) from error


def locate(name: str | Path | Location, filesystem: fs.FileSystem | None = None) -> Location:
    """The location of a path or URI.

    Args:
        name: a path, or a URI with a scheme.
        filesystem: of pyarrow; `name` is then a path in it. By default the scheme's, or the local one.

    Raises:
        DataError: the scheme is unknown, or needs a package that is not installed.
    """
    if isinstance(name, Location):
        return name
    text = str(name)
    if filesystem is not None:
        return Location(text, text, filesystem)
    scheme, separator, _ = text.partition("://")
    if not separator:
        return Location(text, str(Path(text).expanduser().absolute()), fs.LocalFileSystem())
    try:
        if scheme in ("file", "s3", "gs", "gcs", "hdfs"):
            filesystem, path = fs.FileSystem.from_uri(text)
            return Location(text, path, filesystem)
        import fsspec

        remote, path = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise DataError(f"{scheme}:// needs a package: {error}", where=text, remedy="install it") from error
    except (ValueError, OSError, pa.ArrowException) as error:
        first_line = str(error).splitlines()[0]
        raise DataError(f"not a usable address: {first_line}", where=text, remedy="give a path or URI") from error
    return Location(text, path, fs.PyFileSystem(fs.FSSpecHandler(remote)))


@contextmanager
def local_copy(location: Location) -> Iterator[Path]:
    """The file or folder on the local disk: itself, or a copy that is removed when the block ends."""
    if location.local is not None:
        yield location.local
        return
    with tempfile.TemporaryDirectory(prefix="v2a-") as folder:
        copy = Path(folder) / PurePosixPath(location.path).name
        with reading(location):
            if not location.is_folder:
                fs.copy_files(location.path, str(copy), source_filesystem=location.filesystem)
            else:
                copy.mkdir()
                fs.copy_files(location.path, str(copy), source_filesystem=location.filesystem)
        yield copy


@contextmanager
def publishing(location: Location) -> Iterator[Path]:
    """A local path to write to; its content appears at `location` when the block succeeds.

    Raises StorageError if it cannot be written, and then leaves nothing at `location`.
    """
    if location.local is not None:
        yield location.local
        return
    _require_ours(location)
    with tempfile.TemporaryDirectory(prefix="v2a-") as folder:
        written = Path(folder) / PurePosixPath(location.path).name
        yield written
        remote = location.filesystem
        try:
            if written.is_dir():
                remote.create_dir(location.path)
                remote.delete_dir_contents(location.path)  # written by an earlier command of ours
            fs.copy_files(str(written), location.path, destination_filesystem=remote)
        except (OSError, pa.ArrowException) as error:
            _remove(location, written.is_dir())
            raise StorageError(
                f"cannot be written: {str(error).splitlines()[0]}",
                where=str(location),
                remedy="check credentials, free space and permissions",
            ) from error


def _require_ours(location: Location) -> None:
    """Raise StorageError when a remote address holds something that the platform did not write."""
    if not location.exists():
        return
    if not location.is_folder:
        with location.open() as stream:
            if not carries_mark(stream):
                raise not_ours(str(location))
        return
    with reading(location):
        found = location.filesystem.get_file_info(fs.FileSelector(location.path, recursive=True))
    prefix = location.path.rstrip("/") + "/"
    names = {info.path.removeprefix(prefix) for info in found if info.type != fs.FileType.Directory}
    with (location / INVENTORY).open() if INVENTORY in names else nullcontext(BytesIO()) as stream:
        foreign = sorted(names - listed_files(stream.read()).keys())
    if foreign:
        raise not_ours(str(location), foreign)


def _remove(location: Location, folder: bool) -> None:
    """Undo a broken upload. A file that cannot be removed was never written."""
    try:
        if folder:
            location.filesystem.delete_dir(location.path)
        else:
            location.filesystem.delete_file(location.path)
    except (OSError, pa.ArrowException):
        return
