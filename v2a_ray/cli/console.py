"""The terminal that every command prints to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

console = Console()
error_console = Console(stderr=True)
INTERRUPTED = 130


@contextmanager
def resumable() -> Iterator[None]:
    """Ctrl-C within the block says how to go on, and exits with the status of an interrupted command."""
    try:
        yield
    except KeyboardInterrupt:
        error_console.print("interrupted; the same command goes on where it stopped", style="yellow")
        raise typer.Exit(INTERRUPTED) from None
