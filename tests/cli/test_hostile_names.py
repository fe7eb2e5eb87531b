"""Names that hold escape sequences, markup or bytes that are no text."""

import os

import numpy as np
import pytest
from command import v2a_here

NAMES = [b"a\x1b[31mred.npz", "a\x9b2J\u202e.npz".encode(), b"a\xff.npz", b"a[/x].npz", b"a[bold]b.npz"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["list", "inspect"])
def test_a_file_name_cannot_steer_the_terminal(name, command, tmp_path):
    np.savez(tmp_path / "good.npz", rewards=np.zeros(3))
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"not an archive")
    arguments = ["."] if command == "list" else [os.fsdecode(name)]
    done = v2a_here("data", command, *arguments, cwd=tmp_path)
    shown = done.stdout + done.stderr
    assert "Traceback" not in shown and done.returncode == (0 if command == "list" else 2)
    assert not set("\x1b\x9b\u202e\udcff") & set(shown)
    if command == "list":
        assert "good.npz" in shown
