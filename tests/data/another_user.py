"""Reading as a user without permissions. Tests may run as root, whom permissions do not stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from v2a_ray.errors import DataError

NOBODY = 65534


def message_to_another_user(read: Callable[[], object], folder: Path) -> str:
    """The error of `read`, which reads under `folder`, for another user; "" if it succeeds. Skips unless root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    for above in (folder, *folder.parents):
        if above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o711)
    reading_end, writing_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setuid(NOBODY)
            read()
        except DataError as error:
            os.write(writing_end, f"{error.what} · {error.remedy}".encode())
        except BaseException as error:
            os.write(writing_end, f"unexpected: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writing_end)
    os.waitpid(child, 0)
    with os.fdopen(reading_end, "rb") as said:
        return said.read().decode()
