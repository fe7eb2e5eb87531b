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
    """Control characters, marks that reorder text, and bytes of undecodable file names, as visible escapes."""
    if text.isascii() and text.isprintable():
        return text
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in hidden and character != "\n"
        else character
        for character in text
    )  # fmt: skip


class _SafeConsole(Console):
    """A terminal that names from files, keys and error texts cannot steer: only rich's own styles reach it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


# A string is text and no markup, also in tables: a name may be `[red]x`. Who wants styles says so with `markup=True`.
console = _SafeConsole(markup=False, highlight=False)
error_console = _SafeConsole(stderr=True, markup=False, highlight=False)
INTERRUPTED = 130


class _Warnings(logging.Handler):
    """Prints what the package warns of, on the terminal that progress is drawn on."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        text = f"warning: {record.getMessage()}"
        console.print(text, style="yellow", soft_wrap=True)


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
