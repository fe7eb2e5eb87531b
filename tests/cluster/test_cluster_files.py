"""Rules for all files in cluster/: shellcheck accepts the shell code, no token is visible, each folder has a README."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
READMES = [path for path in FILES if path.name == "README.md"]
FOLDERS = sorted(path for path in CLUSTER.iterdir() if path.is_dir())


def _shellcheck(text: str, *options: str) -> str:
    """Shellcheck's output for a piece of bash."""
    command = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if command is None:
        pytest.skip("shellcheck is not installed: pip install -e '.[dev]'")
    result = subprocess.run(
        [command, "--shell=bash", *options, "-"], input=text, capture_output=True, text=True, check=False
    )
    return result.stdout


def _name(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


@pytest.mark.parametrize("script", [path for path in FILES if path.suffix in (".sh", ".sbatch")], ids=_name)
def test_scripts_pass_shellcheck(script: Path) -> None:
    assert _shellcheck(script.read_text()) == ""


@pytest.mark.parametrize("config", [path for path in FILES if path.name == "cluster.yaml"], ids=_name)
def test_commands_of_ray_up_pass_shellcheck(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    commands = [command for key, value in settings.items() if key.endswith("_commands") for command in value]
    assert len(commands) > 5
    for command in commands:
        # SC2016: a line for ~/.bashrc is meant to be expanded there. SC2154: Ray sets RAY_HEAD_IP.
        assert _shellcheck(command, "--exclude=SC2016,SC2154") == "", command


@pytest.mark.parametrize("readme", [path for path in READMES if path.parent != CLUSTER], ids=_name)
def test_commands_of_the_readmes_pass_shellcheck(readme: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", readme.read_text(), re.DOTALL)
    assert blocks, "every folder shows the commands to type"
    for block in blocks:
        assert _shellcheck(block, "--exclude=SC2034") == "", block


def test_the_real_shellcheck_runs() -> None:
    assert "SC2086" in _shellcheck('read -r folder; rm "$1" $folder')


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_token_is_written_down_or_put_on_a_command_line(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b[0-9a-f]{32,}\b", text), "looks like a token"
    assert not re.search(r"RAY_AUTH_TOKEN=(?!\s|$)", text), "a token belongs in a file: RAY_AUTH_TOKEN_PATH"
    assert not re.search(r"--from-literal|--redis-password|--requirepass|Authorization:", text)
    for mode in re.findall(r"RAY_AUTH_MODE=(\w+)", text):
        assert mode == "token"


@pytest.mark.parametrize("folder", FOLDERS, ids=_name)
def test_every_folder_says_how_to_use_it(folder: Path) -> None:
    headings = re.findall(r"^## (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    of_a_cluster = ["Prepare", "Start", "Submit", "Watch", "Stop", "Cost", "What was checked"]
    others = {
        "container": ["Build", "Use", "What was checked"],
        "grafana": ["Prometheus", "Grafana", "What was checked"],
    }
    assert headings == others.get(folder.name, of_a_cluster)


@pytest.mark.parametrize("folder", [CLUSTER / name for name in ("aws", "gcp", "kuberay", "ssh")], ids=_name)
def test_every_placeholder_is_explained(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    definitions = "".join(path.read_text() for path in folder.glob("*.yaml"))
    placeholders = set(re.findall(r"CHANGE-ME[\w-]*", definitions))
    assert placeholders, "the definition leaves what is the user's own to fill in"
    assert {name for name in placeholders if name not in readme} == set()


def test_links_lead_somewhere() -> None:
    links = [
        readme.parent / target
        for readme in READMES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text())
    ]
    assert links, "the READMEs point to one another"
    assert [link for link in links if not link.exists()] == []
