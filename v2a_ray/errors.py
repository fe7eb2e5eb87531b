"""Errors that a user can cause. Each message says what is wrong, where, and what to do next.

The command line prints the message in red and exits with status 2. Any other exception that escapes is a bug.
"""

from __future__ import annotations


class V2AError(Exception):
    """Base of all errors that a user can cause: wrong settings, bad data, an unusable folder."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        lines = [self.reason]
        if remedy:
            lines.append(f"  try: {remedy}")
        super().__init__("\n".join(lines))

    @property
    def reason(self) -> str:
        """Where and what, in one line without the remedy."""
        return f"{self.where}: {self.what}" if self.where else self.what

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive default pickling, and these errors cross Ray processes.
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(kind: type[V2AError], what: str, where: str, remedy: str) -> V2AError:
    return kind(what, where=where, remedy=remedy)


class ConfigError(V2AError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DomainError(V2AError):
    """A robot, shift, physics or behaviour does not exist, or does not fit together."""


class DataError(V2AError):
    """A dataset cannot be read, or its content cannot be used as asked."""


class DivergenceError(V2AError):
    """Training produced a number that is not finite."""


class StorageError(V2AError):
    """A folder cannot be read or written."""


class ClusterError(V2AError):
    """A Ray cluster cannot be reached, refuses the connection, or runs another version."""


ENDS_ALL = (StorageError, ClusterError)
"""Errors after which no other work can go on either, unlike those of one stage's settings or data."""


def told(error: Exception) -> str:
    """An error that reading a file raised, in words for the user."""
    match error:
        case KeyError():
            return f"it has no {error.args[0]!r}"
        case UnicodeDecodeError():
            return f"it is no text in UTF-8 (byte {error.start})"
        case RecursionError():
            return "it is nested too deeply"
        case TypeError():
            return "its content is of another form"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error).splitlines()[0] if str(error) else type(error).__name__
