"""SIGTERM and SIGHUP end a command as Ctrl-C does: what was running stops where it can go on, and its children end.

Slurm, Kubernetes and `timeout` send SIGTERM, a lost terminal sends SIGHUP. A second one is ignored, because the first
is being obeyed; SIGKILL is what ends a command at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_state: dict[str, int] = {}


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end."""


def catch_signals() -> None:
    """Raise `Interrupted` in the main thread on every signal in `SIGNALS` that the caller's shell does not ignore."""
    _state["caught"] = 1
    renew_handlers()


def renew_handlers() -> None:
    """Put back the handlers that Ray has replaced by its own, which abort, if `catch_signals` was called."""
    if not are_caught() or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        # nohup has SIGHUP ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def are_caught() -> bool:
    """Whether this process is a command, which called `catch_signals`, and not a program of others."""
    return "caught" in _state


def terminated() -> Interrupted:
    """What a SIGTERM is that somebody else's handler answered; every further signal is ignored."""
    _receive(signal.SIGTERM)
    return Interrupted(signal.SIGTERM.name)


def exit_status(status: int) -> int:
    """128 + the signal that was received, if one was; else `status`."""
    return 128 + _state["received"] if "received" in _state else status


def _interrupt(number: int, frame: FrameType | None) -> None:
    _receive(number)
    raise Interrupted(signal.Signals(number).name)


def _receive(number: int) -> None:
    _state["received"] = number
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
