"""Standard output and error that never stop the command: no run is lost because its output cannot be written.

Output that cannot be written is dropped and the command continues, because its files are its main result. A reader that
closes the pipe (`| head -1`) does not change the exit status. If a device is full (`/dev/full`), output is lost, and a
command that succeeded otherwise ends with 1, as the system's own tools do.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT_LOST = 1


class _Descriptor(io.FileIO):
    """A descriptor that becomes `/dev/null` after the first failed write; `lost` is the error of that write."""

    lost: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.lost = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # Also protects libraries that write to the descriptor directly.
            os.close(nowhere)
            return super().write(data)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within the block, printing raises neither OSError nor UnicodeEncodeError.

    Raises SystemExit(1) after a successful block if standard output was lost.
    """
    _open_descriptors()
    out, sys.stdout = _lasting(sys.stdout, sys.__stdout__, 1)
    _, sys.stderr = _lasting(sys.stderr, sys.__stderr__, 2)
    try:
        yield
    except SystemExit as stopped:
        if stopped.code:
            raise
    sys.stdout.flush()
    if out and out.lost and out.lost.errno != errno.EPIPE:
        print(f"error: standard output: {out.lost.strerror}; everything else was done", file=sys.stderr)
        sys.exit(OUTPUT_LOST)


def _open_descriptors() -> None:
    """Open 0, 1 and 2 if the caller closed them; otherwise the next file or socket would get their output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _lasting(stream: TextIO | None, original: TextIO | None, descriptor: int) -> tuple[_Descriptor | None, TextIO]:
    """A stream whose writes never fail. A stream without a descriptor, as in a notebook, stays unchanged."""
    if stream is not None and (stream is not original or not isinstance(stream, io.TextIOWrapper)):
        return None, stream
    raw = _Descriptor(descriptor, "w", closefd=False)
    # Characters that the encoding lacks are written as escapes, so names and paths stay complete.
    return raw, io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or (stream is not None and stream.line_buffering),
        write_through=stream is not None and stream.write_through,
    )
