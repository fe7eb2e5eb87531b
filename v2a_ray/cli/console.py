"""The terminal that every command prints to."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment


def visible(text: str) -> str:
    """`text` with control characters, marks that reorder text and undecodable bytes of names as visible escapes."""
    if text.isascii() and text.isprintable():
        return text
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in hidden and character != "\n"
        else character
        for character in text
    )  # fmt: skip


class _SafeConsole(Console):
    """A terminal that passes only rich's own control codes on, none from names of files, keys or error texts."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


# Strings are not markup, also in tables, because a name may be `[red]x`. A call can pass `markup=True` for styles.
console = _SafeConsole(markup=False, highlight=False)
error_console = _SafeConsole(stderr=True, markup=False, highlight=False)
INTERRUPTED = 130


class _Warnings(logging.Handler):
    """Prints the package's warnings on the terminal with the progress display."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = f"warning: {record.getMessage()}"
        console.print(text, style="yellow", soft_wrap=True)


_WARNINGS = _Warnings(logging.WARNING)


def show_warnings() -> None:
    """Show the package's warnings, each once, even if this is called repeatedly."""
    logging.getLogger("v2a_ray").addHandler(_WARNINGS)


def next_step(*commands: str) -> None:
    """Print what one does after the command that ends."""
    console.print(f"next: {'; '.join(commands)}", style="dim", soft_wrap=True)


@contextmanager
def resumable() -> Iterator[None]:
    """On Ctrl-C within the block, print how to resume and exit with the status of an interrupted command."""
    try:
        yield
    except KeyboardInterrupt:
        error_console.print("interrupted; the same command goes on where it stopped", style="yellow")
        raise typer.Exit(INTERRUPTED) from None
