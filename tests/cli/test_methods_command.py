"""`v2a methods`: the table of combinations, one method in full, and the page that shows the table."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from v2a_ray.cli import experiment_commands as experiments
from v2a_ray.experiments.combinations import markdown
from v2a_ray.experiments.methods import METHODS

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
RUNNER = CliRunner()
app = typer.Typer()
experiments.register(app)


def test_the_table_has_every_method() -> None:
    result = RUNNER.invoke(app, ["methods"])
    assert result.exit_code == 0
    assert {line.split()[0] for line in result.output.splitlines()[1:] if line.strip()} >= METHODS.keys()


def test_one_method_in_full() -> None:
    result = RUNNER.invoke(app, ["methods", "dara"])
    assert result.exit_code == 0
    assert "source: DARA, 2203.06662" in result.output and "deviates: the learner is IQL" in result.output
    line = next(line for line in result.output.splitlines() if line.startswith("policy.reward_correction"))
    assert line.split()[1] == "0.1" and "set by the method" in line


def test_the_page_shows_the_table_of_this_version() -> None:
    """docs/methods.md holds the output of `v2a methods --markdown`."""
    assert markdown() in DOCS.read_text()
    assert RUNNER.invoke(app, ["methods", "--markdown"]).output.strip() == markdown()
