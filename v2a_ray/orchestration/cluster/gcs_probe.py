"""Asks a Ray cluster for its versions, in a process of its own: `python -P gcs_probe.py ADDRESS SECONDS`.

Ray waits 20 seconds for a cluster that refuses the token and 80 for an address where nothing answers, prints warnings
meanwhile, and ends the process that asked. So a separate process asks and prints one JSON object; an alarm ends it if
it takes too long. It imports nothing from this package, because it runs without it.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import Any

CONNECT_SECONDS = 5
_AUTHENTICATION, _UNREACHABLE = "authentication", "unreachable"


def probe(address: str, seconds: int) -> dict[str, Any]:
    """`ray_version`, `python_version` and `dashboard` of the cluster at HOST:PORT or `auto`.

    Otherwise `error` (`authentication` or `unreachable`) and `message`; for `authentication` also `has_token`. This
    process ends after `seconds`, which do not include importing Ray (slow on a busy machine).
    """
    import ray
    from ray._private.authentication import authentication_token_setup as setup
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray.exceptions import AuthenticationError, RayError

    raylet: Any = ray._raylet
    signal.alarm(seconds)
    try:
        found = canonicalize_bootstrap_address_or_die(address)
        host, port = found.rsplit(":", 1)
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        if address == "auto":
            # Like ray.init, use this machine's token for a cluster on this machine.
            setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        setup.ensure_token_if_auth_enabled(create_token_if_missing=False)
        client = raylet.GcsClient(address=found)
        metadata = client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=CONNECT_SECONDS)
        dashboard = client.internal_kv_get(b"dashboard", namespace=b"dashboard", timeout=CONNECT_SECONDS)
        known = json.loads(metadata)
    except AuthenticationError:
        sends = raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
        has_token = sends and raylet.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
        return {"error": _AUTHENTICATION, "message": "", "has_token": has_token}
    except (OSError, ValueError, TypeError, RayError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return {"error": _UNREACHABLE, "message": (reason.splitlines() or [type(error).__name__])[0]}
    return {
        "ray_version": known["ray_version"],
        "python_version": known["python_version"],
        "dashboard": dashboard.decode() if dashboard else None,
    }


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], int(sys.argv[2]))))
