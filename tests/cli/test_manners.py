"""What the command says of itself, and of names that are not quite right."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import v2a_ray
from tests.cli.command import CONFIG, v2a_here


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_version_and_help(tmp_path: Path) -> None:
    assert v2a_here("--version", cwd=tmp_path).stdout == f"v2a_ray {v2a_ray.__version__}\n"
    for arguments in (["-h"], ["sweep", "-h"], ["data", "mix", "-h"]):
        done = v2a_here(*arguments, cwd=tmp_path)
        assert done.returncode == 0 and "Usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tiny.yaml", "method=igdff"], "did you mean igdf"),
        (["methods", "dvfd"], "did you mean dvdf"),
        (["run", "tiny.yaml", "target.domain=hoper/stock"], "did you mean hopper"),
        (["run", "tiny.yaml", "target.domain=hopper/gravty-0.5"], "did you mean 'gravity-0.5'"),
        (["config", "keep_fractoin"], "did you mean"),
        (["config", "a", "b"], "KEY=VALUE needs --resolve"),
    ],
)
def test_a_wrong_name_leads_to_the_right_one(workspace: Path, arguments: list[str], message: str) -> None:
    done = v2a_here(*arguments, cwd=workspace)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr


def test_settings_by_a_part_of_their_name(tmp_path: Path) -> None:
    def keys(*arguments: str) -> list[str]:
        shown = v2a_here("config", *arguments, cwd=tmp_path)
        return [line.split()[0] for line in shown.stdout.splitlines()[1:] if line[1:2].strip()]

    assert "policy.filter.keep_fraction" in keys("keep_fraction")
    assert all(key.startswith("alignment") for key in keys("alignment.*"))
    assert keys("num_trials", "--sweep") == ["search.num_trials"]


def test_an_experiment_as_it_would_run(workspace: Path) -> None:
    done = v2a_here("config", "--resolve", "tiny.yaml", "method=dvdf", "policy.num_steps=7", cwd=workspace)
    content = yaml.safe_load(done.stdout)
    assert content["method"] == "dvdf" and content["policy"]["num_steps"] == 7
    # What is printed is a whole experiment, which stays as it is.
    (workspace / "whole.yaml").write_text(done.stdout)
    assert yaml.safe_load(v2a_here("config", "--resolve", "whole.yaml", cwd=workspace).stdout) == content
