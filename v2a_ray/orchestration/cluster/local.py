"""A Ray for this process alone: it listens on this machine only, and only its user can read its token."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._private import ray_constants
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token

from v2a_ray.files import temporary_name


@contextmanager
def local_only() -> Iterator[None]:
    """Within the block, `ray.init` starts a Ray that listens on the loopback interface alone.

    By default Ray uses the machine's network address for its node, even if it is given a loopback address, and its
    processes listen on all interfaces. This is Ray's own switch for systems whose firewall asks about every listening
    process. Ray reads the environment variable of the switch only at import, so we set the constant.
    """
    _keep_token_private()
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _keep_token_private() -> None:
    """Give `~/.ray/auth_token` mode 0600: Ray creates it with the default mode.

    If this is not possible, Ray itself reports the problem.
    """
    path = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        if path.is_symlink():
            return
        if path.exists():
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            return
        if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
            return
        if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = temporary_name(path)
        try:
            partial.touch(0o600, exist_ok=False)
            partial.write_text(generate_new_authentication_token())
            # Unlike a rename, a link does not replace a token that another process wrote meanwhile.
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
