"""`v2a domains` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.command import v2a_here
from v2a_ray.cli.domain_commands import app
from v2a_ray.domains import catalogue
from v2a_ray.errors import DomainError


def test_the_command(tmp_path: Path) -> None:
    done = v2a_here("domains", "render", "ant/gravity-2", "-o", "new/ant.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "ant.png").stat().st_size > 5000
    refused = v2a_here("domains", "render", "hopper/gravity-0", "-o", "x.png", cwd=tmp_path)
    assert refused.returncode == 2
    assert "try:" in refused.stderr


def test_tables_name_every_domain() -> None:
    listed = CliRunner().invoke(app, ["list", "hopper"], terminal_width=200).stdout
    references = CliRunner().invoke(app, ["references", "hopper"], terminal_width=200).stdout
    for domain in catalogue("hopper"):
        assert domain.name in listed
        assert domain.name in references
    assert "headwind, 10 m/s" in listed
    assert "3,234.3" in references


@pytest.mark.parametrize("command", ["check", "references", "list"])
def test_an_unknown_robot_is_refused(command: str) -> None:
    result = CliRunner().invoke(app, [command, "hoper"])
    assert isinstance(result.exception, DomainError)
    assert "no robot named 'hoper'" in str(result.exception)
    assert "hopper" in str(result.exception.remedy) and "V2A_PLUGINS=FILE.py" in str(result.exception.remedy)


def test_unknown_physics_and_formats_are_refused_before_any_work(tmp_path: Path) -> None:
    physics = CliRunner().invoke(app, ["check", "hopper", "--physics", "mujoco4"])
    assert "d4rl, modern" in str(physics.exception)
    picture = CliRunner().invoke(app, ["render", "hopper", "-o", str(tmp_path / "x.bmp")])
    assert "no picture format" in str(picture.exception)
