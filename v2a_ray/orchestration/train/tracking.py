"""Logs policies to trackers when they finish or fail, in a thread of its own, each once, while others are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from v2a_ray.checksums import append_sealed, read_sealed_lines
from v2a_ray.errors import V2AError, told
from v2a_ray.report.tracked_film import Film
from v2a_ray.report.trackers import TRACKERS, TrackedPolicy

LOGGED = "logged.jsonl"
"""In the results folder: what was logged where. Without it all is logged again, in the place of what is there."""


class Tracking:
    """Where policies that finished or failed are logged. They appear there while others are trained."""

    def __init__(self, folder: Path, names: Sequence[str], warn: Callable[[str], None]) -> None:
        """`names` are keys of `TRACKERS`, or `TENSORBOARD`."""
        self.folder, self.names, self.warn = folder, list(dict.fromkeys(names)), warn
        self._logged: dict[tuple[str, str], str] = {}
        """By tracker and name of the policy: what stands there, as `log` names it."""
        with suppress(OSError):
            for line in read_sealed_lines(folder / LOGGED):
                if line is not None:
                    self._logged[str(line.get("tracker")), str(line.get("policy"))] = str(line.get("key"))
        self._not_drawn: set[str] = set()
        """Domains of which there is no film."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tracking")

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait until all is logged; after Ctrl-C, only for what is being logged."""
        # After an error the policy that failed is among what is to be logged.
        self._thread.shutdown(cancel_futures=error is not None and not isinstance(error, Exception))

    def lacks(self, name: str, key: str, film: Film | None = None) -> bool:
        """Whether a finished policy of this name, artifact and film is still to be logged somewhere."""
        return any(self._logged.get((tracker, name)) != _standing(key, film) for tracker in self.names)

    def log(self, policy: TrackedPolicy, key: str) -> None:
        """Log a policy with this key of its artifact, unless that was done and nothing else was logged of it since."""
        key = _standing(key, policy.film, policy.failure)
        missing = [name for name in self.names if self._logged.get((name, policy.name)) != key]
        self._logged |= {(name, policy.name): key for name in missing}
        if missing:
            self._thread.submit(self._log, policy, key, missing)

    def forget(self, policy: TrackedPolicy, tracker: str) -> None:
        """What was logged of the policy there is gone."""
        self._logged.pop((tracker, policy.name), None)

    def _log(self, policy: TrackedPolicy, key: str, names: Sequence[str]) -> None:
        if policy.film and not self._drawn(policy.film):
            policy = replace(policy, film=None)
        for name in names:
            try:
                TRACKERS[name](policy)
                append_sealed(self.folder / LOGGED, [{"tracker": name, "policy": policy.name, "key": key}])
            except Exception as error:  # a tracker that fails must not end the training
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.warn(f"{policy.name} is not logged to {name}: {reason}; the next run of the command logs it")

    def _drawn(self, film: Film) -> bool:
        """Draw a film. What cannot be drawn is said once for each domain, and not tried again."""
        if film.domain in self._not_drawn:
            return False
        try:
            film.draw()
        except Exception as error:  # of MuJoCo, of matplotlib; a film must not end the training
            self._not_drawn.add(film.domain)
            reason = error.reason if isinstance(error, V2AError) else f"{film.domain}: {told(error)}"
            self.warn(f"no film is logged: {reason}")
        return film.domain not in self._not_drawn


def _standing(key: str, film: Film | None, failure: str = "") -> str:
    """What is noted as logged of a policy."""
    return key + (f" with a film of {film.seconds:g} s" if film else "") + (f" failed: {failure}" if failure else "")
