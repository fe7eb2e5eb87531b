"""`v2a behaviors`: the messages for users' errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import v2a, v2a_here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hopper", "gama=0.9", "num_epochs=many"], "did you mean 'gamma'"),
        (["hopper", "gamma=3"], "less than or equal to 1"),
        (["hoper/stock"], "no robot named 'hoper'"),
    ],
)
def test_a_wrong_argument_of_train_is_one_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = v2a_here("behaviors", "train", *arguments, "--output", "out", cwd=tmp_path)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("behaviors", "evaluate", "hopper/stock", "expert", "--in", "ant/stock"),
        ("data", "collect", "--domain", "ant", "--policy-domain", "hopper", "--output", "out"),
    ],
)
def test_a_policy_of_another_robot_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = v2a_here(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "a policy of hopper cannot act on ant" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_zoo_is_a_table_and_a_page(tmp_path: Path) -> None:
    result = v2a_here("behaviors", "list", "--output", "zoo/page.md", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (row,) = [line for line in result.stdout.splitlines() if "hopper/stock@d4rl" in line]
    assert "3226" in row
    page = (tmp_path / "zoo" / "page.md").read_text()
    assert "| hopper/stock@d4rl | " in page
    assert "3226 ± 427" in page
    assert "v2a behaviors train hopper/stock@d4rl --num-steps 800000 --seed 0" in page


@pytest.mark.slow
def test_a_training_that_nobody_watches_says_where_it_is(tmp_path: Path) -> None:
    small = ("train_batch_steps=256", "minibatch_steps=64", "num_epochs=1", "num_environments=2")
    domain = "gym:InvertedPendulum-v5"
    result = v2a("behaviors", "train", domain, *small, "--num-steps", "512", "--output", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "of 512 steps" in line]
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d 256 of 512 steps · [\d,]+ steps/s · return \d+", lines[0])
    assert len(lines) == 2
