"""The terminal that every command prints to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

console = Console()
error_console = Console(stderr=True)
INTERRUPTED = 130


class _Warnings(logging.Handler):
    """Prints what the package warns of, on the terminal that progress is drawn on."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = f"warning: {record.getMessage()}"
        console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


_WARNINGS = _Warnings(logging.WARNING)


def show_warnings() -> None:
    """Let the package's warnings be seen, each once, however often this is called."""
    logging.getLogger("v2a_ray").addHandler(_WARNINGS)


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C within the block says how to go on, and exits with the status of an interrupted command."""
    try:
        yield
    except KeyboardInterrupt:
        error_console.print("interrupted; the same command goes on where it stopped", style="yellow")
        raise typer.Exit(INTERRUPTED) from None
