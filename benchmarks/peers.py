"""Packages for comparison that cannot be installed beside this package.

d3rlpy pins a gymnasium that this project cannot use, so it is installed into a separate folder, which comes LAST on the
search path: this project's versions take precedence.
"""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from v2a_ray.errors import V2AError

FOLDER = Path(__file__).parent / ".peers"
D3RLPY = (
    "d3rlpy==2.8.1",
    "gym==0.26.2",
    "gym-notices==0.1.0",
    "structlog",
    "colorama",
    "dataclasses-json",
    "marshmallow",
    "typing-inspect",
    "mypy-extensions",
    "tqdm",
)
"""d3rlpy and what it imports that this project does not need itself."""


class PeerError(V2AError):
    """A package for comparison cannot be installed here."""


def d3rlpy() -> Any:
    """The module, installed into `FOLDER` by the first call that finds none there.

    Raises:
        PeerError: if pip fails, with the last line of what it said.
    """
    if not (FOLDER / "d3rlpy").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER), *D3RLPY]
        run = subprocess.run(install, capture_output=True, text=True, check=False)
        if run.returncode:
            reason = (run.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise PeerError(f"d3rlpy is not available, and pip cannot install it: {reason}")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    # gym, which d3rlpy imports, complains about itself on the error stream.
    with contextlib.redirect_stderr(io.StringIO()):
        import d3rlpy
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    return d3rlpy
