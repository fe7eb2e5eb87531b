"""`v2a domains` as a user calls it."""

from __future__ import annotations

from pathlib import Path

from command import v2a


def test_the_command(tmp_path: Path) -> None:
    done = v2a("domains", "render", "ant/gravity-2", "-o", "new/ant.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "ant.png").stat().st_size > 5000
    for wrong in (["render", "hopper/gravity"], ["check", "hoper"], ["references", "hoper"], ["list", "x"]):
        refused = v2a("domains", *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert "try:" in refused.stderr
    listed = v2a("domains", "list", "hopper", cwd=tmp_path)
    assert "headwind, 10 m/s" in listed.stdout
    references = v2a("domains", "references", "hopper", cwd=tmp_path)
    assert "3,234.3" in references.stdout
