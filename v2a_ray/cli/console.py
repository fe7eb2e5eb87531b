"""The terminal that every command prints to."""

from rich.console import Console

console = Console()
error_console = Console(stderr=True)
