"""SIGTERM and SIGHUP end a command as Ctrl-C does: trials stop at a point where they can resume, and children end.

Slurm, Kubernetes and `timeout` send SIGTERM; a lost terminal sends SIGHUP. A second signal is ignored while the command
stops. SIGKILL ends a command at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_state: dict[str, int] = {}


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end."""


def catch_signals() -> None:
    """Raise `Interrupted` in the main thread on every signal in `SIGNALS` that the caller's shell does not ignore."""
    _state["caught"] = 1
    renew_handlers()


def renew_handlers() -> None:
    """Reinstall our handlers if `catch_signals` was called: Ray replaces them by its own, which abort."""
    if not are_caught() or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        # nohup makes a process ignore SIGHUP.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def are_caught() -> bool:
    """Whether this process called `catch_signals`: it is then a command, not a program that imports the package."""
    return "caught" in _state


def terminated() -> Interrupted:
    """The exception for a SIGTERM that another library's handler received; further signals are ignored."""
    _receive(signal.SIGTERM)
    return Interrupted(signal.SIGTERM.name)


def exit_status(status: int) -> int:
    """128 + the number of the received signal, or `status` if none was received."""
    return 128 + _state["received"] if "received" in _state else status


def _interrupt(number: int, frame: FrameType | None) -> None:
    _receive(number)
    raise Interrupted(signal.Signals(number).name)


def _receive(number: int) -> None:
    _state["received"] = number
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
