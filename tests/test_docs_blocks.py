"""Code blocks of README and docs do what they show: Python runs, YAML is read, every shell command would be accepted.

Shell commands are parsed by the command they name, not run: `v2a` by its own parser, `make` by the Makefile's targets,
`python -m` by the module's existence, `pip install` by the package's extras, and the whole block by `bash -n`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from tests.cli.command import CONFIG
from tests.cli.finished_folders import write_sweep_folder
from v2a_ray.cli.main import commands
from v2a_ray.domains.own.robot_file import read_robot
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import load_sweep

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "cluster").rglob("*.md"))]
USAGE_ERROR: Any = typer.BadParameter.__base__
"""The parser's own class of errors, which typer does not export."""
ARM = """
import gymnasium
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
class Arm(gymnasium.wrappers.TimeLimit):
    def __init__(self, **kwargs):
        super().__init__(HopperEnv(**kwargs), max_episode_steps=200)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the line that it starts in."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text[: found.start()].count("\n") + 1, found[2], dedent(found[3]))


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text())]


def of_language(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


def commands_of(text: str) -> list[list[str]]:
    """The simple commands of a block of shell, in words. `$(...)` and variables stay as they are written."""
    text = re.sub(r"(^|\s)#.*", "", text.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|\n()")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|\n()"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def refusal(command: list[str]) -> str | None:
    """Why a command would not be accepted, or None. Commands of other programs are accepted."""
    program, *words = command
    if program == "sudo":
        return refusal(words)
    if program == "v2a":
        return _refusal_of_ours(words)
    if program == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return next((f"make has no target {word}" for word in words if word not in targets), None)
    if program.startswith(("python", "pytest")) or program.endswith("python)"):
        return _refusal_of_python(words)
    if program == "pip" and words[:1] == ["install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = [name for word in words for group in re.findall(r"v2a_ray\[(.*)\]", word) for name in group.split(",")]
        return next((f"there is no extra {name}" for name in asked if name not in extras), None)
    return None


def _refusal_of_ours(words: list[str]) -> str | None:
    command: Any = get_command(commands())
    context = typer.Context(command, info_name="v2a")
    try:
        while isinstance(command, TyperGroup):
            _, command, words = command.resolve_command(context, words)
            context = typer.Context(command, info_name=command.name, parent=context)
        command.make_context(command.name, list(words), parent=context.parent)
    except typer.Exit:
        return None
    except USAGE_ERROR as error:
        return str(error.format_message())
    return None


def _refusal_of_python(words: list[str]) -> str | None:
    if words[:1] == ["-m"]:
        return None if find_spec(words[1]) else f"there is no module {words[1]}"
    places = [ROOT, *(ROOT / "examples").iterdir()]
    files = [word for word in words if word.endswith(".py") and not any((place / word).exists() for place in places)]
    return f"there is no file {files[0]}" if files else None


@of_language("bash")
def test_commands_are_accepted(block: Block) -> None:
    assert subprocess.run(["bash", "-n"], input=block.text, text=True, check=False).returncode == 0
    refused = {" ".join(command): why for command in commands_of(block.text) if (why := refusal(command))}
    assert refused == {}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("v2a run demo --no-such-option", "No such option"),
        ("v2a rum demo", "No such command 'rum'"),
        ("v2a data inspekt x.hdf5", "No such command"),
        ("v2a report", "Missing argument"),
        ("make domo", "no target domo"),
        ("true && python -m benchmarks.nothing", "no module"),
        ("pip install 'v2a_ray[nothing]'", "no extra nothing"),
    ],
)
def test_wrong_commands_are_refused(command: str, why: str) -> None:
    assert any(why in (refusal(each) or "") for each in commands_of(command))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages' files name: configurations, a package with an environment, an MJCF model."""
    for name, text in {"robots": ARM, "policies": "def act(observation): return observation[:7]\n"}.items():
        (tmp_path / "my_package").mkdir(exist_ok=True)
        (tmp_path / "my_package" / f"{name}.py").write_text(text)
    (tmp_path / "my_rewards.py").write_text("def forward(table): return table\n")
    (tmp_path / "arm.xml").write_text((ROOT / "examples" / "own_robot" / "arm.xml").read_text())
    (tmp_path / "demo.yaml").write_text((ROOT / "tune_configs" / "demo.yaml").read_text())
    (tmp_path / "recordings").mkdir()
    for name in ("my_robot.hdf5", "other_robot.hdf5", "third_robot.hdf5", "arm.hdf5", "arm.csv"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@of_language("yaml")
def test_yaml_is_what_it_claims_to_be(block: Block, workspace: Path) -> None:
    """An excerpt of an experiment is completed with a target and sources that fit, and nothing else."""
    content = yaml.safe_load(block.text)
    if "AntMaze" in block.text:
        pytest.importorskip("gymnasium_robotics")
    path = workspace / "block.yaml"
    path.write_text(block.text)
    if "scrape_configs" in content:
        pytest.skip("a file of Prometheus, which is not installed")
    elif "model" in content:
        assert read_robot(path).model.endswith("arm.xml")
    elif "axes" in content:
        assert len(load_sweep(path).trials) > 1
    else:
        path.write_text(yaml.safe_dump(completed(content)))
        assert load_experiment(path).name == content.get("name", "excerpt")


def completed(content: dict[str, object]) -> dict[str, object]:
    """An experiment: what an excerpt leaves out is taken from a small one."""
    target = content.get("target", CONFIG["target"])
    assert isinstance(target, dict)
    whole = {"name": "excerpt", "method": "iql_mixed", "sources": [{**target, "behavior": "random"}], **content}
    return whole | {"target": target}


PRELUDE = """
from typing import Annotated, Literal
from pydantic import Field
from v2a_ray.experiments.methods import METHODS, Method, register_method
from v2a_ray.stages.alignment.config import ALIGNMENTS, AlignmentConfig
from v2a_ray.stages.policy.config import LEARNERS, PolicyConfig
from v2a_ray.settings.base import Positive
"""
"""What docs/extending.md says where to import from."""


@of_language("python")
def test_python_runs(block: Block, workspace: Path) -> None:
    """In a process of its own. Where a block trains, its experiment is made small; all else is as the page has it."""
    scores = {"iql_mixed": {"near": [10.0, 12.0]}}
    write_sweep_folder(workspace / "runs" / "smoke", scores)
    small = {key: value for key, value in CONFIG.items() if key not in ("name", "method")}
    text = block.text.replace("seed=1)", f"seed=1, **{small!r})") if "v2a.run(" in block.text else block.text
    program = (PRELUDE if block.page.name == "extending.md" else "") + text
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
